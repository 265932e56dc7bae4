"""The measurements of `ionas bench`: its rows, one of them for real, and its errors."""

import pytest
import torch

from ionas import bench


def test_a_row_is_measured_beside_its_goals():
    lines = list(bench.run(only=["enumeration"]))
    assert [line.goal.unit for line in lines] == ["s", "MB"]
    for line in lines:
        assert line.value is not None
        assert line.value > 0
        assert line.holds == (line.value <= line.goal.most)
        assert not line._replace(value=2 * line.goal.most).holds


def test_what_cannot_be_measured_is_not_run():
    names = ["forests"] if torch.cuda.is_available() else ["forests", "joint", "pretraining"]
    lines = list(bench.run(only=names))
    assert [line.name for line in lines] == names
    assert all(line.how.startswith("not run") and line.value is None for line in lines)
    assert not any(line.holds for line in lines)


def test_an_unknown_row_is_named():
    with pytest.raises(ValueError, match="no row 'serch'; did you mean 'search'"):
        list(bench.run(only=["serch"]))


def test_operations_of_a_step_by_hand():
    model = bench.Arch2vec(vertices=2, operations=3, hidden=4, latent=2, layers=1)
    dense = 3 * 4 + 4 * 4 + 4 * 2 + 4 * 2 + 2 * 3
    assert bench.step_operations(model, 5) == 2 * 5 * 2 * (3 * dense - 3 * 4)
