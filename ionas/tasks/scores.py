"""Summaries of the fits of `prediction.score_all`, and the paper's findings on them."""

import pandas as pd

from ionas.tasks.intervals import judge, over_seeds, paired_differences
from ionas.tasks.prediction import of_first
from ionas.tasks.regressors import FOREST, METRICS

MARGIN = 0.02  # smallest difference in Pearson's r that matters
FLATTEN, MEAN = ("io_flatten", "accuracy_flatten"), ("io_mean", "accuracy_mean")
ORIGINAL = ("arch2vec_original",)
IO, ACCURACY = ("io_flatten", "io_mean"), ("accuracy_flatten", "accuracy_mean")

Side = tuple[tuple[str, ...], str]  # embeddings that are averaged, at the first, last or all sizes
BY_SIZE, BY_METHOD = "sample size", "flatten or mean"
BY_MODEL, WITH_FEW = "Accuracy model or IO model", "original arch2vec with few cells"
FINDINGS: dict[str, dict[str, tuple[str, Side, Side]]] = {  # of the paper: part -> claim, sides
    BY_SIZE: {
        "{arch2vec}: gain with size": ("same", (("arch2vec",), "last"), (("arch2vec",), "first")),
        **{
            f"{{{name}}}: gain with size": ("greater", ((name,), "last"), ((name,), "first"))
            for name in FLATTEN
        },
        **{
            f"{{{name}}} minus arch2vec": ("greater", ((name,), "last"), (("arch2vec",), "last"))
            for name in FLATTEN
        },
    },
    BY_METHOD: {"flatten minus mean": ("greater", (FLATTEN, "all"), (MEAN, "all"))},
    BY_MODEL: {"Accuracy model minus IO model": ("greater", (ACCURACY, "all"), (IO, "all"))},
    WITH_FEW: {
        f"{{{name}}} minus original": ("greater", ((name,), "first"), (ORIGINAL, "first"))
        for name in ("arch2vec", *IO, *ACCURACY)
    },
}  # fmt: skip


def of_sample(scores: pd.DataFrame, sample: str = "paper", regressor: str = FOREST) -> pd.DataFrame:
    """Rows of `score_all` of one sample and one regressor."""
    chosen = scores["sample"].eq(sample) & scores["regressor"].eq(regressor)
    return scores[chosen].drop(columns=["sample", "regressor"]).reset_index(drop=True)


def per_training(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric over the regressor seeds of each training, without NaN.

    Takes rows `of_sample`; returns `embedding`, `training_seed`, `size` and the METRICS.
    """
    keys = ["embedding", "training_seed", "size"]
    return scores.groupby(keys, sort=False, dropna=False)[list(METRICS)].mean().reset_index()


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval by Student's t of each metric, of two kinds, for rows `of_sample`.

    Returns `interval`, `embedding`, `size`, `metric`, and the columns of `intervals.over_seeds`.
    The interval `regressor` is over the regressor seeds of the first training, as in the paper
    (which takes 1.96 standard errors); it ignores how much trainings differ. The interval
    `training` is over trainings, each being the mean of its regressor seeds.
    """
    keys = ["embedding", "size", "metric"]
    values = {"regressor": scores[of_first(scores)], "training": per_training(scores)}
    tables = {
        name: over_seeds(rows.melt(keys[:2], list(METRICS), var_name="metric"), keys)
        for name, rows in values.items()
    }
    return pd.concat(tables, names=["interval"]).reset_index("interval").reset_index(drop=True)


def sample_marks(scores: pd.DataFrame) -> pd.DataFrame:
    """Show the effect of failed cells in a sample, at the smallest size of the first training.

    Takes all rows of `score_all`. Returns `embedding`, `sample`, `failed` and the METRICS: a row
    for each random draw, and for samples of labeled cells their means over seeds.
    """
    forest = scores[scores["regressor"] == FOREST]
    rows = forest[(forest["size"] == forest["size"].min()) & of_first(forest)]
    drawn = rows["sample"].str.startswith("random")
    keys = ["embedding", "sample"]
    means = rows[~drawn].groupby(keys, sort=False)[["failed", *METRICS]].mean().reset_index()
    return pd.concat([rows.loc[drawn, list(means)], means], ignore_index=True)


def spread_of_draws(marks: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Compare a metric on the labeled cells with random draws of as many cells (METHOD 10).

    Takes `sample_marks`. Returns `embedding`, `cells`, `mean`, and `low` and `high`, one standard
    deviation of the draws below and above; NaN for the labeled cells, which are a single draw.
    """
    drawn = {"paper": "labeled cells", "random": "random draws"}
    rows = marks[marks["sample"].isin(drawn)].assign(cells=marks["sample"].map(drawn))
    found = rows.groupby(["embedding", "cells"], sort=False)[metric].agg(["mean", "std"])
    ends = found.assign(low=found["mean"] - found["std"], high=found["mean"] + found["std"])
    return ends.drop(columns="std").reset_index()


def differences(scores: pd.DataFrame, reference: str = "arch2vec") -> pd.DataFrame:
    """Pearson's r of each embedding minus that of the reference, by training and size.

    Fits of one training, size and seed have the same sample; their differences are averaged over
    the seeds. Takes rows `of_sample`; returns `embedding`, `training_seed`, `size`, `value`.
    """
    found = paired_differences(scores, reference, ["training_seed", "size", "seed"], "pearson")
    keys = ["embedding", "training_seed", "size"]
    return found.groupby(keys, sort=False)["value"].mean().reset_index()


def findings(scores: pd.DataFrame) -> pd.DataFrame:
    """Judge the FINDINGS by `intervals.judge`, from Pearson's r in rows `of_sample`.

    Each part is a difference within a training: between two embeddings, sets of them, or two sizes.
    """
    means = per_training(scores).set_index(["training_seed", "embedding", "size"])
    table = means["pearson"].unstack(["embedding", "size"])  # a row per training
    sizes = sorted(scores["size"].unique())
    named = {"first": sizes[:1], "last": sizes[-1:], "all": sizes}

    def mean(side: Side) -> pd.Series:
        wanted = [(name, size) for name in side[0] for size in named[side[1]]]
        return table.reindex(columns=pd.MultiIndex.from_tuples(wanted)).mean(axis=1, skipna=False)

    found = []
    for finding, parts in FINDINGS.items():
        for part, (claim, one, other) in parts.items():
            values = (mean(one) - mean(other)).dropna()
            change_with_size = one[0] == other[0]
            shown = [] if change_with_size and len(sizes) == 1 else values
            found.append((finding, part, claim, shown))
    return judge(found, MARGIN)
