"""The command `ionas bench`: a row for real, its samples, what it prints and when it fails."""

from dataclasses import replace

import pytest
import torch
from embedding_data import SMALL
from typer.testing import CliRunner

from ionas import bench, pretraining
from ionas.bench import Goal, Measured, Row, Seconds
from ionas.benchmark import tfrecord as nasbench101
from ionas.cli import app
from ionas.space.cells import enumerate_cells


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


def test_operations_of_other_loops_by_hand():
    model = bench.Arch2vec(vertices=2, operations=3, hidden=4, latent=2, layers=1)
    assert bench.encoding_operations(model) == 2 * 2 * (3 * 4 + 4 * 4 + 4 * 2)
    operations, traffic = bench.policy_step(1, 1000, 2, 3)
    weights = 12 * 2 + 12 * 3 + 3 * 2
    assert operations == 2 * (2 * 1000 + 3 * weights)
    assert traffic == int(4 * 1000 + 4 * weights * (2 + 7 / 16))


def test_two_samples_make_a_line():
    assert bench._line(0.01, 100 + 5, 0.1, 100 + 50) == pytest.approx(600)


@pytest.fixture
def made_up_rows(monkeypatch):
    """One holds, one falls short, one needs a table and one a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = {
        "quick": Row("walk", (Goal(2, "s"), Goal(30, "MB")),
                     lambda _: Measured(Seconds(1, 1.5), "by foot", 0.25, 29)),
        "slow": Row("crawl", (Goal(1, "ms"),), lambda _: Measured(Seconds(1.1, 7))),
        "lookup": Row("read", (Goal(1, "s"),), lambda _: pytest.fail("measured"), "table"),
        "flight": Row("fly", (Goal(3, "h"),), lambda _: pytest.fail("measured"), "GPU"),
    }  # fmt: skip
    monkeypatch.setattr(bench, "ROWS", rows)


def invoke(*arguments):
    return CliRunner().invoke(app, ["bench", *arguments])


@pytest.mark.usefixtures("made_up_rows")
def test_table_count_and_exit_status():
    result = invoke()
    assert result.exit_code == 1
    head, *rows, last = result.stdout.strip().splitlines()
    assert last == "2 of 5 goals hold"
    assert head.split()[:3] == ["row", "what", "goal"]
    shown = [" ".join(row.split()) for row in rows]
    assert shown[0] == "quick walk 2 s 1 s 1.5 s 4.0 yes CPU by foot"
    assert shown[1].startswith("quick walk 30 MB 29 MB yes CPU")
    assert shown[2].startswith("slow crawl 1 ms 1.1 ms 7 ms NO CPU")
    assert "not run: needs --table" in rows[3]
    assert "not run: no GPU here" in rows[4]


@pytest.mark.usefixtures("made_up_rows")
def test_what_is_not_run_does_not_fail():
    result = invoke("--only", "quick", "--only", "flight")
    assert result.exit_code == 0
    assert result.stdout.endswith("2 of 3 goals hold\n")
    assert "slow" not in result.stdout


@pytest.mark.usefixtures("made_up_rows")
def test_errors_come_before_anything_is_measured(tmp_path):
    result = invoke("--only", "quick", "--only", "quik")
    assert result.exit_code == 2
    assert "there is no row 'quik'; did you mean 'quick'?" in result.stderr
    result = invoke("--table", str(tmp_path / "none.parquet"))
    assert result.exit_code == 2
    assert "none.parquet" in result.stderr
    assert "by foot" not in result.output


def test_the_sample_is_a_file_of_nasbench101(tmp_path, monkeypatch):
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    cells = enumerate_cells(4)
    bench.write_tfrecord(tmp_path / "part.tfrecord", cells)
    table = nasbench101.convert(tmp_path / "part.tfrecord", tmp_path / "t.parquet", any_file=True)
    assert table.cells.hashes.tolist() == cells.hashes.tolist()
    assert table.repeats("test_accuracy") == nasbench101.REPEATS
    assert table.budgets("training_time") == list(nasbench101.EPOCHS)


def test_gpu_rows_run_on_a_cpu_too():
    """Small; so that they are not tried for the first time on a GPU."""
    settings = replace(SMALL, batch_size=4, epochs=2)
    options = {"networks": 8, "images": 9, "cells": enumerate_cells(4), "pixels": (3, 8, 8)}
    assert bench.joint_seconds("cpu", settings, **options, steps=2) > 0
    recipe = pretraining.Recipe(channels=2, epochs=3)
    assert bench.network_seconds("cpu", recipe, networks=1, images=20) > 0
