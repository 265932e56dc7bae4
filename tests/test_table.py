"""Tables: reading and refusing, values by budget and repeat, the simulated clock, regret."""

import numpy as np
import pandas as pd
import pytest

from ionas.cells import enumerate_cells
from ionas.table import (
    Clock,
    InvalidTable,
    Table,
    best,
    check_table,
    embedded,
    load_table,
    regret_curves,
    signal,
)


def small(**columns) -> Table:
    frame = {"validation_accuracy": [0.5, 0.6, 0.9, 0.7, 0.8, 0.4, 0.3]}
    frame |= {"test_accuracy": [0.4, 0.65, 0.8, 0.9, 0.7, 0.5, 0.2], "training_time": [1.0] * 7}
    return Table(enumerate_cells(3), pd.DataFrame(frame | columns), {"name": "s", "epochs": 12})


def test_round_trip_keeps_everything(tmp_path):
    table = small()
    table.write(tmp_path / "t.parquet")
    back = Table.read(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(back.frame, table.frame)
    assert (back.cells.hashes == table.cells.hashes).all()
    assert back.about == table.about
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]
    for row, cell in enumerate(table.cells):
        assert back.index(cell) == back.index(cell.hash) == row


def test_csv_is_read_too(tmp_path):
    table = small()
    adjacency, operations = table.cells.to_text()
    frame = table.frame.assign(adjacency=adjacency, operations=operations)
    frame.to_csv(tmp_path / "t.csv", index=False)
    check_table(str(tmp_path / "t.csv"))
    pd.testing.assert_frame_equal(load_table(str(tmp_path / "t.csv")).frame, table.frame)


def test_values_by_budget_and_repeat():
    table = small(
        test_accuracy_4=np.linspace(0, 0.6, 7),
        test_accuracy_r0=np.full(7, 0.25),
        test_accuracy_r1=np.full(7, 0.35),
        test_accuracy_4_r0=np.full(7, 0.1),
    )
    assert table.budgets("test_accuracy") == [4, 12]
    assert table.repeats("test_accuracy") == 2
    assert table.repeats("test_accuracy", 4) == 1
    assert table.values("test_accuracy", 12)[0] == 0.4
    assert table.values("test_accuracy", 4)[6] == pytest.approx(0.6)
    assert table.values("test_accuracy", 4, 0)[3] == 0.1
    assert table.values("test_accuracy", repeat=1)[3] == 0.35
    with pytest.raises(InvalidTable, match="'test_accuracy_36'; it has: validation_accuracy"):
        table.values("test_accuracy", 36)


def test_take_keeps_rows_together():
    part = small().take([4, 2])
    assert part.values("validation_accuracy").tolist() == [0.8, 0.9]
    assert part.cells.hashes.tolist() == enumerate_cells(3).hashes[[4, 2]].tolist()
    with pytest.raises(KeyError, match="holds no cell"):
        part.index("f" * 32)


def broken(tmp_path, change):
    table = small()
    adjacency, operations = table.cells.to_text()
    frame = table.frame.assign(hash=table.cells.hashes, adjacency=adjacency, operations=operations)
    path = tmp_path / "t.parquet"
    change(frame).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="operations"), "no column 'operations'"),
        (lambda f: f[["adjacency", "operations"]], "none of the columns"),
        (lambda f: f.assign(hash=f["hash"].iloc[::-1].to_numpy()), "row 0 has hash"),
        (lambda f: f.assign(test_accuracy=91.2), "fractions, not percent"),
        (lambda f: f.assign(training_time=-1.0), "training_time of row 0 is -1"),
        (lambda f: f.assign(test_accuracy="high"), "holds text"),
        (lambda f: f.assign(operations="input,conv9x9,output"), "conv9x9|does not fit"),
        (lambda f: f.assign(adjacency="0110"), "does not fit"),
        (lambda f: pd.concat([f, f.iloc[[2]]]), "rows 2 and 7 are the same cell"),
        (lambda f: pd.concat([f, f.iloc[[2]]]).drop(columns="hash"), "rows 2 and 7"),
    ],
)
def test_malformed_tables_are_refused_with_their_reason(tmp_path, change, message):
    with pytest.raises(InvalidTable, match=message):
        Table.read(broken(tmp_path, change))


def test_a_cell_that_breaks_a_rule_is_named(tmp_path):
    def change(frame):
        return frame.assign(operations=frame["operations"].str.replace("output", "maxpool3x3"))

    with pytest.raises(InvalidTable, match="row 0: the last operation is 'maxpool3x3'"):
        Table.read(broken(tmp_path, change))


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(InvalidTable, match="there is no table"):
        load_table(str(tmp_path / "absent.parquet"))
    with pytest.raises(InvalidTable, match="there is no table 'digit'"):
        check_table("digit")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(InvalidTable, match="not a Parquet file"):
        check_table(str(tmp_path / "text.parquet"))
    small().write(tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(content[:100] + b"\0" * 200 + content[300:])
    with pytest.raises(InvalidTable, match="damaged"):
        Table.read(tmp_path / "t.parquet")


def test_clock_by_hand():
    table = small(training_time=[1.0, 2, 4, 8, 16, 32, np.nan])
    clock = Clock(table, runs=2)
    assert clock.known.tolist() == [True] * 6 + [False]
    assert clock.query(np.array([0, 3])).tolist() == [0.5, 0.7]
    clock.query(np.array([2, 0]))
    clock.query(np.array([3, 1]), np.array([True, False]))
    assert clock.elapsed.tolist() == [13, 9]
    found = clock.trajectories()
    assert found["run"].tolist() == [0, 0, 0, 1, 1]
    assert found["step"].tolist() == [0, 1, 2, 0, 1]
    assert found["time"].tolist() == [1, 5, 13, 8, 9]
    assert found["incumbent_validation"].tolist() == [0.5, 0.9, 0.9, 0.7, 0.7]
    assert found["incumbent_test"].tolist() == [0.4, 0.8, 0.8, 0.9, 0.9]


def test_regret_is_a_step_function_of_time():
    table = small()
    clock = Clock(table, runs=2)
    for cells in ([0, 1], [2, 4]):
        clock.query(np.array(cells))
    grid = np.array([0.5, 1.0, 1.5, 2.0, 9.0])
    curves = regret_curves(clock.trajectories(), table, grid, bootstrap=200)
    validation = curves[curves["metric"] == "validation"]["mean"].to_numpy()
    assert np.isnan(validation[0])
    assert validation[1:] == pytest.approx([0.35, 0.35, 0.05, 0.05])
    test = curves[curves["metric"] == "test"]["mean"].to_numpy()
    assert test[1:] == pytest.approx([0.9 - (0.4 + 0.65) / 2] * 2 + [0.9 - 0.75] * 2)
    ordered = curves.dropna()
    assert (ordered["low"] <= ordered["mean"]).all()
    assert (ordered["mean"] <= ordered["high"]).all()
    shifted = regret_curves(clock.trajectories(), table, grid + 3, shift=3, bootstrap=200)
    pd.testing.assert_frame_equal(shifted.drop(columns="time"), curves.drop(columns="time"))


def test_best_leaves_unknown_cells_out():
    table = small(validation_accuracy=[0.1, np.nan, 0.3, 0.2, 0.1, 0.1, 0.1])
    assert best(table) == {"validation_accuracy": 0.3, "test_accuracy": 0.9}


def test_signal_by_hand():
    columns = {f"test_accuracy_r{k}": 0.1 * np.arange(7) + (k - 1) * 0.03 for k in range(3)}
    found = signal(small(**columns))
    assert found["error"] == pytest.approx(0.03 / np.sqrt(3))
    assert found["between"] == pytest.approx(np.std(0.1 * np.arange(7), ddof=1))
    assert found["ratio"] == pytest.approx(found["between"] / found["error"])
    with pytest.raises(InvalidTable, match="fewer than two repeats"):
        signal(small())


def test_embedded_table_reads_by_name():
    assert load_table("digits").name == embedded().name == "digits"


@pytest.mark.shared
def test_paper_scale_table(shared_data):
    table = Table.read(shared_data / "nasbench101.parquet", verify=False)
    assert len(table) == 423_624
    assert best(table)["test_accuracy"] == pytest.approx(0.943175752957662, abs=1e-12)
    assert np.isfinite(table.values("validation_accuracy")).sum() == 30_001
    assert table.budgets("validation_accuracy") == [0, 4, 12, 36]
