"""Execute one notebook in a process of its own: `python -m ionas.book.execute`.

Also what is done to a notebook file around that: whether every cell did run, which one failed, and
how the executed notebook is made ready for the book.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import nbformat
from nbformat import NotebookNode

from ionas.book.folders import project_root

WATCH_S = 0.5
# What of the user's environment reaches a kernel: where things are, never how they look.
PASSED = ("PATH", "HOME", "TMPDIR", "LANG", "USER", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
PASSED_PREFIXES = ("IONAS_", "CUDA_", "NVIDIA_", "DASK_", "RAY_", "COVERAGE_", "CONDA_")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ALWAYS = {  # the same bits and the same outputs whatever else is set or runs on this machine
    **dict.fromkeys(THREADS, "1"),
    "PYTHONHASHSEED": "0",
    "PYTHONSAFEPATH": "1",  # a random.py where the run is started is not Python's
    "PYTHONUTF8": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
CUT = "the cell did not run to its end"
INJECTED = "injected-parameters"  # tag that papermill gives to the cell it adds
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Failure(NamedTuple):
    """The cell at which a notebook stopped, by its number in the source, from 1.

    `head` is the line of it that failed, or its first line that is no comment; `error` the name and
    message of the error, on one line.
    """

    cell: int
    head: str
    error: str


def main() -> None:
    """Run papermill on SOURCE, writing TARGET, with PARAMETERS as JSON, for the parent PID."""
    source, target, parameters, parent = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: _stop())
    Thread(target=_watch, args=(int(parent),), daemon=True).start()
    import papermill

    papermill.execute_notebook(
        # Papermill formats paths with the parameters, so braces are doubled.
        *(path.replace("{", "{{").replace("}", "}}") for path in (source, target)),
        json.loads(parameters),
        kernel_name="python3",
        start_timeout=300,
        progress_bar=False,
        request_save_on_cell_execute=True,
    )


def first_failure(notebook: NotebookNode) -> Failure | None:
    """Find the cell that failed, or after which none ran; None if all ran.

    The status that papermill writes is not looked at: after a dead kernel it calls cells completed
    that never ran.
    """
    number, last = 0, None
    for cell in notebook.cells:
        if any(tag.startswith("papermill-error-cell") for tag in _tags(cell)):
            continue
        number += INJECTED not in _tags(cell)
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        lines = [line for line in cell.source.splitlines() if re.match(r"\s*[^\s#]", line)]
        here = Failure(number, (lines or [""])[0], CUT)
        if cell.execution_count is None:
            begun = cell.metadata.get("papermill", {}).get("start_time")
            return last if last and not begun else here
        last = here
        for output in cell.outputs:
            if output.output_type == "error":
                message = " ".join(plain(output.evalue).split())
                frames = [part for part in map(plain, output.traceback) if "Cell In[" in part]
                line = re.search(r"^-+>\s*\d+\s(.*)$", "".join(frames[:1]), re.MULTILINE)
                head = line[1].strip() if line else ""
                return Failure(number, head or here.head, f"{output.ename}: {message}")
    return None


def scrub(notebook: NotebookNode) -> None:
    """Take times, paths and machine names out of an executed notebook; hide the injected cell."""
    places = {sys.prefix: ".", str(project_root()): ".", str(Path.home()): "~"}
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if INJECTED in _tags(cell):
            cell.metadata.tags = [INJECTED, "hide-input"]
            cell.id = INJECTED
        for output in cell.get("outputs", []):
            for place, name in places.items() if output.output_type == "stream" else ():
                output.text = output.text.replace(place, name)


def with_prose(executed: NotebookNode, source: NotebookNode) -> NotebookNode:
    """Give an executed notebook the text and the tags that its source has now.

    So no cell needs to run for a change of prose. Where the code differs, the executed notebook is
    returned as it is.
    """
    if code(executed) != code(source):
        return executed
    ran = [cell for cell in executed.cells if cell.cell_type == "code"]
    injected = [cell for cell in ran if INJECTED in _tags(cell)]
    done = [cell for cell in ran if cell not in injected]
    cells: list[Any] = []
    for cell in source.cells:
        if cell.cell_type == "code":
            kept = {name: cell[name] for name in ("metadata", "id") if name in cell}
            cells.append(done.pop(0) | kept)
        else:
            cells.append(cell)
        cells += injected if "parameters" in _tags(cell) else []
    return nbformat.from_dict({**executed, "cells": cells})


def code(notebook: NotebookNode) -> list[str]:
    """Texts of the code cells, without the one that papermill adds."""
    cells = [cell for cell in notebook.cells if INJECTED not in _tags(cell)]
    return [cell.source for cell in cells if cell.cell_type == "code"]


def read(path: Path) -> NotebookNode:
    """Read a notebook file; a ValueError if it is none."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except OSError:
        raise
    except Exception as error:  # of other JSON, nearly anything
        raise ValueError(f"{path} is no notebook that can be read") from error
    return notebook


def text(notebook: NotebookNode) -> str:
    """Text of a notebook file."""
    return nbformat.writes(notebook, version=4) + "\n"


def plain(message: str) -> str:
    """A text without the codes of a terminal's colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", message)


def environment(settings: Path) -> dict[str, str]:
    """Environment variables of a kernel, free of the user's own configuration.

    `settings` is an empty folder, in which IPython, Jupyter and matplotlib then look for theirs.
    """
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED or name.startswith(PASSED_PREFIXES)
    }
    if "PYTHONPATH" in passed:  # ipykernel drops the first entry if that is the working folder
        passed["PYTHONPATH"] = f"{settings}{os.pathsep}{passed['PYTHONPATH']}"
    places = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR")
    return passed | ALWAYS | {name: str(settings / name.lower()) for name in places}


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _watch(parent: int) -> None:
    """Stop when the process that started this one is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    _stop()


def _stop() -> None:
    """Kill the kernel and its workers, then this process: nothing goes on writing."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
