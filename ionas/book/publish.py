"""Keep a run: its small results in a folder that can be committed.

A publication, `results/NAME`, is laid out as a run is: params.yaml and, for each stage, manifest
and results. What is too large is left out, and can be made again; `publication.json` holds the hash
of every file that is there. The book draws a publication by the notebooks of today
(`ionas.book.run.draw`). To go on from one, copy it to `runs/NAME`, remove that file
there, and run the copy.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from ionas.book import provenance
from ionas.book.configure import STAGES, load_profile, nearest
from ionas.book.folders import (
    RECORD,
    RunFolder,
    locked,
    put_back,
    read_json,
    results_folder,
    runs_folder,
    sealed,
    write_json,
    write_text,
)
from ionas.book.run import apart
from ionas.files import files_of

LIMIT_MB = 2.0
ALWAYS = ("io_dataset/targets.safetensors",)  # costs more than all else, and others can go on


class PublicationError(ValueError):
    """A run that cannot be published, or a publication that cannot be used; with the mend."""


def publish(run: str, name: str = "", partial: bool = False) -> Path:
    """Write the small results of a run to `results/NAME`: complete, or not at all.

    Parameters
    ----------
    run
        Folder in runs/.
    name
        Name of the publication, by default that of the run; an older one of this name is replaced.
    partial
        Whether a run of which notebooks are missing may be published.

    Raises
    ------
    PublicationError
        If the run does not exist, is being written, has damaged or outdated results, or is not
        finished.
    """
    source, target = RunFolder(runs_folder() / run), results_folder() / (name or run)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name or run):
        raise PublicationError(f"{name!r} cannot name a folder; use letters, digits and . _ -")
    if not source.path.is_dir():
        there = sorted(p.name for p in runs_folder().glob("[!.]*") if p.is_dir())
        mend = nearest(run, there) if there else "; make one with: ionas run"
        raise PublicationError(f"there is no run {run!r}{mend}")
    if target.exists() and not (target / RECORD).is_file():
        raise PublicationError(f"{target} is there and is no publication; give another --name")
    new, old = (target.with_name(f".{target.name}.{end}") for end in ("new", "old"))
    put_back(target)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with locked(source.path):
            for stage in check_run(source, partial):
                _copy(source, stage, new)
    except TimeoutError as error:
        raise PublicationError(str(error)) from error
    parameters = {stage: _bare(values) for stage, values in _parameters(source).items()}
    write_text(new / "params.yaml", yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True))
    files = {
        file: {"sha256": provenance.file_hash(path), "size": path.stat().st_size}
        for file, path in files_of(new).items()
    }
    write_json(new / RECORD, sealed({"run": source.name, "files": files}))
    if target.exists():
        target.replace(old)
    new.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def check_run(run: RunFolder, partial: bool = False) -> list[str]:
    """Return the finished stages of a run that is whole.

    Raises
    ------
    PublicationError
        If a file is damaged, a result rests on other results than are there, or notebooks are
        missing and `partial` is false.
    """
    finished = [stage for stage in STAGES if run.manifest(stage)]
    missing = [notebook.stem for stage, notebook in STAGES.items() if stage not in finished]
    if not finished or (missing and not partial):
        mend = "run them, or publish the rest by --partial" if finished else "run the study first"
        raise PublicationError(f"{run.path} has no finished {', '.join(missing)}; {mend}")
    again = "run the study again"
    for stage in finished:
        manifest, folder = run.manifest(stage) or {}, run.stage(stage)
        if broken := provenance.damaged(folder, {**manifest["outputs"], **manifest["notebook"]}):
            raise PublicationError(
                f"{folder / broken[0]} is not the file that was written; {again}"
            )
        if earlier := apart(run, stage, STAGES[stage].reads):
            raise PublicationError(
                f"{STAGES[stage].stem} was made from other results of {STAGES[earlier].stem} than "
                f"those in {run.path}; {again}"
            )
    return finished


def check_publication(path: Path) -> None:
    """Compare every file of a publication with its hash.

    Raises
    ------
    PublicationError
        Naming the first file that is missing, has changed or was not published.
    """
    record = read_json(path / RECORD)
    mend = "take it again from where it was published"
    if record is None or sealed(record) != record:
        raise PublicationError(f"{path / RECORD} has changed since it was published; {mend}")
    if broken := provenance.damaged(path, record["files"]):
        state = "has changed" if (path / broken[0]).is_file() else "is missing"
        raise PublicationError(f"{path / broken[0]} {state} since it was published; {mend}")
    there = set(files_of(path)) - {RECORD}
    if added := sorted(there - set(record["files"])):
        raise PublicationError(f"{path / added[0]} does not belong to the publication; remove it")


def _parameters(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Parameters of the finished notebooks, and those that the others would run with."""
    wanted = load_profile(str(run.parameters)) if run.parameters.is_file() else {}
    finished = {stage: m["parameters"] for stage in STAGES if (m := run.manifest(stage))}
    return {stage: (wanted | finished)[stage] for stage in STAGES if stage in wanted | finished}


def _copy(run: RunFolder, stage: str, new: Path) -> None:
    """Copy the manifest and what is small of the results."""
    manifest, source, target = run.manifest(stage) or {}, run.stage(stage), new / stage
    target.mkdir(parents=True)
    for file, entry in manifest["outputs"].items():
        if entry["size"] <= LIMIT_MB * 1e6 or f"{stage}/{file}" in ALWAYS:
            shutil.copyfile(source / file, target / file)
    inputs = manifest["inputs"] | {"parameters": _bare(manifest["inputs"]["parameters"])}
    bare = {**manifest, "parameters": _bare(manifest["parameters"]), "inputs": inputs}
    write_json(target / "manifest.json", sealed(bare))
    write_json(target / "kept.json", manifest["outputs"])


def _bare(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters without the name of the run, and with data by the names of their files alone."""
    data = {name for notebook in STAGES.values() for name in notebook.model.NAMES_DATA}
    return {
        name: Path(value).name if name in data else value
        for name, value in parameters.items()
        if name != "run"
    }
