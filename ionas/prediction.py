"""Predict accuracy from embeddings (paper, sections 6 and H; METHOD 10).

A regressor learns the accuracy of n cells from their embeddings and is scored on all others above
an accuracy threshold. Nothing here knows where an embedding comes from.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ionas import parallel

METRICS = ("pearson", "rmse", "kendall", "spearman")
REGRESSORS = ("random_forest", "gaussian_process")
TREES, MAX_FEATURES = 200, 4  # of the paper's forest
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

    Returns
    -------
    DataFrame
        `embedding`, `size`, `seed`, `pearson`, `rmse`, `kendall`, `spearman`, `scored` (number of
        cells scored), `note` (why a correlation is NaN, or empty); in the order embedding, size,
        seed.

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
        )
        for name, values in embeddings.items()
        for size in sizes
        for seed in seeds
    ]
    rows = parallel.run(_score, items, jobs, f"fitting: {regressor}", "fit")
    return pd.DataFrame(rows)


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
    return forest.fit(inputs, outputs).predict(others)


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
) -> dict[str, str | int | float]:
    from threadpoolctl import threadpool_limits

    scored = accuracy > threshold  # false where it is NaN
    scored[sample] = False
    inputs, outputs, others = values[sample], accuracy[sample], values[scored]
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
        "note": note,
    }


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
