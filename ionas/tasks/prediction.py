"""Fit regressors of accuracy on embeddings (paper, sections 6 and H; METHOD 10).

A regressor learns the accuracy of n cells from their embeddings and is scored on all others above
an accuracy threshold. This module chooses the fits; `scores` summarises their results.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ionas.benchmark.table import Table
from ionas.parameters import PerformancePrediction
from ionas.parts import complete
from ionas.space.encodings import adjacency_one_hot
from ionas.tasks.embeddings import check_embeddings, split_names
from ionas.tasks.regressors import FOREST, GAUSSIAN, fit_and_score

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
    and embeddings that are not trained are fitted with `p.seeds` seeds, other trainings with
    `p.other_seeds`.

    Only cells above the threshold are scored, but samples hold others as well: on NAS-Bench-101
    those whose training failed, whose number in a small sample is a matter of chance. So the first
    training is also fitted on samples without failed cells, and on random draws of the smallest
    size.

    Takes rows `index`, `labeled` of notebook 01; `NAME_seedS` -> (N, D), to which the plain
    encoding is added; the result of `setting`; and a folder that keeps the scores of single fits.
    Raises ValueError if an embedding does not fit the table or is not finite.

    Returns a row per fit: `regressor` (random_forest or gaussian_process); `sample`: `paper` (as
    above), `passed` (its cells above the threshold), `random` (no labeled cells first) or `random,
    passed`; `embedding`; `training_seed` (missing for the plain encoding); `size`; `seed`;
    `regressors.METRICS`; `scored`, the number of cells scored; `failed`, the number of cells of the
    sample at or below the threshold; `note`, why a score is NaN, or empty.
    """
    arrays = {**embeddings, ENCODING: adjacency_one_hot(table.cells)}
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
    """Settle what the fits of `score_all` have in common.

    Returns the number of `cells`; `labeled`, the number of labeled train cells with an accuracy;
    and what `scored` returns.
    """
    accuracy = table.values("test_accuracy")
    known = np.isfinite(accuracy)
    labeled = int(known[_labeled(split)].sum())
    return {"cells": len(table), "labeled": labeled, **scored(accuracy[known], labeled, p)}


def scored(accuracy: np.ndarray, labeled: int, p: PerformancePrediction) -> dict[str, Any]:
    """Which of the (N,) known accuracies are scored, `labeled` of them those of labeled cells.

    Returns `threshold`; `above`, cells above it; `sizes`. Raises ValueError if a size cannot be
    fitted on, or leaves too few to score.
    """
    sizes = check_sizes(p.sizes, len(accuracy), labeled)
    check_sizes([p.gaussian_cells], len(accuracy), labeled, "gaussian_cells")
    threshold = p.accuracy_threshold or accuracy_threshold(accuracy, p.excluded_share)
    above, largest = int((accuracy > threshold).sum()), max(*sizes, p.gaussian_cells)
    if above < largest + 2:
        raise ValueError(
            f"of {above} cells above {threshold:g}, a sample of {largest} may leave fewer than two "
            "to be scored; choose a smaller size or threshold"
        )
    return {"threshold": threshold, "above": above, "sizes": sizes}


def check_sizes(
    sizes: Iterable[int], known_cells: int, labeled: int, name: str = "sizes"
) -> list[int]:
    """Return distinct sample sizes, ascending, with the number of labeled cells in place of 0.

    `known_cells` is the number of cells whose accuracy is known, `labeled` that of the labeled ones
    among them, and `name` is the parameter. Raises ValueError if a size is below 2 or leaves fewer
    than two cells.
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
    training failed. This rule leaves out the same share of any other table.
    """
    return float(np.quantile(accuracy, excluded)) if excluded else float("-inf")


def of_first(names: pd.DataFrame) -> pd.Series:
    """Whether a row is of the first training, that of the smallest seed, or was not trained."""
    training = names["training_seed"]
    return (training.isna() | training.eq(training.min())).fillna(True).astype(bool)


def _labeled(split: pd.DataFrame) -> np.ndarray:
    return split.loc[split["labeled"] == "train", "index"].to_numpy()
