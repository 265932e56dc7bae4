"""How predictors of accuracy are compared, and what they leave for embeddings to add.

Ranks: fitted on random cells, all others are ranked, which is the field's protocol. Values:
accuracies of cells above a threshold are predicted, as in the paper's section 6, with and without
the failed cells of the sample. Added: embeddings beside features of the graph.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ionas.benchmark.table import Table
from ionas.parameters import Predictors
from ionas.parts import complete
from ionas.predictors.average import average
from ionas.predictors.gaussian_process import fit_gaussian_process
from ionas.predictors.graphs import fit_gated, fit_gcn
from ionas.predictors.interface import Graphs, Predict, normal_scores
from ionas.predictors.sequence import fit_lstm
from ionas.predictors.trees import fit_boosting, fit_forest
from ionas.space import encodings
from ionas.space.cells import CellSet
from ionas.tasks.ceiling import ceiling
from ionas.tasks.embeddings import check_embeddings, split_names
from ionas.tasks.intervals import judge
from ionas.tasks.prediction import accuracy_threshold
from ionas.tasks.regressors import score

PLAIN, FOREST = "forest, plain encoding", "forest, structure"
PROCESS, GATED = "Gaussian process, structure", "gated network, structure"
AVERAGE = "process and network averaged"
FITS: dict[str, tuple[str, Callable[..., Predict]]] = {  # predictor -> its inputs, how it is fitted
    PLAIN: ("plain", fit_forest),
    FOREST: ("structure", fit_forest),
    "boosting, structure": ("structure", fit_boosting),
    "GCN, global vertex": ("graphs", fit_gcn),
    "LSTM, sequence": ("sequence", fit_lstm),
    "gated network": ("graphs", fit_gated),
    GATED: ("graphs and structure", fit_gated),
    PROCESS: ("structure", fit_gaussian_process),
}
ORDER = (*FITS, AVERAGE)
NETWORKS = (fit_gcn, fit_lstm, fit_gated)
TOGETHER = (PROCESS, GATED)  # fitted in one call, which also gives their average
FAST: tuple[tuple[str, ...], ...] = ((PLAIN,), (FOREST,), TOGETHER)
SLOW = tuple((name,) for name in FITS if (name,) not in FAST and name not in TOGETHER)
MANY = 1000  # cells of a sample of which fewer are drawn
ARRAYS = ("accuracy", "adjacency", "operations", "plain", "structure", "sequence")
METRICS = {  # ranks have no scale
    "rank": ("kendall", "precision", "kendall_best"),
    "value": ("pearson", "rmse"),
}
EMBEDDINGS = ("io_flatten", "io_mean", "accuracy_flatten", "accuracy_mean", "arch2vec")
MARGIN, ADDED_MARGIN = 0.02, 0.005  # smallest differences that matter: predictors; embeddings, tau


def setting(table: Table, p: Predictors) -> dict[str, Any]:
    """Settle what all fits have in common: the result of `scored`, `cells`, and the `ceiling`.

    The ceiling is that of `ceiling.ceiling`, or None if the table has no repeats.
    """
    accuracy = table.values("test_accuracy")
    found = scored(accuracy[np.isfinite(accuracy)], p)
    count, limits = table.repeats("test_accuracy"), None
    if count > 1:
        repeats = [table.values("test_accuracy", repeat=k) for k in range(count)]
        limits = ceiling(np.stack(repeats, 1), accuracy > found["threshold"])
    return {"cells": len(table), **found, "repeats": count, "ceiling": limits}


def scored(accuracy: np.ndarray, p: Predictors) -> dict[str, Any]:
    """The `threshold` of the (N,) known accuracies, and the cells `above` it.

    Raises ValueError if a size leaves fewer than 20 cells to be scored.
    """
    threshold = p.accuracy_threshold or accuracy_threshold(accuracy, p.excluded_share)
    above = int((accuracy > threshold).sum())
    limits = {"sizes": len(accuracy), "value_sizes": above, "added_size": len(accuracy)}
    for name, cells in limits.items():
        largest = int(np.max(getattr(p, name)))
        if largest > cells - 20:
            kind = f"above {threshold:g}" if name == "value_sizes" else "with a test accuracy"
            raise ValueError(
                f"{name} has {largest}, but of the {cells} cells {kind} 20 at least are left to be "
                f"scored; give at most {cells - 20}"
            )
    return {"threshold": threshold, "above": above}


def score_all(
    table: Table, setting: Mapping[str, Any], p: Predictors, *, parts: Path, jobs: int = 0
) -> pd.DataFrame:
    """Fit and score all predictors by the protocols of ranks and of values.

    A draw is the same random cells for every predictor. To rank, predictors learn normal scores of
    the accuracies, and networks by the hinge loss; all other cells are scored. To predict values
    they learn accuracies, networks by the squared error, from the whole sample (`sample` is
    `random`) and without its failed cells (`random, passed`); other cells above the threshold are
    scored. Values are predicted by FAST.

    Takes the result of `setting` and a folder that keeps the scores of single fits. Returns a row
    per fit: `protocol` (rank or value), `sample`, `predictor`, `size`, `draw`, `failed` (how many
    cells of the draw have failed), METRICS of the protocol.
    """
    groups = [("rank", "random", p.sizes, p.draws, FAST)]
    groups += [("rank", "random", p.sizes, p.other_draws, SLOW)]
    groups += [
        ("value", s, p.value_sizes, p.value_draws, FAST) for s in ("random", "random, passed")
    ]
    wanted = [
        (protocol, sample, names, size, draw)
        for protocol, sample, sizes, draws, predictors in groups
        for size in sorted(set(sizes))
        for names in predictors
        for draw in range(
            min(draws, p.other_draws) if protocol == "rank" and size > MANY else draws
        )
    ]
    cells = table.cells
    arrays = {
        "accuracy": table.values("test_accuracy"),
        "adjacency": cells.adjacency,
        "operations": cells.operations,
        "plain": encodings.adjacency_one_hot(cells),
        "structure": encodings.structure(cells),
        "sequence": encodings.sequence(cells),
    }
    calls = [((*call, setting["threshold"]), ARRAYS) for call in wanted]
    found = complete(fit_and_score, calls, arrays, parts, jobs, "fitting", "fit")
    keys = ("protocol", "sample", "size", "draw")
    rows = [
        dict(zip(keys, (protocol, sample, size, draw), strict=True)) | row
        for (protocol, sample, _, size, draw), several in zip(wanted, found, strict=True)
        for row in several
    ]
    return pd.DataFrame(rows)


def fit_and_score(
    protocol: str,
    sample: str,
    names: tuple[str, ...],
    size: int,
    draw: int,
    threshold: float,
    *arrays: np.ndarray,
) -> list[dict[str, Any]]:
    """Fit predictors on one draw and score each of them, and their average if they are several."""
    given = dict(zip(ARRAYS, arrays, strict=True))
    accuracy, cells = given["accuracy"], CellSet(given["adjacency"], given["operations"])
    inputs = given | {
        "graphs": Graphs(cells),
        "graphs and structure": Graphs(cells, given["structure"]),
    }
    fitted, others = _drawn(accuracy, size, draw)
    passed = accuracy > threshold
    failed = int((~passed[fitted]).sum())
    if protocol == "value":
        fitted = fitted[passed[fitted]] if sample.endswith("passed") else fitted
        others = others[passed[others]]
    targets, loss = accuracy[fitted], "squared"
    if protocol == "rank":
        targets, loss = normal_scores(targets), "hinge"
    predicted = {}
    with _one_thread():
        for name in names:
            x, fit = inputs[FITS[name][0]], FITS[name][1]
            options = {"loss": loss} if fit in NETWORKS else {}
            predicted[name] = fit(x[fitted], targets, draw, **options)(x[others])
    if len(names) > 1:
        predicted[AVERAGE] = average(list(predicted.values()), by_rank=protocol == "rank")
    return [
        {"predictor": name, "failed": failed, **_scores(protocol, accuracy[others], values)}
        for name, values in predicted.items()
    ]


def score_added(
    table: Table,
    embeddings: Mapping[str, np.ndarray] | None,
    p: Predictors,
    *,
    parts: Path,
    jobs: int = 0,
) -> pd.DataFrame:
    """Rank cells by the Gaussian process on structure features with an embedding beside them.

    Takes `NAME_seedS` -> (N, D), of which the EMBEDDINGS are tried, or None. Returns a row per fit:
    `embedding` (empty for the features alone), `training_seed`, `draw`, `kendall`.
    """
    arrays = {
        "accuracy": table.values("test_accuracy"),
        "structure": encodings.structure(table.cells),
    }
    names = split_names(embeddings or {})
    names = names[names["embedding"].isin(EMBEDDINGS)]
    arrays |= {name: embeddings[name] for name in names.index} if embeddings else {}
    check_embeddings({name: arrays[name] for name in names.index}, len(table))
    wanted = [(name, draw) for name in ("", *names.index) for draw in range(p.added_draws)]
    calls = [
        ((p.added_size, draw), ("accuracy", "structure", *([name] if name else [])))
        for name, draw in wanted
    ]
    found = complete(fit_added, calls, arrays, parts, jobs, "fitting", "fit")
    rows = [
        {
            "embedding": names["embedding"].get(name, ""),
            "training_seed": names["training_seed"].get(name, pd.NA),
            "draw": draw,
            "kendall": tau,
        }
        for (name, draw), tau in zip(wanted, found, strict=True)
    ]
    return pd.DataFrame(rows).astype({"training_seed": "Int64"})


def fit_added(size: int, draw: int, accuracy: np.ndarray, *inputs: np.ndarray) -> float:
    """Kendall's tau of the Gaussian process on all inputs side by side, for one draw."""
    x = np.hstack(inputs)
    fitted, others = _drawn(accuracy, size, draw)
    with _one_thread():
        predict = fit_gaussian_process(x[fitted], normal_scores(accuracy[fitted]), draw)
        return float(score(accuracy[others], predict(x[others]))["kendall"])


def differences(scores: pd.DataFrame, one: str, other: str, metric: str) -> pd.DataFrame:
    """A metric of one predictor minus that of another on the same draws.

    Takes rows of `score_all` of one protocol and sample; returns `size`, `draw`, `value`.
    """
    wide = scores.pivot(index=["size", "draw"], columns="predictor", values=metric)
    return (wide[one] - wide[other]).dropna().rename("value").reset_index()


def judge_failed(scores: pd.DataFrame) -> pd.DataFrame:
    """Judge that dropping failed cells before fitting raises Pearson's r, by predictor and size.

    Draws that hold no failed cell say nothing and do not count.
    """
    rows = scores[(scores["protocol"] == "value") & (scores["failed"] > 0)]
    wide = rows.pivot(index=["size", "draw"], columns=["sample", "predictor"], values="pearson")
    parts = [
        ("failed", f"{name}, {size:,} cells", "greater", values[name])
        for size, found in wide.groupby("size")
        for values in [found["random, passed"] - found["random"]]
        for name in ORDER
        if name in values
    ]
    return judge(parts, MARGIN)


def judge_structure(scores: pd.DataFrame) -> pd.DataFrame:
    """Judge that the forest ranks better by structure features than by the plain encoding."""
    gains = differences(scores[scores["protocol"] == "rank"], FOREST, PLAIN, "kendall")
    parts = [
        ("structure", f"{size:,} cells", "greater", values)
        for size, values in gains.groupby("size")["value"]
    ]
    return judge(parts, MARGIN)


def judge_best(scores: pd.DataFrame, size: int) -> tuple[str, pd.DataFrame]:
    """Name the predictor with the best mean tau, and judge that it is better than each other.

    It is chosen by the same draws, among the predictors that were fitted on all of them, so that
    the judgement is slightly in its favour.
    """
    rows = scores[(scores["protocol"] == "rank") & (scores["size"] == size)]
    found = rows.groupby("predictor")["kendall"].agg(["mean", "count"])
    best = str(found.loc[found["count"] == found["count"].max(), "mean"].idxmax())
    parts = [
        ("best", name, "greater", differences(rows, best, name, "kendall")["value"])
        for name in ORDER
        if name != best
    ]
    return best, judge(parts, ADDED_MARGIN)


def judge_added(added: pd.DataFrame) -> pd.DataFrame:
    """Judge that embeddings add to the structure features, over trainings; rows by embedding.

    A difference in tau is that between fits on the same draw, averaged over draws. Without
    embeddings every claim is undecided.
    """
    alone = added[added["embedding"] == ""].set_index("draw")["kendall"]
    gains = added.assign(value=added["kendall"] - added["draw"].map(alone))
    means = gains.groupby(["embedding", "training_seed"])["value"].mean()
    parts = [
        ("added", f"{{{name}}}", "greater", means.get(name, pd.Series(dtype=float)))
        for name in EMBEDDINGS
    ]
    return judge(parts, ADDED_MARGIN).assign(embedding=EMBEDDINGS)


def _drawn(accuracy: np.ndarray, size: int, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the cells of a draw, and of all others whose accuracy is known."""
    known = np.random.default_rng(draw).permutation(np.flatnonzero(np.isfinite(accuracy)))
    return known[:size], known[size:]


def _scores(protocol: str, truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """METRICS of a protocol for (m,) predictions.

    `precision` is that of the best 1 %, one cell at least; `kendall_best` is tau within the best
    tenth by true accuracy.
    """
    found, count = score(truth, predicted), max(1, round(len(truth) / 100))
    chosen, best = (np.argsort(-v, kind="stable")[:count] for v in (predicted, truth))
    tenth = truth >= np.quantile(truth, 0.9)
    extra = {
        "precision": float(np.isin(chosen, best).mean()),
        "kendall_best": score(truth[tenth], predicted[tenth])["kendall"],
    }
    return {name: (found | extra)[name] for name in METRICS[protocol]}


def _one_thread() -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)  # the same bits whatever the number of processes
