"""The simulated clock and regret, by hand."""

import numpy as np
import pandas as pd
import pytest

from ionas.benchmark.table import Table
from ionas.space.cells import enumerate_cells
from ionas.tasks.clock import Clock, can_be_queried, improvements, training_cost, with_cost
from ionas.tasks.regret import final_regret, regret_at, regret_curves


def small(**columns):
    frame = {"validation_accuracy": [0.5, 0.6, 0.9, 0.7, 0.8, 0.4, 0.3]}
    frame |= {"test_accuracy": [0.4, 0.65, 0.8, 0.9, 0.7, 0.5, 0.2], "training_time": [1.0] * 7}
    return Table(enumerate_cells(3), pd.DataFrame(frame | columns), {"name": "s", "epochs": 12})


def test_clock_by_hand():
    measured = with_cost(small(training_time=[1.0, 2, 4, 8, 16, 32, np.nan]))
    assert can_be_queried(measured).tolist() == [True] * 6 + [False]
    clock = Clock(measured, runs=2)
    assert clock.query(np.array([0, 3])).tolist() == [0.5, 0.7]
    clock.query(np.array([2, 0]))
    clock.query(np.array([3, 1]), np.array([True, False]))
    assert clock.elapsed.tolist() == [13, 9]
    found = clock.trajectories()
    assert found["run"].tolist() == [0, 0, 0, 1, 1]
    assert found["step"].tolist() == [0, 1, 2, 0, 1]
    assert found["time"].tolist() == [1, 5, 13, 8, 9]
    assert found["incumbent"].tolist() == [0, 2, 2, 3, 3]
    assert found["validation_regret"].tolist() == pytest.approx([0.4, 0, 0, 0.2, 0.2])
    assert found["test_regret"].tolist() == pytest.approx([0.5, 0.1, 0.1, 0, 0])


def walks(measured, cells):
    clock = Clock(measured, runs=len(cells[0]))
    for each in cells:
        clock.query(np.array(each))
    return clock.trajectories().assign(embedding="io_mean", training_seed=1)


def test_regret_is_a_step_function_of_time():
    found = walks(with_cost(small()), ([0, 1], [2, 4]))
    times = np.array([0.5, 1.0, 1.5, 2.0, 9.0])
    curves = regret_curves(found, times, {})
    assert set(curves["training"]) == {"1", "all"}
    one = curves[curves["training"] == "1"].reset_index(drop=True)
    validation = one[one["metric"] == "validation"]["mean"].to_numpy()
    assert np.isnan(validation[0])
    assert validation[1:] == pytest.approx([0.35, 0.35, 0.05, 0.05])
    test = one[one["metric"] == "test"]["mean"].to_numpy()
    assert test[1:] == pytest.approx([0.9 - (0.4 + 0.65) / 2] * 2 + [0.9 - 0.75] * 2)
    ordered = curves.dropna()
    assert (ordered["low"] <= ordered["mean"]).all()
    assert (ordered["mean"] <= ordered["high"]).all()
    shifted = regret_curves(found, times + 3, {"io_mean": 3.0, "other": 1.0})
    pd.testing.assert_frame_equal(shifted.drop(columns="time"), curves.drop(columns="time"))
    assert final_regret(one.assign(shifted=False))["mean"].tolist() == pytest.approx([0.9 - 0.75])


def test_improvements_are_all_that_regret_needs():
    rng = np.random.default_rng(0)
    frame = {name: rng.random(7).round(1) for name in ("validation_accuracy", "test_accuracy")}
    measured = with_cost(small(**frame, training_time=rng.uniform(1, 3, 7)))
    orders = [rng.permutation(7) for _ in range(20)]
    found = walks(measured, list(zip(*orders, strict=True)))
    few = improvements(found)
    assert len(few) < len(found)
    times = np.linspace(0, 20, 50)
    for metric in ("validation", "test"):
        np.testing.assert_array_equal(
            regret_at(few, times, metric), regret_at(found, times, metric)
        )
    assert (few.groupby("run")["step"].max() == 6).all()


def test_several_trainings_stand_together_and_apart():
    measured = with_cost(small())
    one, two = walks(measured, [[0, 1]]), walks(measured, [[2, 2]]).assign(training_seed=2)
    other = walks(measured, [[3, 3]]).assign(embedding="random", training_seed=pd.NA)
    together = pd.concat([one, two, other]).astype({"training_seed": "Int64"})
    curves = regret_curves(together, np.array([1.0]), {}).query("metric == 'validation'")
    means = curves.set_index(["embedding", "training"])["mean"].to_dict()
    assert means == pytest.approx({
        ("io_mean", "all"): 0.175, ("io_mean", "1"): 0.35, ("io_mean", "2"): 0,
        ("random", "all"): 0.2,
    })  # fmt: skip


def test_an_incumbent_of_unknown_test_accuracy_does_not_keep_the_one_before():
    measured = with_cost(small(test_accuracy=[0.4, 0.65, np.nan, 0.9, 0.7, 0.5, 0.2]))
    found = walks(measured, ([1], [2], [0]))["test_regret"].tolist()
    assert found[0] == pytest.approx(0.25)
    assert np.isnan(found[1:]).all()


def test_unknown_training_times_count_as_the_mean_of_the_known():
    measured = with_cost(small(training_time=[1, 2, 3, np.nan, np.nan, 8, 11]))
    assert training_cost(measured, np.array([0, 1])) == 3
    assert training_cost(measured, np.array([0, 2, 3])) == 6
    assert training_cost(measured, np.array([3, 4])) == 10


def test_a_table_without_times_can_be_searched_by_counting():
    table = small()
    bare = Table(table.cells, table.frame.drop(columns=["training_time", "test_accuracy"]), {})
    with pytest.raises(ValueError, match="both a validation accuracy and a training time"):
        with_cost(bare)
    measured = with_cost(bare, "evaluations")
    assert measured["cost"].tolist() == [1] * 7
    found = walks(measured, ([1, 2], [2, 3]))
    assert found["time"].tolist() == [1, 2, 1, 2]
    assert found["test_regret"].isna().all()
