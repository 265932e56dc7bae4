"""Make the embedded benchmark: every small cell, trained several times at several epoch budgets.

The table that `build` writes is shipped as `ionas/data/digits.parquet`; the book documents it.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ionas import parallel, parts
from ionas.benchmark.table import FIELDS, Table, column_name
from ionas.images import ImageSet, load_images
from ionas.parameters import Pretraining
from ionas.pretraining import train_network
from ionas.space.cells import Cell, CellSet, enumerate_cells

CELLS_PER_PART = 4
# The parameters of notebook 02 that say how a network is built and trained.
TRAINING = (
    *("channels", "stacks", "cells_per_stack", "epochs", "batch_size", "learning_rate"),
    *("momentum", "weight_decay", "clip", "augment"),
)


def build(
    out: Path,
    max_vertices: int,
    repeats: int,
    epochs: Sequence[int],
    recipe: Pretraining,
    jobs: int,
) -> Table:
    """Train every cell of up to `max_vertices` vertices and write the table of results.

    Each cell is trained `repeats` times at each budget of `epochs`, with its own schedule and a
    seed of its own, so the table depends neither on the order nor on the number of processes. Times
    are CPU seconds of one thread. Finished cells are kept in the folder `OUT.parts`, a few to a
    file, under a name that tells the settings: a killed build goes on where it was. The folder
    stays until it is removed by hand. `epochs` and `seed` of the recipe are not used.
    """
    budgets = sorted(epochs)
    recipe = recipe.model_copy(update={"epochs": budgets[-1]})
    images = load_images(recipe.images, recipe.images_path, recipe.validation_images)
    cells = enumerate_cells(max_vertices)
    about: dict[str, Any] = {
        "name": images.name,
        "epochs": budgets[-1],
        "time_unit": "CPU seconds",
        "recipe": recipe.model_dump(include=set(TRAINING)),
        "budgets": budgets,
        "repeats": repeats,
        "max_vertices": max_vertices,
        "images": {part: len(getattr(images, part)) for part in ("train", "validation", "test")},
    }
    folder = out.with_name(f"{out.name}.parts")
    settings = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
    starts = range(0, len(cells), CELLS_PER_PART)
    names = [f"{settings}-{start:06d}.json" for start in starts]
    kept = {name: parts.read(folder, name) for name in names}
    items = [
        (cells[start : start + CELLS_PER_PART], images, recipe, budgets, repeats)
        for start, name in zip(starts, names, strict=True)
        if kept[name] is None
    ]
    missing = [name for name in names if kept[name] is None]
    for index, rows in parallel.completed(_part, items, jobs, f"{len(cells)} cells", "part"):
        kept[missing[index]] = json.dumps(rows).encode()
        parts.write(folder, missing[index], json.dumps(rows).encode())
    frame = pd.DataFrame([row for name in names for row in json.loads(kept[name] or b"[]")])
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
    cell: Cell, images: ImageSet, recipe: Pretraining, epochs: Sequence[int], repeats: int
) -> dict[str, float]:
    """Train one cell `repeats` times at every budget and return its row of the table."""
    row: dict[str, float] = {}
    for budget in epochs:
        column = 0 if budget == max(epochs) else budget
        runs = []
        for repeat in range(repeats):
            text = f"{cell.hash}/{budget}/{repeat}"
            seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
            trained = train_network(
                cell, images, recipe.model_copy(update={"epochs": budget}), seed
            )
            values: dict[str, Any] = {**trained.metrics, "training_time": trained.seconds}
            row["trainable_parameters"] = values["trainable_parameters"]
            runs.append([values[name] for name in FIELDS])
            row |= {column_name(name, column, repeat): values[name] for name in FIELDS}
        means = np.mean(runs, 0).tolist()
        row |= {column_name(name, column): mean for name, mean in zip(FIELDS, means, strict=True)}
    return row


def _part(
    cells: CellSet, images: ImageSet, recipe: Pretraining, epochs: list[int], repeats: int
) -> list[dict[str, float]]:
    return [measure(cell, images, recipe, epochs, repeats) for cell in cells]
