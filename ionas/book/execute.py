"""Execute one notebook in a process of its own: `python -m ionas.book.execute`.

Also what is done to a notebook file around that: whether every cell did run, which one failed, and
how the executed notebook is made ready for the book.
"""

import ctypes
import json
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat

from ionas.book.folders import project_root

PR_SET_PDEATHSIG = 1
INJECTED = "injected-parameters"  # tag that papermill gives to the cell it adds
PAPERMILL_ERROR = re.compile("papermill-error-cell")
UNFINISHED = "the cell did not run to its end"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class Failure:
    """The cell at which a notebook stopped.

    Attributes
    ----------
    cell
        Its number among the cells of the notebook, from 1; 0 if no cell was at work.
    head
        The line of it that failed, or its first line that is no comment.
    error
        Name and message of the error, on one line.
    """

    cell: int
    head: str
    error: str


def main() -> None:
    """Run papermill on SOURCE, writing TARGET, with PARAMETERS as JSON, for the parent PID."""
    source, target, parameters, parent = sys.argv[1:]
    signal.signal(signal.SIGTERM, _stop)
    _die_with(int(parent))
    import papermill

    papermill.execute_notebook(
        _literal(source),
        _literal(target),
        json.loads(parameters),
        kernel_name="python3",
        start_timeout=300,
        progress_bar=False,
        request_save_on_cell_execute=True,
    )


def first_failure(notebook: nbformat.NotebookNode) -> Failure | None:
    """Find the cell that failed, or after which none ran; None if all ran.

    The status that papermill writes is not looked at: after a dead kernel it calls cells completed
    that never ran.
    """
    number, last = 0, None
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if any(PAPERMILL_ERROR.match(tag) for tag in tags):
            continue
        number += INJECTED not in tags
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            begun = cell.metadata.get("papermill", {}).get("start_time")
            return last if last and not begun else Failure(number, _head(cell.source), UNFINISHED)
        last = Failure(number, _head(cell.source), UNFINISHED)
        for output in cell.outputs:
            if output.output_type == "error":
                message = " ".join(_plain(output.evalue).split())
                line = _failed_line(output.traceback) or _head(cell.source)
                return Failure(number, line, f"{output.ename}: {message}")
    return None


def scrub(notebook: nbformat.NotebookNode) -> None:
    """Take times, paths and machine names out of an executed notebook; hide the injected cell."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    )
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if INJECTED in cell.metadata.get("tags", []):
            cell.metadata.tags = [INJECTED, "hide-input"]
            cell.id = INJECTED
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = _without_paths(output.text)


def with_prose(
    executed: nbformat.NotebookNode, source: nbformat.NotebookNode
) -> nbformat.NotebookNode:
    """Give an executed notebook the text and the tags that its source has now.

    So no cell needs to run for a change of prose. Where the code differs, the executed notebook is
    returned as it is.
    """
    ran = [cell for cell in executed.cells if cell.cell_type == "code"]
    injected = [cell for cell in ran if INJECTED in cell.metadata.get("tags", [])]
    waiting = [cell for cell in ran if INJECTED not in cell.metadata.get("tags", [])]
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    if code != [cell.source for cell in waiting]:
        return executed
    cells: list[Any] = []
    for cell in source.cells:
        if cell.cell_type != "code":
            cells.append(cell)
            continue
        done = waiting.pop(0)
        done.metadata = cell.metadata
        done.id = cell.get("id", done.id)
        cells.append(done)
        if "parameters" in cell.metadata.get("tags", []):
            cells += injected
    result = executed.copy()
    result.cells = cells
    return result


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook file."""
    return nbformat.read(path, as_version=4)


def text(notebook: nbformat.NotebookNode) -> str:
    """Text of a notebook file."""
    return nbformat.writes(notebook, version=4) + "\n"


def _literal(path: str) -> str:
    """Escape braces, since papermill formats paths with the parameters."""
    return path.replace("{", "{{").replace("}", "}}")


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """Kill the kernel and its workers, then this process: nothing goes on writing."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(128 + signal.SIGTERM)


def _die_with(parent: int) -> None:
    """Have Linux send SIGTERM to this process when its parent is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it went before that call
            sys.exit(1)


def _plain(message: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", message)


def _failed_line(traceback: list[str]) -> str:
    """Line of the cell that a traceback of IPython points at."""
    frame = next((part for part in map(_plain, traceback) if "Cell In[" in part), "")
    match = re.search(r"^-+>\s*\d+\s(.*)$", frame, re.MULTILINE)
    return match[1].strip() if match else ""


def _head(source: str) -> str:
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0] if lines else ""


def _without_paths(message: str) -> str:
    for folder in (sys.prefix, str(project_root()), str(Path.home())):
        message = message.replace(folder, "~" if folder == str(Path.home()) else ".")
    return message


if __name__ == "__main__":
    main()
