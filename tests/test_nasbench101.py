"""The published TFRecord: converted in full, refused with the byte offset, never a crash.

The files are written here, by an encoder that shares nothing with the reader: CRC-32C bit by bit,
protobuf byte by byte (METHOD section 11).
"""

import base64
import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ionas.benchmark import tfrecord as nasbench101
from ionas.benchmark.table import FIELDS, Table, describe
from ionas.benchmark.tfrecord import InvalidRecord, convert, records
from ionas.cli import app
from ionas.space.cells import CellSet, enumerate_cells

BUDGETS = (4, 12, 36, 108)


@pytest.fixture(autouse=True)
def no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IONAS_PROGRESS", "off")


# --- an independent encoder --------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    rotated = crc >> 15 | crc << 17 & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def evaluation(epoch: float, values: Sequence[float], path: bytes = b"") -> bytes:
    train, validation, test, time = values
    fields = enumerate([epoch, time, train, validation, test], start=1)
    body = b"".join(bytes([number << 3 | 1]) + struct.pack("<d", value) for number, value in fields)
    if path:
        body += b"\x32" + varint(len(path)) + path
    return b"\x0a" + varint(len(body)) + body


def record(
    name: str,
    epochs: int,
    adjacency: str,
    operations: str,
    parameters: int,
    half: Sequence[float],
    end: Sequence[float],
    checkpoint: bytes = b"",
) -> bytes:
    start = evaluation(0.0, [0.1, 0.1, 0.1, 1.0], checkpoint)
    metrics = start + evaluation(epochs / 2, half) + evaluation(float(epochs), end, checkpoint)
    metrics += b"\x10" + varint(parameters) + b"\x19" + struct.pack("<d", 2 * end[3])
    return json.dumps(
        [name, epochs, adjacency, operations, base64.b64encode(metrics).decode()]
    ).encode()


Row = tuple[str, int, str, str, int, tuple[float, ...], tuple[float, ...]]


def made_up(
    cells: CellSet, budgets: Sequence[int] = BUDGETS, repeats: int = 3, single: bool = True
) -> list[Row]:
    """Arguments of `record` for every training, in a random order, but repeats in theirs."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    texts = zip(cells.hashes.tolist(), *cells.to_text(), strict=True)
    for index, (name, adjacency, operations) in enumerate(texts):
        for epochs in budgets:
            for _ in range(repeats):
                values = rng.uniform(0.1, 1, (2, 4))
                values[:, 3] *= 4000
                if single:
                    values = values.astype(np.float32).astype(float)
                half, end = values.tolist()
                rows.append(
                    (name, epochs, adjacency, operations, 10**6 + index, tuple(half), tuple(end))
                )
    order = rng.permutation(len(rows) // repeats)
    return [rows[repeats * k + r] for k in order for r in range(repeats)]


def written(path: Path, rows: Sequence[Row], **options: Any) -> Path:
    path.write_bytes(b"".join(framed(record(*row, **options)) for row in rows))
    return path


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return made_up(enumerate_cells(3))


@pytest.fixture
def whole(tmp_path: Path, rows: list[Row]) -> Path:
    return written(tmp_path / "nasbench_full.tfrecord", rows)


# --- what is read ------------------------------------------------------------------------------


def test_the_encoder_knows_the_check_values() -> None:
    """RFC 3720, B.4: CRC-32C of 32 zeros, and of the digits 1 to 9 by every catalogue."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283


def test_every_value_of_every_training_is_in_the_table(
    whole: Path, rows: list[Row], tmp_path: Path
) -> None:
    convert(whole, tmp_path / "t.parquet", any_file=True)
    table = Table.read(tmp_path / "t.parquet")
    assert sorted(table.cells.hashes) == sorted({row[0] for row in rows})
    assert (table.epochs, table.name, table.time_unit) == (108, "nasbench101", "seconds")
    seen: dict[tuple[str, int], int] = {}
    for name, epochs, adjacency, operations, parameters, _, end in rows:
        repeat = seen[name, epochs] = seen.get((name, epochs), -1) + 1
        at = table.cells.hashes.tolist().index(name)
        assert table.cells[[at]].to_text() == ([adjacency], [operations])
        assert table.values("trainable_parameters")[at] == parameters
        for field, final in zip(FIELDS, end, strict=True):
            assert table.values(field, epochs, repeat)[at] == final
    for field in FIELDS:
        for epochs in BUDGETS:
            assert table.repeats(field, epochs) == 3
            runs = [table.values(field, epochs, repeat) for repeat in range(3)]
            assert table.values(field, epochs) == pytest.approx(np.mean(runs, 0))
    held = describe(table)
    assert [epochs for field, epochs in held.index if field == "test_accuracy"] == [
        *("4", "12", "36", "108")
    ]
    assert (held["cells known"] == 7).all()


def test_the_smaller_file_has_one_budget(tmp_path: Path) -> None:
    path = written(tmp_path / "f.tfrecord", made_up(enumerate_cells(3), [108]))
    table = convert(path, tmp_path / "t.parquet", any_file=True)
    assert table.repeats("test_accuracy", 108) == 3
    assert len(table.frame.columns) == 1 + 4 * (1 + 3)


def test_single_precision_only_where_it_loses_nothing(whole: Path, tmp_path: Path) -> None:
    frame = convert(whole, tmp_path / "t.parquet", any_file=True).frame
    assert {str(frame[f"{field}_r0"].dtype) for field in FIELDS} == {"float32"}
    assert {str(frame[field].dtype) for field in FIELDS} == {"float64"}
    rows = made_up(enumerate_cells(2), [108], single=False)
    exact = convert(written(whole, rows), tmp_path / "t.parquet", any_file=True).frame
    assert exact["test_accuracy_r1"].tolist() == [rows[1][6][2]]


def test_a_checkpoint_path_and_line_breaks_in_base64_do_not_matter(
    tmp_path: Path, rows: list[Row]
) -> None:
    plain = convert(written(tmp_path / "a", rows), tmp_path / "a.parquet", any_file=True)
    path = written(tmp_path / "b", rows, checkpoint=b"/model/ckpt-" + b"1" * 200)
    content = [json.loads(data) for _, data in records(path)]
    lines = [[*c[:4], base64.encodebytes(base64.b64decode(c[4])).decode()] for c in content]
    path.write_bytes(b"".join(framed(json.dumps(line).encode()) for line in lines))
    other = convert(path, tmp_path / "b.parquet", any_file=True)
    pd.testing.assert_frame_equal(plain.frame, other.frame)


def test_vertices_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Cells are not replaced by the first of their isomorphic encodings."""
    adjacency = "0110000100010000"
    orders = ["input,maxpool3x3,conv1x1-bn-relu,output", "input,conv1x1-bn-relu,maxpool3x3,output"]
    for operations in orders:
        cell = CellSet.from_text([adjacency], [operations])
        path = written(tmp_path / "f.tfrecord", made_up(cell, [108]))
        table = convert(path, tmp_path / "t.parquet", any_file=True)
        assert table.cells.to_text() == ([adjacency], [operations])


# --- what is refused ---------------------------------------------------------------------------


def refused(path: Path, out: Path) -> str:
    with pytest.raises(InvalidRecord) as caught:
        convert(path, out, any_file=True)
    assert not list(out.parent.glob("*.parquet*")), "something half-written stays"
    assert not list(out.parent.glob(".*.parquet*")), "something half-written stays"
    return str(caught.value)


def starts(path: Path) -> list[int]:
    return [offset for offset, _ in records(path)]


@pytest.mark.parametrize("where", ["length", "length's sum", "data", "data's sum"])
def test_one_altered_bit_is_found_at_its_record(where: str, whole: Path, tmp_path: Path) -> None:
    start = starts(whole)[5]
    content = bytearray(whole.read_bytes())
    size = int.from_bytes(content[start : start + 8], "little")
    place = {"length": 1, "length's sum": 9, "data": 40, "data's sum": 13 + size}[where]
    content[start + place] ^= 16
    whole.write_bytes(content)
    message = refused(whole, tmp_path / "t.parquet")
    assert f"byte {start}: the checksum of the record's {where.split(chr(39))[0]}" in message


@pytest.mark.parametrize("left", [1, 11, 12, 100, -1])
def test_a_file_that_is_cut_off_is_refused_at_its_last_record(
    left: int, whole: Path, tmp_path: Path
) -> None:
    *_, before, start = starts(whole)
    end = len(whole.read_bytes())
    whole.write_bytes(whole.read_bytes()[: (start if left > 0 else end) + left])
    assert f"byte {start}: the file is cut off" in refused(whole, tmp_path / "t.parquet")
    assert before < start


def test_a_length_that_cannot_be_is_refused_before_it_is_read(tmp_path: Path) -> None:
    length = struct.pack("<Q", 2**62)
    path = tmp_path / "f.tfrecord"
    path.write_bytes(length + masked(length) + b"abc")
    assert "byte 0: a record of 4,611,686,018,427,387,904 bytes" in refused(
        path, tmp_path / "t.parquet"
    )


ROW = made_up(enumerate_cells(2), [108], 1)[0]
POOL = "input,maxpool3x3,output"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[1, 2", "not one of NAS-Bench-101"),
        (b"\xff\xfe", "not one of NAS-Bench-101"),
        (b"[" * 60_000, "not one of NAS-Bench-101"),
        (b'["a", 108, "0100", "input,output"]', "not enough values"),
        (b'["a", 108, "0100", "input,output", 7]', "must hold a hash, epochs"),
        (b'[["a"], 108, "0100", "input,output", ""]', "must hold a hash, epochs"),
        (
            b'["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", [108], "0100", "input,output", ""]',
            "not one of NAS-Bench-101",
        ),
        (
            b'["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 108, "0100", "input,output", "AAA"]',
            "not one of NAS-Bench-101",
        ),
        (
            b'["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 108, "0100", "input,output", "CgUA"]',
            "not one of NAS-Bench-101",
        ),
        (
            b'["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 108, "0100", "input,output", ""]',
            "not enough values",
        ),
        (record(*ROW[:4], 2**64 - 7, *ROW[5:]), "trainable_parameters is -7"),
        (record(ROW[0], 5, *ROW[2:]), r"epochs is 5, not one of \(4, 12, 36, 108\)"),
        (record("f" * 32, *ROW[1:]), "the hash is 'ffff.*but its cell has"),
        (record("\ud800" * 32, *ROW[1:]), r"the hash is '\\ud800.*', but"),
        (record("f" * 60_000, *ROW[1:]), "'f{40}' is not a hash of 32 digits"),
        (record(ROW[0], 108, "0010", *ROW[3:]), "not a cell: .*not upper triangular"),
        (record(ROW[0], 108, "01x0", *ROW[3:]), "not a cell: "),
        (record(ROW[0], 108, "01\u00e90", *ROW[3:]), "not a cell: "),
        (record(ROW[0], 108, "0" * 10_000, *ROW[3:]), "not a cell: .*does not fit"),
        (
            record(ROW[0], 108, "0100", "input,end", *ROW[4:]),
            "not a cell: .*last operation is 'end'",
        ),
        (record(*ROW[:6], (0.1, 0.2, 1.5, 9.0)), "test_accuracy is 1.5"),
        (record(*ROW[:6], (0.1, -0.2, 0.5, 9.0)), "validation_accuracy is -0.2"),
        (record(*ROW[:6], (0.1, 0.2, 0.5, float("inf"))), "training_time is inf"),
    ],
)
def test_a_sound_record_with_other_content_is_refused(
    data: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "f.tfrecord"
    path.write_bytes(framed(data))
    with pytest.raises(InvalidRecord, match=rf"f\.tfrecord, byte 0: .*{message}"):
        convert(path, tmp_path / "t.parquet", any_file=True)


def test_a_missing_number_is_not_taken_for_zero(tmp_path: Path) -> None:
    *fields, encoded = json.loads(record(*ROW))
    metrics = base64.b64decode(encoded)
    accuracy = b"\x29" + struct.pack("<d", ROW[6][2])
    assert accuracy in metrics
    # The field number of the final test accuracy becomes one that nobody knows.
    other = metrics.replace(accuracy, b"\x79" + accuracy[1:])
    path = tmp_path / "f.tfrecord"
    path.write_bytes(framed(json.dumps([*fields, base64.b64encode(other).decode()]).encode()))
    assert "test_accuracy is nan (nan: missing)" in refused(path, tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "has, by epochs, "),
        (lambda rows: [row for row in rows if row[:2] != rows[0][:2]], "has, by epochs, "),
        (lambda rows: rows + [row for row in rows if row[1] == 4], "has, by epochs, "),
        (lambda rows: rows * 2, "cells have 6 repeats; at most 3"),
        (
            lambda rows: [*rows, (ROW[0], 108, "011001000", POOL, *ROW[4:])],
            "another cell",
        ),
        (lambda rows: [], "has no records"),
    ],
)
def test_an_incomplete_or_contradicting_file_is_refused(
    change: Any, message: str, rows: list[Row], tmp_path: Path
) -> None:
    path = written(tmp_path / "f.tfrecord", change(rows))
    assert message in refused(path, tmp_path / "t.parquet")


def test_only_the_published_files_are_taken_without_a_word(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.parquet"
    digest = hashlib.sha256(whole.read_bytes()).hexdigest()
    with pytest.raises(InvalidRecord, match=f"undamaged TFRecord, but its SHA-256 {digest}.*--any"):
        convert(whole, out)
    monkeypatch.setattr(nasbench101, "PUBLISHED", {digest: "nasbench_full.tfrecord"})
    with pytest.raises(InvalidRecord, match="has 7 cells, not 423624 of 3 repeats"):
        convert(whole, out)
    assert not out.exists()
    monkeypatch.setattr(nasbench101, "CELLS", 7)
    about = convert(whole, out).about["source"]
    assert about == {"file": "nasbench_full.tfrecord", "sha256": digest}
    whole.write_bytes(whole.read_bytes()[:-7])
    with pytest.raises(InvalidRecord, match=r"byte \d+: the file is cut off"):
        convert(whole, out)
    assert len(Table.read(out)) == 7, "a refused file left the table alone"


# --- the command -------------------------------------------------------------------------------


def test_the_command(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["data", "nasbench101", "--from", whole.name]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    done = CliRunner().invoke(app, [*command, "--any-file"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("7 cells: nasbench101.parquet\n")
    for arguments, message in (
        ([*command, "t.csv"], "give a name ending in .parquet"),
        ([*command, whole.name], "give a name ending in .parquet"),
        (["data", "nasbench101", "--from", "absent.tfrecord"], "No such file"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr


# --- any bytes at all --------------------------------------------------------------------------


def survives(content: bytes, folder: Path) -> None:
    """The reader either makes a table or says what is wrong, and leaves nothing behind."""
    path, out = folder / "f.tfrecord", folder / "out" / "t.parquet"
    path.write_bytes(content)
    try:
        convert(path, out, any_file=True)
    except InvalidRecord:
        assert not out.parent.exists()
        return
    assert len(Table.read(out))
    out.unlink()
    out.parent.rmdir()


fuzzed = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SOUND = [record(*row) for row in made_up(enumerate_cells(3)[:2], [108], 2)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@fuzzed
@given(st.binary(max_size=400))
def test_random_bytes(tmp_path: Path, content: bytes) -> None:
    survives(content, tmp_path)


@fuzzed
@given(st.lists(st.binary(max_size=60) | JSON.map(lambda v: json.dumps(v).encode()), max_size=3))
def test_random_records_with_right_checksums(tmp_path: Path, data: list[bytes]) -> None:
    survives(b"".join(map(framed, data)), tmp_path)


@fuzzed
@given(st.data())
def test_sound_files_with_altered_bytes(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(b"".join(map(framed, SOUND)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        action = data.draw(st.sampled_from(["set", "insert", "delete"]))
        if action == "set":
            content[place] = data.draw(st.integers(0, 255))
        elif action == "insert":
            content[place:place] = data.draw(st.binary(max_size=9))
        else:
            del content[place : place + data.draw(st.integers(1, 30))]
    survives(bytes(content), tmp_path)


@fuzzed
@given(
    st.integers(0, len(SOUND) - 1),
    st.integers(0, 4),
    st.text() | st.integers() | st.none() | st.sampled_from([4, 12, "0100", "input,output"]),
)
def test_sound_records_with_another_field(
    tmp_path: Path, which: int, field: int, value: Any
) -> None:
    content = [json.loads(data) for data in SOUND]
    content[which][field] = value
    survives(b"".join(framed(json.dumps(fields).encode()) for fields in content), tmp_path)


@fuzzed
@given(st.integers(0, len(SOUND) - 1), st.integers(0, 154), st.binary(min_size=1, max_size=12))
def test_altered_metrics_with_right_checksums(
    tmp_path: Path, which: int, place: int, piece: bytes
) -> None:
    content = [json.loads(data) for data in SOUND]
    metrics = base64.b64decode(content[which][4])
    metrics = metrics[:place] + piece + metrics[place + len(piece) :]
    content[which][4] = base64.b64encode(metrics).decode()
    survives(b"".join(framed(json.dumps(fields).encode()) for fields in content), tmp_path)
