"""Start from a publication: its stages 01 to 03 become those of a run, which goes on at 04.

No network is trained. What the publication leaves out and later notebooks read, the table and the
images, is made again from one's own files, and compared with what was published.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from ionas.benchmark.table import load_table
from ionas.book import provenance
from ionas.book import run as runner
from ionas.book.facts import cells_hash, changed, images_title
from ionas.book.folders import RunFolder, project_root, read_json, runs_folder, write_json
from ionas.book.parameters import (
    FIRST,
    STAGES,
    InvalidParameters,
    Parameters,
    parse_overrides,
    resolve,
)
from ionas.book.publish import (
    SPLIT,
    TARGETS,
    Publication,
    PublicationError,
    read,
)
from ionas.images import load_images, subset
from ionas.pretraining import image_tensors


def restore(source: Path, overrides: Sequence[str] = (), name: str = "") -> tuple[str, str]:
    """Put stages 01 to 03 of a publication into a run, so that it can go on at notebook 04.

    What is left out and needed, the table and the images, is made again from one's own files; the
    cells must be those of the publication, and the images the very same.

    Parameters
    ----------
    source
        Folder of the publication.
    overrides
        Texts `notebook.parameter=value`; of the restored stages only those that name data, `jobs`
        and `device` may differ from the publication.
    name
        Name of the run, by default that of the publication.

    Returns
    -------
    profile, name
        What `ionas.book.run.run` needs to go on.

    Raises
    ------
    PublicationError, InvalidParameters, ValueError
        If the publication is damaged or has no stage 03, a parameter differs, the data are not
        those of the publication, or the run has results of its own.
    """
    publication = read(source)
    published_run = publication.run
    lacking = [STAGES[stage].stem for stage in FIRST if not published_run.manifest(stage)]
    if lacking:
        raise PublicationError(f"{source} lacks {', '.join(lacking)}: nothing can start from it")
    profile = source / "params.yaml"
    parameters = resolve(str(profile), parse_overrides(overrides), name or publication.name)
    for stage in FIRST:
        _check_parameters(published_run, stage, parameters[stage])
    target = RunFolder(runs_folder() / (name or publication.name))
    study = runner.Study(STAGES, project_root() / "notebooks", target)
    with runner.lock(target):
        runner.recover(target, FIRST)
        for stage in FIRST:
            manifest = target.manifest(stage)
            inputs = runner.inputs_of(study, stage, parameters[stage])
            if manifest is not None:
                if manifest.get("restored", {}).get("sha256") != publication.record["sha256"]:
                    raise PublicationError(
                        f"the run {target.name!r} has a {STAGES[stage].stem} that is not of "
                        f"{source}; give another --name"
                    )
                if not runner.restored_differs(target, stage, manifest, inputs):
                    continue
            print(f"restoring {STAGES[stage].stem} from {source}", flush=True)
            try:
                _restore_stage(publication, stage, target, parameters[stage], inputs)
            except BaseException:
                shutil.rmtree(target.partial(stage), ignore_errors=True)
                raise
    return str(profile), target.name


def _check_parameters(published_run: RunFolder, stage: str, parameters: Parameters) -> None:
    there = (published_run.manifest(stage) or {})["parameters"]
    for name, (_, value) in changed(parameters.model_dump(mode="json"), there).items():
        mend = "leave it, or run the whole study without --from"
        if name in STAGES[stage].counts:
            mend = (
                "to train more networks beside those of the publication, name it with "
                "pretraining.published, without --from"
            )
        raise InvalidParameters(
            f"{stage}.{name} is {value!r} in the publication, and {stage} is not run again; {mend}"
        )


def _restore_stage(
    publication: Publication,
    stage: str,
    target: RunFolder,
    parameters: Parameters,
    inputs: Mapping[str, Any],
) -> None:
    """Write the files of a stage and its manifest, then put it in place."""
    source, folder = publication.run.stage(stage), target.partial(stage)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    manifest = read_json(source / "manifest.json") or {}
    published, notes = manifest["outputs"], []
    if stage == "search_space":
        notes = _restore_search_space(publication, folder, parameters)
    elif stage == "pretraining":
        _restore_pretraining(publication, folder, target, parameters)
    else:
        targets = folder / Path(TARGETS).name
        save_file({key: v.astype(np.float32) for key, v in load_file(targets).items()}, targets)
    manifest |= {
        "parameters": parameters.model_dump(mode="json"),
        "inputs": {**inputs, **{k: manifest["inputs"][k] for k in ("notebook", "modules")}},
        "outputs": {
            file: {
                "sha256": provenance.file_hash(path),
                "size": path.stat().st_size,
                "measured": published[file]["measured"],
            }
            for file, path in provenance.files_in(folder)
            if file in published
        },
        "restored": {
            "name": publication.name,
            "sha256": publication.record["sha256"],
            "notes": notes,
        },
    }
    write_json(folder / "manifest.json", manifest)
    runner.swap_in(target, stage)


def _restore_search_space(publication: Publication, folder: Path, parameters: Any) -> list[str]:
    """Make table and split whole again, the table from the file that the parameters name."""
    notes, path, facts = [], folder / "table.parquet", publication.record["table"]
    if not path.is_file():
        load_table(parameters.table, parameters.dataset).write(path)
        manifest = publication.run.manifest("search_space") or {}
        if provenance.data_hash(Path(parameters.table)) not in manifest["inputs"]["data"].values():
            notes.append(
                "the table is another file than that of the publication, of the same cells"
            )
    hashes = pd.read_parquet(path, columns=["hash"])["hash"]
    if cells_hash(hashes) != facts["cells_sha256"]:
        raise PublicationError(
            f"search_space.table={parameters.table} has other cells than the table "
            f"{facts['name']!r} of {publication.path}, which has {facts['cells']:,}; "
            "name that one with --set search_space.table=PATH"
        )
    split = pd.read_parquet(publication.path / SPLIT).set_index(pd.Index(sorted(hashes)))
    split = split.loc[hashes].rename_axis("hash").reset_index()
    split.insert(0, "index", range(len(split)))
    split.to_parquet(folder / Path(SPLIT).name)
    return notes


def _restore_pretraining(
    publication: Publication, folder: Path, target: RunFolder, parameters: Any
) -> None:
    """Find the networks in the restored table, and take the images from their source."""
    split = pd.read_parquet(target.stage("search_space") / "split.parquet")
    networks = pd.read_parquet(folder / "networks.parquet")
    networks["index"] = split.set_index("hash")["index"].loc[networks["hash"]].to_numpy()
    networks.to_parquet(folder / "networks.parquet")
    path = folder / "images.safetensors"
    if path.is_file():
        return
    p = parameters
    data = load_images(p.images, p.images_path, p.validation_images, p.train_images, p.augment)
    test = subset(data.test, p.test_images, p.seed)
    save_tensors(image_tensors(data.validation, test), path)
    manifest = publication.run.manifest("pretraining") or {}
    if provenance.file_hash(path) != manifest["outputs"][path.name]["sha256"]:
        raise PublicationError(
            f"pretraining.images_path={p.images_path} does not give the images of "
            f"{publication.path}, {images_title(manifest['parameters'])}; "
            "name them with --set pretraining.images_path=PATH"
        )
