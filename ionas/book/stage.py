"""What a notebook calls: `start`, then results that are kept, findings in words, `finish`.

Computing and showing are two things: a heavy result is asked for by `Stage.kept`, which computes it
only if it does not hold any more (`ionas.book.kept`). A publication, which has the small results
only, is drawn from them by the notebooks of today.

The same notebook runs under `ionas run`, which gives it a folder by the environment variable
IONAS_STAGE_DIR, and by hand (JupyterLab, papermill), where it writes to `runs/NAME/by_hand/`, so
that a run is never disturbed.
"""

import ast
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ionas.book import findings, provenance
from ionas.book.configure import STAGES, Notebook, validate
from ionas.book.folders import RunFolder, project_root, runs_folder, write_json
from ionas.book.kept import PLAIN, File, keep, tidy
from ionas.parameters import Parameters

BOOKKEEPING = ("stage.json", "manifest.json", "executed.ipynb", "log.txt")
SHORT = 12  # hex digits of a hash that are shown


class StageError(ValueError):
    """A stage that cannot start or go on: a result of an earlier one is missing or damaged."""


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
        self._earlier = [] if afresh else [self._run.stage(self.name)]
        self._outputs: dict[str, Any] = {}
        device = getattr(parameters, "device", "cpu")
        self.device = "cpu" if self._drawn else provenance.pick_device(device)
        for stage in notebook.upstream:
            self._manifest(stage)

    def input(self, stage: str, file: str) -> File | None:
        """Give a result of an earlier stage; None if that is optional and has not run.

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
        if stage not in self._notebook.reads:
            raise StageError(f"{self.name} does not read {stage}; see STAGES in book/configure.py")
        if stage in self._notebook.optional and self._run.manifest(stage) is None:
            return None
        outputs = self._manifest(stage)["outputs"]
        name = next((n for n, entry in outputs.items() if file in (n, entry.get("parts"))), "")
        if not name:
            raise StageError(f"{stage} writes no {file}; it writes: {', '.join(outputs)}")
        folder = self._run.stage(stage)
        if not self._drawn and (broken := provenance.damaged(folder, {name: outputs[name]})):
            raise StageError(
                f"{folder / broken[0]} is not what {stage} wrote; run it again: {self._run.command}"
            )
        return File(folder / file, outputs[name]["sha256"])

    def data(self, parameter: str, stage: str = "") -> File | str:
        """Give the file or folder that a parameter names, or its value if that names none.

        The parameter is this stage's, or that of an earlier one.
        """
        parameters = self.parameters_of(stage) if stage else self.parameters
        path = parameters.data().get(parameter)
        return File(path) if path else getattr(parameters, parameter)

    def parameters_of(self, stage: str) -> Any:
        """Give the parameters with which an earlier stage has run."""
        return validate(STAGES[stage], self._manifest(stage)["parameters"])

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
        known: bool = False,
        measured: bool = False,
        **kwargs: Any,
    ) -> File:
        """Give `function(*args, **kwargs)` as a file, computed only if it does not hold any more.

        Parameters
        ----------
        file, function, args, kwargs, parts, grows, known
            See `ionas.book.kept.keep`.
        measured
            Whether the result holds times, which no two runs have alike: then it does not decide
            whether later stages run again.

        Raises
        ------
        KeptError
            If the file has no form, or an argument is neither plain nor a file.
        StageError
            If a publication does not have the result.
        """
        if self._drawn:
            return self._published(file)
        how: dict[str, Any] = {"parts": parts, "grows": grows, "known": known}
        entry = keep(self.folder, self._earlier, file, function, args, kwargs, **how)
        self._outputs[file] = {**entry, "measured": measured}
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
            tidy(self.folder, self._outputs, BOOKKEEPING)
        if not (self._drawn and self.by_hand):
            write_json(self.folder / "stage.json", record)
        _display(_footer(record))

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
                f"run it first: {self._run.command}"
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
    texts = [key for key, field in notebook.model.model_fields.items() if field.annotation is str]
    for key in texts:  # papermill makes a number of a folder named 2024
        if type(values.get(key)) is int:
            values[key] = str(values[key])
    parameters = validate(notebook, values)
    _same_everywhere()
    return Stage(notebook, parameters)


def finding(
    paper: str,
    shows: bool | None,
    here: str,
    *,
    own: bool = False,
    numbers: tuple[str, str] = ("", ""),
    compared: Any = None,
) -> None:
    """Display a finding of the paper beside that of this run, in the one look of the book.

    Parameters
    ----------
    paper
        What the paper found, in words; where `own`, a claim of this book that it does not make.
    shows
        Whether this run shows the same; None if that is undecided. Computed, never typed.
    here
        What this run shows, in words and computed numbers, and the rule if no text states it.
    numbers
        The paper's and this run's result in a few characters.
    compared
        DataFrame of values without a unit for the chart of all runs: `scale`, the axis that they
        belong to; `name`; `paper`, NaN where it has none; `mean`, `low`, `high`.
    """
    _display(findings.display_data(paper, shows, here, own, numbers, compared), raw=True)


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


def _same_everywhere() -> None:
    """Make a notebook compute the same bits by hand as under `ionas run`, and print no progress.

    JupyterLab and its like, which set JPY_SESSION_NAME, keep their progress bars.
    """
    if "JPY_SESSION_NAME" not in os.environ:
        os.environ.setdefault("IONAS_PROGRESS", "off")
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def _footer(record: Mapping[str, Any]) -> Any:
    """HTML table of the provenance of a stage."""
    from IPython.display import HTML

    def items(values: Mapping[str, Any]) -> str:
        return ", ".join(f"{escape(str(k))} = {escape(str(v))}" for k, v in values.items())

    dirty = ", with changes that are not committed" if record["dirty"] else ""
    rows = {
        "Parameters": items(record["parameters"]),
        "Seeds": items(record["seeds"]) or "none",
        "Computed": f"revision <code>{record['revision'][:SHORT]}</code>{dirty}",
        "Drawn": f"revision <code>{record['drawn'][:SHORT]}</code>" if "drawn" in record else "",
        "Results": f"<code>{provenance.artifact_hash(record['outputs'])[:SHORT]}</code>",
        "Machine": f"{escape(record['machine'])}, device {escape(record['device'])}, "
        f"side by side: {escape(record['backend'])}",
        "Versions": items(record["versions"]),
    }
    body = "".join(
        f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in rows.items() if value
    )
    return HTML(f'<table class="ionas-provenance">{body}</table>')


def _display(thing: Any, raw: bool = False) -> None:
    from IPython.display import display

    display(thing, raw=raw)
