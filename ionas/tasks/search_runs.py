"""Runs of the methods of `searchers` on a table, and what each had found after every query."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ionas.benchmark.table import Table
from ionas.parameters import SearchMethods
from ionas.parts import Call, complete
from ionas.space.cells import CellSet
from ionas.space.encodings import paths, structure
from ionas.space.neighbors import neighbors
from ionas.tasks.clock import Clock, can_be_queried, with_cost
from ionas.tasks.embeddings import check_embeddings, split_names
from ionas.tasks.searchers import METHODS, Task, believed, scaled, search

UNTRAINED = ("random", "evolution", "local", "bananas", "guided")
BELIEVED = "guided_believed"  # the queries of `guided`, with incumbents of `searchers.believed`
EMBEDDINGS = ("arch2vec_original", "arch2vec", "io_flatten", "io_mean")  # of Bayesian optimisation
TOGETHER = 10  # runs of one call
REGRETS = ("validation", "test", "best")

Arrays = Mapping[str, np.ndarray]
Wanted = tuple[str, Any, str, int]  # name that begins with the method's, training, inputs, runs


def find_neighbors(table: Table, cost: str) -> dict[str, np.ndarray]:
    """The result of `linked` for the cells that can be queried."""
    return linked(table.cells, np.flatnonzero(can_be_queried(with_cost(table, cost))))


def linked(cells: CellSet, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Neighbors among (M,) rows of some cells.

    Returns `cells`, the rows; `starts` (M + 1,) and `ends`, the neighbors of cell i as places in
    the rows being `ends[starts[i] : starts[i + 1]]`; `edits`, see `neighbors`.
    """
    found, edits = neighbors(cells[rows])
    starts, ends = found.indptr.astype(np.int64), found.indices.astype(np.int64)
    return {"cells": rows, "starts": starts, "ends": ends, "edits": np.array([edits])}


def setting(table: Table, around: Arrays, p: SearchMethods) -> dict[str, Any]:
    """Settle what all searches have in common, and what a search can hope for.

    Returns the number of `cells`, of `searchable` ones, of `neighbors` on average, `edits`;
    `budget` in queries; `time_unit`; `best`, the best test accuracy; and `limit`, the test regret
    of the cell of the best validation accuracy, with which a search ends that misses nothing.
    """
    measured = with_cost(table, p.cost)
    test, searchable = measured["test_accuracy"], len(around["cells"])
    best = float(test.max())
    return {
        "cells": len(table),
        "searchable": searchable,
        "neighbors": len(around["ends"]) / searchable,
        "edits": int(around["edits"][0]),
        "budget": min(p.budget, searchable),
        "time_unit": "evaluations" if p.cost == "evaluations" else table.time_unit,
        "best": best,
        "limit": best - float(test[measured["validation_accuracy"].idxmax()]),
    }


def search_all(
    table: Table, around: Arrays, embeddings: Arrays | None, p: SearchMethods, **how: Any
) -> pd.DataFrame:
    """Run every method on a table, and Bayesian optimisation in embeddings where there are any.

    `bananas` sees the path encoding, others the structure features, `bo_NAME` the embedding NAME of
    each training, with `p.embedding_runs` runs. Takes the result of `find_neighbors` and, or None,
    `NAME_seedS` -> (N, D). Returns, and takes further, what `run_methods` does. Raises ValueError
    if an embedding does not fit the table or is not finite.
    """
    names = split_names(embeddings or {})
    names = names[names["embedding"].isin(EMBEDDINGS)]
    arrays = {name: (embeddings or {})[name] for name in names.index}
    check_embeddings(arrays, len(table))
    rows = around["cells"]
    inputs = {name: scaled(values[rows]) for name, values in arrays.items()}
    inputs["structure"] = scaled(structure(table.cells[rows]), columns=True)
    inputs["paths"] = scaled(paths(table.cells[rows]))
    encodings = dict.fromkeys(UNTRAINED, "structure") | {"bananas": "paths"}
    wanted = [(name, pd.NA, of, p.runs) for name, of in encodings.items()] + [
        (f"bo_{row.embedding}", row.training_seed, row.Index, p.embedding_runs)
        for row in names.itertuples()
    ]
    return run_methods(with_cost(table, p.cost), around, inputs, wanted, p, **how)


def run_methods(
    measured: pd.DataFrame, around: Arrays, inputs: Arrays, wanted: list[Wanted], p: SearchMethods,
    *, parts: Path, jobs: int,
) -> pd.DataFrame:  # fmt: skip
    """Run searches in `jobs` processes, and keep finished runs in the folder `parts`.

    Takes N rows from `with_cost`, the result of `linked`, and scaled (M, D) inputs by name. Returns
    `search`, `training_seed`, and the columns of `followed`.
    """
    accuracy = measured["validation_accuracy"].to_numpy()[around["cells"]]
    arrays = {**inputs, "accuracy": accuracy, "starts": around["starts"], "ends": around["ends"]}
    common = p.budget, p.initial, p.batch, p.seed
    calls: list[Call] = [
        ((name, first, min(TOGETHER, runs - first), *common), ("accuracy", "starts", "ends", of))
        for name, _, of, runs in wanted
        for first in range(0, runs, TOGETHER)
    ]
    found = iter(complete(_search, calls, arrays, parts, jobs, "searches", "call"))
    walks = []
    for name, training, _, runs in wanted:
        made = np.concatenate([next(found) for _ in range(0, runs, TOGETHER)], axis=1)
        queries, *beliefs = around["cells"][made]
        for shown, incumbents in zip((name, BELIEVED), (None, *beliefs), strict=False):
            walk = followed(measured, queries, incumbents)
            walk.insert(0, "search", shown)
            walk.insert(1, "training_seed", pd.array([training] * len(walk), dtype="Int64"))
            walks.append(walk)
    return pd.concat(walks, ignore_index=True)


def followed(
    measured: pd.DataFrame, queries: np.ndarray, incumbents: np.ndarray | None = None
) -> pd.DataFrame:
    """What R runs of Q queries have found: a row where that changes, and for the last query.

    Takes (R, Q) rows of the table and, where it is not the cell of the best validation accuracy,
    the incumbent after each. Returns `run`, `query` (1 for the first), `time`, and of REGRETS the
    `validation_regret` and `test_regret` of the incumbent, and `best_regret`, the test regret of
    the best cell queried so far: what a search that knows its best cell would have.
    """
    clock = Clock(measured, len(queries))
    for cells in queries.T:
        clock.query(cells)
    walk = clock.trajectories().rename(columns={"step": "query"})
    walk["query"] += 1
    if incumbents is not None:
        walk["incumbent"] = incumbents.ravel()
        for name in REGRETS[:2]:
            values = measured[f"{name}_accuracy"]
            walk[f"{name}_regret"] = values.max() - values.to_numpy()[walk["incumbent"]]
    test = measured["test_accuracy"]
    best = test[walk["cell"]].reset_index(drop=True).groupby(walk["run"]).cummax()
    walk["best_regret"] = test.max() - best
    kept = walk[["run", "incumbent", "best_regret"]].diff().ne(0).any(axis=1)
    kept |= walk["query"].eq(queries.shape[1])
    return walk.loc[kept].drop(columns=["cell", "incumbent"]).reset_index(drop=True)


def _search(
    name: str, first: int, runs: int, budget: int, initial: int, batch: int, seed: int,
    accuracy: np.ndarray, starts: np.ndarray, ends: np.ndarray, inputs: np.ndarray,
) -> list[list[list[int]]]:  # fmt: skip
    """Some runs of one method: the cells that each has queried and, if guided, its beliefs."""
    task, method = Task(starts, ends, inputs, initial, batch), METHODS[name.partition("_")[0]]
    with threadpool_limits(1):  # the same bits whatever the number of processes
        numbers = range(first, first + runs)
        cells = [search(method, accuracy, task, budget, seed, run) for run in numbers]
        found = [cells]
        if name == "guided":
            found.append([believed(run, accuracy, inputs, initial, batch) for run in cells])
    return np.array(found).tolist()
