"""Make the embedded benchmark: every small cell, trained several times at several epoch budgets.

The table that `build` writes is shipped as `ionas/data/digits.parquet`; the book documents it.
"""

import hashlib
import platform
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ionas import parts
from ionas.benchmark.table import FIELDS, Table, column_name
from ionas.images import ImageSet, load_images
from ionas.parameters import Pretraining
from ionas.pretraining import RECIPE, train_network
from ionas.space.cells import Cell, enumerate_cells


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
    are CPU seconds of one thread. Results of finished cells are kept in the folder `OUT.parts`, so
    that a killed build goes on where it was; the folder stays until it is removed by hand. `epochs`
    and `seed` of the recipe are not used.
    """
    budgets = sorted(epochs)
    recipe = recipe.model_copy(update={"epochs": budgets[-1]})
    images = load_images(recipe.images, recipe.images_path, recipe.validation_images)
    cells = enumerate_cells(max_vertices)
    about: dict[str, Any] = {
        "name": images.name,
        "epochs": budgets[-1],
        "time_unit": "CPU seconds",
        "recipe": recipe.model_dump(include=set(RECIPE)),
        "budgets": budgets,
        "repeats": repeats,
        "max_vertices": max_vertices,
        "images": {part: len(getattr(images, part)) for part in ("train", "validation", "test")},
    }
    given = recipe.model_dump(include={*RECIPE, "images", "validation_images"})
    given["images_path"] = recipe.images_path and str(Path(recipe.images_path).resolve())
    texts = zip(*cells.to_text(), strict=True)
    calls: list[parts.Call] = [((*text, given, budgets, repeats), ()) for text in texts]
    folder = out.with_name(f"{out.name}.parts")
    rows = parts.complete(_measure, calls, {}, folder, jobs, f"{len(cells)} cells", "cell")
    about["provenance"] = {
        "command": "ionas benchmark build",
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "ionas": version("ionas"),
    }
    table = Table(cells, pd.DataFrame(rows), about)
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


def _measure(
    adjacency: str, operations: str, recipe: dict[str, Any], epochs: list[int], repeats: int
) -> dict[str, float]:
    p = Pretraining(**recipe)
    images = _images(p.images, p.images_path, p.validation_images)
    return measure(Cell.from_text(adjacency, operations), images, p, epochs, repeats)


_images = lru_cache(maxsize=1)(load_images)
