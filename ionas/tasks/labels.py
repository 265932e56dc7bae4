"""What labels buy: how well accuracy is predicted from embeddings that were trained on them.

Embeddings are called `MODEL_VARIANT`, as by `embedding.variants`; a variant is `AXIS-LEVEL`, or the
reference, which is the last level of every axis.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ionas.benchmark.table import Table
from ionas.parameters import LabelValue
from ionas.parts import Call, complete
from ionas.space.encodings import adjacency_one_hot
from ionas.tasks.embeddings import check_embeddings, split_names
from ionas.tasks.intervals import bootstrap, over_seeds
from ionas.tasks.prediction import ENCODING, accuracy_threshold, check_sizes
from ionas.tasks.regressors import FOREST, fit_and_score
from ionas.tasks.scores import per_training

EXCLUDED = 0.019  # share of cells that are not scored, as in notebook 07
TRIED = (4, 0.33)  # inputs of a forest tried per split: of an embedding, of the plain encoding
MARGIN = 0.02  # smallest difference in Pearson's r, and in a relative loss, that matters


def score(
    table: Table,
    split: pd.DataFrame,
    trained: Mapping[str, np.ndarray],
    p: LabelValue,
    *,
    parts: Path,
    jobs: int = 0,
) -> pd.DataFrame:
    """Fit forests on the embeddings of all variants, and on the plain encoding.

    A sample holds the labeled train cells, as far as they go, and random others; the same ones for
    every embedding. All other cells above the threshold of notebook 07 are scored. Arrays whose
    name has a `/` are no embeddings. Returns, for each training, the means of its fits, as
    `scores.per_training`. Raises ValueError if the sample is too large, or an embedding does not
    fit the table.
    """
    arrays = {name: values for name, values in trained.items() if "/" not in name}
    arrays[ENCODING] = adjacency_one_hot(table.cells)
    check_embeddings(arrays, len(table))
    accuracy = table.values("test_accuracy")
    labeled = split.loc[split["labeled"] == "train", "index"].to_numpy()
    known = accuracy[np.isfinite(accuracy)]
    check_sizes([p.sample], len(known), len(labeled), "sample")
    threshold = accuracy_threshold(known, EXCLUDED)
    names = split_names(arrays)
    rows = names.loc[names.index.repeat(p.fits)].assign(size=p.sample)
    calls: list[Call] = [
        (("paper", p.sample, k % p.fits, threshold, FOREST, p.trees, TRIED[name == ENCODING]),
         ("accuracy", "labeled", name))
        for k, name in enumerate(rows.index)
    ]  # fmt: skip
    arrays |= {"accuracy": accuracy, "labeled": labeled}
    found = complete(fit_and_score, calls, arrays, parts, jobs, "fitting", "fit")
    return per_training(rows.reset_index(drop=True).join(pd.DataFrame(found)))


def measures(scores: pd.DataFrame, trained: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """What every embedding is good for: `embedding`, `measure`, `mean`, `low`, `high`.

    Measures are `pearson` and `kendall` of the `scores`, with intervals by Student's t over
    trainings, and `loss`, that on unseen networks divided by that of answering without a look at
    the cell, with intervals by bootstrap over trainings and networks, in which the two are paired:
    below 1, a model tells something of a network from its cell.
    """
    rows = scores.melt("embedding", ["pearson", "kendall"], var_name="measure")
    found = over_seeds(rows, ["embedding", "measure"])[
        ["embedding", "measure", "mean", "low", "high"]
    ]
    names = split_names(key.removeprefix("loss/") for key in trained if key.startswith("loss/"))
    lines = []
    for embedding, part in names.groupby("embedding", sort=False):
        loss, blind = (
            np.stack([trained[f"{k}/{n}"] for n in part.index]) for k in ("loss", "blind")
        )
        ends = bootstrap(((loss - blind) / blind.mean())[:, :, None])
        lines.append((embedding, "loss", *(1 + float(end[0]) for end in ends)))
    return pd.concat([found, pd.DataFrame(lines, columns=found.columns)], ignore_index=True)


def levels(measured: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Rows of `measures` of the variants in `names`, which calls their levels, in this order.

    Only of the IO model, and of others that were trained on more than the reference. Returns
    `model`, `level`, `measure`, `mean`, `low`, `high`.
    """
    parts = measured["embedding"].str.partition("_")
    rows = measured.assign(model=parts[0], level=parts[2].map(names)).dropna(subset="level")
    several = rows.groupby("model")["level"].nunique() > 1
    rows = rows[rows["model"].map(several) | rows["model"].eq("io")]
    place = rows["level"].map({level: k for k, level in enumerate(names.values())})
    rows = rows.loc[place.sort_values(kind="stable").index].reset_index(drop=True)
    return rows[["model", "level", "measure", "mean", "low", "high"]]


def gains(scores: pd.DataFrame, one: str, other: str) -> np.ndarray:
    """Pearson's r of an embedding less that of another, in each training that has both."""
    wide = scores.dropna(subset="training_seed").pivot(
        index="training_seed", columns="embedding", values="pearson"
    )
    found = wide.reindex(columns=[one, other])
    return (found[one] - found[other]).dropna().to_numpy()
