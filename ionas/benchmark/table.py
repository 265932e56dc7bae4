"""A tabular benchmark: measured accuracies and times of cells, and the simulated clock of a search.

One row per cell. Columns: `hash`, `adjacency` (text of n*n characters 0/1), `operations` (names
joined by commas), `trainable_parameters`, and the measured fields of FIELDS. A plain field is the
mean over repeats at the largest budget of epochs; `FIELD_4` is that at 4 epochs; `FIELD_r0` and
`FIELD_4_r0` are single repeats; `FIELD_half`, `FIELD_4_half` and `FIELD_4_half_r0` are the same
halfway through the training. Fields may be missing, or NaN for some cells.

A table of NAS-Bench-201 may have `architecture` (its string) in place of adjacency and operations.
Columns `DATASET_FIELD` are the fields by data set; the one that is read takes the plain names.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ionas.space.cells import CONV1X1, CONV3X3, MAXPOOL3X3, NASBENCH201, Cell, CellSet, InvalidCell

FIELDS = ("train_accuracy", "validation_accuracy", "test_accuracy", "training_time")
IDENTITY = ("hash", "adjacency", "operations")
TEXTS = (*IDENTITY, "architecture")
EMBEDDED = ("digits",)
_COLUMN = re.compile(rf"({'|'.join(FIELDS)})(?:_(\d+))?(_half)?(?:_r(\d+))?")
_BY_DATASET = re.compile(rf"(.+?)_({_COLUMN.pattern})")
_DESCRIPTION = ("field", "epochs", "repeats", "cells known", "least", "mean", "most")
_GROUP = 1 << 14  # rows that are compressed before they are written: bounds the memory
_VERIFIED = b"ionas.cells"  # in the metadata of a Parquet file: digest of cells with their hashes
_COUNTED = {
    CONV3X3: "3x3 convolutions",
    CONV1X1: "1x1 convolutions",
    MAXPOOL3X3: "3x3 poolings",
    "nor_conv_3x3": "3x3 convolutions",
    "nor_conv_1x1": "1x1 convolutions",
    "avg_pool_3x3": "3x3 poolings",
    "skip_connect": "skip connections",
    "none": "edges left out",
}


class InvalidTable(ValueError):
    """A table that cannot be used; the message names the file, the column or row, and the mend."""


@dataclass(frozen=True, eq=False)
class Table:
    """A tabular benchmark in memory.

    Attributes
    ----------
    cells
        The N cells.
    frame
        N rows of numbers, in the order of the cells: `trainable_parameters` and measured columns.
    about
        `name`; `epochs`, the largest budget (0 if unknown); `time_unit`; anything else of its
        provenance.
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

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {str(name): row for row, name in enumerate(self.cells.hashes)}

    def index(self, cell: Cell | str) -> int:
        """Row of a cell or of its hash; raises KeyError if the table does not hold it."""
        name = cell if isinstance(cell, str) else cell.hash
        if name not in self._rows:
            raise KeyError(f"the table {self.name!r} holds no cell {name}")
        return self._rows[name]

    def take(self, indices: Sequence[int] | np.ndarray) -> "Table":
        """The table of some rows, in the given order."""
        chosen = np.asarray(indices)
        frame = self.frame.iloc[chosen].reset_index(drop=True)
        return Table(self.cells[chosen], frame, self.about)

    def values(
        self,
        name: str,
        epochs: int | None = None,
        repeat: int | None = None,
        half: bool = False,
    ) -> np.ndarray:
        """Values of a field for all cells, (N,) float64, NaN where unknown.

        Parameters
        ----------
        name
            One of FIELDS, or `trainable_parameters`.
        epochs
            Budget; None is the largest.
        repeat
            One repeat, from 0; None is the mean over the repeats.
        half
            Whether to give the value halfway through the training.

        Raises
        ------
        InvalidTable
            If the table does not hold it; the message says what it holds.
        """
        column = column_name(name, 0 if epochs == self.epochs else epochs or 0, half, repeat)
        if column not in self.frame:
            raise InvalidTable(
                f"the table {self.name!r} has no column {column!r}; "
                f"it has: {', '.join(self.frame.columns)}"
            )
        return self.frame[column].to_numpy(np.float64)

    def known(self, *names: str) -> np.ndarray:
        """(N,) whether all these fields are known of a cell, at the largest budget, as means."""
        columns = [
            np.isfinite(self.values(name)) if name in self.frame else np.zeros(len(self), bool)
            for name in names
        ]
        return np.logical_and.reduce(columns)

    def budgets(self, name: str) -> list[int]:
        """Budgets in epochs at which a field is known, ascending."""
        found = {
            int(match[2]) if match[2] else self.epochs
            for column in self.frame
            if (match := _COLUMN.fullmatch(column)) and match[1] == name and not match[3]
        }
        return sorted(found)

    def repeats(self, name: str, epochs: int | None = None) -> int:
        """Number of repeats that the table holds of a field at a budget."""
        budget = self.epochs if epochs is None else epochs
        matches = filter(None, map(_COLUMN.fullmatch, self.frame))
        return sum(
            match[1] == name
            and not match[3]
            and match[4] is not None
            and (int(match[2]) if match[2] else self.epochs) == budget
            for match in matches
        )

    def write(self, path: Path) -> None:
        """Write the table as Parquet: complete, or not at all.

        A digest of the cells and their hashes is written too, so that they need not be computed
        again by `read`.

        Raises
        ------
        InvalidTable
            If a cell stands in two rows.
        """
        self._check_unique(path)
        hashes = self.cells.hashes.tolist()
        identity = dict(zip(IDENTITY, (hashes, *self.cells.to_text()), strict=True))
        content = pa.Table.from_pandas(self.frame, preserve_index=False)  # copies no numbers
        for place, (name, values) in enumerate(identity.items()):
            content = content.add_column(place, name, pa.array(values, pa.string()))
        content = content.replace_schema_metadata(
            {"ionas": json.dumps(self.about), _VERIFIED: _digest(self.cells, hashes)}
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            pq.write_table(content, temporary, row_group_size=_GROUP, compression="zstd")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path | str, dataset: str = "") -> "Table":
        """Read a table from Parquet or CSV, and check it.

        The hash of every cell is computed and compared with the file's, and cells are put into the
        vertex order of the published file (`CellSet.published`), unless the file carries the digest
        that `write` left there and cells and hashes still fit it.

        Parameters
        ----------
        path
            File with the columns above; `operations` may also be a list of names per row, and
            `hash` may be missing; or of NAS-Bench-201 with `architecture`.
        dataset
            Whose accuracies are read, if the table has those of several data sets.

        Raises
        ------
        InvalidTable
            If the file is missing or malformed, a cell invalid or double, a hash wrong, an accuracy
            not between 0 and 1, or the data set not there.
        """
        path = Path(path)
        identity, frame, about, digest = _read_file(path)
        if names := _by_dataset(path, frame.columns, dataset):
            frame = frame[list(names)].rename(columns=names)
        try:
            cells = (
                CellSet.from_text(identity["adjacency"], identity["operations"])
                if "adjacency" in identity
                else CellSet.from_architectures(identity["architecture"])
            )
        except InvalidCell as error:
            raise InvalidTable(f"{path}: {error}") from error
        name = f"{path.stem} {dataset}".strip()
        table = cls(cells, frame, {"name": name, **about})
        _check_values(path, frame)
        given = identity.get("hash")
        if given and digest == _digest(cells, given):
            cells.__dict__["hashes"] = np.array(given, "U32")
            return table
        for row, (name, computed) in enumerate(zip(given or [], cells.hashes, strict=False)):
            if name != computed:
                raise InvalidTable(
                    f"{path}: row {row} has hash {name}, but its cell has {computed}; the columns "
                    "do not belong together"
                )
        table._check_unique(path)
        written = cells.published()
        written.__dict__["hashes"] = cells.hashes  # isomorphic cells have the same
        return replace(table, cells=written)

    def _check_unique(self, path: Path) -> None:
        if len(set(self.cells.hashes.tolist())) < len(self):
            row = next(r for r, name in enumerate(self.cells.hashes) if self._rows[name] != r)
            raise InvalidTable(
                f"{path}: rows {row} and {self._rows[self.cells.hashes[row]]} are the same cell; "
                "keep one row per cell"
            )


def column_name(name: str, epochs: int = 0, half: bool = False, repeat: int | None = None) -> str:
    """Name of the column of a field; 0 epochs are the largest budget, no repeat is the mean."""
    budget = f"_{epochs}" if epochs else ""
    return name + budget + "_half" * half + ("" if repeat is None else f"_r{repeat}")


def load_table(source: str, dataset: str = "") -> Table:
    """Load the embedded benchmark by name (`digits`), or a table by its path."""
    return embedded(source) if source in EMBEDDED else Table.read(source, dataset)


def embedded(name: str = "digits") -> Table:
    """Load a benchmark that comes with the package."""
    with as_file(files("ionas").joinpath(f"data/{name}.parquet")) as path:
        return Table.read(path)


def check_table(source: str, dataset: str = "") -> list[str]:
    """Look at a table's header only: raises InvalidTable if the study cannot run on it.

    Returns the names of the columns, plain ones for the data set.
    """
    if source in EMBEDDED:
        return list(FIELDS)
    path = Path(source)
    if path.suffix == ".csv" and path.is_file():
        columns = list(_read_csv(path, nrows=0).columns)
    else:
        columns = _open_parquet(path).schema_arrow.names
    _check_columns(path, columns)
    columns = list(_by_dataset(path, columns, dataset).values()) or columns
    if "test_accuracy" not in columns:
        raise InvalidTable(
            f"{path} has no column 'test_accuracy', which notebooks 01, 05 and 07 need; it has: "
            f"{', '.join(columns)}"
        )
    return columns


class Clock:
    """Simulated time: what each run of a search has spent, and what it found by then.

    Time belongs to the benchmark, not to the search: every query costs the training time of its
    cell. Several runs are kept side by side.

    Parameters
    ----------
    table
        Only cells with a known validation accuracy and training time can be queried; the test
        accuracy may be unknown.
    runs
        Number of runs.
    """

    def __init__(self, table: Table, runs: int = 1) -> None:
        unknown = np.full(len(table), np.nan)
        self.known = table.known("validation_accuracy", "training_time")
        self._validation, self._test, self._time = (
            table.values(name) if name in table.frame else unknown
            for name in ("validation_accuracy", "test_accuracy", "training_time")
        )
        self.elapsed = np.zeros(runs)
        self._log: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def query(self, cells: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
        """Evaluate one cell per run, and let its time pass.

        Parameters
        ----------
        cells
            (runs,) rows of the table.
        active
            (runs,) bool; the others spend no time and log nothing.

        Returns
        -------
        numpy.ndarray
            (runs,) validation accuracy.
        """
        rows = np.flatnonzero(active) if active is not None else np.arange(len(self.elapsed))
        self.elapsed[rows] += self._time[cells[rows]]
        self._log.append((rows, cells[rows], self.elapsed[rows].copy()))
        return self._validation[cells]

    def trajectories(self) -> pd.DataFrame:
        """All queries, run by run.

        Columns: run, step, cell, time (spent when the result is there), validation_accuracy and
        test_accuracy of the cell, and incumbent_validation and incumbent_test of the cell with the
        best validation accuracy so far.
        """
        run, cell, time = (np.concatenate(part) for part in zip(*self._log, strict=True))
        frame = pd.DataFrame({"run": run, "cell": cell, "time": time})
        frame = frame.sort_values("run", kind="stable", ignore_index=True)
        frame.insert(1, "step", frame.groupby("run").cumcount())
        frame["validation_accuracy"] = self._validation[frame["cell"]]
        frame["test_accuracy"] = self._test[frame["cell"]]
        best = frame.groupby("run")["validation_accuracy"].cummax()
        frame["incumbent_validation"] = best
        improved = frame["validation_accuracy"].eq(best) & ~best.eq(
            best.groupby(frame["run"]).shift()
        )
        incumbent = frame["cell"].where(improved).groupby(frame["run"]).ffill().astype(int)
        frame["incumbent_test"] = self._test[incumbent]
        return frame


def best(table: Table) -> dict[str, float]:
    """Best validation and test accuracy among the cells whose value the table knows, or NaN."""
    return {
        name: float(table.values(name)[known].max())
        if (known := table.known(name)).any()
        else np.nan
        for name in ("validation_accuracy", "test_accuracy")
    }


def training_cost(table: Table, rows: np.ndarray) -> float:
    """Training time of some cells together: what labels cost a search (appendix G; METHOD 9).

    Where the table knows no time of a cell, the mean over those that it knows stands in.
    """
    times = table.values("training_time")
    known = times[rows][np.isfinite(times[rows])]
    mean = known.mean() if len(known) else times[np.isfinite(times)].mean()
    return float(known.sum() + (len(rows) - len(known)) * mean)


def regret_curves(
    trajectories: pd.DataFrame,
    table: Table,
    grid: np.ndarray,
    shift: float = 0.0,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean regret over runs at fixed times, with a 95 % bootstrap interval over runs (Figs 5, 6).

    Regret is the table's best accuracy minus that of the incumbent, which is chosen by validation
    accuracy. Every run gives one value per time: that of its last result by then.

    Parameters
    ----------
    trajectories
        As `Clock.trajectories` gives them.
    grid
        (T,) simulated times.
    shift
        Time added to every result, for what a method costs before it starts.

    Returns
    -------
    DataFrame
        time, metric (`validation` or `test`), mean, low, high; NaN until every run has a result.
    """
    limits = best(table)
    runs = trajectories["run"].unique()
    draws = np.random.default_rng(seed).integers(len(runs), size=(bootstrap, len(runs)))
    parts = []
    for metric in ("validation", "test"):
        regret = np.stack(
            [
                limits[f"{metric}_accuracy"]
                - _held(group["time"] + shift, group[f"incumbent_{metric}"], grid)
                for _, group in trajectories.groupby("run")
            ]
        )  # (R, T)
        means = np.stack([regret[draw].mean(0) for draw in draws])
        low, high = np.quantile(means, [0.025, 0.975], axis=0)
        parts.append(
            pd.DataFrame(
                {"time": grid, "metric": metric, "mean": regret.mean(0), "low": low, "high": high}
            )
        )
    return pd.concat(parts, ignore_index=True)


def signal(table: Table) -> dict[str, float]:
    """How far cells differ beyond the noise of training, in test accuracy at the largest budget.

    Returns
    -------
    dict
        `between`, the standard deviation between cells of their mean test accuracy; `error`, the
        standard error of one cell's mean (pooled over cells); `ratio` of the two.
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
        match = _COLUMN.fullmatch(column)
        if match is None or match[4] or not (known := table.known(column)).any():
            continue
        values = table.values(column)[known]
        budget = int(match[2]) if match[2] else table.epochs
        rows.append(
            {
                "field": match[1],
                "epochs": f"{budget or 'full'}{' halfway' if match[3] else ''}",
                "repeats": table.repeats(match[1], budget) or "mean only",
                "cells known": int(known.sum()),
                "least": round(float(values.min()), 4),
                "mean": round(float(values.mean()), 4),
                "most": round(float(values.max()), 4),
                "order": (FIELDS.index(match[1]), budget or np.inf, bool(match[3])),
            }
        )
    frame = pd.DataFrame(sorted(rows, key=lambda row: row.pop("order")), columns=_DESCRIPTION)
    return frame.set_index(["field", "epochs"])


def uses(table: Table) -> dict[str, int]:
    """Cells that each part of the study can use, by what the table knows of them."""
    return {
        "unsupervised training": len(table),
        "Accuracy model and performance prediction": int(table.known("test_accuracy").sum()),
        "search": int(table.known("validation_accuracy", "training_time").sum()),
        "search that counts trainings (reinforce.cost=evaluations)": int(
            table.known("validation_accuracy").sum()
        ),
    }


def cell_properties(table: Table) -> dict[str, np.ndarray]:
    """What one can count of the cells, (N,) each: parameters if known, depth, each operation.

    Depth is left out for NAS-Bench-201, whose cells all have the same.
    """
    found = {}
    if "trainable_parameters" in table.frame:
        found["trainable parameters"] = table.values("trainable_parameters")
    if table.cells.space is not NASBENCH201:
        found["depth (edges)"] = table.cells.depth
    operations = table.cells.space.operations
    for operation, label in _COUNTED.items():
        if operation in operations:
            found[label] = (table.cells.operations == operations.index(operation)).sum(1)
    return found


def _held(times: pd.Series, values: pd.Series, grid: np.ndarray) -> np.ndarray:
    """Value of the last result by each time of the grid, NaN before the first."""
    position = np.searchsorted(times.to_numpy(), grid, side="right") - 1
    return np.where(position >= 0, values.to_numpy()[position], np.nan)


def _open_parquet(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise InvalidTable(
            f"there is no table {str(path)!r}; give {' or '.join(EMBEDDED)}, or the path of a "
            ".parquet or .csv file"
        )
    try:
        return pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise InvalidTable(f"{path} is not a Parquet file ({error})") from error


def _read_csv(path: Path, nrows: int | None = None) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(IDENTITY, str), nrows=nrows)
    except (OSError, ValueError) as error:
        raise InvalidTable(f"{path} cannot be read as CSV ({error})") from error


def _read_file(path: Path) -> tuple[dict[str, list[str]], pd.DataFrame, dict[str, Any], bytes]:
    """Columns that tell the cells, the other columns, what is said of the table, its digest."""
    if path.suffix == ".csv" and path.is_file():
        frame = _read_csv(path)
        _check_columns(path, frame.columns)
        identity = {name: frame.pop(name).tolist() for name in TEXTS if name in frame}
        return _checked(path, identity), frame, {}, b""
    file = _open_parquet(path)
    names, metadata = file.schema_arrow.names, file.schema_arrow.metadata or {}
    _check_columns(path, names)
    try:
        plain = "operations" in names and not pa.types.is_nested(
            file.schema_arrow.field("operations").type
        )
        if plain:
            file = pq.ParquetFile(path, read_dictionary=["operations"])
        # One column after the other: each is freed before the next one.
        identity = {n: _listed(file.read([n])[n]) for n in TEXTS if n in names}
        pa.default_memory_pool().release_unused()
        others = [n for n in names if n not in TEXTS and not n.startswith("__index_level_")]
        columns = {n: file.read([n])[n].to_pandas() for n in others}
        frame = pd.DataFrame(columns, range(file.metadata.num_rows), copy=False)
        about = dict(json.loads(metadata.get(b"ionas", b"{}")))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidTable(f"{path} is damaged ({error})") from error
    return _checked(path, identity), frame, about, metadata.get(_VERIFIED, b"")


def _listed(column: pa.ChunkedArray) -> list[Any]:
    """A column as a list; equal texts of a column with a dictionary are one object."""
    if not pa.types.is_dictionary(column.type):
        return column.to_pylist()
    column = column.combine_chunks()
    texts = np.array([*column.dictionary.to_pylist(), None], object)
    return texts[column.indices.fill_null(-1).to_numpy()].tolist()


def _checked(path: Path, identity: dict[str, list[Any]]) -> dict[str, list[str]]:
    """The columns as lists of texts; raises InvalidTable where something else stands."""
    if identity.get("operations") and isinstance(identity["operations"][0], list):
        identity["operations"] = [
            ",".join(map(str, names)) if isinstance(names, list) else names
            for names in identity["operations"]
        ]
    for name, values in identity.items():
        row = next((k for k, value in enumerate(values) if not isinstance(value, str)), None)
        if row is not None:
            raise InvalidTable(f"{path}: {name} of row {row} is {values[row]!r}; it must be text")
    return identity


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in ("adjacency", "operations") if name not in columns]
    if missing and "architecture" not in columns:
        raise InvalidTable(
            f"{path} has no column {missing[0]!r}; a table needs adjacency (text of n*n "
            "characters 0/1, row by row) and operations (names joined by commas), or the "
            "architecture of NAS-Bench-201"
        )


def _by_dataset(path: Path, columns: Sequence[str], dataset: str) -> dict[str, str]:
    """Columns to read -> their names, those of the data set plain; empty: all, as they are."""
    found = {name: match for name in columns if (match := _BY_DATASET.fullmatch(name))}
    there = sorted({match[1] for match in found.values()})
    plain = [name for name in columns if _COLUMN.fullmatch(name)]
    if not dataset and (plain or not there):
        return {}
    if not dataset and len(there) == 1:
        dataset = there[0]
    if dataset not in there:
        problem = f"no accuracies of {dataset!r}" if dataset else "accuracies of several data sets"
        mend = f"choose one of {', '.join(there)}" if there else "name none"
        raise InvalidTable(f"{path} has {problem}; {mend} (parameter search_space.dataset)")
    chosen = {name: match[2] for name, match in found.items() if match[1] == dataset}
    return {name: chosen.get(name, name) for name in columns if name not in plain}


def _digest(cells: CellSet, hashes: list[str]) -> bytes:
    """Digest of cells with their hashes, in the order of the rows."""
    content = hashlib.sha256(cells.adjacency.tobytes())
    content.update(cells.operations.tobytes())
    content.update(" ".join(hashes).encode())
    return content.hexdigest().encode()


def _check_values(path: Path, frame: pd.DataFrame) -> None:
    for column in frame:
        match = _COLUMN.fullmatch(column)
        if match is None:
            continue
        if not pd.api.types.is_numeric_dtype(frame[column]):
            raise InvalidTable(f"{path}: column {column!r} holds text, not numbers")
        values = frame[column].to_numpy(np.float64)
        time = match[1] == "training_time"
        bad = np.flatnonzero((values < 0) | (np.isinf(values) if time else values > 1))
        if len(bad):
            hint = "" if time or values[bad[0]] > 100 else "; accuracies are fractions, not percent"
            raise InvalidTable(f"{path}: {column} of row {bad[0]} is {values[bad[0]]}{hint}")
