"""Tables: reading whatever users have, refusing the rest with its reason, values, summaries."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ionas.benchmark.reading import DIGITS
from ionas.benchmark.table import (
    InvalidTable,
    Table,
    check_output,
    check_table,
    column_name,
    describe,
    load_table,
    signal,
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


def test_cells_are_put_into_the_canonical_order_once(tmp_path):
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
    assert (table.cells.adjacency == given.canonical_order().adjacency).all()
    assert (table.cells.operations == given.canonical_order().operations).all()
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
    assert column_name("test_accuracy", 4, 2) == "test_accuracy_4_r2"
    assert table.repeats("test_accuracy") == 2
    assert table.repeats("test_accuracy", 4) == 1
    assert table.values("test_accuracy", 12)[0] == 0.4
    assert table.values("test_accuracy", 4)[6] == pytest.approx(0.6)
    assert table.values("test_accuracy", 4, 0)[3] == 0.1
    assert table.values("test_accuracy", repeat=1)[3] == 0.35
    with pytest.raises(InvalidTable, match="'test_accuracy_36'; it has: validation_accuracy"):
        table.values("test_accuracy", 36)


def broken(tmp_path, change, ending="parquet", **dialect):
    table = small()
    adjacency, operations = table.cells.to_text()
    frame = table.frame.assign(hash=table.cells.hashes, adjacency=adjacency, operations=operations)
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        change(frame).to_csv(path, index=False, **dialect)
    else:
        change(frame).to_parquet(path)
    return path


MALFORMED = [
    (lambda f: f.drop(columns="operations"), "no column 'operations'; it has: validation_acc"),
    (lambda f: f.rename(columns={"adjacency": "adjacencies"}), "nearest: adjacencies; a table n"),
    (
        lambda f: f.drop(columns="operations").assign(architecture="x"),
        "row 0: 'x' is not an archit",
    ),
    (lambda f: f.assign(adjacency=None), "adjacency of row 0 is (None|nan); it must be text"),
    (lambda f: f.assign(adjacency="0" * 10**6), "adjacency of row 0 is '0+[.]+0+'; it must be t"),
    (lambda f: f.assign(hash=[*f["hash"][:6], None]), "hash of row 6 is (None|nan)"),
    (lambda f: f.assign(hash="x" * 999), "row 0 has hash x{40},"),
    (lambda f: f.assign(adjacency="\u00e9" + f["adjacency"].str[1:]), "row 0: adjacency"),
    (lambda f: f.assign(hash=f["hash"].iloc[::-1].to_numpy()), "row 0 has hash"),
    (lambda f: f.assign(test_accuracy=91.2), "not an accuracy from 0 to 1 .not percent"),
    (lambda f: f.assign(test_accuracy=[0.5] * 6 + [-0.1]), "test_accuracy of row 6 is -0.1"),
    (
        lambda f: f.assign(training_time=-1.0),
        "training_time of row 0 is -1.0, not a number from 0 up",
    ),
    (lambda f: f.assign(training_time=np.inf), "training_time of row 0 is inf"),
    (lambda f: f.assign(training_time=np.float32(np.inf)), "training_time of row 0 is inf"),
    (lambda f: f.assign(test_accuracy="high"), "test_accuracy of row 0 is 'high', not a"),
    (lambda f: f.assign(test_accuracy=True), "test_accuracy of row 0 is True, not a"),
    (
        lambda f: f.assign(trainable_parameters="3,984,576"),
        "parameters of row 0 is '3,984,576', no",
    ),
    (
        lambda f: f.assign(trainable_parameters=[1] * 6 + [-1]),
        "trainable_parameters of row 6 is -1",
    ),
    (
        lambda f: f.assign(operations=f["operations"].str.replace("conv3x3-bn-relu", "conv9x9")),
        "row [0-9]: unknown operation 'conv9x9'",
    ),
    (
        lambda f: f.assign(operations=f["operations"].str.replace("output", "maxpool3x3")),
        "row 0: .*last operation is 'maxpool3x3'",
    ),
    (lambda f: f.assign(adjacency="010"), "does not fit"),
    (lambda f: pd.concat([f, f.iloc[[2]]]), "rows 2 and 7 are the same cell"),
    (lambda f: pd.concat([f, f.iloc[[2]]]).drop(columns="hash"), "rows 2 and 7"),
    (lambda f: f.iloc[:0], "has a header, but no rows"),
]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize(("change", "message"), MALFORMED)
def test_malformed_tables_are_refused_with_their_reason(tmp_path, change, message, ending):
    with pytest.raises(InvalidTable, match=message) as caught:
        Table.read(broken(tmp_path, change, ending))
    assert str(tmp_path / f"t.{ending}") in str(caught.value)
    assert len(str(caught.value)) < 700


def test_lists_of_operations_with_a_hole_are_refused(tmp_path):
    path = broken(tmp_path, lambda f: f.assign(operations=[["input", "output"]] + [None] * 6))
    with pytest.raises(InvalidTable, match="operations of row 1 is None"):
        Table.read(path)


# --- what the first look tells -----------------------------------------------------------------


def test_the_first_look_counts_rows_and_known_values(tmp_path):
    path = broken(
        tmp_path,
        lambda f: f.assign(
            validation_accuracy=[0.5, None] * 3 + [None], training_time=[1, *[None] * 6]
        ),
    )
    known = {"validation_accuracy": 3, "test_accuracy": 7, "training_time": 1}
    assert check_table(str(path)).count().to_dict() == {"train_accuracy": 0, **known}
    assert set(check_table("digits").count()) == {2532}


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(test_accuracy=None), "column 'test_accuracy' is empty"),
        (lambda f: f.assign(trainable_parameters="3,984,576"), "'3,984,576', not a"),
        (lambda f: f.assign(test_accuracy=95.5), "not an accuracy from 0 to 1 .not percent"),
        (lambda f: f.iloc[:0], "has a header, but no rows"),
        (lambda f: f[["hash", "test_accuracy"]], "no column 'adjacency'"),
        (
            lambda f: f[["adjacency", "operations"]].assign(acc=0.9, std_test_accuracy=0.01),
            "no column 'test_accuracy'; it has: adjacency, operations, acc, std_test_accuracy; "
            "nearest: std_test_accuracy; if its accuracies are those of a data set, choose one of "
            "std ",
        ),
        (
            lambda f: f.drop(columns="test_accuracy").assign(test_acc=0.9, mean_test_accuracy=0.9),
            "no column 'test_accuracy'; it has: .*nearest: mean_test_accuracy, .*test_acc",
        ),
    ],
)
def test_the_first_look_refuses(tmp_path, change, message, ending):
    path = broken(tmp_path, change, ending)
    with pytest.raises(InvalidTable, match=message) as caught:
        check_table(str(path))
    assert "\n" not in str(caught.value)


def test_an_empty_column_is_unknown(tmp_path):
    for ending in ("parquet", "csv"):
        path = broken(tmp_path, lambda f: f.assign(training_time=None), ending)
        assert np.isnan(Table.read(path).values("training_time")).all()
        assert check_table(str(path))["training_time"].count() == 0


def test_a_spread_is_no_accuracy_beside_one(tmp_path):
    path = broken(tmp_path, lambda f: f.assign(std_test_accuracy=400.0, rank_test_accuracy="low"))
    assert (
        Table.read(path).values("test_accuracy").tolist()
        == small().values("test_accuracy").tolist()
    )


# --- text files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "delimiter"),
    [("csv", ","), ("csv", ";"), ("CSV", "\t"), ("tsv", "\t"), ("TSV", "\t")],
)
@pytest.mark.parametrize("line", ["\n", "\r\n", "\r"])
def test_dialects_of_text(tmp_path, ending, delimiter, line):
    path, expected = tmp_path / f"t.{ending}", small()
    adjacency, operations = expected.cells.to_text()
    frame = expected.frame.assign(adjacency=adjacency, operations=operations)
    frame.to_csv(path, index=False, sep=delimiter, lineterminator=line, encoding="utf-8-sig")
    table = Table.read(path)
    assert list(table.cells) == list(expected.cells)
    pd.testing.assert_frame_equal(table.frame, expected.frame)
    assert len(check_table(str(path)))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas(tmp_path, delimiter):
    path = broken(tmp_path, lambda f: f, "csv", sep=delimiter, decimal=",")
    assert f"{delimiter}0,65{delimiter}" in path.read_text()
    pd.testing.assert_frame_equal(Table.read(path).frame, small().frame)


@pytest.mark.parametrize(
    ("change", "decimal", "named"),
    [
        ({"trainable_parameters": "3,000"}, ".", "trainable_parameters of row 0 is '3,000'"),
        ({"trainable_parameters": "3,000"}, ",", "trainable_parameters of row 0 is '3,000'"),
        ({"training_time": "1,234"}, ".", "training_time of row 0 is '1,234'"),
        ({"training_time": ["1,234", *["1.5"] * 6]}, ",", "accuracy of row 0 is '0,5'"),
    ],
)
def test_a_comma_that_may_stand_between_thousands_is_refused(tmp_path, change, decimal, named):
    path = broken(tmp_path, lambda f: f.assign(**change), "csv", sep=";", decimal=decimal)
    for look in (check_table, Table.read):
        with pytest.raises(InvalidTable, match=f"{named}, in which the comma may be a decimal"):
            look(str(path))


def test_spaces_after_commas_and_in_operations(tmp_path):
    (tmp_path / "t.csv").write_text(
        "\n adjacency , operations, test_accuracy\n"
        '0100, "input, output" , 0.5\n'
        ' 010001000 , "input, conv3x3-bn-relu ,output", 0.75\n'
    )
    table = Table.read(tmp_path / "t.csv")
    assert [cell.operations[1:-1] for cell in table.cells] == [(), ("conv3x3-bn-relu",)]
    assert table.values("test_accuracy").tolist() == [0.5, 0.75]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("adjacency,operations\n0100,input,output\n", "more fields than its header .adjacency, op"),
        ("adjacency,operations,hash,hash\n", "column twice: hash; keep one"),
        ("adjacency|operations\n0100|input,output\n", r"no column .*it has: adjacency\|operations"),
        ("x" * 10**5 + ",adjacency\n", "no column 'operations'; it has: x{40}, adjacency"),
        (",".join(map(str, range(10**4))) + "\n", "18, 19 and 9980 more; a table needs"),
        ("", "is empty; it needs a header"),
        ("\n\n", "is empty; it needs a header"),
    ],
    ids=["no quotes", "twice", "bars", "long name", "many names", "empty", "blank"],
)
def test_text_that_is_no_table_is_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    for look in (check_table, Table.read):
        with pytest.raises(InvalidTable, match=message) as caught:
            look(str(tmp_path / "t.csv"))
        assert len(str(caught.value)) < 1000


def test_text_in_another_encoding_is_refused(tmp_path):
    content = "adjacency,operations,test_accuracy,r\u00e9sum\u00e9\n"
    for encoding in ("utf-16", "utf-16-le", "latin-1"):
        (tmp_path / "t.csv").write_text(content, encoding=encoding)
        with pytest.raises(InvalidTable, match=r"t\.csv .*; save it as UTF-8"):
            check_table(str(tmp_path / "t.csv"))


# --- Parquet files -----------------------------------------------------------------------------


def test_a_table_that_was_written_here_is_not_hashed_again(tmp_path, monkeypatch):
    table = small()
    table.write(tmp_path / "t.parquet")
    expected = table.cells.hashes

    def fail(*_):
        raise AssertionError("hashes are computed")

    monkeypatch.setattr("ionas.space.nasbench101.graph_hash", fail)
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
    rows = [0, 1, 2, 1]
    table = Table(small().cells[rows], small().frame.iloc[rows].reset_index(drop=True))
    with pytest.raises(InvalidTable, match="rows 1 and 3 are the same cell"):
        table.write(tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    small().write(tmp_path / "t.parquet")
    before = (tmp_path / "t.parquet").read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
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


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(InvalidTable, match="there is no table"):
        load_table(str(tmp_path / "absent.parquet"))
    with pytest.raises(InvalidTable, match="there is no table 'digit'"):
        check_table("digit")
    for path in (str(tmp_path), "/dev/null"):
        with pytest.raises(InvalidTable, match=f"{path} is not one file; give digits"):
            check_table(path)
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(InvalidTable, match="not a Parquet file"):
        check_table(str(tmp_path / "text.parquet"))
    small().write(tmp_path / "t.csv")
    assert len(Table.read(tmp_path / "t.csv")) == 7, "the content tells what a file is"


def test_damaged_parquet_is_named_wherever_it_is_damaged(tmp_path):
    path = tmp_path / "t.parquet"
    small().write(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        start, length = rng.integers(4, len(content)), rng.integers(1, 200)
        noise = rng.bytes(len(content[start : start + length]))
        path.write_bytes(content[:start] + noise + content[start + length :])
        for look in (check_table, Table.read):
            try:
                look(str(path))
            except InvalidTable as error:
                refused += 1
                assert str(path) in str(error)  # noqa: PT017
                assert len(str(error)) < 1000  # noqa: PT017
    assert refused > 100
    path.write_bytes(content[:-20])
    with pytest.raises(InvalidTable, match="damaged"):
        Table.read(path)


@pytest.mark.parametrize("about", ["{", "[]", "[" * 100_000, '{"epochs": "many"}'])
def test_damaged_metadata_are_named(tmp_path, about):
    table = pa.table({"adjacency": ["0100"], "operations": ["input,output"]})
    pq.write_table(table.replace_schema_metadata({"ionas": about}), tmp_path / "t.parquet")
    with pytest.raises(InvalidTable, match=r"t\.parquet.*damaged"):
        Table.read(tmp_path / "t.parquet")


def test_huge_values_do_not_fill_the_memory(tmp_path):
    """A text of a megabyte in every one of a hundred thousand rows: small as a file."""
    path = tmp_path / "t.parquet"
    huge = pa.DictionaryArray.from_arrays(np.zeros(100_000, np.int32), ["0" * 10**6])
    for name in ("adjacency", "operations", "hash"):
        texts = {"adjacency": ["0100"] * 10**5, "operations": ["input,output"] * 10**5, name: huge}
        pq.write_table(pa.table(texts), path)
        assert path.stat().st_size < 10**6
        with pytest.raises(InvalidTable, match=f"{name} of row 0 is '0*[.]+0*'; it must be text"):
            Table.read(path)
    one = {"adjacency": ["0" * 10**7], "operations": ["input,output"], "test_accuracy": [0.5]}
    pq.write_table(pa.table(one), path, use_dictionary=False)
    with pytest.raises(InvalidTable, match=r"adjacency of row 0 is '0*[.]+0*'; it must be text"):
        Table.read(path)
    pq.write_table(pa.table({name: pa.nulls(10**7, pa.string()) for name in texts}), path)
    with pytest.raises(InvalidTable, match=r"has 10,000,000 rows to read; at most"):
        check_table(str(path))


def test_a_column_twice_in_parquet_is_refused(tmp_path):
    table = pa.Table.from_arrays(
        [["0100"], ["input,output"], [0.5], [0.6]],
        ["adjacency", "operations", "test_accuracy", "test_accuracy"],
    )
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InvalidTable, match="column twice: test_accuracy"):
        check_table(str(tmp_path / "t.parquet"))


# --- the place of a table that is written ------------------------------------------------------


def test_the_output_is_never_the_source(tmp_path):
    source, link = tmp_path / "t.parquet", tmp_path / "link.parquet"
    small().write(source)
    link.symlink_to(source)
    for out in (source, link, tmp_path / "x" / ".." / "t.parquet"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InvalidTable, match="is the file that is read"):
            check_output(source, out)
    for out in (tmp_path / "t.csv", tmp_path / "t", tmp_path / "t.parquet" / "u.parquet", tmp_path):
        with pytest.raises(InvalidTable, match=r"give a name ending in \.parquet"):
            check_output(source, out)
    check_output(source, tmp_path / "new" / "folder" / "u.parquet")
    check_output("digits", source)


def test_the_embedded_table_is_a_source_too():
    with pytest.raises(InvalidTable, match="is the file that is read"):
        check_output("digits", DIGITS)


def test_a_table_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.csv").write_text(
        'adjacency,operations,test_accuracy\n0100,"input,output",1\n'
    )
    assert len(load_table("~/mine.csv")) == 1


# --- summaries ---------------------------------------------------------------------------------


def test_each_part_of_the_study_uses_the_cells_it_can():
    nan = np.nan
    table = small(
        test_accuracy=[nan, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
        validation_accuracy=[0.5, nan, 0.5, 0.5, 0.5, 0.5, 0.5],
        training_time=[1, 1, nan, nan, 1, 1, 1],
    )
    assert list(uses(table).values()) == [7, 6, 4, 6]
    bare = Table(table.cells, table.frame[[]])
    assert list(uses(bare).values()) == [7, 0, 0, 0]
    assert describe(bare).empty


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
    assert load_table("digits").name == Table.read("digits").name == "digits"


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


def test_the_command_does_not_write_over_its_source(tmp_path):
    path = broken(tmp_path, lambda f: f, "csv")
    before = path.read_bytes()
    done = ionas("data", "table", path, "--out", path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "give a name ending in .parquet" in done.stderr
    assert path.read_bytes() == before


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
    assert table.values("test_accuracy").max() == pytest.approx(0.943175752957662, abs=1e-12)
    assert list(uses(table).values()) == [423_624, 423_624, 30_001, 30_001]
    assert list(describe(table).loc["validation_accuracy"].index) == ["4", "12", "36", "full"]
    table.write(tmp_path / "t.parquet")
    monkeypatch.undo()
    again = Table.read(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(again.frame, table.frame)
    assert (again.cells.hashes[::1000] == table.cells[np.arange(0, 423_624, 1000)].hashes).all()
