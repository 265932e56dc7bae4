"""Read the file of a table, Parquet or delimited text, and check its columns and values.

Every fault of a file becomes one InvalidTable that names the file, the column or row, and how to
mend it. A file that would fill the memory is refused before it is read.
"""

import csv
import json
import os
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api.types import is_bool_dtype, is_numeric_dtype

FIELDS = ("train_accuracy", "validation_accuracy", "test_accuracy", "training_time")
PARAMETERS = "trainable_parameters"
COLUMN = re.compile(rf"({'|'.join(FIELDS)})(?:_([0-9]+))?(?:_r([0-9]+))?")
ABOUT = b"ionas"  # in the metadata of a Parquet file: `Table.about`
VERIFIED = b"ionas.cells"  # in the metadata of a Parquet file: digest of cells with their hashes
DIGITS = Path(__file__).parents[1] / "data" / "digits.parquet"
_TEXTS = ("hash", "adjacency", "operations", "architecture")
_LONGEST = 1000  # characters of a text that describes a cell
_MOST_ROWS = 1 << 23
_MOST_BYTES = 1 << 31  # of a text file, or of the uncompressed columns of a Parquet file
# What readers raise for bytes that are not of their format.
_DAMAGE = (OSError, ValueError, TypeError, KeyError, RecursionError, csv.Error, pa.ArrowException)


class InvalidTable(ValueError):
    """A table that cannot be used; the message names the place and how to mend it."""


@dataclass(frozen=True)
class Content:
    """What is read from a file."""

    columns: list[str]  # names of all columns of the file
    texts: dict[str, list[str]]  # columns that describe the cells
    frame: pd.DataFrame  # trainable_parameters and the measured columns under their plain names
    about: dict[str, Any]  # metadata written by `Table.write`, as is the digest of the cells
    digest: bytes


def read(source: Path | str, dataset: str = "", with_texts: bool = True) -> Content:
    """Read a table's file and check its columns, texts and numbers, but not its cells.

    `source` is `digits`, a Parquet file, or text in a .csv or .tsv file, with fields between
    commas, semicolons or tabs. Columns DATASET_FIELD of the `dataset` are taken for the fields.
    Raises InvalidTable if the file is missing, malformed or too large, a column is missing or there
    twice, a value is impossible, or the data set is not there.
    """
    path = place_of(source)
    try:
        metadata: dict[bytes, bytes] = {}
        delimiter = ""
        if _is_parquet(path):
            schema = pq.read_schema(path)
            columns, metadata = list(schema.names), schema.metadata or {}
        else:
            delimiter, columns = _header(path)
        about = json.loads(metadata.get(ABOUT, b"{}"))
        if type(about) is not dict or type(about.get("epochs", 0)) is not int:
            raise ValueError("its metadata are not those of a table")
        cells, numbers = _columns_of_cells(path, columns), _numbers_named(path, columns, dataset)
        names = [*(cells if with_texts else []), *numbers]
        frame = _read_text(path, delimiter, columns) if delimiter else _read_parquet(path, names)
        if delimiter not in ("", ","):
            _read_commas(path, frame, numbers)
        if not len(frame):
            raise InvalidTable(f"{path} has a header, but no rows")
        texts = {name: _checked_texts(path, frame[name]) for name in cells if name in names}
        checked = {plain: _checked_numbers(path, frame[at], plain) for at, plain in numbers.items()}
        measured = pd.DataFrame(checked, range(len(frame)), copy=False)
        return Content(columns, texts, measured, about, metadata.get(VERIFIED, b""))
    except InvalidTable:
        raise
    except _DAMAGE as error:
        brief = " ".join(str(error).split())[:200]
        hint = "; save it as UTF-8" if isinstance(error, UnicodeError) else ""
        raise InvalidTable(f"{path} cannot be read or is damaged ({brief}){hint}") from error


def place_of(source: Path | str) -> Path:
    """Path of a table's file; `digits` is the embedded one, and `~` the home folder."""
    return DIGITS if str(source) == "digits" else Path(os.path.expanduser(source))


def listing(names: Iterable[str]) -> str:
    """List names in a message, at most twenty of them."""
    names = [name[:40] for name in names]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def missing(path: Path | str, name: str, columns: Sequence[str]) -> str:
    """Say that a column is missing, which columns there are, and which may be meant."""
    near = get_close_matches(name, columns[:1000], 3)
    hint = f"; nearest: {listing(near)}" if near else ""
    return f"{path} has no column {name!r}; it has: {listing(columns)}{hint}"


def _is_parquet(path: Path) -> bool:
    if not path.is_file():
        found = f"{path} is not one file" if path.exists() else f"there is no table {str(path)!r}"
        mend = "give digits, or the path of a .parquet, .csv or .tsv file"
        raise InvalidTable(f"{found[:300]}; {mend}")
    with path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    if not parquet and path.suffix.lower() not in (".csv", ".tsv"):
        raise InvalidTable(f"{path} is not a Parquet file; text must be in a .csv or .tsv file")
    return parquet


def _header(path: Path) -> tuple[str, list[str]]:
    """Delimiter and columns of a text file, told by its first line."""
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline(1 << 20)
        while header.isspace():
            header = file.readline(1 << 20)
    if not header:
        raise InvalidTable(f"{path} is empty; it needs a header and a row per cell")
    if "\0" in header:
        raise InvalidTable(f"{path} is not UTF-8 text, perhaps UTF-16; save it as UTF-8")
    delimiter = max(",;\t", key=header.count)
    names = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
    return delimiter, [name.strip() for name in names]


def _read_text(path: Path, delimiter: str, columns: list[str]) -> pd.DataFrame:
    _check_size(path, path.stat().st_size)
    frame = pd.read_csv(
        path,
        sep=delimiter,
        names=columns,
        header=0,
        dtype=dict.fromkeys(_TEXTS, str),
        skipinitialspace=True,
        low_memory=False,
    )
    if not isinstance(frame.index, pd.RangeIndex):
        raise InvalidTable(
            f"{path} has rows with more fields than its header ({listing(columns)}); "
            "put operations in quotes, or separate the columns by semicolons"
        )
    return frame


def _read_commas(path: Path, frame: pd.DataFrame, numbers: dict[str, str]) -> None:
    """Put points for decimal commas; InvalidTable where they may separate thousands instead."""
    texts = {name: frame[name].astype(str) for name in numbers if not is_numeric_dtype(frame[name])}
    points = any(column.str.contains(".", regex=False).any() for column in texts.values())
    points |= any((frame[name] % 1 > 0).any() for name in numbers if name not in texts)
    for name, column in texts.items():
        commas = column.str.contains(",", regex=False)
        if commas.any() and (points or numbers[name] == PARAMETERS):
            raise InvalidTable(
                f"{path}: {name} of row {commas.argmax()} is {column[commas.argmax()][:40]!r}, in "
                "which the comma may be a decimal sign or stand between thousands; write numbers "
                "as 1234.5"
            )
        pointed = column.str.replace(r"^([^,]*),([^,]*)$", r"\1.\2", regex=True)
        frame[name] = pointed.where(frame[name].notna())


def _read_parquet(path: Path, names: list[str]) -> pd.DataFrame:
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(k) for k in range(file.metadata.num_row_groups)]
    parts = [group.column(k) for group in groups for k in range(group.num_columns)]
    inside = [part for part in parts if part.path_in_schema.split(".")[0] in names]
    size = sum(part.total_uncompressed_size for part in inside)
    _check_size(path, size, file.metadata.num_rows)
    # With a dictionary a text that fills many rows is in memory once.
    flat = [name for name in names if not pa.types.is_nested(file.schema_arrow.field(name).type)]
    content = pq.ParquetFile(path, read_dictionary=flat).read(names)
    frame = content.to_pandas(ignore_metadata=True)
    return frame.astype(dict.fromkeys(frame.select_dtypes("category"), object))


def _check_size(path: Path, size: int, rows: int = 0) -> None:
    for count, most, unit in ((size, _MOST_BYTES, "bytes"), (rows, _MOST_ROWS, "rows")):
        if count > most:
            raise InvalidTable(f"{path} has {count:,} {unit} to read; at most {most:,} are")


def _columns_of_cells(path: Path, columns: list[str]) -> list[str]:
    """Columns that describe the cells; InvalidTable if they are missing or there twice."""
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise InvalidTable(f"{path} has a column twice: {listing(twice)}; keep one")
    needed = [name for name in ("adjacency", "operations") if name not in columns]
    if needed and "architecture" not in columns:
        raise InvalidTable(
            f"{missing(path, needed[0], columns)}; a table needs adjacency (text of n*n characters "
            "0/1, row by row) and operations (names joined by commas), or the architecture of "
            "NAS-Bench-201"
        )
    telling = ["architecture"] if needed else ["adjacency", "operations"]
    return ["hash", *telling] if "hash" in columns else telling


def _numbers_named(path: Path, columns: list[str], dataset: str) -> dict[str, str]:
    """Columns of numbers -> their plain names.

    The data set is never guessed: std_test_accuracy is not the accuracy of a data set.
    """
    ending = "_test_accuracy"
    there = sorted(name.removesuffix(ending) for name in columns if name.endswith(ending))
    if dataset and dataset not in there:
        mend = f"choose one of {listing(there)}" if there else "name none"
        raise InvalidTable(
            f"{path} has no accuracies of {dataset!r}; {mend} (parameter search_space.dataset)"
        )
    prefix = f"{dataset}_" if dataset else ""
    plain = {name: name.removeprefix(prefix) for name in columns if name.startswith(prefix)}
    measured = {name: field for name, field in plain.items() if COLUMN.fullmatch(field)}
    if there and not measured:
        raise InvalidTable(
            f"{missing(path, 'test_accuracy', columns)}; if its accuracies are those of a data "
            f"set, choose one of {listing(there)} (parameter search_space.dataset)"
        )
    known = {PARAMETERS: PARAMETERS} if PARAMETERS in columns else {}
    return {name: (known | measured)[name] for name in columns if name in known | measured}


def _checked_texts(path: Path, column: pd.Series) -> list[str]:
    """Texts of a column, lists joined by commas."""
    values = [",".join(map(str, v)) if isinstance(v, np.ndarray) else v for v in column]
    for row, value in enumerate(values):
        if not isinstance(value, str) or len(value) > _LONGEST:
            raise InvalidTable(
                f"{path}: {column.name} of row {row} is {reprlib.repr(value)}; it must be text of "
                f"at most {_LONGEST} characters"
            )
    return [value.strip() for value in values]


def _checked_numbers(path: Path, column: pd.Series, field: str) -> pd.Series:
    """Numbers of a column; raises InvalidTable if one is impossible."""
    numbers = column
    if not is_numeric_dtype(column) or is_bool_dtype(column):
        texts = np.array([str(value)[:_LONGEST] for value in column], object)
        numbers = pd.Series(pd.to_numeric(texts, errors="coerce"))
    accuracy = "accuracy" in field
    values = numbers.astype(np.float64)
    inside = values.between(0, 1 if accuracy else sys.float_info.max)
    if field == PARAMETERS:  # with a comma for the thousands it would be read as a fraction
        inside &= values % 1 == 0
    if len(wrong := np.flatnonzero(column.notna() & ~inside)):
        value = reprlib.repr(column.tolist()[wrong[0]])
        whole = "a whole number" if field == PARAMETERS else "a number"
        wanted = "an accuracy from 0 to 1 (not percent)" if accuracy else f"{whole} from 0 up"
        raise InvalidTable(
            f"{path}: {column.name} of row {wrong[0]} is {value}, not {wanted}; leave unknown ones "
            "empty"
        )
    return numbers
