"""NAS-Bench-101 as it was published: its TFRecord becomes a table, without TensorFlow (METHOD 11).

The file has one record per training: a cell, an epoch budget, and the accuracies and times at the
start, halfway and at the end (Ying et al. 2019).
"""

import base64
import hashlib
import json
import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pandas as pd
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tqdm import tqdm

from ionas.benchmark.table import FIELDS, Table, column_name
from ionas.space.cells import CellSet, InvalidCell

EPOCHS = (4, 12, 36, 108)
REPEATS = 3
CELLS = 423_624
# SHA-256 of the published files.
PUBLISHED = {
    "4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1": "nasbench_only108.tfrecord",
    "3d64db8180fb1b0207212f9032205064312b6907a3bbc81eabea10db2f5c7e9c": "nasbench_full.tfrecord",
}
LONGEST = 1 << 16  # bytes of a record; the published ones have about 400
_HEAD = struct.Struct("<QI")
_CHUNK = 1 << 16  # records
_VALUES = tuple((name, half) for half in (True, False) for name in FIELDS)


class InvalidRecord(ValueError):
    """A TFRecord that is no NAS-Bench-101; the message names the file and the byte offset."""


def convert(source: Path, out: Path, any_file: bool = False) -> Table:
    """Write the table of a NAS-Bench-101 TFRecord.

    Every record's two checksums are compared, every cell's hash is computed and compared. Columns
    are those of `ionas.benchmark.table`: all repeats of all budgets, halfway and at the end, and
    their means. A column is stored in single precision where that loses nothing.

    Parameters
    ----------
    source
        The published `nasbench_only108.tfrecord` or `nasbench_full.tfrecord`.
    out
        Parquet file to write, complete or not at all.
    any_file
        Take a file of the same format whose SHA-256 is not a published one, such as a part of it.

    Raises
    ------
    InvalidRecord
        If the file is damaged, cut off, not a published one, or holds something else.
    OSError
        If a file cannot be read or written.
    """
    folder = next(folder for folder in out.absolute().parents if folder.exists())
    if out.suffix != ".parquet" or out.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidRecord(
            f"cannot write the table to {out}; give a name ending in .parquet, in a folder of yours"
        )
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest not in PUBLISHED and not any_file:
        for _ in records(source):  # tells where it is damaged
            pass
        raise InvalidRecord(
            f"{source} is an undamaged TFRecord, but its SHA-256 {digest} is not that of a "
            f"published one ({', '.join(PUBLISHED.values())}); take it all the same with --any-file"
        )
    table = _assemble(source, _collect(source))
    if digest in PUBLISHED and (len(table), table.repeats("test_accuracy")) != (CELLS, REPEATS):
        raise InvalidRecord(f"{source} has {len(table)} cells, not {CELLS} of {REPEATS} repeats")
    table.about["source"] = {"file": PUBLISHED.get(digest, source.name), "sha256": digest}
    table.write(out)
    return table


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read a TFRecord file: (byte offset, data) of each record, checksums compared.

    Raises
    ------
    InvalidRecord
        With the offset of the first record that is cut off or altered.
    """
    silent = bool(os.environ.get("IONAS_PROGRESS"))
    bar = tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, disable=silent)
    offset = 0
    with bar, path.open("rb", 1 << 20) as file:
        while head := file.read(12):
            if len(head) < 12:
                raise _refusal(path, offset, "the file is cut off")
            length, check = _HEAD.unpack(head)
            if not _fits(head[:8], check):
                raise _refusal(path, offset, "the checksum of the record's length is wrong")
            if length > LONGEST:
                raise _refusal(
                    path, offset, f"a record of {length:,} bytes is none of NAS-Bench-101"
                )
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise _refusal(path, offset, "the file is cut off")
            data = body[:-4]
            if not _fits(data, int.from_bytes(body[-4:], "little")):
                raise _refusal(path, offset, "the checksum of the record's data is wrong")
            yield offset, data
            offset += length + 16
            bar.update(length + 16)


def _fits(data: bytes, check: int) -> bool:
    """Whether the masked CRC-32C of data is this."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF == check


@dataclass
class _Content:
    """What the records of a file say, in their order.

    Attributes
    ----------
    rows
        Hash -> row of the cell.
    adjacency, operations, parameters, first
        By row: texts of the cell, trainable parameters, byte offset of its first record.
    keys
        By record: row * 4 + position of the budget in EPOCHS.
    values
        By column of _VALUES: its parts, record after record.
    """

    rows: dict[str, int] = field(default_factory=dict)
    adjacency: list[str] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    parameters: array = field(default_factory=lambda: array("i"))
    first: array = field(default_factory=lambda: array("q"))
    keys: array = field(default_factory=lambda: array("i"))
    values: list[list[np.ndarray]] = field(default_factory=lambda: [[] for _ in _VALUES])

    def add(self, columns: list[np.ndarray]) -> None:
        """Append a part to every column."""
        for parts, column in zip(self.values, columns, strict=True):
            parts.append(column)


def _collect(path: Path) -> _Content:
    content = _Content()
    budgets = {epochs: index for index, epochs in enumerate(EPOCHS)}
    kept: dict[str, str] = {}  # so that equal texts are one object
    offsets, values = array("q"), array("d")
    for offset, data in records(path):
        try:
            name, epochs, adjacency, operations, parameters, measured = _parse(data)
            if epochs not in budgets:
                raise ValueError(f"{epochs!r} epochs are none of {EPOCHS}")
            row = content.rows.setdefault(name, len(content.rows))
            if row == len(content.first):
                content.adjacency.append(kept.setdefault(adjacency, adjacency))
                content.operations.append(kept.setdefault(operations, operations))
                content.parameters.append(parameters)
                content.first.append(offset)
            elif content.adjacency[row] != adjacency or content.operations[row] != operations:
                raise ValueError(f"another cell has its hash, at byte {content.first[row]}")
        except (ValueError, TypeError, RecursionError, DecodeError) as error:
            raise _refusal(path, offset, f"the record is none of NAS-Bench-101: {error}") from error
        content.keys.append(row * len(EPOCHS) + budgets[epochs])
        offsets.append(offset)
        values.extend(measured)
        if len(offsets) == _CHUNK:
            content.add(_checked(path, offsets, values))
            offsets, values = array("q"), array("d")
    content.add(_checked(path, offsets, values))
    return content


def _parse(data: bytes) -> tuple[str, int, str, str, int, tuple[float, ...]]:
    """Hash, epochs, adjacency, operations, parameters and values of a record; raises anything."""
    name, epochs, adjacency, operations, encoded = json.loads(data.decode())
    if not type(name) is type(adjacency) is type(operations) is type(encoded) is str:
        raise ValueError("it must hold a hash, epochs, adjacency, operations and metrics")
    if len(name) != 32:
        raise ValueError(f"{name[:40]!r} is no hash of 32 digits")
    metrics = _METRICS.FromString(base64.b64decode(encoded))
    _, half, end = metrics.evaluation_data
    values = (
        half.train_accuracy,
        half.validation_accuracy,
        half.test_accuracy,
        half.training_time,
        end.train_accuracy,
        end.validation_accuracy,
        end.test_accuracy,
        end.training_time,
    )
    return name, epochs, adjacency, operations, metrics.trainable_parameters, values


def _checked(path: Path, offsets: array, values: array) -> list[np.ndarray]:
    """Values by column, in single precision where that loses nothing; refused if impossible."""
    chunk = np.array(values).reshape(-1, len(_VALUES))
    most = [np.inf if name == "training_time" else 1 for name, _ in _VALUES]
    bad = ~(np.isfinite(chunk) & (chunk >= 0) & (chunk <= most))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name, half = _VALUES[column]
        where = " halfway" if half else ""
        raise _refusal(path, offsets[row], f"{name}{where} is {chunk[row, column]} (nan: missing)")
    single = chunk.astype(np.float32)
    exact = (single == chunk).all(0)
    return [
        np.ascontiguousarray((single if exact[column] else chunk)[:, column])
        for column in range(len(_VALUES))
    ]


def _assemble(path: Path, content: _Content) -> Table:
    """Make the table of all records; raises InvalidRecord where it has holes or false hashes."""
    names, first = list(content.rows), content.first
    if not names:
        raise InvalidRecord(f"{path} holds no record")
    cells = _cells(path, content)
    if len(wrong := np.flatnonzero(cells.hashes != np.array(names))):
        row = wrong[0]
        raise _refusal(
            path, first[row], f"the hash is {names[row]!r}, but its cell has {cells.hashes[row]}"
        )
    keys = np.array(content.keys)
    counts = np.bincount(keys, minlength=len(names) * len(EPOCHS)).reshape(-1, len(EPOCHS))
    budgets = np.flatnonzero(counts.any(0))
    repeats = int(np.bincount(counts[counts > 0]).argmax())
    if len(wrong := np.flatnonzero((counts[:, budgets] != repeats).any(1))):
        found = dict(zip(EPOCHS, counts[wrong[0]].tolist(), strict=True))
        raise InvalidRecord(
            f"{path}: cell {names[wrong[0]]} has, by epochs, {found} records, others {repeats}"
        )
    if repeats > REPEATS:
        raise InvalidRecord(f"{path}: cells have {repeats} repeats; at most {REPEATS}")
    order = keys.argsort(kind="stable").reshape(len(names), len(budgets), repeats)
    largest = EPOCHS[budgets[-1]]
    columns = {"trainable_parameters": np.array(content.parameters, np.int32)}
    for name, half in _VALUES:
        measured = np.concatenate(content.values.pop(0))  # its parts are freed: half a gigabyte
        for index, epochs in enumerate(EPOCHS[budget] for budget in budgets):
            by_cell = measured[order[:, index]]  # (cells, repeats)
            budget = 0 if epochs == largest else epochs
            columns[column_name(name, budget, half)] = by_cell.mean(1, dtype=np.float64)
            for repeat in range(repeats):
                part = np.ascontiguousarray(by_cell[:, repeat])
                columns[column_name(name, budget, half, repeat)] = part
    about = {"name": "nasbench101", "epochs": largest, "time_unit": "seconds"}
    return Table(cells, pd.DataFrame(columns, copy=False), about)


def _cells(path: Path, content: _Content) -> CellSet:
    try:
        return CellSet.from_text(content.adjacency, content.operations)
    except InvalidCell as error:
        for texts in zip(content.first, content.adjacency, content.operations, strict=True):
            try:
                CellSet.from_text([texts[1]], [texts[2]])
            except InvalidCell as single:
                problem = str(single).removeprefix("row 0: ")
                raise _refusal(path, texts[0], f"no cell: {problem}") from single
        raise InvalidRecord(f"{path}: {error}") from error


def _refusal(path: Path, offset: int, problem: str) -> InvalidRecord:
    return InvalidRecord(f"{path}, byte {offset}: {problem}; fetch the file again")


def _metrics_class() -> Any:
    """The protobuf message of METHOD 11, as far as it is read; a missing number is NaN."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="nasbench101.proto", syntax="proto2")
    evaluation = file.message_type.add(name="EvaluationData")
    for number, name in enumerate(("training_time", *FIELDS[:3]), start=2):
        evaluation.field.add(
            name=name,
            number=number,
            type=kind.TYPE_DOUBLE,
            label=kind.LABEL_OPTIONAL,
            default_value="nan",
        )
    metrics = file.message_type.add(name="ModelMetrics")
    metrics.field.add(
        name="evaluation_data",
        number=1,
        type=kind.TYPE_MESSAGE,
        label=kind.LABEL_REPEATED,
        type_name=".EvaluationData",
    )
    metrics.field.add(
        name="trainable_parameters", number=2, type=kind.TYPE_INT32, label=kind.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ModelMetrics"))


_METRICS = _metrics_class()
