"""A tabular benchmark: measured accuracies and training times of cells.

One row per cell. Columns: `hash`, `adjacency` (text of n*n characters 0/1), `operations` (names
joined by commas), `trainable_parameters`, and the measured fields of FIELDS. A plain field is the
mean over repeats at the largest budget of epochs; `FIELD_4` is the mean at 4 epochs; `FIELD_r0` and
`FIELD_4_r0` are single repeats. Fields may be missing, or NaN for some cells. Other columns are not
read.

A table of NAS-Bench-201 may have `architecture` (its string) in place of adjacency and operations.
Columns `DATASET_FIELD` are fields of several data sets; those of the chosen one are read under
their plain names.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ionas.benchmark.reading import (
    ABOUT,
    COLUMN,
    FIELDS,
    VERIFIED,
    InvalidTable,
    missing,
    place_of,
    read,
)
from ionas.parts import write_whole
from ionas.space import InvalidCell
from ionas.space.cells import CellSet


@dataclass(frozen=True, eq=False)
class Table:
    """A tabular benchmark in memory.

    `cells` are its N cells; `frame` has N rows in the same order, with `trainable_parameters` and
    the measured columns; `about` has `name`, `epochs` (the largest budget, 0 if unknown),
    `time_unit` and anything else of its provenance.
    """

    cells: CellSet
    frame: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def name(self) -> str:
        """Name of the benchmark."""
        return str(self.about.get("name", "unnamed"))

    @property
    def epochs(self) -> int:
        """Largest budget, in epochs; 0 if unknown."""
        return int(self.about.get("epochs", 0))

    @property
    def time_unit(self) -> str:
        """Unit of the training times."""
        return str(self.about.get("time_unit", "seconds"))

    def values(self, name: str, epochs: int | None = None, repeat: int | None = None) -> np.ndarray:
        """Values of a field or `trainable_parameters`, (N,) float64, NaN where unknown.

        If `epochs` is None, they are of the largest budget; if `repeat` is None, the mean over the
        repeats. Raises InvalidTable if the table does not hold them.
        """
        column = column_name(name, 0 if epochs == self.epochs else epochs or 0, repeat)
        if column not in self.frame:
            raise InvalidTable(missing(f"the table {self.name!r}", column, list(self.frame)))
        return self.frame[column].to_numpy(np.float64)

    def known(self, *names: str) -> np.ndarray:
        """Whether a cell's means of all these fields at the largest budget are known, (N,) bool."""
        return self.frame.reindex(columns=list(names)).notna().all(axis=1).to_numpy()

    def repeats(self, name: str, epochs: int | None = None) -> int:
        """Number of repeats that the table holds of a field at a budget."""
        budget = 0 if epochs == self.epochs else epochs or 0
        return next(k for k in count() if column_name(name, budget, k) not in self.frame)

    def write(self, path: Path) -> None:
        """Write the table as Parquet: complete, or not at all.

        A digest of the cells and their hashes is written as well, so that `read` need not compute
        the hashes again. Raises InvalidTable if a cell is in two rows.
        """
        _check_unique(path, self.cells)
        hashes = self.cells.hashes.tolist()
        adjacency, operations = self.cells.to_text()
        identity = {"hash": hashes, "adjacency": adjacency, "operations": operations}
        content = pa.Table.from_pandas(self.frame, preserve_index=False)  # copies no numbers
        for place, (name, values) in enumerate(identity.items()):
            content = content.add_column(place, name, pa.array(values, pa.string()))
        content = content.replace_schema_metadata(
            {ABOUT: json.dumps(self.about), VERIFIED: _digest(self.cells, hashes)}
        )
        sink = pa.BufferOutputStream()
        pq.write_table(content, sink, row_group_size=1 << 14, compression="zstd")
        write_whole(path, sink.getvalue())

    @classmethod
    def read(cls, source: Path | str, dataset: str = "") -> "Table":
        """Read `digits`, the table that comes with the package, or a Parquet or text file.

        The hash of every cell is computed and compared with the file's, and the vertices of cells
        are put into the published order (`CellSet.canonical_order`), unless the file carries the
        digest that `write` left there and cells and hashes still fit it. `operations` may also be a
        list of names per row, and `hash` may be missing. `dataset` names the data set whose
        accuracies are read, if the table has those of several. Raises InvalidTable if the file is
        missing or malformed, a cell is invalid or there twice, a hash is wrong, a value is
        impossible, or the data set is not there.
        """
        content = read(source, dataset)
        texts = content.texts
        try:
            if "architecture" in texts:
                cells = CellSet.from_architectures(texts["architecture"])
            else:
                cells = CellSet.from_text(texts["adjacency"], texts["operations"])
        except InvalidCell as error:
            raise InvalidTable(f"{source}: {error}") from error
        about = {"name": f"{Path(source).stem} {dataset}".strip(), **content.about}
        given = texts.get("hash", [])
        if given and content.digest == _digest(cells, given):
            cells.hashes = np.array(given, "U32")
            return cls(cells, content.frame, about)
        for row, (name, computed) in enumerate(zip(given, cells.hashes, strict=False)):
            if name != computed:
                raise InvalidTable(
                    f"{source}: row {row} has hash {name[:40]}, but its cell has {computed}; the "
                    "columns do not belong together"
                )
        _check_unique(source, cells)
        ordered = cells.canonical_order()
        ordered.hashes = cells.hashes  # isomorphic cells have the same
        return cls(ordered, content.frame, about)


def load_table(source: str, dataset: str = "") -> Table:
    """Load `digits`, which comes with the package, or a table by its path: see `Table.read`."""
    return Table.read(source, dataset)


def check_table(source: str, dataset: str = "") -> pd.DataFrame:
    """Look at a table's columns and numbers, but not at its cells.

    Returns a row per cell with its means at the largest budget: all FIELDS, NaN where unknown.
    Raises InvalidTable if the study cannot run on the table.
    """
    content = read(source, dataset, with_texts=False)
    if "test_accuracy" not in content.frame:
        column = missing(source, "test_accuracy", content.columns)
        raise InvalidTable(f"{column}; notebooks 01, 05 and 07 need it")
    if not content.frame["test_accuracy"].count():
        raise InvalidTable(f"{source}: column 'test_accuracy' is empty; notebook 01 needs values")
    return content.frame.reindex(columns=list(FIELDS)).astype(np.float64)


def check_output(source: str | Path, out: Path) -> None:
    """Raise InvalidTable if `out` is no place for the table that is made of `source`.

    It must end in .parquet, lie in a folder that can be written, and be another file.
    """
    folder = next(folder for folder in out.absolute().parents if folder.exists())
    writable = folder.is_dir() and os.access(folder, os.W_OK) and not out.is_dir()
    if out.suffix != ".parquet" or not writable:
        raise InvalidTable(
            f"cannot write the table to {out}; give a name ending in .parquet, in a folder of yours"
        )
    place = place_of(source)
    if out.exists() and place.exists() and out.samefile(place):
        raise InvalidTable(f"{out} is the file that is read; give another name for the table")


def column_name(name: str, epochs: int = 0, repeat: int | None = None) -> str:
    """Name of the column of a field; 0 epochs are the largest budget, no repeat is the mean."""
    return name + (f"_{epochs}" if epochs else "") + ("" if repeat is None else f"_r{repeat}")


def _check_unique(path: Path | str, cells: CellSet) -> None:
    rows: dict[str, int] = {}
    for row, name in enumerate(cells.hashes.tolist()):
        if (first := rows.setdefault(name, row)) != row:
            raise InvalidTable(
                f"{path}: rows {first} and {row} are the same cell; keep one row per cell"
            )


def _digest(cells: CellSet, hashes: list[str]) -> bytes:
    """Digest of cells with their hashes, in the order of the rows."""
    content = hashlib.sha256(cells.adjacency.tobytes())
    content.update(cells.operations.tobytes())
    content.update(" ".join(hashes).encode())
    return content.hexdigest().encode()


def signal(table: Table) -> dict[str, float]:
    """How far cells differ beyond the noise of training, in test accuracy at the largest budget.

    Returns `between`, the standard deviation between cells of their mean test accuracy; `error`,
    the standard error of one cell's mean (pooled over cells); `ratio` of the two. Raises
    InvalidTable if the table holds fewer than two repeats.
    """
    repeats = table.repeats("test_accuracy")
    if repeats < 2:
        raise InvalidTable(f"the table {table.name!r} holds fewer than two repeats of a cell")
    runs = np.stack([table.values("test_accuracy", repeat=k) for k in range(repeats)])  # (R, N)
    runs = runs[:, np.isfinite(runs).all(0)]
    error = float(np.sqrt(runs.var(0, ddof=1).mean() / repeats))
    between = float(runs.mean(0).std(ddof=1))
    return {"between": between, "error": error, "ratio": between / error}


def describe(table: Table) -> pd.DataFrame:
    """What a table holds: a row per field and budget with repeats, cells known, and the range."""
    rows = []
    for column in table.frame:
        match = COLUMN.fullmatch(column)
        if match is None or match[3] or not (known := table.known(column)).any():
            continue
        values = table.values(column)[known]
        budget = int(match[2] or table.epochs)
        row: dict[str, Any] = {"field": match[1], "epochs": str(budget or "full")}
        row["repeats"] = str(table.repeats(match[1], budget) or "mean only")
        row["cells known"] = len(values)
        for name, value in ("least", values.min()), ("mean", values.mean()), ("most", values.max()):
            row[name] = round(float(value), 4)
        rows.append((FIELDS.index(match[1]), budget or np.inf, row))
    columns = ["field", "epochs", "repeats", "cells known", "least", "mean", "most"]
    ordered = [row for *_, row in sorted(rows, key=lambda row: row[:2])]
    return pd.DataFrame(ordered, columns=columns).set_index(["field", "epochs"])


def uses(table: Table) -> dict[str, int]:
    """Cells that each part of the study can use, by what the table knows of them."""
    known = {
        "Accuracy model and performance prediction": table.known("test_accuracy"),
        "search": table.known("validation_accuracy", "training_time"),
        "search that counts trainings (reinforce.cost=evaluations)": table.known(
            "validation_accuracy"
        ),
    }
    return {"unsupervised training": len(table), **{k: int(v.sum()) for k, v in known.items()}}
