"""The simulated clock of a search: how much each run has spent, and how good its best cell is then.

Every query costs the training time of its cell in the benchmark; the time that the search itself
takes does not count.
"""

import numpy as np
import pandas as pd

from ionas.benchmark.table import Table

ACCURACIES = ("validation_accuracy", "test_accuracy")
COLUMNS = [*ACCURACIES, "cost"]


def with_cost(table: Table, cost: str = "time") -> pd.DataFrame:
    """Accuracies of the cells of a table, and what a query of each costs.

    The cost is the training time or, for `evaluations`, 1. Returns N rows in the order of the
    table, with the COLUMNS; NaN where the table does not know a value. Raises ValueError if no cell
    has both a validation accuracy and a cost.
    """
    values = table.frame.reindex(columns=[*ACCURACIES, "training_time"]).astype(np.float64)
    measured = values.reset_index(drop=True).set_axis(COLUMNS, axis=1)
    if cost == "evaluations":
        measured["cost"] = 1.0
    if not can_be_queried(measured).any():
        raise ValueError(
            f"no cell of the table {table.name!r} has both a validation accuracy and a training "
            "time, which a search needs; without times, reinforce.cost=evaluations counts trainings"
        )
    return measured


def can_be_queried(measured: pd.DataFrame) -> np.ndarray:
    """Whether validation accuracy and cost of a cell are known, (N,) bool."""
    return measured[["validation_accuracy", "cost"]].notna().all(axis=1).to_numpy()


def training_cost(measured: pd.DataFrame, cells: np.ndarray) -> float:
    """Total cost of some cells, which is what their labels cost a search (appendix G; METHOD 9).

    An unknown cost is replaced by the mean of the known ones of `cells` or, if none is known, of
    the table.
    """
    costs = measured["cost"].to_numpy()
    known = costs[cells][np.isfinite(costs[cells])]
    mean = known.mean() if len(known) else np.nanmean(costs)
    return float(known.sum() + (len(cells) - len(known)) * mean)


class Clock:
    """Records what several runs of a search, side by side, have spent (`elapsed`) and found.

    Takes a frame from `with_cost`; only cells that `can_be_queried` may be queried.
    """

    def __init__(self, measured: pd.DataFrame, runs: int = 1) -> None:
        self._measured = measured
        self._validation = measured["validation_accuracy"].to_numpy()
        self._cost = measured["cost"].to_numpy()
        self.elapsed = np.zeros(runs)
        self._log: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def query(self, cells: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
        """Evaluate one cell per run, (runs,) row numbers, and add its cost to the run's time.

        Runs that are not `active`, (runs,) bool, spend nothing and log nothing. Returns the (runs,)
        validation accuracies.
        """
        rows = np.flatnonzero(active) if active is not None else np.arange(len(self.elapsed))
        self.elapsed[rows] += self._cost[cells[rows]]
        self._log.append((rows, cells[rows], self.elapsed[rows].copy()))
        return self._validation[cells]

    def trajectories(self) -> pd.DataFrame:
        """Return all queries, run by run.

        Columns are `run`, `step`, `cell` and `time` (spent when the result is known), and of the
        incumbent, the cell with the best validation accuracy so far: `incumbent`,
        `validation_regret` and `test_regret`, the best accuracy of all cells minus that of the
        incumbent.
        """
        run, cell, time = (np.concatenate(part) for part in zip(*self._log, strict=True))
        frame = pd.DataFrame({"run": run, "cell": cell, "time": time})
        frame = frame.sort_values("run", kind="stable", ignore_index=True)
        frame.insert(1, "step", frame.groupby("run").cumcount())
        accuracy = pd.Series(self._validation[frame["cell"]])
        reached = accuracy.groupby(frame["run"]).cummax()
        improved = accuracy.eq(reached) & ~reached.eq(reached.groupby(frame["run"]).shift())
        frame["incumbent"] = frame["cell"].where(improved).groupby(frame["run"]).ffill().astype(int)
        for name in ACCURACIES:
            values = self._measured[name]
            regret = values.max() - values.to_numpy()[frame["incumbent"]]
            frame[f"{name.removesuffix('_accuracy')}_regret"] = regret
        return frame


def improvements(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Keep the queries that change the incumbent of a run, and its last: regret needs no others."""
    runs = trajectories.groupby("run")
    kept = trajectories["incumbent"].ne(runs["incumbent"].shift())
    kept |= runs["step"].transform("max").eq(trajectories["step"])
    return trajectories[kept].reset_index(drop=True)
