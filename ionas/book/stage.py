"""What a notebook calls: `start`, then heavy results that are kept, findings in words, `finish`.

Computing and showing are two things. A heavy result is asked for by `Stage.kept`, which reads it
if it is there and still holds, and else computes and writes it. It holds as long as what makes it
is the same: the modules that compute it, its arguments, its data, the results that it is made from.
So a changed colour, caption or sentence computes nothing again, and a publication, which has the
small results only, is drawn from them by the notebooks of today.

The same notebook runs under `ionas run`, which gives it a folder by the environment variable
IONAS_STAGE_DIR, and by hand (JupyterLab, papermill), where it writes to `runs/NAME/by_hand/`, so
that a run is never disturbed.
"""

import ast
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ionas.book import provenance
from ionas.book.configure import STAGES, Notebook, profiles, validate
from ionas.book.folders import RunFolder, project_root, read_json, runs_folder, write_json
from ionas.parameters import Parameters
from ionas.parts import write_whole

PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
LEDGER = "kept.json"  # what each result of a stage was made from
HEARTBEAT_S = 10
SHORT = 12  # hex digits of a hash that are shown


class StageError(ValueError):
    """A stage that cannot start or go on: a result of an earlier one is missing or damaged."""


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
        StageError
            If a publication has left it out.
        """
        if not self.path.exists():
            raise StageError(
                f"{self.path} is too large for a publication: put the run together again with "
                "`ionas run`, which makes what is missing"
            )
        reader = READERS.get(self.path.suffix) if self._is_result else None
        return reader(self.path) if reader else self.path

    @property
    def _is_result(self) -> bool:
        return self.path.is_file() and (self.path.parent / LEDGER).is_file()


class Stage:
    """A running notebook: its parameters, what it reads, what it keeps.

    Attributes
    ----------
    name
        Name of the stage.
    parameters
        Validated; the pydantic model of the notebook.
    device
        `cpu`, `cuda` or `mps`: the parameter `device` settled; `cpu` if there is no such parameter.
    folder
        Where this stage writes.
    by_hand
        Whether it runs outside of `ionas run`.
    """

    def __init__(self, notebook: Notebook, parameters: Parameters) -> None:
        self.name = notebook.name
        self.parameters = parameters
        self._notebook = notebook
        self._started = time.perf_counter()
        self._run = RunFolder(runs_folder() / parameters.run)
        self._drawn = self._run.is_publication
        given = os.environ.get("IONAS_STAGE_DIR")
        self.by_hand = given is None
        self.folder = Path(given) if given else self._run.by_hand(self.name)
        afresh = bool(os.environ.get("IONAS_AFRESH"))
        self._sources = [self.folder] if afresh else [self.folder, self._run.stage(self.name)]
        self._outputs: dict[str, Any] = {}
        device = getattr(parameters, "device", "cpu")
        self.device = "cpu" if self._drawn else provenance.pick_device(device)
        for stage in notebook.upstream:
            self._manifest(stage)

    def input(self, stage: str, file: str) -> File:
        """Give a result of an earlier stage.

        Parameters
        ----------
        stage
            One of those that the registry `STAGES` names as read by this notebook.
        file
            Name of the result, or of the folder of its parts.

        Raises
        ------
        StageError
            If the stage has not run, does not write this file, or the file has changed since.
        """
        if stage not in self._notebook.upstream:
            raise StageError(f"{self.name} does not read {stage}; see STAGES in book/configure.py")
        outputs = self._manifest(stage)["outputs"]
        name = next((n for n, entry in outputs.items() if file in (n, entry.get("parts"))), "")
        if not name:
            raise StageError(f"{stage} writes no {file}; it writes: {', '.join(outputs)}")
        folder = self._run.stage(stage)
        if not self._drawn and provenance.damaged(folder, {name: outputs[name]}):
            raise StageError(
                f"{folder / name} is not the file that {stage} wrote; "
                f"run it again: {_command(self._run.name)}"
            )
        return File(folder / file, outputs[name]["sha256"])

    def data(self, parameter: str) -> File | str:
        """Give the file or folder that a parameter names, or its value if that names none."""
        path = self.parameters.data().get(parameter)
        return File(path) if path else getattr(self.parameters, parameter)

    def kept(self, file: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Give the value of a result; see `made`."""
        return self.made(file, function, *args, **options).load()

    def made(
        self,
        file: str,
        function: Callable[..., Any],
        *args: Any,
        parts: str = "",
        grows: Sequence[str] = (),
        measured: bool = False,
        **kwargs: Any,
    ) -> File:
        """Give `function(*args, **kwargs)` as a file, computed only if it does not hold any more.

        Parameters
        ----------
        file
            Its name. The ending decides the form: `.parquet` for a DataFrame or a Table,
            `.safetensors` for a dict of arrays, `.json` for plain values.
        function
            A function of a module; what the module needs decides whether the result holds.
        args, kwargs
            Plain values, parameters of notebooks, or `File`, which are read before the call.
            `jobs` and `device` do not decide whether the result holds.
        parts
            A folder in which the function, called with the keyword `parts`, keeps what is finished
            (see `ionas.parts`), so that a call that was killed goes on.
        grows
            Parameters and arguments that only say how much there is: when these alone change,
            the parts still hold.
        measured
            Whether the result holds times, which no two runs have alike: then it does not decide
            whether later stages run again.

        Raises
        ------
        StageError
            If an argument is neither plain nor a file, or a publication does not have the result.
        """
        if Path(file).suffix not in WRITERS or Path(file).name != file:
            raise StageError(f"{file!r} is no file name that ends in one of {', '.join(WRITERS)}")
        if self._drawn:
            return self._published(file)
        arguments = {str(place): value for place, value in enumerate(args)} | kwargs
        made_from = {
            "code": provenance.function_code(function),
            "arguments": {
                name: _plain(value, f"{file}: argument {name} of {function.__name__}")
                for name, value in provenance.inputs_only(arguments).items()
            },
        }
        key = provenance.json_hash(made_from)
        if not self._take(file, key):
            if parts:
                stamp = self._open_parts(parts, _without(made_from, grows))
                kwargs = kwargs | {"parts": self.folder / parts}
            else:
                stamp = self.folder / f".{file}.json"
            with _clock(stamp) as spent:
                called = {name: _loaded(value) for name, value in kwargs.items()}
                value = function(*map(_loaded, args), **called)
                WRITERS[Path(file).suffix](self.folder / file, value)
            if not parts:
                stamp.unlink()
            self._enter(file, key, parts, spent)
        entry = {**self._ledger(self.folder)[file], "measured": measured}
        self._outputs[file] = entry
        return File(self.folder / file, entry["sha256"])

    def parts(self, file: str) -> File:
        """Give the folder of the parts of a result of this stage."""
        entry = self._outputs[file]
        return File(self.folder / entry["parts"], entry["sha256"])

    def finish(self) -> None:
        """Record the results and what they cost, and display where they come from."""
        parameters = self.parameters.model_dump(mode="json")
        record = {
            "stage": self.name,
            "parameters": parameters,
            "seeds": provenance.seeds_of(parameters),
            "outputs": self._outputs,
            "wall_time_s": round(time.perf_counter() - self._started, 3),
            "peak_memory_mb": round(provenance.peak_memory(), 1),
            "device": self.device,
            "machine": provenance.machine(),
            "backend": os.environ.get("IONAS_BACKEND") or "processes",
            "versions": provenance.versions(),
            **provenance.revision(project_root()),
        }
        if self._drawn:
            record = self._manifest(self.name) | {"drawn": record["revision"]}
        else:
            for path in self.folder.glob("*"):
                folders = {entry["parts"] for entry in self._outputs.values()}
                stamps = {f".{name}.json" for name in folders}
                if path.name not in {*self._outputs, *folders, *stamps, *BOOKKEEPING}:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._write_ledger(self._outputs)
        if not (self._drawn and self.by_hand):
            write_json(self.folder / "stage.json", record)
        _display(_footer(record))

    def _take(self, file: str, key: str) -> bool:
        """Whether a result of this key is here, or was in the last results and is here now."""
        for folder in self._sources:
            entry = self._ledger(folder).get(file)
            if entry and entry["key"] == key and not provenance.damaged(folder, {file: entry}):
                if folder != self.folder:
                    _link(folder / file, self.folder / file)
                    if entry["parts"]:
                        _link(folder / entry["parts"], self.folder / entry["parts"])
                    self._write_ledger(self._ledger(self.folder) | {file: entry})
                return True
        return False

    def _open_parts(self, name: str, made_from: Mapping[str, Any]) -> Path:
        """Ready the folder of parts, without those made from something else; give its stamp."""
        key, stamp = provenance.json_hash(made_from), f".{name}.json"
        for folder in self._sources:
            if (read_json(folder / stamp) or {}).get("key") == key:
                if folder != self.folder:
                    _link(folder / name, self.folder / name)
                    _link(folder / stamp, self.folder / stamp)
                break
        else:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            write_json(self.folder / stamp, {"key": key})
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return self.folder / stamp

    def _enter(self, file: str, key: str, parts: str, spent: Mapping[str, float]) -> None:
        entry = {
            "key": key,
            "sha256": provenance.file_hash(self.folder / file),
            "size": (self.folder / file).stat().st_size,
            "parts": parts,
            **spent,
            "revision": provenance.revision(project_root())["revision"],
        }
        self._write_ledger(self._ledger(self.folder) | {file: entry})

    def _write_ledger(self, content: Mapping[str, Any]) -> None:
        write_json(self.folder / LEDGER, content)

    def _ledger(self, folder: Path) -> dict[str, Any]:
        return read_json(folder / LEDGER) or {}

    def _published(self, file: str) -> File:
        entry = self._manifest(self.name)["outputs"].get(file)
        if entry is None:
            raise StageError(
                f"the publication {self._run.name} has no {file} of {self.name}: it was made by an "
                "older notebook; publish a run of today's"
            )
        self._outputs[file] = entry
        return File(self._run.stage(self.name) / file, entry["sha256"])

    def _manifest(self, stage: str) -> dict[str, Any]:
        manifest = self._run.manifest(stage)
        if manifest is None:
            raise StageError(
                f"the run {self._run.name!r} has no {stage}, which {self.name} reads; "
                f"run it first: {_command(self._run.name)}"
            )
        return manifest


def start(
    name: str, namespace: Mapping[str, Any], stages: Mapping[str, Notebook] = STAGES
) -> Stage:
    """Begin a stage: check the parameters of the notebook and open its folder.

    Parameters
    ----------
    name
        Stage of the notebook, as in `STAGES`.
    namespace
        `globals()` of the notebook, holding one plain value per parameter. A plain value in small
        letters that the notebook sets before it starts, and that is no parameter, is refused:
        papermill sets a misspelled name without a word.

    Raises
    ------
    InvalidParameters
        If a name is unknown or a value is not allowed.
    StageError
        If a stage that this one reads has not run.
    """
    notebook = stages[name]
    own = _assigned(namespace)
    values = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in namespace.items()
        if key in notebook.model.model_fields
        or (key in own and isinstance(value, PLAIN) and key[0] != "_" and not key.isupper())
    }
    parameters = validate(notebook, values)
    _same_everywhere()
    return Stage(notebook, parameters)


def finding(paper: str, shows: bool | None, here: str) -> None:
    """Display a finding of the paper beside that of this run, in the one look of the book.

    Parameters
    ----------
    paper
        What the paper found, in words.
    shows
        Whether this run shows the same; None if that is undecided. Computed, never typed.
    here
        What this run shows, in words and computed numbers.
    """
    from IPython.display import Markdown

    same = {True: "yes", False: "no", None: "undecided"}[None if shows is None else bool(shows)]
    lines = [f"**Paper:** {paper}", f"**This run:** {here}", f"**Same here:** {same}"]
    _display(Markdown("\n>\n".join(f"> {' '.join(line.split())}" for line in lines)))


def _assigned(namespace: Mapping[str, Any]) -> set[str]:
    """Names that the cells of a notebook have set up to its first `start`; else all there are."""
    names: set[str] = set()
    for source in namespace.get("In", ()):
        try:
            tree = ast.parse(source)
        except SyntaxError:  # magics
            continue
        stored = (n for n in ast.walk(tree) if isinstance(n, ast.Name))
        names |= {node.id for node in stored if isinstance(node.ctx, ast.Store)}
        calls = (n.func for n in ast.walk(tree) if isinstance(n, ast.Call))
        if any(isinstance(call, ast.Name) and call.id == "start" for call in calls):
            return names
    return names or set(namespace) - {"In", "Out"}


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
    raise StageError(f"{what} is a {type(value).__name__}; give a plain value, or the File of it")


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
BOOKKEEPING = {LEDGER, "stage.json", "manifest.json", "executed.ipynb", "log.txt"}


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


def _same_everywhere() -> None:
    """Make a notebook compute the same bits by hand as under `ionas run`, and print no progress.

    JupyterLab and its like, which set JPY_SESSION_NAME, keep their progress bars.
    """
    if "JPY_SESSION_NAME" not in os.environ:
        os.environ.setdefault("IONAS_PROGRESS", "off")
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def _command(run: str) -> str:
    return f"ionas run --profile {run}" if run in profiles() else f"ionas run --name {run}"


def _footer(record: Mapping[str, Any]) -> Any:
    """HTML table of the provenance of a stage."""
    from IPython.display import HTML

    def items(values: Mapping[str, Any]) -> str:
        return ", ".join(f"{escape(str(k))} = {escape(str(v))}" for k, v in values.items())

    dirty = ", with changes that are not committed" if record["dirty"] else ""
    spent = [record["outputs"][name] for name in record["outputs"]]
    rows = {
        "Parameters": items(record["parameters"]),
        "Seeds": items(record["seeds"]) or "none",
        "Computed": f"revision <code>{record['revision'][:SHORT]}</code>{dirty}",
        "Drawn": f"revision <code>{record['drawn'][:SHORT]}</code>" if "drawn" in record else "",
        "Results": f"<code>{provenance.artifact_hash(record['outputs'])[:SHORT]}</code>",
        "Took": f"{sum(entry['processor_s'] for entry in spent):.0f} s of processor time, "
        f"at most {record['peak_memory_mb']:.0f} MB in one process",
        "Machine": f"{escape(record['machine'])}, device {escape(record['device'])}, "
        f"side by side: {escape(record['backend'])}",
        "Versions": items(record["versions"]),
    }
    body = "".join(
        f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in rows.items() if value
    )
    return HTML(
        '<details class="ionas-provenance"><summary>Where these results come from</summary>'
        f"<table>{body}</table></details>"
    )


def _display(thing: Any) -> None:
    from IPython.display import display

    display(thing)
