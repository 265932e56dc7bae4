"""Keep a run: its small results in a folder that can be committed, and start others from it.

A publication, `results/NAME`, is laid out as a run is: params.yaml and, for each stage, manifest,
executed notebook and artifacts. What is too large is left out; `publication.json` lists it with
size and hash, and holds the hash of every file that is there. Two artifacts are kept in another
form, so that others can go on at notebook 04 without training a network: the targets of the IO
dataset as float16, and the split without the hashes, which the table has. Interactive charts are
kept as their data alone, from which the book makes the HTML again.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode

from ionas.book import execute, provenance
from ionas.book import run as runner
from ionas.book.facts import DATA, missing_notebooks, nearest_profile, table_facts
from ionas.book.folders import (
    RECORD,
    RunFolder,
    read_json,
    results_folder,
    runs_folder,
    write_json,
    write_text,
)
from ionas.book.parameters import STAGES, nearest, resolve

LIMIT_MB = 2.0
MODELS = ("networks", "checkpoints")  # folders that are never published
MOST_FILES = 100  # in a folder that is published
SPLIT = "search_space/split.parquet"
TARGETS = "io_dataset/targets.safetensors"
HALVED = (TARGETS, "embedding_training/embeddings.safetensors")


class PublicationError(ValueError):
    """A run that cannot be published, or a publication that cannot be used; with the mend."""


@dataclass(frozen=True)
class Publication:
    """A published run, checked against its hashes.

    Attributes
    ----------
    path
        `results/NAME`.
    record
        Content of `publication.json`.
    """

    path: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the publication."""
        return self.path.name

    @property
    def run(self) -> RunFolder:
        """The publication as the folder of a run."""
        return RunFolder(self.path)

    @property
    def missing(self) -> list[str]:
        """Notebooks that it lacks."""
        return missing_notebooks(self.run)


def publish(run: str, name: str = "", partial: bool = False, limit: float = LIMIT_MB) -> Path:
    """Write the small results of a run to `results/NAME`: complete, or not at all.

    Parameters
    ----------
    run
        Folder in runs/.
    name
        Name of the publication, by default that of the run; an older one of this name is replaced.
    partial
        Whether a run of which notebooks are missing may be published.
    limit
        Largest file, or folder as a whole, that goes in, in MB (10^6 bytes); the IO dataset goes
        in whatever its size.

    Raises
    ------
    PublicationError
        If the run does not exist, is being written, has damaged or outdated results, or is not
        finished.
    """
    source = RunFolder(runs_folder() / run)
    target = results_folder() / (name or run)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", target.name) or (name and "/" in name):
        raise PublicationError(f"{name!r} cannot name a folder; use letters, digits and . _ -")
    if not source.path.is_dir():
        there = [p.name for p in runs_folder().glob("*") if p.is_dir()]
        mend = nearest(run, there) if there else "; make one with: ionas run"
        raise PublicationError(f"there is no run {run!r}{mend}")
    if target.exists() and not (target / RECORD).is_file():
        raise PublicationError(f"{target} is there and is no publication; give another --name")
    new, old = (target.with_name(f".{target.name}.{end}") for end in ("new", "old"))
    with runner.lock(source):
        finished = check_run(source, partial)
        shutil.rmtree(new, ignore_errors=True)
        record: dict[str, Any] = {"run": source.name, "table": table_facts(source)}
        for stage in finished:
            for key, entries in _copy(source, stage, new, limit * 1e6).items():
                record.setdefault(key, {}).update(entries)
        profile, _ = nearest_profile(source)
        parameters = {
            stage: (source.manifest(stage) or {}).get("parameters")
            or values.model_dump(mode="json")
            for stage, values in resolve(profile).items()
        }
    write_text(new / "params.yaml", _profile(parameters))
    record["files"] = {
        file: {"sha256": provenance.file_hash(path), "size": path.stat().st_size}
        for file, path in provenance.files_in(new)
    }
    write_json(new / RECORD, {**record, "sha256": provenance.json_hash(record)})
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.replace(old)
    new.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def check_run(run: RunFolder, partial: bool) -> list[str]:
    """Return the finished stages of a run that is whole.

    Raises
    ------
    PublicationError
        If a file is damaged, a result rests on other results than are there, or notebooks are
        missing and `partial` is false.
    """
    manifests = {stage: manifest for stage in STAGES if (manifest := run.manifest(stage))}
    again = "run the study again before publishing it"
    for stage, manifest in manifests.items():
        folder = run.stage(stage)
        if broken := provenance.damaged(folder, {**manifest["outputs"], **manifest["notebook"]}):
            raise PublicationError(
                f"{folder / broken[0]} is not the file that was written; {again}"
            )
        for earlier, used in manifest["inputs"]["upstream"].items():
            if provenance.artifact_hash(manifests.get(earlier, {}).get("outputs", {})) != used:
                raise PublicationError(
                    f"{STAGES[stage].stem} was made from other results of {STAGES[earlier].stem} "
                    f"than those in {run.path}; {again}"
                )
    missing = [notebook.stem for stage, notebook in STAGES.items() if stage not in manifests]
    if not manifests or (missing and not partial):
        mend = "run them, or publish with --partial" if manifests else "run the study first"
        raise PublicationError(f"{run.path} has no finished {', '.join(missing)}; {mend}")
    return list(manifests)


def read(path: Path) -> Publication:
    """Read a publication and compare every file with its hash.

    Raises
    ------
    PublicationError
        Naming the first file that is missing, has changed or was not published.
    """
    if not (path / RECORD).is_file():
        raise PublicationError(f"{path} is no publication: it has no {RECORD}")
    record = read_json(path / RECORD)
    mend = "take it again from where it was published"
    if record is None or provenance.json_hash(_without(record, "sha256")) != record.get("sha256"):
        raise PublicationError(f"{path / RECORD} has changed since it was published; {mend}")
    if broken := provenance.damaged(path, record["files"]):
        state = "has changed" if (path / broken[0]).is_file() else "is missing"
        raise PublicationError(f"{path / broken[0]} {state} since it was published; {mend}")
    there = {file for file, _ in provenance.files_in(path)} - {RECORD}
    if added := sorted(there - set(record["files"])):
        raise PublicationError(f"{path / added[0]} does not belong to the publication; remove it")
    return Publication(path, record)


def published() -> list[Publication]:
    """All publications in results/, by name."""
    return [read(path.parent) for path in sorted(results_folder().glob(f"[!.]*/{RECORD}"))]


def _copy(run: RunFolder, stage: str, new: Path, limit: float) -> dict[str, dict[str, Any]]:
    """Copy what is small of a stage; return what was left out, and what was given another form."""
    manifest, source, target = run.manifest(stage) or {}, run.stage(stage), new / stage
    target.mkdir(parents=True)
    paths = _paths(manifest["parameters"])
    executed = _charts_once(execute.read(source / "executed.ipynb"))
    notebook = _without_paths(execute.text(executed), paths)
    write_text(target / "executed.ipynb", notebook)
    manifest["notebook"]["executed.ipynb"]["sha256"] = provenance.text_hash(notebook)
    write_text(target / "manifest.json", _without_paths(json.dumps(manifest, indent=1), paths))
    units: dict[str, dict[str, Any]] = {}  # a folder stands or falls as a whole
    for file, entry in manifest["outputs"].items():
        units.setdefault(file.partition("/")[0], {})[file] = entry
    left_out, compact = {}, {}
    for unit, entries in units.items():
        name, size = f"{stage}/{unit}", sum(entry["size"] for entry in entries.values())
        if form := _compact(name, source / unit, target / unit):
            if name != TARGETS and (target / unit).stat().st_size > limit:
                (target / unit).unlink()
            else:
                compact[name] = form
                continue
        elif unit not in MODELS and size <= limit and len(entries) <= MOST_FILES:
            for file in entries:
                (target / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / file, target / file)
            continue
        left_out[name] = {
            "files": len(entries),
            "size": size,
            "sha256": entries[unit]["sha256"] if unit in entries else _hash_of(entries),
        }
    return {"left_out": left_out, "compact": compact}


def _charts_once(notebook: NotebookNode) -> NotebookNode:
    """Leave out the HTML of interactive charts, which the book makes again from their data."""
    from ionas.plots import PLOTLY

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if PLOTLY in output.get("data", {}):
                output["data"].pop("text/html", None)
    return notebook


def _compact(name: str, source: Path, target: Path) -> str:
    """Write an artifact in a smaller form, and say in which; nothing if it has none."""
    if name == SPLIT:
        import pandas as pd

        split = pd.read_parquet(source).sort_values("hash").filter(["part", "labeled", "rank"])
        split.to_parquet(target, index=False, compression="zstd")
        return "of each cell, in ascending order of the graph hashes"
    if name in HALVED:
        import numpy as np
        from safetensors.numpy import load_file, save_file

        tensors = load_file(source)
        with np.errstate(over="ignore"):
            half = {key: values.astype(np.float16) for key, values in tensors.items()}
        if all(np.isfinite(half[key]).sum() == np.isfinite(v).sum() for key, v in tensors.items()):
            save_file(half, target)
            return "float16"
        shutil.copyfile(source, target)
        return "as it was, since some values are beyond float16"
    return ""


def _profile(parameters: Mapping[str, Mapping[str, Any]]) -> str:
    """Parameters as a profile: without the name of a run, data by the names of their files."""
    content = {
        stage: {
            name: Path(value).name if name in DATA else value
            for name, value in values.items()
            if name not in ("run", "published")  # whose networks are among those here
        }
        for stage, values in parameters.items()
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _paths(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Paths among parameters -> the file name that stands for them in a publication."""
    values = [parameters[name] for name in DATA if name in parameters]
    return {value: Path(value).name for value in values if Path(value).name not in ("", value)}


def _without_paths(text: str, paths: Mapping[str, str]) -> str:
    """JSON text with paths cut to file names."""
    for value, name in paths.items():
        text = text.replace(json.dumps(value)[1:-1], name)
    return text


def _hash_of(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of the hashes of all files of a folder."""
    return provenance.json_hash({name: entry["sha256"] for name, entry in entries.items()})


def _without(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}
