"""What the runs of a book rest on and what they took, as tables with a column per run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ionas.book import provenance
from ionas.book.chapter import BookRun
from ionas.book.configure import STAGES, profiles, resolve
from ionas.book.findings import literal
from ionas.book.folders import RunFolder, read_json

IMAGES = {"digits": "scikit-learn's digits", "cifar10": "CIFAR-10"}
CIFAR10_JPEG = "CIFAR-10 (JPEG re-encoded)"


def about(runs: Sequence[BookRun]) -> str:
    """Markdown table of what runs rest on, and which of their notebooks have been run."""
    return _table(runs, [_about(run.folder) for run in runs])


def times(runs: Sequence[BookRun]) -> str:
    """Markdown table of what each notebook of the runs took, and on which machine."""
    return _table(runs, [_times(run.folder) for run in runs])


def images_title(parameters: Mapping[str, Any]) -> str:
    """Name of the images that parameters of notebook 02 choose."""
    name = Path(parameters["images_path"]).stem
    own = CIFAR10_JPEG if name == "cifar10-images" else name
    return IMAGES.get(parameters["images"], own)


def _nearest_profile(parameters: Mapping[str, Mapping[str, Any]]) -> str:
    """Profile from which the parameters of a run differ least, and those that differ."""
    free = {"table", "images", "images_path", *provenance.NOT_INPUTS}
    found: dict[str, list[str]] = {}
    for profile in profiles():
        there = {name: p.model_dump(mode="json") for name, p in resolve(profile).items()}
        found[profile] = [
            f"{stage}.{name} = {value!r}"
            for stage, values in parameters.items()
            for name, value in values.items()
            if name not in free and value != there[stage].get(name, value)
        ]
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest + (f", but {literal(', '.join(found[nearest]))}" if found[nearest] else "")


def _about(run: RunFolder) -> dict[str, str]:
    manifests = {stage: m for stage in STAGES if (m := run.manifest(stage))}
    parameters = {stage: m["parameters"] for stage, m in manifests.items()}
    space, trained = parameters.get("search_space", {}), parameters.get("pretraining", {})
    table: dict[str, Any] = {"name": "", "cells": 0, "known": {}}
    table |= read_json(run.stage("search_space") / "about.json") or {}
    known: dict[int, list[str]] = {}
    for name, n in table["known"].items():
        known.setdefault(n, []).append(name.replace("_", " "))
    has = [f"{', '.join(names)} of {n:,}" for n, names in known.items()]
    labeled = []
    for part in ("train", "validation"):
        count = trained.get(f"{part}_networks")
        of_them = f" ({count} of them trained)" if count else ""
        labeled.append(f"{space.get(f'labeled_{part}', 'none')} {part}{of_them}")
    missing = [notebook.number for stage, notebook in STAGES.items() if stage not in manifests]
    return {
        "Run": f"**{literal(run.name)}**" + ", published" * run.is_publication,
        "Profile": _nearest_profile(parameters),
        "Table": literal(f"{table['name']}, {table['cells']:,} cells; {'; '.join(has)}"),
        "Images": literal(images_title(trained)) if trained else "none",
        "Labeled networks": ", ".join(labeled),
        "Chapters not run yet": ", ".join(number.lstrip("0") for number in missing) or "none",
    }


def _processor_seconds(run: RunFolder, manifest: Mapping[str, Any]) -> float:
    """Seconds that a notebook took, with networks that were trained in an earlier run."""
    spent = {name: entry["processor_s"] for name, entry in manifest["outputs"].items()}
    if "times.parquet" in spent:
        trained = pd.read_parquet(run.stage("pretraining") / "times.parquet")["seconds"].sum()
        spent["networks.parquet"] = max(spent["networks.parquet"], trained)
    return sum(spent.values())


def _times(run: RunFolder) -> dict[str, str]:
    rows, total, machines = {}, 0.0, set()
    for stage in STAGES.values():
        took = "not run"
        if manifest := run.manifest(stage.name):
            seconds = _processor_seconds(run, manifest)
            took, total = f"{seconds:,.0f} s, {manifest['peak_memory_mb']:,.0f} MB", total + seconds
            machines.add(literal(f"{manifest['machine']}, device {manifest['device']}"))
        rows[f"{{doc}}`../notebooks/{stage.stem}`"] = took
    return rows | {"All together": f"{total:,.0f} s", "Machine": "; ".join(sorted(machines))}


def _table(runs: Sequence[BookRun], columns: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table of a column per run."""
    rows = [[" ", *(literal(run.label) for run in runs)], ["---"] * (len(runs) + 1)]
    rows += [[name, *(column[name] for column in columns)] for name in columns[0]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
