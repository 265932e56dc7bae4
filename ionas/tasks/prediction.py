"""Fit regressors of accuracy on embeddings (paper, sections 6 and H; METHOD 10).

A regressor learns the accuracy of n cells from their embeddings and is scored on all others above
an accuracy threshold. Here is who is fitted on which cells; `scores` has what comes of it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ionas.benchmark.table import Table
from ionas.parameters import PerformancePrediction
from ionas.space.cells import CellSet, cell_tensors
from ionas.tasks.regressors import FOREST, GAUSSIAN, fit_and_score
from ionas.tasks.resume import check_embeddings, complete, split_names

ENCODING = "encoding"
REFERENCES = ("latent", ENCODING)  # rows that the paper does not have


def score_all(
    table: Table,
    split: pd.DataFrame,
    embeddings: Mapping[str, np.ndarray],
    setting: Mapping[str, Any],
    p: PerformancePrediction,
    *,
    parts: Path,
    jobs: int = 0,
) -> pd.DataFrame:
    """Fit and score regressors on all embeddings of all trainings.

    A sample holds the labeled cells first (a random part of them where the size is smaller), then
    random other cells. A seed draws both the sample and the forest; the samples of one seed contain
    each other and are the same for every embedding. The first training, that of the smallest seed,
    and what was not trained are fitted with `p.seeds` seeds, other trainings with `p.other_seeds`.

    Only cells above the threshold are scored, but samples hold others, too: on NAS-Bench-101 cells
    whose training failed, and how many of them a small sample holds is luck. So there are fits of
    the first training on samples without failed cells, and on random draws of the smallest size.

    Takes rows `index`, `labeled` of notebook 01; `NAME_seedS` -> (N, D), to which the plain
    encoding is added; the result of `setting`; and a folder for the scores of single fits.

    Returns
    -------
    DataFrame
        A row per fit: `regressor` (random_forest or gaussian_process); `sample`: `paper` (as
        above), `passed` (its cells above the threshold), `random` (no labeled cells first) or
        `random, passed`; `embedding`; `training_seed` (missing for the plain encoding); `size`;
        `seed`; `regressors.METRICS`; `scored`, number of cells scored; `failed`, number of cells of
        the sample at or below the threshold; `note`, why a score is NaN, or empty.

    Raises
    ------
    ValueError
        If an embedding does not fit the table or is not finite.
    """
    arrays = {**embeddings, ENCODING: encode_cells(table.cells)}
    check_embeddings(arrays, len(table))
    names = split_names(arrays)
    names["first"] = of_first(names)
    wanted: list[tuple[str, str, str, int, int]] = []  # regressor, sample, name, size, seed
    for name, first in names["first"].items():
        seeds, sizes = p.seeds if first else p.other_seeds, setting["sizes"]
        kinds = [(FOREST, "paper", sizes, seeds), (GAUSSIAN, "random", [p.gaussian_cells], seeds)]
        if first:
            kinds += [
                (FOREST, "passed", sizes, p.other_seeds),
                (FOREST, "random", sizes[:1], seeds),
                (FOREST, "random, passed", sizes[:1], seeds),
            ]
        wanted += [
            (regressor, sample, str(name), size, seed)
            for regressor, sample, of, count in kinds
            for size in of
            for seed in range(count)
        ]
    tried = names["embedding"].isin(REFERENCES).map({True: p.reference_features, False: 0})
    calls = [
        (
            (sample, size, seed, setting["threshold"], regressor, p.trees,
             tried[name] or p.max_features),
            ("accuracy", "labeled", name),
        )
        for regressor, sample, name, size, seed in wanted
    ]  # fmt: skip
    arrays |= {"accuracy": table.values("test_accuracy"), "labeled": _labeled(split)}
    scores = pd.DataFrame(complete(fit_and_score, calls, arrays, parts, jobs, "fitting", "fit"))
    labels = pd.DataFrame(wanted, columns=["regressor", "sample", "name", "size", "seed"])
    found = names.loc[labels["name"], ["embedding", "training_seed"]].reset_index(drop=True)
    parts_of_row = [labels[["regressor", "sample"]], found, labels[["size", "seed"]], scores]
    return pd.concat(parts_of_row, axis=1)


def setting(table: Table, split: pd.DataFrame, p: PerformancePrediction) -> dict[str, Any]:
    """What the fits of `score_all` have to do with.

    Returns `cells`; `labeled`, labeled train cells with an accuracy; `threshold`; `above`, cells
    above it; `sizes`. Raises ValueError if a size cannot be fitted on, or leaves too few to score.
    """
    accuracy = table.values("test_accuracy")
    known, count = np.isfinite(accuracy), int(np.isfinite(accuracy[_labeled(split)]).sum())
    sizes = check_sizes(p.sizes, int(known.sum()), count)
    check_sizes([p.gaussian_cells], int(known.sum()), count, "gaussian_cells")
    threshold = p.accuracy_threshold or accuracy_threshold(accuracy[known], p.excluded_share)
    above, largest = int((accuracy > threshold).sum()), max(*sizes, p.gaussian_cells)
    if above < largest + 2:
        raise ValueError(
            f"of {above} cells above {threshold:g}, a sample of {largest} may leave fewer than two "
            "to be scored; choose a smaller size or threshold"
        )
    told = {"cells": len(table), "labeled": count, "threshold": threshold}
    return {**told, "above": above, "sizes": sizes}


def check_sizes(
    sizes: Iterable[int], known_cells: int, labeled: int, name: str = "sizes"
) -> list[int]:
    """Distinct sample sizes, ascending; 0 stands for the number of labeled cells.

    `known_cells` counts the cells whose accuracy is known, `labeled` the labeled ones of them, and
    `name` is the parameter. Raises ValueError if a size is below 2 or leaves fewer than two cells.
    """
    found = sorted({size or labeled for size in sizes})
    for size in found:
        if not 2 <= size <= known_cells - 2:
            raise ValueError(
                f"{name} has {size}, but the table has {known_cells} cells with a test accuracy, "
                f"of which two at least are fitted on and two at least are left to be scored; give "
                f"2 to {known_cells - 2}, or 0 for the {labeled} labeled cells"
            )
    return found


def accuracy_threshold(accuracy: np.ndarray, excluded: float) -> float:
    """Accuracy that all but a share of the (N,) known ones exceed.

    The paper scores cells above 0.8, which on NAS-Bench-101 leaves out the 1.9 % of cells whose
    training failed. On another table this rule leaves out the same share.
    """
    return float(np.quantile(accuracy, excluded)) if excluded else float("-inf")


def encode_cells(cells: CellSet) -> np.ndarray:
    """Cells as they are: edge bits above the diagonal, then one-hot operations: (N, D) float32.

    Cells are padded to the largest of them, V: D is V * (V - 1) / 2 + V * O.
    """
    size = int(cells.n_vertices.max())
    adjacency, operations = (tensor[:, :size].numpy() for tensor in cell_tensors(cells))
    rows, columns = np.triu_indices(size, 1)
    one_hot = operations.reshape(len(operations), -1)
    return np.hstack([adjacency[:, rows, columns], one_hot]).astype(np.float32)


def of_first(names: pd.DataFrame) -> pd.Series:
    """Whether rows are of the first training, that of the smallest seed, or not trained at all."""
    training = names["training_seed"]
    return (training.isna() | training.eq(training.min())).fillna(True).astype(bool)


def _labeled(split: pd.DataFrame) -> np.ndarray:
    return split.loc[split["labeled"] == "train", "index"].to_numpy()
