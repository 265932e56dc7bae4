"""A surrogate benchmark: predicted values in place of measured ones, so that every cell has them.

In the manner of NAS-Bench-301 (Zela et al. 2022), boosted trees learn what a table knows of some
cells, from their structure, and are judged on others.
"""

from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ionas.benchmark.table import Table
from ionas.parameters import SearchMethods
from ionas.predictors.trees import fit_boosting
from ionas.space.encodings import CHUNK, structure
from ionas.tasks.clock import ACCURACIES, COLUMNS, can_be_queried, with_cost
from ionas.tasks.regressors import score
from ionas.tasks.search_runs import Arrays, linked, run_methods
from ionas.tasks.searchers import scaled

METHODS = ("random", "evolution", "local", "guided")
LEAST = 1e-4  # error or cost, of which the logarithm is taken
NORMAL = 1.4826  # standard deviations of a normal distribution in a median absolute deviation


def predict_all(table: Table, p: SearchMethods) -> dict[str, np.ndarray]:
    """Predict the values of every cell from those of a random share of the cells that have all.

    Trees learn the logarithms of the cost and of the errors, an error being 1 less an accuracy.
    Returns the COLUMNS of `clock.with_cost`, (N,) each; `noise` (1,), the standard deviation, by
    the median, of the logarithm of the validation error less its prediction, on the cells left out;
    and the rows `fitted` and `left_out`.
    """
    measured = with_cost(table, p.cost)
    known = np.flatnonzero(can_be_queried(measured) & measured["test_accuracy"].notna())
    order = np.random.default_rng(p.seed).permutation(known)
    count = round(p.surrogate_share * len(order))
    fitted, left_out = np.sort(order[:count]), np.sort(order[count:])
    inputs, found = structure(table.cells), {"fitted": fitted, "left_out": left_out}
    parts = [inputs[start : start + CHUNK] for start in range(0, len(inputs), CHUNK)]
    for name in COLUMNS:
        values = measured[name].to_numpy()
        logs = np.log(np.maximum(1 - values if name in ACCURACIES else values, LEAST))
        with threadpool_limits(1):  # the same bits whatever the machine
            learned = fit_boosting(inputs[fitted], logs[fitted], p.seed)
            predicted = np.concatenate([learned(part) for part in parts])
        found[name] = 1 - np.exp(predicted) if name in ACCURACIES else np.exp(predicted)
        if name == "validation_accuracy":
            errors = logs[left_out] - predicted[left_out]
            found["noise"] = NORMAL * np.median(np.abs(errors - np.median(errors)), keepdims=True)
    return found


def judged(table: Table, predicted: Arrays, p: SearchMethods) -> pd.DataFrame:
    """How well cells that were left out are predicted.

    Returns a row for each of the COLUMNS: `value`, `regressors.METRICS`, and the numbers of cells
    that were `fitted` and `left_out`.
    """
    measured, left = with_cost(table, p.cost), predicted["left_out"]
    rows = [
        {"value": name, **score(measured[name].to_numpy()[left], predicted[name][left])}
        for name in COLUMNS
    ]
    sizes = {name: len(predicted[name]) for name in ("fitted", "left_out")}
    return pd.DataFrame(rows).drop(columns="note").assign(**sizes)


def search_all(table: Table, predicted: Arrays, p: SearchMethods, **how: Any) -> pd.DataFrame:
    """Run METHODS on the predicted values of all cells; see `search_runs.run_methods`.

    A query of a cell gives its predicted validation error times the exponential of one draw of
    normal noise, the same for every query of all runs, as a table does that holds one training of
    each cell. Test accuracies, by which a search is judged, have no noise.
    """
    values = pd.DataFrame({name: predicted[name] for name in COLUMNS})
    noise = np.random.default_rng(p.seed).normal(0, predicted["noise"][0], len(values))
    values["validation_accuracy"] = 1 - (1 - values["validation_accuracy"]) * np.exp(noise)
    around = linked(table.cells, np.arange(len(table)))
    inputs = {"structure": scaled(structure(table.cells), columns=True)}
    wanted = [(name, pd.NA, "structure", p.surrogate_runs) for name in METHODS]
    return run_methods(values, around, inputs, wanted, p, **how)
