"""Convert the published TFRecord of NAS-Bench-101 to a table, without TensorFlow (METHOD 11).

The file has one record per training: a cell, an epoch budget, and the accuracies and times at the
start, halfway and at the end, of which the last are taken (Ying et al. 2019).
"""

import base64
import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pandas as pd
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError
from tqdm import tqdm

from ionas.benchmark.table import FIELDS, Table, check_output, column_name
from ionas.space import InvalidCell
from ionas.space.cells import CellSet

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
# The message of METHOD 11, as far as it is read; a missing number is NaN.
_MESSAGE = """
name: "nasbench101.proto" syntax: "proto2"
message_type {
  name: "Evaluation"
  field { number: 2 name: "training_time" type: TYPE_DOUBLE default_value: "nan" }
  field { number: 3 name: "train_accuracy" type: TYPE_DOUBLE default_value: "nan" }
  field { number: 4 name: "validation_accuracy" type: TYPE_DOUBLE default_value: "nan" }
  field { number: 5 name: "test_accuracy" type: TYPE_DOUBLE default_value: "nan" }
}
message_type {
  name: "Metrics"
  field {
    number: 1 name: "evaluations" type: TYPE_MESSAGE type_name: ".Evaluation" label: LABEL_REPEATED
  }
  field { number: 2 name: "trainable_parameters" type: TYPE_INT32 }
}
"""
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_MESSAGE, descriptor_pb2.FileDescriptorProto()))
_Metrics: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("Metrics"))


class InvalidRecord(ValueError):
    """A TFRecord that is not NAS-Bench-101; the message names the file and the byte offset."""


def convert(source: Path, out: Path, any_file: bool = False) -> Table:
    """Write the table of a NAS-Bench-101 TFRecord to a Parquet file, complete or not at all.

    Both checksums of every record and the hash of every cell are compared. Columns are those of
    `ionas.benchmark.table`: all repeats of all budgets, and their means. A field is stored in
    single precision where that loses nothing. `any_file` accepts a file of the same format whose
    SHA-256 is not a published one, such as a part of it.

    Raises InvalidRecord if the file is damaged, cut off, not a published one, or holds something
    else, and InvalidTable if the table cannot be written to `out`.
    """
    check_output(source, out)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest not in PUBLISHED and not any_file:
        for _ in records(source):  # raises if it is damaged
            pass
        raise InvalidRecord(
            f"{source} is an undamaged TFRecord, but its SHA-256 {digest} is not that of "
            f"{' or '.join(PUBLISHED.values())}; to convert it nevertheless, give --any-file"
        )
    table = _assemble(source)
    if digest in PUBLISHED and (len(table), table.repeats("test_accuracy")) != (CELLS, REPEATS):
        raise InvalidRecord(f"{source} has {len(table)} cells, not {CELLS} of {REPEATS} repeats")
    table.about["source"] = {"file": PUBLISHED.get(digest, source.name), "sha256": digest}
    table.write(out)
    return table


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read a TFRecord file: (byte offset, data) of each record, checksums compared.

    Raises InvalidRecord with the offset of the first record that is cut off or altered.
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
                problem = f"a record of {length:,} bytes is not one of NAS-Bench-101"
                raise _refusal(path, offset, problem)
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


def _trainings(path: Path, cells: dict[str, tuple]) -> Iterator[tuple[float, ...]]:
    """Yield the cell's row, the position of the budget and the FIELDS of every record.

    Meanwhile `cells` is filled: hash -> row, adjacency, operations, parameters, offset of the first
    record.
    """
    for offset, data in records(path):
        try:
            name, epochs, adjacency, operations, encoded = json.loads(data.decode())
            if not type(name) is type(adjacency) is type(operations) is type(encoded) is str:
                raise ValueError("it must hold a hash, epochs, adjacency, operations and metrics")
            if len(name) != 32:
                raise ValueError(f"{name[:40]!r} is not a hash of 32 digits")
            if epochs not in EPOCHS:
                raise ValueError(f"epochs is {epochs!r}, not one of {EPOCHS}")
            metrics = _Metrics.FromString(base64.b64decode(encoded))
            if metrics.trainable_parameters < 0:
                raise ValueError(f"trainable_parameters is {metrics.trainable_parameters}")
            _, _, end = metrics.evaluations  # start, halfway, end
            values = [getattr(end, field) for field in FIELDS]
            for field, value in zip(FIELDS, values, strict=True):
                if not 0 <= value <= (1 if "accuracy" in field else sys.float_info.max):
                    raise ValueError(f"{field} is {value} (nan: missing)")
            cell = (len(cells), adjacency, sys.intern(operations))
            known = cells.setdefault(name, (*cell, metrics.trainable_parameters, offset))
            if known[1:3] != cell[1:]:
                raise ValueError(f"another cell has its hash, at byte {known[4]}")
        except (ValueError, TypeError, RecursionError, DecodeError) as error:
            problem = f"the record is not one of NAS-Bench-101: {error}"
            raise _refusal(path, offset, problem) from error
        yield known[0], EPOCHS.index(epochs), *values


def _assemble(path: Path) -> Table:
    """Make the table of all records; InvalidRecord if some are missing or a hash is wrong."""
    found: dict[str, tuple] = {}
    kinds = [("row", np.int32), ("budget", np.int8), *((name, np.float64) for name in FIELDS)]
    trainings = np.fromiter(_trainings(path, found), np.dtype(kinds))
    if not found:
        raise InvalidRecord(f"{path} has no records")
    _, adjacency, operations, parameters, first = zip(*found.values(), strict=True)
    try:
        cells = CellSet.from_text(adjacency, operations)
    except InvalidCell as error:
        row, _, problem = str(error).removeprefix("row ").partition(": ")
        raise _refusal(path, first[int(row)], f"not a cell: {problem}") from error
    for offset, given, computed in zip(first, found, cells.hashes, strict=True):
        if given != computed:
            problem = f"the hash is {given!r}, but its cell has {computed}"
            raise _refusal(path, offset, problem)
    keys = trainings["row"].astype(np.intp) * len(EPOCHS) + trainings["budget"]
    counts = np.bincount(keys, minlength=len(cells) * len(EPOCHS)).reshape(-1, len(EPOCHS))
    budgets = np.flatnonzero(counts.any(0))
    repeats = int(counts.max())
    if len(wrong := np.flatnonzero((counts[:, budgets] != repeats).any(1))):
        by_epochs = dict(zip(EPOCHS, counts[wrong[0]].tolist(), strict=True))
        problem = f"the cell has, by epochs, {by_epochs} records, others {repeats}"
        raise _refusal(path, first[wrong[0]], problem)
    if repeats > REPEATS:
        raise InvalidRecord(f"{path}: cells have {repeats} repeats; at most {REPEATS}")
    order = keys.argsort(kind="stable").reshape(len(cells), len(budgets), repeats)
    largest = EPOCHS[budgets[-1]]
    columns = {"trainable_parameters": np.array(parameters, np.int32)}
    for name in FIELDS:
        single = trainings[name].astype(np.float32)
        stored = single if (single == trainings[name]).all() else trainings[name]
        for place, epochs in enumerate(EPOCHS[budget] for budget in budgets):
            runs = stored[order[:, place]]  # (cells, repeats)
            budget = 0 if epochs == largest else epochs
            columns[column_name(name, budget)] = runs.mean(1, dtype=np.float64)
            for repeat in range(repeats):
                columns[column_name(name, budget, repeat)] = np.ascontiguousarray(runs[:, repeat])
    about = {"name": "nasbench101", "epochs": largest, "time_unit": "seconds"}
    return Table(cells, pd.DataFrame(columns, copy=False), about)


def _refusal(path: Path, offset: int, problem: str) -> InvalidRecord:
    return InvalidRecord(f"{path}, byte {offset}: {problem}; fetch the file again")
