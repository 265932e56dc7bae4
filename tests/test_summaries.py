"""Reduced frames of a table, against hand-worked values and the whole table."""

import numpy as np
import pandas as pd
import pytest

from ionas.benchmark import summaries
from ionas.benchmark.summaries import cell_properties
from ionas.benchmark.table import load_table


@pytest.fixture(scope="module")
def table():
    return load_table("digits")


def test_by_rank_samples_the_sorted_cells(table):
    frame = summaries.accuracy_by_rank(table, 100)
    ordered = np.sort(table.values("test_accuracy"))
    assert len(frame) == 100
    assert frame["rank"].iloc[[0, -1]].tolist() == [0, len(table) - 1]
    np.testing.assert_array_equal(frame["mean"], ordered[frame["rank"]])
    repeats = frame.filter(like="repeat_")
    assert repeats.shape[1] == 3
    np.testing.assert_allclose(repeats.mean(axis=1), frame["mean"], atol=1e-6)
    assert len(summaries.accuracy_by_rank(table, 10**6)) == len(table)


def test_by_counts_agrees_with_the_whole_table(table):
    frame = summaries.accuracy_by_counts(table)
    accuracy = table.values("test_accuracy")
    threshold = np.quantile(accuracy, 0.019)
    assert set(frame["threshold"]) == {threshold}
    for name, values in cell_properties(table).items():
        rows = frame[frame["property"] == name]
        assert rows["cells"].sum() == len(table)
        assert (rows["least"].iloc[1:].to_numpy() > rows["most"].iloc[:-1].to_numpy()).all()
        for row in rows.itertuples():
            of_row = accuracy[(values >= row.least) & (values <= row.most)]
            assert len(of_row) == row.cells
            assert row.failed == pytest.approx((of_row <= threshold).mean())
            assert row.q50 == pytest.approx(np.median(of_row[of_row > threshold]))


def test_histogram():
    frame = summaries.histogram({"a": [0.0, 1, 2, np.nan, 4], "b": [2.0]}, bins=2)
    assert frame.to_dict("list") == {"low": [0, 2], "high": [2, 4], "a": [2, 2], "b": [0, 1]}


def test_extreme_cells(table):
    frame = summaries.extreme_cells(table, 2)
    accuracy = np.sort(table.values("test_accuracy"))
    assert frame["accuracy"].tolist() == [*accuracy[[-1, -2]], *accuracy[[1, 0]]]
    assert [len(a) for a in frame["adjacency"]] == [
        len(o.split(",")) ** 2 for o in frame["operations"]
    ]


def test_hexagons_hold_every_cell_and_its_nearest_center():
    rng = np.random.default_rng(0)
    points, accuracy = rng.random((500, 2)), rng.random(500)
    accuracy[0] = np.nan
    frame = summaries.hexagon_medians(points, accuracy, 9)
    assert frame["cells"].sum() == 499
    place = (points[1:] - points[1:].min(0)) / np.ptp(points[1:], axis=0) * 8
    centers = frame[["x", "y"]].to_numpy()
    distances = np.square(place[:, None] - centers).sum(2)
    nearest = (distances - 1e-9 * centers[:, 0]).argmin(1)  # on an edge, the right one
    medians = pd.Series(accuracy[1:]).groupby(nearest).median()
    np.testing.assert_allclose(frame["accuracy"], medians)
    apart = np.sqrt(np.square(centers[:, None] - centers).sum(2))
    assert apart[~np.eye(len(centers), dtype=bool)].min() == pytest.approx(1, abs=1e-5)


def test_neighbors():
    values = np.array([[0.0], [0.1], [5.0], [5.2]])
    assert summaries.neighbor_correlation(values, np.array([1.0, 1, 3, 3])) == pytest.approx(1)
    assert summaries.neighbor_correlation(values, np.array([1.0, 3, 1, 3])) == pytest.approx(-1)
    assert np.isnan(summaries.neighbor_correlation(values, np.ones(4)))
