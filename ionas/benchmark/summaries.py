"""Small frames from which charts of a whole table are drawn: quantiles, histograms, samples.

A table may have 423,624 cells; the frames have at most some thousand rows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ionas.benchmark.table import FIELDS, Table
from ionas.space.nasbench101 import CONV1X1, CONV3X3, MAXPOOL3X3

FAILED = 0.019  # share of the cells of NAS-Bench-101 at or below 0.8 (METHOD 8)
_COUNTED = {
    **dict.fromkeys((CONV3X3, "nor_conv_3x3"), "3x3 convolutions"),
    **dict.fromkeys((CONV1X1, "nor_conv_1x1"), "1x1 convolutions"),
    **dict.fromkeys((MAXPOOL3X3, "avg_pool_3x3"), "3x3 poolings"),
    "skip_connect": "skip connections",
    "none": "edges left out",
}


def about(table: Table) -> dict[str, Any]:
    """Describe a table: its `name`, its number of `cells`, and of those with each field (`known`).

    Also `searchable`, the number of cells with validation accuracy and training time, and
    `repeats`, those of the test accuracy.
    """
    fields = [name for name in FIELDS if name in table.frame]
    return {
        "name": table.name,
        "cells": len(table),
        "known": {name: int(table.known(name).sum()) for name in fields},
        "searchable": int(table.known("validation_accuracy", "training_time").sum()),
        "repeats": table.repeats("test_accuracy"),
    }


def labeled_distribution(table: Table, split: pd.DataFrame) -> pd.DataFrame:
    """Histogram of the test accuracy of all cells and of the labeled train cells (Fig. 9)."""
    accuracy = table.values("test_accuracy")
    labeled = (split["labeled"] == "train").to_numpy()
    return histogram({"all cells": accuracy, "labeled train cells": accuracy[labeled]})


def accuracy_facts(table: Table, split: pd.DataFrame) -> dict[str, float]:
    """Say how skewed the test accuracies are (Fig. 9): `median`, and `middle` of the range.

    Also `labeled_above`, the share of the labeled train cells above the middle.
    """
    accuracy = table.values("test_accuracy")
    middle = float((np.nanmin(accuracy) + np.nanmax(accuracy)) / 2)
    labeled = accuracy[(split["labeled"] == "train").to_numpy()]
    above = float((labeled > middle).mean())
    return {"median": float(np.nanmedian(accuracy)), "middle": middle, "labeled_above": above}


def accuracy_by_rank(table: Table, cells: int = 800) -> pd.DataFrame:
    """Test accuracy of cells at evenly spaced ranks, from the worst to the best.

    Columns are `rank`, from 0 among all cells with an accuracy, `mean`, and `repeat_0`, `repeat_1`
    and so on, the single repeats that the table has.
    """
    mean = table.values("test_accuracy")
    order = np.argsort(mean, kind="stable")[: np.isfinite(mean).sum()]  # NaN comes last
    rank = np.unique(np.linspace(0, len(order) - 1, min(cells, len(order))).astype(int))
    frame = pd.DataFrame({"rank": rank, "mean": mean[order[rank]]})
    for k in range(table.repeats("test_accuracy")):
        frame[f"repeat_{k}"] = table.values("test_accuracy", repeat=k)[order[rank]]
    return frame


def cell_properties(table: Table) -> dict[str, np.ndarray]:
    """Properties of cells, (N,) each: parameters if known, depth, number of each operation.

    Depth is left out in a space whose cells all have the same edges.
    """
    found = {}
    cells, space = table.cells, table.cells.space
    if "trainable_parameters" in table.frame:
        found["trainable parameters"] = table.values("trainable_parameters")
    if space.wiring is None:
        found["depth (edges)"] = cells.depth
    for operation, label in _COUNTED.items():
        if operation in space.operations:
            found[label] = (cells.operations == space.operations.index(operation)).sum(1)
    return found


def accuracy_by_counts(table: Table) -> pd.DataFrame:
    """Quantiles of the test accuracy by each of the `cell_properties`.

    The worst cells, a share FAILED of all, count as failed; quantiles are of the others. A property
    with more than 12 values is cut into 10 groups of about equal size. There is a row per
    `property` and group of its values, from `least` to `most`, with `cells`, `failed` (a share of
    them), `threshold` (the same in every row), and `q05`, `q25`, `q50`, `q75`, `q95`.
    """
    accuracy = table.values("test_accuracy")
    known = np.isfinite(accuracy)
    threshold = float(np.quantile(accuracy[known], FAILED))
    rows = []
    for name, values in cell_properties(table).items():
        frame = pd.DataFrame({"value": values, "accuracy": accuracy})[known].dropna()
        by = frame["value"]
        if by.nunique() > 12:
            by = pd.qcut(by, 10, labels=False, duplicates="drop")
        for _, group in frame.groupby(by):
            passed = group.loc[group["accuracy"] > threshold, "accuracy"]
            row = {"property": name, "least": group["value"].min(), "most": group["value"].max()}
            row |= {"cells": len(group), "failed": 1 - len(passed) / len(group)}
            row |= {"threshold": threshold}
            rows.append(row | {f"q{q:02d}": passed.quantile(q / 100) for q in (5, 25, 50, 75, 95)})
    return pd.DataFrame(rows)


def histogram(values: Mapping[str, np.ndarray], bins: int = 40) -> pd.DataFrame:
    """Count several sets of numbers in the same bins; numbers that are not finite are left out.

    Columns are `low` and `high` of each bin, and a column of counts for every name.
    """
    finite = {name: np.asarray(v)[np.isfinite(v)] for name, v in values.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(finite.values())), bins)
    counts = {name: np.histogram(v, edges)[0] for name, v in finite.items()}
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts})


def extreme_cells(table: Table, count: int = 4) -> pd.DataFrame:
    """The `count` best and then the `count` worst cells by mean test accuracy.

    Columns are `adjacency` and `operations` as texts, `title` (the accuracy), `accuracy`.
    """
    accuracy = table.values("test_accuracy")
    order = np.argsort(accuracy, kind="stable")[: np.isfinite(accuracy).sum()][::-1]
    chosen = order if len(order) <= 2 * count else np.r_[order[:count], order[-count:]]
    adjacency, operations = table.cells[chosen].to_text()
    frame = pd.DataFrame({"adjacency": adjacency, "operations": operations})
    return frame.assign(title=[f"{a:.3f}" for a in accuracy[chosen]], accuracy=accuracy[chosen])


def hexagon_medians(points: np.ndarray, accuracy: np.ndarray, across: int = 24) -> pd.DataFrame:
    """Median accuracy of the cells in each hexagon of the plane, `across` hexagons in a row.

    Each axis of the (N, 2) points is stretched to the same length; cells without an accuracy are
    left out. Columns are `x` and `y` of the centre in widths of a hexagon, which has a corner at
    its top, `accuracy` and `cells`.
    """
    known = np.isfinite(accuracy)
    points, accuracy = np.asarray(points, np.float64)[known], accuracy[known]
    span = np.ptp(points, axis=0)
    place = (points - points.min(0)) / np.where(span > 0, span, 1) * (across - 1)
    pitch = np.array([1, np.sqrt(3)])  # two such lattices, half a pitch apart, make the hexagons
    first = np.round(place / pitch) * pitch
    second = (np.floor(place / pitch) + 0.5) * pitch
    nearer = np.square(place - first).sum(1) <= np.square(place - second).sum(1)
    centers = np.where(nearer[:, None], first, second)
    frame = pd.DataFrame({"x": centers[:, 0], "y": centers[:, 1], "accuracy": accuracy})
    groups = frame.round({"x": 6, "y": 6}).groupby(["y", "x"])["accuracy"]
    found = groups.agg(accuracy="median", cells="size").reset_index()
    return found[["x", "y", "accuracy", "cells"]]


def neighbor_correlation(values: np.ndarray, accuracy: np.ndarray) -> float:
    """Pearson's r between the accuracy of a cell and that of its nearest neighbor.

    `values` are (N, L) embeddings. NaN if either accuracy does not vary. The memory for N * N
    distances suffices for some thousand cells.
    """
    values = np.asarray(values, np.float64)
    squares = np.square(values).sum(1)
    distances = squares[:, None] + squares - 2 * values @ values.T
    np.fill_diagonal(distances, np.inf)
    nearest = accuracy[distances.argmin(1)]
    if np.ptp(accuracy) == 0 or np.ptp(nearest) == 0:
        return float("nan")
    return float(np.corrcoef(accuracy, nearest)[0, 1])
