"""What the explorer of cells shows: one JSON value with cells, accuracies, predictions and maps.

Arrays are packed as base64 of little-endian integers: `type` as NumPy names it, and `scale`, by
which the integers are multiplied. Cells are numbered as they come in these arrays.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ionas.benchmark.table import Table
from ionas.parameters import PerformancePrediction
from ionas.space.encodings import adjacency_one_hot
from ionas.tasks.clusters import distances
from ionas.tasks.embeddings import check_embeddings, split_names
from ionas.tasks.prediction import ENCODING, REFERENCES, of_first
from ionas.tasks.regressors import predict_forest, sample_cells

MOST = 3000  # cells; of a larger table only some are shown
NEAREST = 5
SEED = 0  # of the draw of cells, and of the forests: the first regressor seed
TRAIN, VALIDATION, FITTED = 1, 2, 4  # bits of `roles`
STEP = 1e-4  # of accuracies


def explorer_data(
    table: Table,
    split: pd.DataFrame,
    embeddings: Mapping[str, np.ndarray],
    networks: pd.DataFrame,
    targets: Mapping[str, np.ndarray],
    setting: Mapping[str, Any],
    p: PerformancePrediction,
    most: int = MOST,
) -> dict[str, Any]:
    """Gather what is known of each cell: see `shown_cells` for which cells these are.

    Takes what `prediction.score_all` takes, the trained `networks` of notebook 02 and their
    `targets` of notebook 03. Embeddings are those of the first training, and the plain encoding.

    Returns
    -------
    dict
        Of the space `operations`, `vertices` (of the largest cell of the table), `edges` (the most)
        and `wiring` (or None); `table` (its name), `cells`, `shown`, `known` (cells with a test
        accuracy), `repeats`, `training_seed`, `fitted` (cells that each forest is fitted on) and
        `trees`. Packed, with a value or a row per cell shown: `adjacency` (bits above the diagonal,
        row by row, the first the lowest), `codes` (operations, -1: no vertex), `hashes` (16 bytes),
        test `accuracy`, `spread` (standard deviation over repeats), `rank` (1 is best),
        `parameters` and `roles` (sum of TRAIN, VALIDATION, FITTED); -1 where unknown.
        `embeddings`: by name `x` and `y` (principal components), `near` (nearest cells, Euclidean
        distance) and `predicted` (accuracy, by the forest of `prediction.score_all` with the
        largest sample and the first seed). `outputs`: `rows`, cells whose network was trained, and
        `near`, the nearest of these by `distances`.

    Raises
    ------
    ValueError
        If an embedding does not fit the table or is not finite.
    """
    check_embeddings(embeddings, len(table))
    names = split_names(embeddings)
    names = names[of_first(names)]
    arrays = dict(zip(names["embedding"], map(embeddings.__getitem__, names.index), strict=True))
    arrays[ENCODING] = adjacency_one_hot(table.cells)
    rows = shown_cells(table, networks["index"].to_numpy(), most)
    accuracy = table.values("test_accuracy")
    labeled = split.loc[split["labeled"] == "train", "index"].to_numpy()
    fitted = sample_cells(accuracy, labeled, "paper", setting["sizes"][-1], SEED)
    by_part = networks.set_index("index")["labeled"]
    roles = by_part.map({"train": TRAIN, "validation": VALIDATION}).reindex(rows, fill_value=0)
    space, size = table.cells.space, int(table.cells.n_vertices.max())
    upper = table.cells.adjacency[rows][:, *np.triu_indices(size, 1)].astype(np.uint32)
    numbers = table.frame.get("trainable_parameters", pd.Series(np.nan, table.frame.index))
    return {
        "operations": list(space.operations),
        "vertices": size,
        "edges": space.edges,
        "wiring": None if space.wiring is None else space.wiring.tolist(),
        "table": table.name,
        "cells": len(table),
        "shown": len(rows),
        "known": int(np.isfinite(accuracy).sum()),
        "repeats": table.repeats("test_accuracy"),
        "training_seed": int(names["training_seed"].min()),
        "fitted": len(fitted),
        "trees": p.trees,
        "adjacency": _packed(upper @ (1 << np.arange(upper.shape[1], dtype=np.uint32)), "uint32"),
        "codes": _packed(table.cells.operations[rows, :size], "int8"),
        "hashes": _packed([list(bytes.fromhex(h)) for h in table.cells.hashes[rows]], "uint8"),
        "accuracy": _packed(accuracy[rows], "int16", STEP),
        "spread": _packed(_spread(table)[rows], "int16", STEP),
        "rank": _packed(_ranks(accuracy)[rows], "int32"),
        "parameters": _packed(numbers.to_numpy(np.float64)[rows], "int32"),
        "roles": _packed(roles.to_numpy() + FITTED * np.isin(rows, fitted), "uint8"),
        "embeddings": {
            name: {
                **_map(values[rows]),
                "predicted": _predicted(name, values, accuracy, fitted, rows, p),
            }
            for name, values in arrays.items()
        },
        "outputs": _by_outputs(networks, targets, rows),
    }


def shown_cells(table: Table, trained: np.ndarray, most: int = MOST) -> np.ndarray:
    """Rows of the cells that are shown, ascending: all of the table if it has at most so many.

    Else the cells whose networks were trained, and random ones of those that a search can ask for
    (if there are none, of those with a test accuracy), `most` in all.
    """
    if len(table) <= most:
        return np.arange(len(table))
    searchable = table.known("validation_accuracy", "training_time")
    known = searchable if searchable.any() else table.known("test_accuracy")
    others = np.setdiff1d(np.flatnonzero(known), trained)
    drawn = np.random.default_rng(SEED).permutation(others)
    return np.sort(np.concatenate([trained, drawn[: max(most - len(trained), 0)]]))


def _spread(table: Table) -> np.ndarray:
    """Standard deviation (N,) of the test accuracy over repeats, NaN with fewer than two."""
    count = table.repeats("test_accuracy")
    if count < 2:
        return np.full(len(table), np.nan)
    repeats = [table.values("test_accuracy", repeat=k) for k in range(count)]
    return np.std(repeats, axis=0, ddof=1)


def _ranks(accuracy: np.ndarray) -> np.ndarray:
    """Rank (N,) among all cells with an accuracy, the better ones counted, plus 1."""
    known = np.sort(accuracy[np.isfinite(accuracy)])
    better = len(known) - np.searchsorted(known, accuracy, "right")
    return np.where(np.isfinite(accuracy), better + 1, np.nan)


def _map(values: np.ndarray) -> dict[str, Any]:
    """Two principal components and the nearest cells, from (N, D) embeddings."""
    from scipy.spatial.distance import cdist
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    values = values.astype(np.float64)
    with threadpool_limits(1):  # the same bits whatever the number of cores
        points = PCA(2, svd_solver="full").fit_transform(values)
    scale = float(np.abs(points).max() / np.iinfo(np.int16).max) or 1.0
    x, y = (_packed(column, "int16", scale) for column in points.T)
    return {"x": x, "y": y, "near": _packed(_nearest(cdist(values, values)), "uint16")}


def _nearest(apart: np.ndarray) -> np.ndarray:
    """Columns (N, k) of the nearest others by (N, N) distances; of equal ones the first."""
    apart = apart.copy()
    np.fill_diagonal(apart, np.inf)
    return apart.argsort(1, kind="stable")[:, : min(NEAREST, len(apart) - 1)]


def _predicted(
    name: str,
    values: np.ndarray,
    accuracy: np.ndarray,
    fitted: np.ndarray,
    rows: np.ndarray,
    p: PerformancePrediction,
) -> dict[str, Any]:
    """Accuracies of the shown cells, by a forest that is fitted as those of notebook 07."""
    from threadpoolctl import threadpool_limits

    tried = p.reference_features if name in REFERENCES else p.max_features
    inputs, outputs = values[fitted], accuracy[fitted]
    with threadpool_limits(1):
        found = predict_forest(inputs, outputs, values[rows], SEED, p.trees, tried)
    return _packed(found, "int16", STEP)


def _by_outputs(
    networks: pd.DataFrame, targets: Mapping[str, np.ndarray], rows: np.ndarray
) -> dict[str, Any]:
    """Cells whose networks were trained, and the nearest of them by what these compute."""
    from scipy.spatial.distance import squareform

    parts = [part for part in ("train", "validation") if (networks["labeled"] == part).any()]
    index = np.concatenate([networks.loc[networks["labeled"] == part, "index"] for part in parts])
    made = np.concatenate([targets[f"{part}_validation"] for part in parts])
    cells = np.searchsorted(rows, index)
    apart = squareform(distances({"train_validation": made})["distances"])
    return {"rows": _packed(cells, "uint16"), "near": _packed(cells[_nearest(apart)], "uint16")}


def _packed(values: Any, kind: str, scale: float = 1) -> dict[str, Any]:
    """An array as little-endian integers in base64, NaN as -1."""
    scaled = np.asarray(values) / scale if scale != 1 else np.asarray(values)
    whole = np.round(np.where(np.isnan(scaled), -1, scaled)).astype(np.int64)
    integers = whole.astype(np.dtype(kind).newbyteorder("<"))
    if not np.array_equal(integers, whole):
        raise ValueError(f"values from {whole.min()} to {whole.max()} do not fit {kind}")
    text = b64encode(integers.tobytes()).decode()
    return {"type": kind, "scale": scale, "data": text}
