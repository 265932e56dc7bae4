"""Predict accuracy from embeddings (paper, sections 6 and H; METHOD 10).

A regressor learns the accuracy of n cells from their embeddings and is scored on all others above
an accuracy threshold. Nothing here knows where an embedding comes from.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ionas import parallel
from ionas.paper import paper_table
from ionas.space.cells import CellSet, cell_tensors

METRICS = ("pearson", "rmse", "kendall", "spearman")
REGRESSORS = ("random_forest", "gaussian_process")
TREES, MAX_FEATURES = 200, 4  # of the paper's forest
REFERENCES = ("latent", "encoding")  # rows that the paper does not have
FINDINGS = {  # of the paper, as `judge` names them
    "sizes": "arch2vec is steady, IO and Accuracy model gain and pass it",
    "flatten": "flatten better than mean",
    "accuracy": "Accuracy model better than IO model",
    "original": "original arch2vec poor with few cells",
}
TOUCHING = 1e-9  # intervals that meet in a rounded number overlap
SORTING_TREES = 3
CHUNK = 20_000  # cells predicted at a time, so that a kernel matrix stays small


def score_grid(
    embeddings: Mapping[str, np.ndarray],
    accuracy: np.ndarray,
    labeled: np.ndarray,
    sizes: Sequence[int],
    seeds: Sequence[int],
    threshold: float = 0.8,
    regressor: str = "random_forest",
    trees: int = TREES,
    max_features: int | float | Mapping[str, int | float] = MAX_FEATURES,
    jobs: int = 0,
    passed_only: bool = False,
    kept: Path | None = None,
) -> pd.DataFrame:
    """Fit and score a regressor for every embedding, sample size and seed.

    The sample of a seed holds the labeled cells first (a random part of them where the size is
    smaller), then random other cells. It is the same for every embedding, and the samples of one
    seed contain each other.

    Parameters
    ----------
    embeddings
        Name -> (N, D).
    accuracy
        (N,) true accuracies; cells with NaN take no part.
    labeled
        Row numbers of the labeled cells; none of them for wholly random samples.
    sizes, seeds
        Numbers of cells fitted on (paper: 608, 2,500, 10,000) and seeds (paper: 10).
    threshold
        Only cells with a larger true accuracy are scored, on all that were not fitted on
        (paper: 0.8).
    regressor
        `random_forest`, or `gaussian_process` (see `predict_gaussian_process`).
    trees, max_features
        Of the forest (paper: 200 and 4). `max_features` is a number of inputs, or a share of them
        if it is a float, one for all or one per name (4 where a name is missing); never more than
        there are.
    jobs
        Processes, as in `ionas.parallel.run`.
    passed_only
        Fit only on the part of each sample above the threshold, and not at all if that has fewer
        than two cells; the paper fits on all of it.
    kept
        Folder for the scores of single fits, with which a stopped call goes on; see
        `ionas.parallel.run`.

    Returns
    -------
    DataFrame
        `embedding`, `size`, `seed`, `pearson`, `rmse`, `kendall`, `spearman`, `scored` (number of
        cells scored), `failed` (number of cells in the sample at or below the threshold), `note`
        (why a score is NaN, or empty); in the order embedding, size, seed.

    Raises
    ------
    ValueError
        If shapes do not fit, an embedding is not finite, or a size leaves fewer than two cells to
        score.
    """
    accuracy = np.asarray(accuracy, np.float64)
    labeled = np.asarray(labeled, np.int64)
    _check(embeddings, accuracy, labeled, sizes, seeds, regressor)
    known = np.flatnonzero(np.isfinite(accuracy))
    orders = {seed: _order(known, labeled, seed) for seed in seeds}
    samples = {(size, seed): orders[seed][:size] for size in sizes for seed in seeds}
    for (size, _), sample in samples.items():
        left = accuracy > threshold  # false where it is NaN
        left[sample] = False
        if len(sample) < size or left.sum() < 2:
            raise ValueError(
                f"size {size} of {len(known)} cells with an accuracy leaves {left.sum()} above "
                f"{threshold:g} to score; choose a smaller size or threshold"
            )
    if not isinstance(max_features, Mapping):
        max_features = dict.fromkeys(embeddings, max_features)
    tried = {name: max_features.get(name, MAX_FEATURES) for name in embeddings}
    items = [
        (
            name,
            values,
            accuracy,
            samples[size, seed],
            seed,
            threshold,
            regressor,
            trees,
            tried[name],
            passed_only,
        )
        for name, values in embeddings.items()
        for size in sizes
        for seed in seeds
    ]
    rows = parallel.run(_score, items, jobs, f"fitting: {regressor}", "fit", kept)
    return pd.DataFrame(rows)


def score_trainings(
    embeddings: Mapping[str, np.ndarray],
    accuracy: np.ndarray,
    labeled: np.ndarray,
    sizes: Sequence[int],
    seeds: int = 10,
    other_seeds: int = 3,
    max_features: int = MAX_FEATURES,
    reference_features: float = 0.33,
    **settings: Any,
) -> pd.DataFrame:
    """Run `score_grid` on the embeddings of several trainings.

    Parameters
    ----------
    embeddings
        Name -> (N, D). `NAME_seedS` belongs to the training with seed S; a name without that
        ending was not trained.
    seeds, other_seeds
        Regressor seeds, from 0, of the first training (that of the smallest seed) and of what was
        not trained; and of each other training.
    max_features, reference_features
        Inputs tried per split, and the share of them in the rows of REFERENCES.
    accuracy, labeled, sizes, settings
        As in `score_grid`.

    Returns
    -------
    DataFrame
        As from `score_grid`, with `training_seed` as from `with_training_seed`.
    """
    names = _named(embeddings)
    first = _first(names["training_seed"])
    features = {
        name: reference_features if base in REFERENCES else max_features
        for name, base in names["embedding"].items()
    }
    parts = [
        score_grid(
            {name: embeddings[name] for name in names.index[chosen]}, accuracy, labeled, sizes,
            range(count), max_features=features, **settings,
        )
        for chosen, count in ((first, seeds), (~first, other_seeds))
        if chosen.any()
    ]  # fmt: skip
    return with_training_seed(pd.concat(parts, ignore_index=True))


def score_samples(
    scores: pd.DataFrame,
    embeddings: Mapping[str, np.ndarray],
    accuracy: np.ndarray,
    labeled: np.ndarray,
    sizes: Sequence[int],
    seeds: int = 10,
    other_seeds: int = 3,
    **settings: Any,
) -> pd.DataFrame:
    """Set fits of the first training beside fits on other samples.

    Only cells above the threshold are scored, but samples hold others, too. On NAS-Bench-101 these
    are cells whose training failed, and how many of them a small sample holds is luck.

    Parameters
    ----------
    scores
        From `score_trainings` with all that follows.
    seeds, other_seeds
        Of random samples, and of all else.

    Returns
    -------
    DataFrame
        As from `score_trainings`, with `sample`: `paper`, rows of `scores`; `passed`, the same
        samples without failed cells; `random`, as many random cells as the smallest size, a draw
        per seed; `random, passed`, those draws without failed cells.
    """
    names = _named(embeddings)
    chosen = {name: embeddings[name] for name in names.index[_first(names["training_seed"])]}
    parts = {
        "passed": (labeled, sizes, other_seeds, True),
        "random": ([], [min(sizes)], seeds, False),
        "random, passed": ([], [min(sizes)], seeds, True),
    }
    of_paper = _first(scores["training_seed"]) & (scores["seed"] < other_seeds)
    tables = [scores[of_paper].assign(sample="paper")]
    for sample, (cells, of, count, passed) in parts.items():
        table = score_trainings(chosen, accuracy, cells, of, count, passed_only=passed, **settings)  # type: ignore[arg-type]
        tables.append(table.assign(sample=sample))
    return pd.concat(tables, ignore_index=True)


def score(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float | str]:
    """Pearson's r, RMSE, Kendall's tau-b and Spearman's rho of (n,) predictions, n at least 2.

    Where the truth or the prediction is constant the correlations are NaN, and `note` says so.
    """
    from scipy.stats import kendalltau, rankdata

    truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    rmse = float(np.sqrt(np.mean((truth - prediction) ** 2)))
    values = {"accuracies": truth, "predictions": prediction}
    constant = [name for name, v in values.items() if np.ptp(v) <= 1e-12 * abs(v).max()]
    undefined = float("nan")
    return {
        "pearson": undefined if constant else _pearson(truth, prediction),
        "rmse": rmse,
        "kendall": undefined if constant else float(kendalltau(truth, prediction).statistic),
        "spearman": undefined if constant else _pearson(rankdata(truth), rankdata(prediction)),
        "note": f"no correlation: all {' and '.join(constant)} are equal" if constant else "",
    }


def predict_forest(
    inputs: np.ndarray,
    outputs: np.ndarray,
    others: np.ndarray,
    seed: int,
    trees: int = TREES,
    max_features: int | float = MAX_FEATURES,
) -> np.ndarray:
    """Fit a random forest on (n, D) inputs and (n,) outputs, predict (m,) outputs of the others.

    `max_features` is the number of inputs tried per split, or a share of them if it is a float.
    """
    from sklearn.ensemble import RandomForestRegressor

    if isinstance(max_features, int):
        max_features = min(max_features, inputs.shape[1])
    forest = RandomForestRegressor(trees, max_features=max_features, random_state=seed, n_jobs=1)
    forest.fit(inputs, outputs)
    # Rows that end in the same leaves follow each other: their ways down the other trees are then
    # much the same, which spares the processor half of its wrong guesses. No prediction changes.
    order = np.lexsort([tree.apply(others) for tree in forest.estimators_[:SORTING_TREES]])
    predicted = np.empty(len(others))
    predicted[order] = forest.predict(others[order])
    return predicted


def predict_gaussian_process(
    inputs: np.ndarray, outputs: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Fit a Gaussian process on (n, D) inputs and (n,) outputs, predict (m,) outputs of the others.

    The regressor of the original arch2vec experiment, whose settings were not published. Ours:
    inputs and outputs standardised; kernel = constant * squared exponential with one length scale
    + white noise. All three are fitted by maximum likelihood, from 1, sqrt(D) and 0.1, no restarts.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.preprocessing import StandardScaler

    width = inputs.shape[1]
    kernel = ConstantKernel(1.0) * RBF(np.sqrt(width), (1e-2, 1e4)) + WhiteKernel(0.1, (1e-4, 1e2))
    scaler = StandardScaler().fit(inputs)
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():  # a parameter at its bound: the inputs tell nothing
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(scaler.transform(inputs), outputs)
    parts = range(0, len(others), CHUNK)
    return np.concatenate(
        [process.predict(scaler.transform(others[start : start + CHUNK])) for start in parts]
    )


def accuracy_threshold(accuracy: np.ndarray, excluded: float = 0.019) -> float:
    """Accuracy that all but a share of the cells exceed.

    The paper scores cells above 0.8. On NAS-Bench-101 that leaves out the 1.9 % of cells whose
    training failed. On other tables 0.8 may mean something else; the rule here leaves out the same
    share.

    Raises
    ------
    ValueError
        If the share is not in 0 to 1 or no accuracy is finite.
    """
    accuracy = np.asarray(accuracy, np.float64)
    accuracy = accuracy[np.isfinite(accuracy)]
    if not 0 <= excluded < 1 or not len(accuracy):
        raise ValueError(
            f"cannot leave out a share of {excluded} of {len(accuracy)} accuracies; the share must "
            "be at least 0 and below 1, and there must be accuracies"
        )
    return float(np.quantile(accuracy, excluded)) if excluded else float("-inf")


def plain_encoding(adjacency: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Cells as they are: edge bits (N, V, V) above the diagonal, then one-hot operations (N, V, O).

    Returns
    -------
    ndarray
        (N, V * (V - 1) / 2 + V * O) float32.
    """
    rows, columns = np.triu_indices(adjacency.shape[1], 1)
    flat = operations.reshape(len(operations), -1)
    return np.hstack([adjacency[:, rows, columns], flat]).astype(np.float32)


def encode_cells(cells: CellSet) -> np.ndarray:
    """Plain encoding of cells, padded to the largest of them: (N, D) float32."""
    size = int(cells.n_vertices.max())
    adjacency, operations = (tensor[:, :size].numpy() for tensor in cell_tensors(cells))
    return plain_encoding(adjacency[:, :, :size], operations)


def sample_sizes(sizes: Iterable[int], accuracy: np.ndarray, labeled: np.ndarray) -> list[int]:
    """Distinct sizes, ascending; 0 stands for the number of labeled cells with an accuracy."""
    count = int(np.isfinite(accuracy[labeled]).sum())
    return sorted({size or count for size in sizes})


def with_training_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """Split names such as `io_mean_seed2` into `embedding` and `training_seed`.

    A name without that ending was not trained: its `training_seed` is missing (NA).
    """
    parts = scores["embedding"].str.extract(r"^(?P<name>.*?)(?:_seed(?P<seed>\d+))?$")
    seeds = pd.to_numeric(parts["seed"]).astype("Int64")
    result = scores.assign(embedding=parts["name"])
    result.insert(1, "training_seed", seeds)
    return result


def summarise(scores: pd.DataFrame, training_seed: int | None = None) -> pd.DataFrame:
    """Mean and 95 % interval of each metric, as the paper has it and over trainings.

    Parameters
    ----------
    scores
        From `score_grid`, with a column `training_seed` if there are several trainings.
    training_seed
        The training that the paper's kind of interval is about; the smallest if None.

    Returns
    -------
    DataFrame
        One row per `embedding`, `size`, `metric` and `interval`, with `mean`, `low`, `high` =
        mean -+ 1.96 standard errors and `count`. Interval `regressor`: over the regressor seeds of
        one training, as in the paper; it leaves out how much trainings differ. Interval `training`
        (only with the column `training_seed`): over the trainings, each being the mean of its
        regressor seeds. With fewer than two values the interval is NaN, and a score that is NaN
        does not count.
    """
    long = scores.melt(
        id_vars=[c for c in ("embedding", "training_seed", "size", "seed") if c in scores],
        value_vars=list(METRICS),
        var_name="metric",
    )
    keys = ["embedding", "size", "metric"]
    one, parts = long, []
    if "training_seed" in scores:
        seeds = long["training_seed"]
        chosen = seeds.min() if training_seed is None else training_seed
        one = long[seeds.isna() | (seeds == chosen)]
        means = long.groupby([*keys, "training_seed"], sort=False, dropna=False)["value"].mean()
        parts = [("training", means.reset_index())]
    tables = []
    for interval, values in [("regressor", one), *parts]:
        table = values.groupby(keys, sort=False)["value"].agg(["mean", "std", "count"])
        half = 1.96 * table.pop("std") / np.sqrt(table["count"])
        table.insert(0, "interval", interval)
        table.insert(2, "low", table["mean"] - half)
        table.insert(3, "high", table["mean"] + half)
        tables.append(table.reset_index())
    return pd.concat(tables, ignore_index=True)


def of_sample(samples: pd.DataFrame, sample: str) -> pd.DataFrame:
    """Rows of `score_samples` of one sample, as `summarise` gives them, with Student's t."""
    rows = samples[samples["sample"] == sample].drop(columns="training_seed")
    return student(summarise(rows))


class Tally(NamedTuple):
    """In how many comparisons one side is clearly better, clearly worse, and of how many."""

    better: int
    worse: int
    of: int


def tally(
    summary: pd.DataFrame,
    pairs: Iterable[tuple[tuple[str, int], tuple[str, int]]],
    metric: str = "pearson",
) -> Tally:
    """Compare the first (embedding, size) of each pair with the second.

    It is clearly better or worse if the two 95 % intervals do not overlap. For RMSE smaller is
    better. A pair of which an interval is missing is left out.

    Parameters
    ----------
    summary
        One row per `embedding`, `size` and `metric`: one kind of interval of `summarise`.
    """
    rows = summary[summary["metric"] == metric].set_index(["embedding", "size"])
    sign = -1 if metric == "rmse" else 1
    better = worse = of = 0
    for a, b in pairs:
        ends = [sorted(sign * rows.loc[key, ["low", "high"]].to_numpy(float)) for key in (a, b)]
        (low_a, high_a), (low_b, high_b) = ends
        of += bool(np.isfinite(ends).all())
        better += bool(low_a > high_b + TOUCHING)
        worse += bool(high_a < low_b - TOUCHING)
    return Tally(better, worse, of)


def judged(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows of `summarise` that verdicts rest on, one per embedding, size and metric.

    The interval over trainings; that over regressor seeds where there are not two trainings.
    """
    rows = summary.sort_values("interval", ascending=False, kind="stable")  # training first
    rows = rows[rows["low"].notna() | (rows["interval"] == "regressor")]
    return rows.drop_duplicates(["embedding", "size", "metric"]).sort_index()


def student(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows of `summarise` with intervals by Student's t, which are right for few values.

    The factor 1.96 holds for many; of three values it should be 4.30.
    """
    from scipy.stats import t

    factor = t.ppf(0.975, (summary["count"] - 1).clip(lower=1)) / 1.96
    half = (summary["high"] - summary["mean"]) * factor
    return summary.assign(low=summary["mean"] - half, high=summary["mean"] + half)


def judge(
    summary: pd.DataFrame, labels: Mapping[str, str] | None = None
) -> dict[str, tuple[bool | None, str]]:
    """Whether intervals show what the paper found (section 6), by stated rules.

    Better and worse are those of `tally`: only clear differences count.

    - `sizes`: (1) arch2vec, trained jointly, is neither better nor worse at the largest size than
      at the smallest, while at least one embedding of the other models is better; (2) an embedding
      of the IO model is better at the largest size than at the smallest, and there better than both
      arch2vec; (3) so is one of the Accuracy model. By Pearson's r.
    - `flatten`: flatten is more often better than worse than mean, of the same model at the same
      size; (1) by Pearson's r, (2) by RMSE.
    - `accuracy`: the same for Accuracy model against IO model, with the same embedding method.
    - `original`: each other embedding is better than arch2vec original at the smallest size, by
      Pearson's r.

    Parameters
    ----------
    summary
        One row per `embedding`, `size`, `metric`: one kind of interval of `summarise`, or `judged`.
    labels
        Readable names of the embeddings; one without stays as it is.

    Returns
    -------
    dict
        Finding -> (True if all its parts hold, False if none, None otherwise or if there is nothing
        to compare; what was seen, in words).
    """
    models, methods = ("io", "accuracy"), ("flatten", "mean")
    return {
        "sizes": _judge_sizes(summary, models, methods, labels or {}),
        "flatten": _judge_better(
            summary, "flatten", "mean", [(f"{m}_flatten", f"{m}_mean") for m in models]
        ),
        "accuracy": _judge_better(
            summary,
            "the Accuracy model",
            "the IO model",
            [(f"accuracy_{m}", f"io_{m}") for m in methods],
        ),
        "original": _judge_original(
            summary, ["arch2vec", *(f"{model}_{method}" for model in models for method in methods)]
        ),
    }


def verdicts(judgements: Mapping[str, Mapping[str, tuple[bool | None, str]]]) -> pd.DataFrame:
    """Results of `judge` side by side: a row per finding, a column per name, in words."""
    words = {True: "yes", False: "no", None: "in part"}
    return pd.DataFrame(
        {
            name: {FINDINGS[key]: words[shows] for key, (shows, _) in found.items()}
            for name, found in judgements.items()
        }
    )


def paper_scores() -> pd.DataFrame:
    """Tables 6 and 7 of the paper in the form of `summarise`, with its intervals."""
    parts = [paper_table(n).assign(metric=name) for n, name in ((6, "pearson"), (7, "rmse"))]
    table = pd.concat(parts, ignore_index=True).assign(interval="regressor")
    half = table.pop("half_width")
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def against_references(summary: pd.DataFrame, metric: str = "pearson") -> pd.DataFrame:
    """Of how many trained embeddings each reference row is clearly ahead, and behind how many.

    Parameters
    ----------
    summary
        As in `tally`, best from `judged`.

    Returns
    -------
    DataFrame
        `embedding` (of REFERENCES), `size`, `better`, `worse`, `of`.
    """
    others = [name for name in summary["embedding"].unique() if name not in REFERENCES]
    return pd.DataFrame(
        [
            {"embedding": name, "size": size, **tally(summary, pairs, metric)._asdict()}
            for name in REFERENCES
            for size in sorted(summary["size"].unique())
            for pairs in [[((name, size), (other, size)) for other in others]]
        ]
    )


def _named(embeddings: Iterable[str]) -> pd.DataFrame:
    """Names by `with_training_seed`, indexed by themselves as they were."""
    names = with_training_seed(pd.DataFrame({"embedding": list(embeddings)}))
    return names.set_axis(pd.Index(embeddings))


def _first(training: pd.Series) -> pd.Series:
    """Whether of the first training, that of the smallest seed, or not trained at all."""
    return (training.isna() | (training == training.min())).astype(bool)


def _judge_sizes(
    summary: pd.DataFrame,
    models: Sequence[str],
    methods: Sequence[str],
    labels: Mapping[str, str],
) -> tuple[bool | None, str]:
    first, last = int(summary["size"].min()), int(summary["size"].max())
    if first == last:
        return None, "one sample size says nothing about a change with size."
    r = summary[summary["metric"] == "pearson"].set_index(["embedding", "size"])["mean"]

    def path(name: str) -> str:
        return f"{labels.get(name, name)} {r[name, first]:.3f} to {r[name, last]:.3f}"

    change = tally(summary, [(("arch2vec", last), ("arch2vec", first))])
    steady = not (change.better or change.worse)
    seen = [f"{path('arch2vec')} ({'no clear change' if steady else 'a clear change'})"]
    gains, parts = 0, []
    for model in models:
        reached = []
        for name in (f"{model}_{method}" for method in methods):
            gain = tally(summary, [((name, last), (name, first))]).better
            rivals = [((name, last), (other, last)) for other in ("arch2vec", "arch2vec_original")]
            ahead = tally(summary, rivals).better
            gains += gain
            reached.append(gain == 1 and ahead == 2)
            seen.append(
                f"{path(name)} ({'a clear gain' if gain else 'no clear gain'}, "
                f"ahead of {ahead} of 2 arch2vec)"
            )
        parts.append(any(reached))
    if not change.of:
        return None, "there are no intervals to compare."
    parts.append(steady and gains > 0)
    return _verdict(parts), f"r from {_number(first)} to {_number(last)} cells: {'; '.join(seen)}."


def _judge_better(
    summary: pd.DataFrame, one: str, other: str, names: Sequence[tuple[str, str]]
) -> tuple[bool | None, str]:
    sizes = summary["size"].unique()
    pairs = [((a, size), (b, size)) for a, b in names for size in sizes]
    by_r, by_rmse = tally(summary, pairs), tally(summary, pairs, "rmse")
    if not by_r.of + by_rmse.of:
        return None, "there are no intervals to compare."
    return (
        _verdict([by_r.better > by_r.worse, by_rmse.better > by_rmse.worse]),
        f"of {by_r.of} comparisons by Pearson's r, {one} is clearly better than {other} in "
        f"{by_r.better} and clearly worse in {by_r.worse}; of {by_rmse.of} by RMSE, in "
        f"{by_rmse.better} and {by_rmse.worse}.",
    )


def _judge_original(summary: pd.DataFrame, others: Sequence[str]) -> tuple[bool | None, str]:
    size = int(summary["size"].min())
    count = tally(summary, [((name, size), ("arch2vec_original", size)) for name in others])
    if not count.of:
        return None, "there are no intervals to compare."
    return (
        {count.of: True, 0: False}.get(count.better),
        f"embeddings clearly better than the original arch2vec at {_number(size)} cells, by "
        f"Pearson's r: {count.better} of {count.of}; clearly worse: {count.worse}.",
    )


def _verdict(parts: Sequence[bool]) -> bool | None:
    return {len(parts): True, 0: False}.get(sum(parts))


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _check(
    embeddings: Mapping[str, np.ndarray],
    accuracy: np.ndarray,
    labeled: np.ndarray,
    sizes: Sequence[int],
    seeds: Sequence[int],
    regressor: str,
) -> None:
    if regressor not in REGRESSORS:
        raise ValueError(f"regressor is {regressor!r}; choose {' or '.join(REGRESSORS)}")
    if not (embeddings and len(sizes) and len(seeds)):
        raise ValueError("give at least one embedding, one size and one seed")
    if min(sizes) < 2:
        raise ValueError(f"size {min(sizes)} is too small: a regressor needs two cells")
    for name, values in embeddings.items():
        if values.ndim != 2 or len(values) != len(accuracy):
            raise ValueError(
                f"embedding {name!r} has shape {values.shape}; expected ({len(accuracy)}, D), "
                "one row per accuracy"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"embedding {name!r} holds values that are not finite")
    if len(np.unique(labeled)) < len(labeled):
        raise ValueError("a labeled cell is listed twice")
    if len(labeled) and not 0 <= labeled.min() <= labeled.max() < len(accuracy):
        raise ValueError(f"labeled cells must be row numbers in 0 to {len(accuracy) - 1}")


def _order(known: np.ndarray, labeled: np.ndarray, seed: int) -> np.ndarray:
    """Cells with an accuracy in the order in which they are fitted on: labeled first."""
    rng = np.random.default_rng(seed)
    first = np.isin(known, labeled)
    return np.concatenate([rng.permutation(known[first]), rng.permutation(known[~first])])


def _score(
    name: str,
    values: np.ndarray,
    accuracy: np.ndarray,
    sample: np.ndarray,
    seed: int,
    threshold: float,
    regressor: str,
    trees: int,
    max_features: int | float,
    passed_only: bool,
) -> dict[str, str | int | float]:
    from threadpoolctl import threadpool_limits

    passed = accuracy > threshold  # false where it is NaN
    scored = passed.copy()
    scored[sample] = False
    fitted = sample[passed[sample]] if passed_only else sample
    inputs, outputs, others = values[fitted], accuracy[fitted], values[scored]
    result: dict[str, float | str]
    if len(fitted) < 2:
        undefined = dict.fromkeys(METRICS, float("nan"))
        result = {**undefined, "note": f"not fitted: {len(fitted)} cells above the threshold"}
    else:
        with threadpool_limits(1):  # the same bits whatever the number of processes
            if regressor == "random_forest":
                prediction = predict_forest(inputs, outputs, others, seed, trees, max_features)
            else:
                prediction = predict_gaussian_process(inputs, outputs, others)
        result = score(accuracy[scored], prediction)
    note = result.pop("note")
    return {
        "embedding": name,
        "size": len(sample),
        "seed": seed,
        **result,
        "scored": int(scored.sum()),
        "failed": int((~passed[sample]).sum()),
        "note": note,
    }


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
