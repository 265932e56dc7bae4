"""Make the embedded benchmark: every small cell, trained several times at several epoch budgets.

The table that `build` writes is shipped as `ionas/data/digits.parquet`; the book documents it.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from ionas import parallel
from ionas.benchmark.table import Table
from ionas.images import ImageSet, load_images
from ionas.pretraining import Recipe, train_network
from ionas.space.cells import Cell, CellSet, enumerate_cells

FIELDS = ("train_accuracy", "validation_accuracy", "test_accuracy", "training_time")
CELLS_PER_PART = 4
RECIPE = Recipe()


def build(
    out: Path,
    max_vertices: int = 5,
    repeats: int = 3,
    epochs: Sequence[int] = (2, RECIPE.epochs),
    recipe: Recipe = RECIPE,
    source: str = "digits",
    path: str = "",
    validation_size: int = 297,
    jobs: int = 0,
) -> Table:
    """Train every cell of up to `max_vertices` vertices and write the table of results.

    Each (cell, epochs, repeat) has its own seed, derived from the three, so the table depends
    neither on the order nor on the number of processes. Finished cells are kept in the folder
    `OUT.parts`, a few to a file: a killed build goes on where it was. The folder stays until it is
    removed by hand.

    Parameters
    ----------
    out
        Parquet file to write.
    repeats, epochs
        Trainings of a cell per budget, and the budgets in epochs, each with its own schedule.

    Returns
    -------
    Table
        With the columns of `ionas.benchmark.table`; times are CPU seconds of one thread.

    Raises
    ------
    ValueError
        If the parts in the folder were made by other settings.
    """
    images = load_images(source, path, validation_size)
    cells = enumerate_cells(max_vertices)
    about = {
        "name": images.name,
        "epochs": max(epochs),
        "time_unit": "CPU seconds",
        "recipe": asdict(recipe),
        "budgets": sorted(epochs),
        "repeats": repeats,
        "max_vertices": max_vertices,
        "images": {part: len(getattr(images, part)) for part in ("train", "validation", "test")},
    }
    parts = out.with_name(f"{out.name}.parts")
    _claim(parts, about)
    starts = range(0, len(cells), CELLS_PER_PART)
    files = {parts / f"{start:06d}.parquet": start for start in starts}
    missing = [path for path in files if not path.exists()]
    budgets = sorted(epochs)
    items = [
        (cells[files[path] : files[path] + CELLS_PER_PART], images, recipe, budgets, repeats)
        for path in missing
    ]
    described = f"{len(cells)} cells"
    for index, rows in parallel.completed(_part, items, jobs, described, "part"):
        temporary = missing[index].with_suffix(".tmp")
        pd.DataFrame(rows).to_parquet(temporary)
        temporary.replace(missing[index])
    frame = pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)
    about["provenance"] = {
        "command": "ionas benchmark build",
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "ionas": version("ionas"),
    }
    table = Table(cells, frame, about)
    table.write(out)
    return table


def measure(
    cell: Cell, images: ImageSet, recipe: Recipe, epochs: Sequence[int], repeats: int
) -> dict[str, float]:
    """Train one cell `repeats` times at every budget and return its row of the table."""
    row: dict[str, float] = {}
    for budget in epochs:
        suffix = "" if budget == max(epochs) else f"_{budget}"
        runs = []
        for repeat in range(repeats):
            text = f"{cell.hash}/{budget}/{repeat}"
            seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
            trained = train_network(cell, images, replace(recipe, epochs=budget), seed)
            row["trainable_parameters"] = trained.metrics["trainable_parameters"]  # type: ignore
            values = {**trained.metrics, "training_time": trained.seconds}
            runs.append([values[field] for field in FIELDS])
            row |= {f"{field}{suffix}_r{repeat}": values[field] for field in FIELDS}  # type: ignore
        row |= dict(zip([field + suffix for field in FIELDS], np.mean(runs, 0), strict=True))
    return row


def _part(
    cells: CellSet, images: ImageSet, recipe: Recipe, epochs: list[int], repeats: int
) -> list[dict[str, float]]:
    return [measure(cell, images, recipe, epochs, repeats) for cell in cells]


def _claim(parts: Path, about: dict) -> None:
    parts.mkdir(parents=True, exist_ok=True)
    settings = parts / "settings.json"
    text = json.dumps(about, sort_keys=True)
    if settings.exists() and settings.read_text() != text:
        raise ValueError(
            f"{parts} holds parts made with other settings ({settings.read_text()}); "
            "remove the folder or write to another file"
        )
    settings.write_text(text)
