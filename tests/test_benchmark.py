"""The embedded benchmark: how it is made, and what the shipped file must hold."""

import numpy as np
import pandas as pd
import pytest

from ionas.benchmark import digits as benchmark
from ionas.benchmark.table import FIELDS, Table, load_table, signal
from ionas.images import load_images
from ionas.parameters import Pretraining
from ionas.space.cells import enumerate_cells

QUICK = Pretraining(channels=4, batch_size=256)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("IONAS_PROGRESS", "off")


def test_build_is_resumable_and_independent_of_processes(tmp_path):
    settings = {"max_vertices": 3, "repeats": 2, "epochs": (1, 2), "recipe": QUICK}
    first = benchmark.build(tmp_path / "a.parquet", jobs=1, **settings)
    second = benchmark.build(tmp_path / "b.parquet", jobs=2, **settings)
    fields = [c for c in first.frame if "time" not in c]
    pd.testing.assert_frame_equal(first.frame[fields], second.frame[fields])
    assert len(first) == 7
    parts = sorted((tmp_path / "a.parquet.parts").glob("*.json"))
    assert len(parts) == 7
    kept = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    again = benchmark.build(tmp_path / "a.parquet", jobs=1, **settings)
    pd.testing.assert_frame_equal(first.frame[fields], again.frame[fields])
    assert parts[0].stat().st_mtime_ns == kept
    parts[0].write_bytes(parts[0].read_bytes().replace(b"0.", b"1.", 1))  # a damaged one
    again = benchmark.build(tmp_path / "a.parquet", jobs=1, **settings)
    pd.testing.assert_frame_equal(first.frame[fields], again.frame[fields])
    other = benchmark.build(tmp_path / "a.parquet", jobs=1, **{**settings, "repeats": 1})
    assert "test_accuracy_r1" not in other.frame, "parts of other settings are not taken"


def test_mean_columns_are_means_of_the_repeats(tmp_path):
    settings = {"max_vertices": 2, "repeats": 3, "epochs": (1, 2), "recipe": QUICK}
    table = benchmark.build(tmp_path / "a.parquet", jobs=1, **settings)
    for suffix in ("", "_1"):
        repeats = [table.frame[f"test_accuracy{suffix}_r{k}"][0] for k in range(3)]
        assert table.frame[f"test_accuracy{suffix}"][0] == pytest.approx(np.mean(repeats))
    assert Table.read(tmp_path / "a.parquet").epochs == 2


def test_shipped_table_is_complete():
    table = load_table("digits")
    assert set(table.cells.hashes) == set(enumerate_cells(5).hashes)
    for epochs in table.about["budgets"]:
        assert table.repeats("test_accuracy", epochs) >= 3
        for field in FIELDS:
            assert np.isfinite(table.values(field, epochs)).all()
    assert len(table.about["budgets"]) >= 2
    assert table.time_unit == "CPU seconds"
    assert signal(table)["ratio"] >= 4


def test_shipped_values_come_out_again():
    """A cell trained anew is within the noise of its three repeats in the table."""
    table = load_table("digits")
    images = load_images("digits")
    index = int(np.argmax(table.values("test_accuracy")))
    row = benchmark.measure(table.cells[index], images, Pretraining(), [6], 3)
    expected = table.values("test_accuracy")[index]
    assert row["test_accuracy"] == pytest.approx(expected, abs=0.06)
    assert row["trainable_parameters"] == table.frame["trainable_parameters"][index]
