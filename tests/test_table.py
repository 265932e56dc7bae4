"""Tables: reading and refusing, values by budget and repeat, the simulated clock, regret."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ionas.benchmark.table import (
    Clock,
    InvalidTable,
    Table,
    best,
    check_table,
    column_name,
    describe,
    embedded,
    load_table,
    regret_curves,
    signal,
    training_cost,
    uses,
)
from ionas.cli import app
from ionas.space.cells import CellSet, enumerate_cells


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


def test_cells_are_put_into_the_published_order_once(tmp_path):
    adjacency = ("0100001000010000", "0110100010000010000100000")
    operations = (
        "input,conv3x3-bn-relu,maxpool3x3,output",
        "input,maxpool3x3,conv3x3-bn-relu,conv1x1-bn-relu,output",
    )
    given = CellSet.from_text(adjacency, operations)
    frame = pd.DataFrame({"adjacency": adjacency, "operations": operations, "hash": given.hashes})
    frame.assign(test_accuracy=0.9).to_parquet(tmp_path / "given.parquet")
    table = Table.read(tmp_path / "given.parquet")
    assert table.cells.hashes.tolist() == given.hashes.tolist()
    assert (table.cells.adjacency == given.published().adjacency).all()
    assert (table.cells.operations == given.published().operations).all()
    assert (table.cells.adjacency != given.adjacency).any()
    Table(given, table.frame, table.about).write(tmp_path / "written.parquet")
    kept = Table.read(tmp_path / "written.parquet").cells  # checked before, so left as it is
    assert (kept.adjacency == given.adjacency).all()


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


def test_values_halfway_are_columns_of_their_own():
    table = small(
        test_accuracy_half=np.full(7, 0.11),
        test_accuracy_4=np.full(7, 0.12),
        test_accuracy_4_half=np.full(7, 0.13),
        test_accuracy_4_half_r0=np.full(7, 0.14),
        test_accuracy_36_half=np.full(7, 0.15),
    )
    assert table.values("test_accuracy", half=True)[0] == 0.11
    assert table.values("test_accuracy", 12, half=True)[0] == 0.11
    assert table.values("test_accuracy", 4)[0] == 0.12
    assert table.values("test_accuracy", 4, half=True)[0] == 0.13
    assert table.values("test_accuracy", 4, 0, half=True)[0] == 0.14
    assert table.budgets("test_accuracy") == [4, 12]
    assert table.repeats("test_accuracy", 4) == 0
    assert column_name("test_accuracy", 4, True, 2) == "test_accuracy_4_half_r2"
    held = describe(table)["mean"].xs("test_accuracy")
    assert held.to_dict() == {
        "4": 0.12, "4 halfway": 0.13, "12": 0.5929, "12 halfway": 0.11, "36 halfway": 0.15,
    }  # fmt: skip


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
        (lambda f: f.assign(adjacency=None), "adjacency of row 0 is None; it must be text"),
        (lambda f: f.assign(operations=[["input", "output"]] + [None] * 6), "operations of row 1"),
        (lambda f: f.assign(hash=[*f["hash"][:6], None]), "hash of row 6 is None"),
        (lambda f: f.assign(hash="x" * 100_000), "row 0 has hash xxx"),
        (lambda f: f.assign(adjacency="\u00e9" + f["adjacency"].str[1:]), "row 0: adjacency"),
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


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_study_needs_a_test_accuracy_and_says_so_before_it_runs(tmp_path, ending):
    adjacency, operations = enumerate_cells(3).to_text()
    frame = pd.DataFrame({"adjacency": adjacency, "operations": operations, "test_acc": 0.5})
    path = tmp_path / f"t.{ending}"
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    with pytest.raises(InvalidTable, match=r"no column 'test_accuracy'.*it has: .*test_acc"):
        check_table(str(path))
    assert len(Table.read(path)) == 7, "unsupervised training needs no measured column"


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n", b"\xff\xfe\x00", b"a,b\n1,2\n"])
def test_malformed_csv_is_refused(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    for read in (Table.read, lambda path: check_table(str(path))):
        with pytest.raises(InvalidTable, match=r"t\.csv"):
            read(tmp_path / "t.csv")


def test_a_table_that_was_written_here_is_not_hashed_again(tmp_path, monkeypatch):
    table = small()
    table.write(tmp_path / "t.parquet")
    expected = table.cells.hashes

    def fail(*_):
        raise AssertionError("hashes are computed")

    monkeypatch.setattr("ionas.space.cells._graph_hashes", fail)
    assert (Table.read(tmp_path / "t.parquet").cells.hashes == expected).all()
    with pytest.raises(AssertionError, match="hashes are computed"):
        Table.read(broken(tmp_path, lambda frame: frame))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(hash=f["hash"].iloc[::-1].to_numpy()), "row 0 has hash"),
        (lambda f: f.assign(adjacency="0100", operations="input,output"), "row 1 has hash"),
        (lambda f: f.iloc[[0, 1, 1]], "rows 1 and 2 are the same cell"),
        (lambda f: f.iloc[::-1], None),
        (lambda f: f.drop(columns="hash"), None),
    ],
)
def test_a_change_after_writing_is_noticed(tmp_path, change, message):
    """The digest fits no more, so everything is computed again."""
    path = tmp_path / "t.parquet"
    small().write(path)
    metadata = pq.read_schema(path).metadata
    changed = change(pd.read_parquet(path)).reset_index(drop=True)
    content = pa.Table.from_pandas(changed, preserve_index=False)
    pq.write_table(content.replace_schema_metadata(metadata), path)
    if message:
        with pytest.raises(InvalidTable, match=message):
            Table.read(path)
    else:
        assert set(Table.read(path).cells.hashes) == set(small().cells.hashes)


def test_a_table_with_a_cell_twice_is_not_written(tmp_path):
    table = small().take([0, 1, 2, 1])
    with pytest.raises(InvalidTable, match="rows 1 and 3 are the same cell"):
        table.write(tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    small().write(tmp_path / "t.parquet")
    before = (tmp_path / "t.parquet").read_bytes()

    def fail(content, path, **_):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="no space"):
        small().write(tmp_path / "t.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]
    assert (tmp_path / "t.parquet").read_bytes() == before


def test_operations_may_be_lists(tmp_path):
    def change(frame):
        return frame.assign(operations=frame["operations"].str.split(",")).set_index(
            np.arange(7) * 2
        )

    table = Table.read(broken(tmp_path, change))
    assert (table.cells.hashes == enumerate_cells(3).hashes).all()
    pd.testing.assert_frame_equal(table.frame, small().frame)


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
    table = pa.table({"adjacency": ["0100"], "operations": ["input,output"]})
    pq.write_table(table.replace_schema_metadata({"ionas": "{"}), tmp_path / "t.parquet")
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


def test_an_incumbent_of_unknown_test_accuracy_does_not_keep_the_one_before():
    table = small(test_accuracy=[0.4, 0.65, np.nan, 0.9, 0.7, 0.5, 0.2])
    clock = Clock(table)
    for cell in (1, 2, 0):
        clock.query(np.array([cell]))
    found = clock.trajectories()["incumbent_test"].tolist()
    assert found[0] == 0.65
    assert np.isnan(found[1:]).all()


def test_each_part_of_the_study_uses_the_cells_it_can():
    nan = np.nan
    table = small(
        test_accuracy=[nan, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
        validation_accuracy=[0.5, nan, 0.5, 0.5, 0.5, 0.5, 0.5],
        training_time=[1, 1, nan, nan, 1, 1, 1],
    )
    assert list(uses(table).values()) == [7, 6, 4, 6]
    assert Clock(table).known.tolist() == [True, False, False, False, True, True, True]
    bare = Table(table.cells, table.frame[[]])
    assert list(uses(bare).values()) == [7, 0, 0, 0]
    assert not Clock(bare).known.any()
    assert describe(bare).empty


def test_unknown_training_times_count_as_the_mean_of_the_known():
    table = small(training_time=[1, 2, 3, np.nan, np.nan, 8, 11])
    assert training_cost(table, np.array([0, 1])) == 3
    assert training_cost(table, np.array([0, 2, 3])) == 6
    assert training_cost(table, np.array([3, 4])) == 10


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
    columns["test_accuracy_r2"][6] = np.nan
    assert signal(small(**columns))["between"] == pytest.approx(np.std(0.1 * np.arange(6), ddof=1))


def test_embedded_table_reads_by_name():
    assert load_table("digits").name == embedded().name == "digits"


# --- the command -------------------------------------------------------------------------------


def ionas(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_says_what_a_table_is_good_for(tmp_path):
    table = small(validation_accuracy=[0.5, 0.6, np.nan, 0.7, 0.8, np.nan, 0.3])
    adjacency, operations = table.cells.to_text()
    frame = table.frame.assign(adjacency=adjacency, operations=operations, comment="mine")
    frame.to_csv(tmp_path / "t.csv", index=False)
    done = ionas("data", "table", tmp_path / "t.csv", "--out", tmp_path / "checked.parquet")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "t: 7 cells, every hash that of its cell"
    assert "test_accuracy full mean only 7 0.2 0.5929 0.9" in lines
    assert "unsupervised training: 7" in lines
    assert "Accuracy model and performance prediction: 7" in lines
    assert "search: 5" in lines
    again = ionas("data", "table", tmp_path / "checked.parquet")
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[1:-1]


def test_the_command_refuses_in_one_line(tmp_path):
    path = broken(tmp_path, lambda f: f.assign(hash=f["hash"].iloc[::-1].to_numpy()))
    for source, message in ((path, "row 0 has hash"), (tmp_path / "absent.csv", "no table")):
        done = ionas("data", "table", source, "--out", tmp_path / "out.parquet")
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out.parquet").exists()


@pytest.mark.shared
def test_paper_scale_table(shared_data, tmp_path, monkeypatch):
    columns = ["hash", "adjacency", "operations"]
    hashes = pd.read_parquet(shared_data / "nasbench101.parquet", columns=columns[:1])["hash"]
    # Twenty seconds of hashing are test_cells' business: here the file's own are taken.
    monkeypatch.setattr(CellSet, "hashes", hashes.to_numpy(str))
    table = Table.read(shared_data / "nasbench101.parquet")
    assert len(table) == 423_624
    assert best(table)["test_accuracy"] == pytest.approx(0.943175752957662, abs=1e-12)
    assert list(uses(table).values()) == [423_624, 423_624, 30_001, 30_001]
    assert table.budgets("validation_accuracy") == [0, 4, 12, 36]
    table.write(tmp_path / "t.parquet")
    monkeypatch.undo()
    again = Table.read(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(again.frame, table.frame)
    assert (again.cells.hashes[::1000] == table.cells[np.arange(0, 423_624, 1000)].hashes).all()
