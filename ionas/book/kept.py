"""Heavy results, kept by what makes them: computed once, read from then on, never by accident.

A result is a file in a folder. The ledger of the folder, kept.json, says for each what it was made
from: the code of the modules that compute it, its arguments, its data, the results it is made from.
A result is taken while all that is the same, and else computed again and written; what draws, tells
or organises does not count. So a changed colour or sentence computes nothing.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ionas.book import provenance
from ionas.book.folders import project_root, read_json, write_json
from ionas.parameters import Parameters
from ionas.parts import write_whole

PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
LEDGER = "kept.json"  # what each result of a folder was made from
ENTRY = {"key", "sha256", "size", "parts", "wall_s", "processor_s", "revision"}
HEARTBEAT_S = 10


class KeptError(ValueError):
    """A result that cannot be kept or read; the message says which and why."""


class File:
    """A result or a file of data that is not read before it is needed.

    Attributes
    ----------
    path
        Where it is; nothing is there if a publication has left it out.
    """

    def __init__(self, path: Path, sha256: str = "") -> None:
        self.path = path
        self._sha256 = sha256

    def __repr__(self) -> str:
        return f"File({self.path.name!r})"

    @property
    def sha256(self) -> str:
        """Hash of its content."""
        self._sha256 = self._sha256 or provenance.data_hash(self.path)
        return self._sha256

    def load(self) -> Any:
        """Read it: a DataFrame or Table, a dict of arrays, a JSON value; else give its path.

        Raises
        ------
        KeptError
            If a publication has left it out.
        """
        if not self.path.exists():
            raise KeptError(
                f"{self.path} is too large for a publication, and was left out: make it again by "
                f"running the notebook of {self.path.parent.name} with --force"
            )
        reader = READERS.get(self.path.suffix) if self._is_result else None
        return reader(self.path) if reader else self.path

    @property
    def _is_result(self) -> bool:
        return self.path.is_file() and (self.path.parent / LEDGER).is_file()


def keep(
    folder: Path,
    earlier: Sequence[Path],
    file: str,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    parts: str = "",
    grows: Sequence[str] = (),
    known: bool = False,
) -> dict[str, Any]:
    """Have `function(*args, **kwargs)` in a file of a folder, computed only if it does not hold.

    Parameters
    ----------
    folder
        Where the result shall be.
    earlier
        Folders of earlier results of the same kind, from which one that holds is taken over.
    file
        Name; its ending decides the form: `.parquet` for a DataFrame or a Table, `.safetensors` for
        a dict of arrays, `.json` for plain values.
    function
        A function of a module. What this module imports of the package counts.
    args, kwargs
        Plain values, parameters of notebooks, or `File`, which are read before the call. `jobs` and
        `device` do not count.
    parts
        A folder in which the function, called with the keyword `parts`, keeps what is finished (see
        `ionas.parts`), so that a call that was killed goes on.
    grows
        Arguments, and fields of arguments, that only say how much there is: when these alone
        change, the parts still hold.
    known
        Whether the function takes, by the keyword `known`, the value of the earlier result from
        which this one has grown (None: there is none), so that what a publication holds is not
        computed again although its parts were left out.

    Returns
    -------
    dict
        The entry of the ledger: `key`, `grown` (the key without `grows`), `sha256`, `size` in
        bytes, `parts` and the `listing` of their files, `wall_s` and `processor_s` (of all calls
        that led to it), `revision`.

    Raises
    ------
    KeptError
        If the file has no form, or an argument is neither plain nor a file.
    """
    if Path(file).suffix not in WRITERS or Path(file).name != file:
        raise KeptError(f"{file!r} is no file name that ends in one of {', '.join(WRITERS)}")
    arguments = {str(place): value for place, value in enumerate(args)} | dict(kwargs)
    made_from = {
        "code": provenance.function_code(function),
        "arguments": {
            name: _plain(value, f"{file}: argument {name} of {function.__name__}")
            for name, value in provenance.inputs_only(arguments).items()
        },
    }
    key = provenance.json_hash(made_from)
    for place in (folder, *earlier):
        entry = ledger(place).get(file)
        if entry and entry["key"] == key and not provenance.damaged(place, {file: entry}):
            if place != folder:
                _link(place / file, folder / file)
                if entry["parts"]:
                    _link(place / entry["parts"], folder / entry["parts"])
                _enter(folder, file, entry)
            return entry
    stamp = folder / f".{parts or file}.json"
    grown = provenance.json_hash(_without(made_from, grows))
    before = _before(file, grown, (folder, *earlier)) if known else None
    if parts:
        _open_parts(folder, earlier, parts, grown, before)
        kwargs = {**kwargs, "parts": folder / parts}
    if known:
        kwargs = {**kwargs, "known": before}
    with _clock(stamp) as spent:
        value = function(*map(_loaded, args), **{k: _loaded(v) for k, v in kwargs.items()})
        WRITERS[Path(file).suffix](folder / file, value)
    if not parts:
        stamp.unlink()
    entry = {
        "key": key,
        "grown": grown,
        "sha256": provenance.file_hash(folder / file),
        "size": (folder / file).stat().st_size,
        "parts": parts,
        "listing": provenance.listing(folder / parts) if parts else "",
        **spent,
        "revision": provenance.revision(project_root())["revision"],
    }
    _enter(folder, file, entry)
    return entry


def ledger(folder: Path) -> dict[str, Any]:
    """What each undamaged result of a folder was made from, by the names of the files."""
    entries = (read_json(folder / LEDGER) or {}).items()
    return {name: e for name, e in entries if isinstance(e, dict) and e.keys() >= ENTRY}


def tidy(folder: Path, entries: Mapping[str, Mapping[str, Any]], others: Collection[str]) -> None:
    """Remove from a folder, and its ledger, all but these results, their parts, and other files."""
    folders = {entry["parts"] for entry in entries.values() if entry["parts"]}
    wanted = {*entries, *folders, *(f".{name}.json" for name in folders), LEDGER, *others}
    for path in folder.glob("*"):
        if path.name not in wanted:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_json(folder / LEDGER, entries)


def _enter(folder: Path, file: str, entry: Mapping[str, Any]) -> None:
    write_json(folder / LEDGER, ledger(folder) | {file: entry})


def _before(file: str, grown: str, places: Sequence[Path]) -> "File | None":
    """The undamaged result from which one grows."""
    for place in places:
        entry = ledger(place).get(file, {})
        if entry.get("grown") == grown and not provenance.damaged(place, {file: entry}):
            return File(place / file, entry["sha256"])
    return None


def _open_parts(
    folder: Path, earlier: Sequence[Path], name: str, key: str, before: "File | None"
) -> None:
    """Ready the folder of parts: those that were made from the same, here or earlier, or none."""
    stamp = f".{name}.json"
    for place in (folder, *earlier):
        if (read_json(place / stamp) or {}).get("key") == key:
            if place != folder:
                _link(place / name, folder / name)
                _link(place / stamp, folder / stamp)
            break
    else:
        shutil.rmtree(folder / name, ignore_errors=True)
        entry = ledger(before.path.parent)[before.path.name] if before else {}
        spent = {time: entry[time] for time in ("wall_s", "processor_s") if entry}
        write_json(folder / stamp, {"key": key, **spent})
    (folder / name).mkdir(parents=True, exist_ok=True)


def _plain(value: Any, what: str) -> Any:
    """A value as JSON can hold it, for the hash of a call."""
    if isinstance(value, File):
        return {"file": value.sha256}
    if isinstance(value, Parameters):  # data count by their content, where they are handed over
        values = provenance.inputs_only(value.model_dump(mode="json"))
        return {name: item for name, item in values.items() if name not in value.data()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, what) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, what) for item in value]
    if isinstance(value, PLAIN):
        return value
    raise KeptError(f"{what} is a {type(value).__name__}; give a plain value, or the File of it")


def _without(made_from: Mapping[str, Any], grows: Sequence[str]) -> dict[str, Any]:
    """What parts are made from: all but the arguments, and fields of arguments, that grow."""
    arguments = {
        name: {k: v for k, v in value.items() if k not in grows}
        if isinstance(value, dict)
        else value
        for name, value in made_from["arguments"].items()
        if name not in grows
    }
    return {**made_from, "arguments": arguments}


def _loaded(value: Any) -> Any:
    return value.load() if isinstance(value, File) else value


@contextmanager
def _clock(stamp: Path) -> Iterator[dict[str, float]]:
    """Wall and processor seconds, with those of earlier calls that the stamp knows of.

    The stamp is kept up to date meanwhile, so that the time of a call that is killed counts, too.
    """
    before = read_json(stamp) or {}
    started, used = time.perf_counter(), _processor_time()
    spent: dict[str, float] = {}
    ended = Event()

    def note() -> None:
        wall, processor = time.perf_counter() - started, _processor_time() - used
        spent["wall_s"] = round(before.get("wall_s", 0) + wall, 3)
        spent["processor_s"] = round(before.get("processor_s", 0) + processor, 3)
        write_json(stamp, before | spent)

    def keep_noting() -> None:
        while not ended.wait(HEARTBEAT_S):
            note()

    beat = Thread(target=keep_noting, daemon=True)
    beat.start()
    try:
        yield spent
    finally:
        ended.set()
        beat.join()
        note()


def _link(source: Path, target: Path) -> None:
    """Give a file, or all files of a folder, a second place."""
    if source.is_dir():
        for path in source.iterdir():
            _link(path, target / path.name)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # a file system without links
            shutil.copy2(source, target)


def _read_parquet(path: Path) -> Any:
    import pandas as pd
    import pyarrow.parquet as pq

    if b"ionas" in (pq.read_schema(path).metadata or {}):
        from ionas.benchmark.table import Table

        return Table.read(path)
    return pd.read_parquet(path)


def _write_parquet(path: Path, value: Any) -> None:
    if hasattr(value, "write"):
        value.write(path)
    else:
        write_whole(path, value.to_parquet(None))


def _read_arrays(path: Path) -> Any:
    from safetensors.numpy import load_file

    return load_file(path)


def _write_arrays(path: Path, value: Mapping[str, Any]) -> None:
    import numpy as np
    from safetensors.numpy import save

    write_whole(path, save({key: np.ascontiguousarray(item) for key, item in value.items()}))


READERS: dict[str, Callable[[Path], Any]] = {
    ".parquet": _read_parquet,
    ".safetensors": _read_arrays,
    ".json": lambda path: json.loads(path.read_text("utf-8")),
}
WRITERS: dict[str, Callable[[Path, Any], None]] = {
    ".parquet": _write_parquet,
    ".safetensors": _write_arrays,
    ".json": lambda path, value: write_whole(path, json.dumps(value, indent=1).encode()),
}


def _processor_time() -> float:
    """Processor seconds of this process and its children, those at work included."""
    import psutil

    here = psutil.Process()
    total = sum(here.cpu_times()[:4])
    for child in here.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.Error:
            continue
    return total
