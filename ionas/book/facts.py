"""What is said of a run wherever it is shown: its data, its settings, what of it has been run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ionas.book import provenance
from ionas.book.folders import RECORD, RunFolder, read_json
from ionas.book.parameters import STAGES, profiles, resolve
from ionas.book.progress import duration

DATA = ("table", "images_path", "published")  # parameters that name files on one's own disk
CIFAR10_JPEG = "cifar10-images"  # the file that holds CIFAR-10 encoded anew


def about(run: RunFolder) -> str:
    """Markdown table of what a run rests on, and which of its notebooks ran for how long."""
    manifests = {stage: manifest for stage in STAGES if (manifest := run.manifest(stage))}
    parameters = {stage: manifest["parameters"] for stage, manifest in manifests.items()}
    missing = missing_notebooks(run)
    published, partial = (run.path / RECORD).is_file(), bool(missing)
    profile, changes = nearest_profile(run)
    table = table_facts(run)
    images = "pretraining" in parameters and images_title(parameters["pretraining"])
    known = [f"{name.replace('_', ' ')} of {n:,}" for name, n in table.get("known", {}).items()]
    space, trained = (parameters.get(stage, {}) for stage in ("search_space", "pretraining"))
    labeled = [
        f"{space.get(f'labeled_{part}', 'none')} {part}"
        + (f" ({count} of them trained)" if (count := trained.get(f"{part}_networks")) else "")
        for part in ("train", "validation")
    ]
    taken = Path(trained.get("published", "")).name
    ran = [
        f"{STAGES[stage].stem} ({duration(m['wall_time_s'])}"
        + ", going on with what was there" * m.get("continued", False)
        + (f", restored from {m['restored']['name']})" if "restored" in m else ")")
        for stage, m in manifests.items()
    ]
    seeds = [
        f"{STAGES[stage].number} {name} {value}"
        for stage, manifest in manifests.items()
        for name, value in manifest["seeds"].items()
    ]
    rows = {
        "Run": f"**{run.name}**{', published' * published}{', partial' * (published and partial)}",
        "Profile": f"`{profile}`" + (f", but {', '.join(changes)}" if changes else ""),
        "Table": f"{table.get('name')}, {table.get('cells', 0):,} cells; {', '.join(known)}",
        "Images": images or "none",
        "Labeled networks": ", ".join(labeled) + (f"; some from {taken}" if taken else "")
        if images
        else "none",
        "Seeds": ", ".join(seeds),
        "Notebooks run": ", ".join(ran),
        "Not run": ", ".join(missing) or "nothing",
    }
    head, *others = [f"| {name} | {text} |" for name, text in rows.items()]
    return "\n".join([head, "|---|---|", *others])


def missing_notebooks(run: RunFolder) -> list[str]:
    """Notebooks that a run has not finished."""
    return [notebook.stem for stage, notebook in STAGES.items() if run.manifest(stage) is None]


def table_facts(run: RunFolder) -> dict[str, Any]:
    """What is said of a run's table: name, number of cells, and of cells with each value.

    Also `cells_sha256`, the hash of the graph hashes of its cells in ascending order, and
    `published_order`, whether all cells stand in the published order of vertices.
    """
    path = run.stage("search_space") / "table.parquet"
    if not path.is_file():
        return (read_json(run.path / RECORD) or {}).get("table", {})
    from ionas.benchmark.table import FIELDS, Table

    table = Table.read(path)
    known = {field: table.known(field) for field in FIELDS if field in table.frame}
    return {
        "name": table.name,
        "cells": len(table),
        "known": {field: int(there.sum()) for field, there in known.items()},
        "searchable": int(table.known("validation_accuracy", "training_time").sum()),
        "cells_sha256": cells_hash(table.cells.hashes),
        "published_order": table.cells.is_published(),
    }


def cells_hash(hashes: Iterable[str]) -> str:
    """One hash of a set of cells, whatever their order, from their graph hashes."""
    return provenance.text_hash("\n".join(sorted(hashes)))


def images_title(parameters: Mapping[str, Any]) -> str:
    """Name of the images that parameters of notebook 02 choose."""
    path = Path(parameters["images_path"])
    if (source := parameters["images"]) != "folder":
        return {"digits": "scikit-learn's digits", "cifar10": "CIFAR-10"}.get(source, source)
    return "CIFAR-10 (JPEG re-encoded)" if path.stem == CIFAR10_JPEG else path.stem


def nearest_profile(run: RunFolder) -> tuple[str, list[str]]:
    """Profile from which the parameters of a run differ least, and those that differ."""
    found = {profile: differences(run, profile) for profile in profiles()}
    profile = min(found, key=lambda name: sum(map(len, found[name].values())))
    return profile, [
        f"{stage}.{parameter} = {here!r}"
        for stage, changes in found[profile].items()
        for parameter, (here, _) in changes.items()
    ]


def differences(run: RunFolder, profile: str) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Stage -> parameter -> its value in a run and in a profile, where these differ.

    Where the data come from, the number of processes and the device do not count.
    """
    found = {}
    for stage, parameters in resolve(profile).items():
        here = (run.manifest(stage) or {}).get("parameters", {})
        found[stage] = changed(here, parameters.model_dump(mode="json"))
        found[stage].pop("images", None)
    return found


def changed(here: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Parameters of a stage that two runs both have, with other values: name -> both.

    Where the data come from, the number of processes and the device do not count.
    """
    free = (*DATA, *provenance.NOT_INPUTS)
    return {
        name: (here[name], value)
        for name, value in there.items()
        if name in here and here[name] != value and name not in free
    }
