"""Regret of the searches over simulated time (Figs 5 and 6), and the paper's findings on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ionas.tasks.intervals import bootstrap, judge, paired_differences

METRICS = ("validation", "test")
ALL = "all"  # of the trainings together
REFERENCE = "arch2vec_original"
MARGIN = 0.1  # differences below this share of the reference's regret do not matter
POINTS = 120  # times in a figure
# What the paper says: how test regrets at the end compare with the reference's.
AS_WELL, WORSE = "searches as well as the original", "searches worse than the original"
FINDINGS = {
    AS_WELL: ("same", ("io_mean", "accuracy_mean")),
    WORSE: ("greater", ("arch2vec", "io_flatten", "accuracy_flatten")),
}


def curves(walks: pd.DataFrame, setting: Mapping[str, Any], seed: int) -> pd.DataFrame:
    """Compute the `regret_curves` of Figure 5 and, `shifted`, of Figure 6.

    In Figure 6 the searches of the IO model and of the Accuracy model begin when their labels are
    paid for. Neither arch2vec is shifted: the jointly trained one has seen labeled cells, but no
    label. Takes the results of `reinforce.search_all` and `reinforce.setting`, and the seed of the
    bootstrap.
    """
    label_cost = setting["label_cost"]
    shifts = {
        name: label_cost[model]
        for name in walks["embedding"].unique()
        for model in label_cost
        if name.startswith(f"{model}_")
    }
    end = setting["budget"]
    ends = {False: (end, {}), True: (end + max(label_cost.values()), shifts)}
    tables = [
        regret_curves(walks, np.linspace(0, last, POINTS + 1)[1:], by, seed).assign(shifted=shifted)
        for shifted, (last, by) in ends.items()
    ]
    return pd.concat(tables, ignore_index=True)


def regret_curves(
    walks: pd.DataFrame, times: np.ndarray, shifts: Mapping[str, float], seed: int = 0
) -> pd.DataFrame:
    """Mean regret over runs at fixed times, with a 95 % interval by bootstrap.

    Takes the result of `reinforce.search_all`, (T,) times, and by embedding the time spent before
    its search begins, which is added to the time of every result. Returns `embedding`, `training`
    (the seed of one as text, or `all`), `time`, `metric` (of METRICS), `mean`, `low`, `high`; NaN
    until every run has a result. The interval of `all` is over trainings and runs, that of one
    training over its runs.
    """
    tables = []
    for name, found in walks.groupby("embedding", sort=False):
        shifted = times - shifts.get(str(name), 0.0)
        for metric in METRICS:
            trained = found.groupby("training_seed")
            each = {str(number): regret_at(rows, shifted, metric) for number, rows in trained}
            every = list(each.values()) or [regret_at(found, shifted, metric)]
            for training, runs in {ALL: every, **{key: [one] for key, one in each.items()}}.items():
                mean, low, high = bootstrap(runs, seed)
                ends = {"mean": mean, "low": low, "high": high}
                keys = {"embedding": name, "training": training, "time": times, "metric": metric}
                tables.append(pd.DataFrame({**keys, **ends}))
    return pd.concat(tables, ignore_index=True)


def regret_at(walks: pd.DataFrame, times: np.ndarray, metric: str) -> np.ndarray:
    """Regret of each run at (T,) times, by its last result so far: (R, T), NaN before the first."""
    rows = []
    for _, run in walks.groupby("run"):
        last = np.searchsorted(run["time"].to_numpy(), times, side="right") - 1
        regret = run[f"{metric}_regret"].to_numpy()
        rows.append(np.where(last >= 0, regret[last], np.nan))
    return np.stack(rows)


def final_regret(curves: pd.DataFrame, metric: str = "test") -> pd.DataFrame:
    """Rows of `curves` at the end of the budget, of one metric, not shifted."""
    rows = curves[(curves["metric"] == metric) & ~curves["shifted"]]
    last = rows[rows["time"] == rows["time"].max()]
    return last.drop(columns=["time", "metric", "shifted"]).reset_index(drop=True)


def effort(walks: pd.DataFrame) -> pd.DataFrame:
    """Mean `queries` of a run and `least` test regret of all runs, by search and training."""
    keys = ["embedding", "training_seed"]
    runs = walks.groupby([*keys, "run"], sort=False, dropna=False).tail(1)
    found = runs.assign(queries=runs["step"] + 1).groupby(keys, sort=False, dropna=False)
    return found.agg(queries=("queries", "mean"), least=("test_regret", "min")).reset_index()


def differences(curves: pd.DataFrame) -> pd.DataFrame:
    """Test regret at the end minus that of the original arch2vec of the same training.

    Returns `embedding`, `training` and `value`; random search has no training, and is compared with
    every one.
    """
    final = final_regret(curves)
    trained = final["embedding"].isin(final.loc[final["training"] != ALL, "embedding"])
    final = final[(final["training"] != ALL) | ~trained]
    final = final.assign(training=final["training"].where(final["training"] != ALL))
    return paired_differences(final, REFERENCE, ["training"], "mean")


def findings(curves: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """The FINDINGS by `intervals.judge`, and the margin: a tenth of the reference's regret."""
    final = final_regret(curves).query("training == @ALL").set_index("embedding")["mean"]
    margin = MARGIN * float(final.get(REFERENCE, np.nan))
    values = differences(curves).groupby("embedding")["value"]
    parts = [
        (finding, f"{{{name}}}", claim, values.get_group(name) if name in values.groups else [])
        for finding, (claim, names) in FINDINGS.items()
        for name in names
    ]
    return judge(parts, margin), margin
