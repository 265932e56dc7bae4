"""The surrogate: what it is fitted to, how it is judged, and that every cell can be searched."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from ionas.benchmark.table import Table, load_table
from ionas.parameters import SearchMethods
from ionas.space.cells import enumerate_cells
from ionas.tasks import search_runs, surrogate

P = SearchMethods(surrogate_runs=2, budget=20, initial=6, batch=6, surrogate_share=0.6, jobs=1)


@pytest.fixture(scope="module")
def table():
    whole = load_table("digits")
    rows = np.random.default_rng(0).permutation(len(whole))[:400]
    frame = whole.frame.iloc[rows].reset_index(drop=True)
    frame.loc[:99, "validation_accuracy"] = np.nan
    return Table(whole.cells[rows], frame, {"name": "some"})


@pytest.fixture(scope="module")
def predicted(table):
    return surrogate.predict_all(table, P)


def test_cells_are_fitted_or_left_out_and_all_are_predicted(table, predicted):
    both = np.concatenate([predicted["fitted"], predicted["left_out"]])
    assert sorted(both) == list(range(100, 400))
    assert len(predicted["fitted"]) == 180
    for name in surrogate.COLUMNS:
        assert predicted[name].shape == (len(table),)
        assert np.isfinite(predicted[name]).all()
    assert (predicted["cost"] > 0).all()
    assert (predicted["test_accuracy"] < 1).all()


def test_a_cell_left_out_does_not_change_what_is_predicted(table, predicted):
    frame = table.frame.copy()
    frame.loc[predicted["left_out"], "test_accuracy"] = 0.123
    other = surrogate.predict_all(Table(table.cells, frame, table.about), P)
    np.testing.assert_array_equal(other["test_accuracy"], predicted["test_accuracy"])


def test_the_judgement_is_of_the_cells_left_out(table, predicted):
    judged = surrogate.judged(table, predicted, P).set_index("value")
    left = predicted["left_out"]
    truth = table.frame["test_accuracy"].to_numpy()[left]
    guess = predicted["test_accuracy"][left]
    row = judged.loc["test_accuracy"]
    assert row["kendall"] == pytest.approx(kendalltau(truth, guess).statistic)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean((truth - guess) ** 2)))
    assert row["pearson"] > 0.6
    assert (row["fitted"], row["left_out"]) == (180, 120)


def test_noise_is_the_spread_of_errors_that_were_put_in():
    """Accuracies of which the cell says nothing: all that is left of them is noise."""
    rng, cells = np.random.default_rng(0), enumerate_cells(5)
    error = np.exp(rng.normal(-2, 0.2, len(cells)))
    frame = pd.DataFrame(
        {"validation_accuracy": 1 - error, "test_accuracy": 1 - error, "training_time": 1.0}
    )
    found = surrogate.predict_all(Table(cells, frame, {"name": "noise"}), P)
    assert 0.18 < found["noise"][0] < 0.25


def test_all_cells_are_searched_and_noise_is_only_in_what_the_search_sees(
    table, predicted, tmp_path
):
    seen = []
    original = search_runs.run_methods

    def spy(measured, around, *rest, **how):
        seen.append((measured, around))
        return original(measured, around, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surrogate, "run_methods", spy)
        one = surrogate.search_all(table, predicted, P, parts=tmp_path, jobs=1)
    measured, around = seen[0]
    assert around["cells"].tolist() == list(range(len(table)))
    np.testing.assert_array_equal(measured["test_accuracy"], predicted["test_accuracy"])
    ratio = np.log((1 - measured["validation_accuracy"]) / (1 - predicted["validation_accuracy"]))
    assert ratio.std() == pytest.approx(predicted["noise"][0], rel=0.15)
    assert set(one["search"]) == {*surrogate.METHODS, search_runs.BELIEVED}
    assert (one.groupby("search")["query"].max() == P.budget).all()
    assert (one["test_regret"] >= 0).all()
