"""What a notebook calls: `start`, then files in and out, findings in words, `finish`.

The same notebook runs under `ionas run`, which gives it a folder by the environment variable
IONAS_STAGE_DIR, and by hand (JupyterLab, papermill), where it reads the artifacts of its run and
writes to `runs/NAME/by_hand/`, so that a run is never disturbed.
"""

import os
import shutil
import sys
import time
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ionas.book import provenance
from ionas.book.folders import RunFolder, project_root, read_json, runs_folder, write_json
from ionas.book.parameters import STAGES, Notebook, Parameters, validate

PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
INTERACTIVE = {"In", "Out"}  # plain values that IPython puts into the namespace of a notebook
BOOKKEEPING = {"stage.json", "manifest.json", "executed.ipynb", "log.txt"}
SHORT = 12  # hex digits of a hash that are shown


class StageError(ValueError):
    """A stage that cannot start or go on: an artifact of an earlier one is missing or damaged."""


class Stage:
    """A running notebook: its parameters, the files it reads and writes.

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
        self.device = provenance.pick_device(getattr(parameters, "device", "cpu"))
        self._notebook = notebook
        self._started = time.perf_counter()
        self._measured: set[str] = set()
        self._run = RunFolder(runs_folder() / parameters.run)
        given = os.environ.get("IONAS_STAGE_DIR")
        self.by_hand = given is None
        self.folder = Path(given) if given else self._run.by_hand(self.name)
        if self.by_hand:
            self._open_by_hand()
        for leftover in self.folder.rglob("*.tmp"):  # of a killed process
            leftover.unlink()
        self.inputs: dict[str, Any] = read_json(self.folder / ".inputs.json") or {}

    def input(self, stage: str, file: str) -> Path:
        """Path of an artifact of an earlier stage, checked against that stage's manifest.

        Parameters
        ----------
        stage
            One of those that the registry `STAGES` names as read by this notebook.
        file
            Path in the folder of that stage; a folder stands for all the files in it.

        Raises
        ------
        StageError
            If the stage has not run, does not write this file, or the file has changed since.
        """
        if stage not in self._notebook.upstream:
            raise StageError(f"{self.name} does not read {stage}; see STAGES in book/parameters.py")
        outputs = self._manifest(stage)["outputs"]
        wanted = {
            name: entry
            for name, entry in outputs.items()
            if name == file or name.startswith(f"{file.rstrip('/')}/")
        }
        if not wanted:
            raise StageError(f"{stage} writes no {file}; it writes: {', '.join(outputs)}")
        folder = self._run.stage(stage)
        if broken := provenance.damaged(folder, wanted):
            raise StageError(
                f"{folder / broken[0]} is not the file that {stage} wrote; "
                f"run it again: {_command(self._run.name)}"
            )
        return folder / file

    def output(self, file: str, measured: bool = False) -> Path:
        """Path to write an artifact to; its folder is made.

        A stage that was killed and is started again with the same inputs finds here the files that
        it wrote before.

        Parameters
        ----------
        file
            Path in the folder of this stage.
        measured
            Whether the file holds times, which no two runs have alike: then it does not decide
            whether later stages run again. A folder passes this on to all its files.
        """
        path = self.folder / file
        if not path.resolve().is_relative_to(self.folder.resolve()) or path == self.folder:
            raise StageError(f"{file!r} is not a path inside the folder of {self.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if measured:
            self._measured.add(file.rstrip("/"))
        return path

    def finish(self) -> None:
        """Record the outputs and what they cost, and display where the results come from."""
        outputs = {
            name: {
                "sha256": provenance.file_hash(path),
                "size": path.stat().st_size,
                "measured": self._is_measured(name),
            }
            for name, path in provenance.files_in(self.folder)
            if name not in BOOKKEEPING
        }
        if not outputs:
            raise StageError(f"{self.name} wrote no files")
        parameters = self.parameters.model_dump(mode="json")
        record = {
            "stage": self.name,
            "parameters": parameters,
            "seeds": provenance.seeds_of(parameters),
            "outputs": outputs,
            "wall_time_s": round(time.perf_counter() - self._started, 3),
            "peak_memory_mb": round(provenance.peak_memory(), 1),
            "device": self.device,
            "machine": provenance.machine(),
            "backend": os.environ.get("IONAS_BACKEND") or "processes",
            "versions": provenance.versions(),
            **provenance.revision(project_root()),
        }
        write_json(self.folder / "stage.json", record)
        _display(_footer(record, self.inputs))

    def _is_measured(self, name: str) -> bool:
        return any(name == item or name.startswith(f"{item}/") for item in self._measured)

    def _manifest(self, stage: str) -> dict[str, Any]:
        manifest = self._run.manifest(stage)
        if manifest is None:
            raise StageError(
                f"the run {self._run.name!r} has no {stage}, which {self.name} reads; "
                f"run it first: {_command(self._run.name)}"
            )
        return manifest

    def _open_by_hand(self) -> None:
        """Start from an empty folder, unless what is there was made from the very same inputs."""
        inputs = {
            "parameters": provenance.parameters_hashed(self.parameters.model_dump(mode="json")),
            "upstream": {
                stage: provenance.artifact_hash(self._manifest(stage)["outputs"])
                for stage in self._notebook.upstream
            },
            "package": provenance.json_hash(
                {name: provenance.file_hash(path) for name, path in _package_sources()}
            ),
        }
        if read_json(self.folder / ".inputs.json") != inputs:
            shutil.rmtree(self.folder, ignore_errors=True)
        write_json(self.folder / ".inputs.json", inputs)


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
        letters that is no parameter is refused: papermill sets a misspelled name without a word.
        Not so when the notebook has started before: then its own variables are there too.

    Raises
    ------
    InvalidParameters
        If a name is unknown or a value is not allowed.
    StageError
        If a stage that this one reads has not run.
    """
    notebook = stages[name]
    again = any(isinstance(value, Stage) for value in namespace.values())
    values = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in namespace.items()
        if key in notebook.model.model_fields
        or (
            isinstance(value, PLAIN)
            and not again
            and key not in INTERACTIVE
            and not key.startswith("_")
            and not key.isupper()
        )
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
        Whether this run shows the same; None for in part. Computed, never typed.
    here
        What this run shows, in words and computed numbers.
    """
    from IPython.display import Markdown

    same = {True: "yes", False: "no", None: "in part"}[None if shows is None else bool(shows)]
    lines = [f"**Paper:** {paper}", f"**This run:** {here}", f"**Same here:** {same}"]
    _display(Markdown("\n>\n".join(f"> {' '.join(line.split())}" for line in lines)))


def _same_everywhere() -> None:
    """Make a notebook compute the same bits by hand as under `ionas run`, and print no progress.

    JupyterLab and its like, which set JPY_SESSION_NAME, keep their progress bars.
    """
    if "JPY_SESSION_NAME" not in os.environ:
        os.environ.setdefault("IONAS_PROGRESS", "off")
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def _package_sources() -> list[tuple[str, Path]]:
    return [item for item in provenance.files_in(provenance.PACKAGE) if item[0].endswith(".py")]


def _command(run: str) -> str:
    from ionas.book.parameters import profiles

    return f"ionas run --profile {run}" if run in profiles() else f"ionas run --name {run}"


def _footer(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
    """HTML table of the provenance of a stage."""
    from IPython.display import HTML

    def items(values: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{escape(str(key))} = {escape(str(value))}" for key, value in values.items()
        )

    def hashes(values: Mapping[str, str]) -> str:
        return ", ".join(
            f"{escape(key)} <code>{value[:SHORT]}</code>" for key, value in values.items()
        )

    dirty = {True: ", with changes that are not committed", False: "", None: ""}[record["dirty"]]
    code = inputs.get("modules")
    rows = {
        "Parameters": items(record["parameters"]),
        "Seeds": items(record["seeds"]) or "none",
        "Read from": hashes(inputs.get("upstream", {})) or "no earlier notebook",
        "Data": hashes(inputs.get("data", {})),
        "Code": f"{len(code)} modules <code>{provenance.json_hash(code)[:SHORT]}</code>"
        if code
        else "",
        "Revision": f"<code>{record['revision'][:SHORT]}</code>{dirty}",
        "Written": hashes({"all files together": provenance.artifact_hash(record["outputs"])}),
        "Took": f"{record['wall_time_s']:.0f} s, at most {record['peak_memory_mb']:.0f} MB "
        "in one process",
        "Machine": f"{escape(record['machine'])}, device {escape(record['device'])}, "
        f"side by side: {escape(record['backend'])}",
        "Versions": ", ".join(f"{key} {value}" for key, value in record["versions"].items()),
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
