"""Summaries of the runs of `search_runs`, and what they say of the methods."""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd

from ionas.tasks.intervals import all_hold, bootstrap, judge
from ionas.tasks.regret import POINTS, REFERENCE, regret_at
from ionas.tasks.search_runs import REGRETS

SIGNIFICANT = 0.05
RUN = ["search", "training_seed", "run"]


def joined(
    walks: pd.DataFrame, reinforce: pd.DataFrame | None, embeddings: tuple[str, ...]
) -> pd.DataFrame:
    """Add searches of notebook 06 in some embeddings, up to as many queries; None adds none.

    A walk of that notebook has no row where only its best cell changes: `best_regret` is missing.
    """
    if reinforce is None:
        return walks
    budget = walks["query"].max()
    rows = reinforce[reinforce["embedding"].isin(embeddings) & (reinforce["step"] < budget)]
    rows = rows.assign(search="reinforce_" + rows["embedding"], query=rows["step"] + 1)
    return pd.concat([walks, rows.reindex(columns=walks.columns)], ignore_index=True)


def curves(walks: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean test regret over queries and over time, with 95 % intervals by bootstrap.

    The times end where the searches of least cost, on average, have made their last query. Returns
    `search`, `axis` (`query` or `time`), `at`, `mean`, `low`, `high`; NaN until all runs have a
    result. Intervals are over trainings and runs.
    """
    budget = walks["query"].max()
    last = walks[walks["query"] == budget].groupby("search")["time"].mean().min()
    grids = {"query": np.arange(1, budget + 1), "time": np.linspace(0, last, POINTS + 1)[1:]}
    tables = []
    for name, rows in walks.groupby("search", sort=False):
        for axis, at in grids.items():
            timed = _trainings(rows.assign(time=rows[axis]))
            mean, low, high = bootstrap([regret_at(part, at, "test") for part in timed], seed)
            values = {"at": at, "mean": mean, "low": low, "high": high}
            tables.append(pd.DataFrame({"search": name, "axis": axis, **values}))
    return pd.concat(tables, ignore_index=True)


def at_end(walks: pd.DataFrame) -> pd.DataFrame:
    """The last row of every run: `search`, `training_seed`, `run`, and the rest of the walks."""
    return walks.groupby(RUN, sort=False, dropna=False).tail(1)


def end_table(ends: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean of each of the REGRETS at the end, with intervals as in `curves`.

    Returns `search`, `metric`, `mean`, `low`, `high`.
    """
    found, columns = [], [f"{metric}_regret" for metric in REGRETS]
    for name, rows in ends.groupby("search", sort=False):
        runs = [part[columns].to_numpy(float) for part in _trainings(rows)]
        for metric, *values in zip(REGRETS, *bootstrap(runs, seed), strict=True):
            found.append((name, metric, *values))
    return pd.DataFrame(found, columns=["search", "metric", "mean", "low", "high"])


def _trainings(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each training; all of them where there is none."""
    return [part for _, part in rows.groupby("training_seed")] or [rows]


def pair_tests(ends: pd.DataFrame, searches: list[str], seed: int) -> pd.DataFrame:
    """Compare the test regrets of every two searches without a training.

    Runs of the same number began with the same cells, and are paired. Returns `one`, `other`,
    `runs`; `difference`, the mean of one less that of the other, and `low` and `high`, its 95 %
    interval by bootstrap over runs; `p` of Wilcoxon's signed-rank test, and `adjusted` for the
    number of pairs (Holm 1979). `sign` is that of a significant difference, else 0. Significant are
    differences that both find: the test alone tells unlike distributions of an equal mean apart.
    """
    from scipy.stats import wilcoxon

    ends = ends[ends["search"].isin(searches)]
    regrets = ends.pivot(index="run", columns="search", values="test_regret")
    found = pd.DataFrame(list(combinations(searches, 2)), columns=["one", "other"])
    apart = [regrets[one] - regrets[other] for one, other in found.to_numpy()]
    ends_of = [np.concatenate(bootstrap([x.to_numpy()[:, None]], seed)) for x in apart]
    found = found.assign(runs=len(regrets))
    found[["difference", "low", "high"]] = ends_of
    p = pd.Series([float(wilcoxon(x).pvalue) if x.any() else 1.0 for x in apart])
    ordered = p.sort_values(kind="stable")
    adjusted = (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1)
    found = found.assign(p=p, adjusted=adjusted)
    both = (found["adjusted"] < SIGNIFICANT) & (found["low"] * found["high"] > 0)
    return found.assign(sign=np.sign(found["difference"]).where(both, 0))


def reached(walks: pd.DataFrame, target: float) -> pd.DataFrame:
    """When each run first has an incumbent of at most this test regret.

    Returns `search`, `training_seed`, `run`, `query` and `time`, infinite where it never has one.
    """
    hits = walks[walks["test_regret"] <= target].groupby(RUN, sort=False, dropna=False).head(1)
    every = walks[RUN].drop_duplicates().merge(hits[[*RUN, "query", "time"]], "left", RUN)
    return every.fillna({"query": np.inf, "time": np.inf})


def against(tests: pd.DataFrame, name: str, others: list[str]) -> pd.DataFrame:
    """The tests of one search, a row per other search.

    Returns the other's regret less its own: `difference`, `low`, `high`, `adjusted` and `sign`.
    """
    turned = tests.assign(one=tests["other"], other=tests["one"], low=-tests["high"])
    turned = turned.assign(high=-tests["low"], **-tests[["difference", "sign"]])
    rows = pd.concat([tests, turned]).query("other == @name").set_index("one").loc[others]
    return rows[["difference", "low", "high", "adjusted", "sign"]]


def same_order(real: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Whether two sets of tests have the same order in pairs where `real` is significant.

    Returns `one`, `other`, `same`, whether the differences have the same sign, and `sign`, 1 or -1
    if so or not, or 0 where the difference of the other is not significant.
    """
    both = real.merge(other, on=["one", "other"], suffixes=("", "_of")).query("sign != 0")
    same = both["sign"] * both["difference_of"] > 0
    return both[["one", "other"]].assign(same=same, sign=both["sign"] * both["sign_of"])


def all_positive(signs: Iterable[float]) -> bool | None:
    """Whether all signs are 1: False if one is -1, else None if one is 0 or there is none."""
    return all_hold({1: True, -1: False}.get(int(sign)) for sign in signs)


def embedding_gains(ends: pd.DataFrame, margin: float, metric: str = "test") -> pd.DataFrame:
    """Judge whether Bayesian optimisation finds better cells in IO embeddings than in arch2vec's.

    The regret in an embedding less that in the original arch2vec of the same training, mean over
    runs; see `intervals.judge`.
    """
    names, reference = ["bo_io_flatten", "bo_io_mean"], f"bo_{REFERENCE}"
    means = ends.groupby(["training_seed", "search"])[f"{metric}_regret"].mean().unstack("search")
    apart = means.reindex(columns=[*names, reference]).astype(float)
    apart = apart[names].sub(apart[reference], axis=0)
    return judge([("io", f"{{{n}}}", "less", apart[n].dropna()) for n in names], margin)
