"""Where results come from: hashes of data and code, versions, machine."""

import ast
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import ionas
from ionas.files import files_of

PACKAGE = Path(ionas.__file__).resolve().parent
# These draw, tell and organise; none of them decides a result. Parameters count by their values.
NOT_COMPUTING = tuple(f"ionas.{n}" for n in ("book", "plots", "parameters", "parallel", "parts"))
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PY_SOURCE = 1  # as `modulefinder` knows it
NOT_INPUTS = ("run", "jobs", "device")  # where and how something is computed, not what
DISTRIBUTIONS = ("ionas", "torch", "numpy", "pandas", "scikit-learn", "pyarrow")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_hash(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_hash(content: Any) -> str:
    """SHA-256 of a JSON value, in hex; the order of keys does not count."""
    return text_hash(json.dumps(content, sort_keys=True))


def data_hash(path: Path) -> str:
    """Hash of a file, or of the names and contents of all files of a folder; "" if missing."""
    if path.is_file():
        return file_hash(path)
    if not path.is_dir():
        return ""
    contents = {name: file_hash(file) for name, file in files_of(path).items()}
    return json_hash(contents) if contents else ""


def artifact_hash(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of a stage's results, as its manifest lists them, but for those that hold times."""
    return json_hash(
        {name: entry["sha256"] for name, entry in outputs.items() if not entry.get("measured")}
    )


def listing(folder: Path) -> str:
    """Hash of the names and sizes of all files of a folder; "" if there is no folder."""
    if not folder.is_dir():
        return ""
    return json_hash({name: file.stat().st_size for name, file in files_of(folder).items()})


def damaged(folder: Path, outputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Results of a manifest that are missing from the folder or have another content.

    So are folders of parts in which one is missing or cut. Where the whole folder is missing, it
    has been left out of a publication.
    """
    broken = []
    for name, entry in outputs.items():
        if not (folder / name).is_file() or file_hash(folder / name) != entry["sha256"]:
            broken.append(name)
        elif (made := entry.get("listing")) and listing(folder / entry["parts"]) not in ("", made):
            broken.append(entry["parts"])
    return broken


def notebook_code(path: Path) -> list[str]:
    """Sources of the code cells of a notebook, without magics."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [
        "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in s.split("\n"))
        for s in sources
    ]


def notebook_modules(sources: list[str]) -> dict[str, str]:
    """Modules of the package that code imports, directly or through one another, with hashes.

    Raises
    ------
    SyntaxError
        If the code is not valid Python.
    """
    finder = ModuleFinder([str(PACKAGE.parent)], excludes=["ionas.parameters"])
    text: Any = io.StringIO("\n".join(sources))
    finder.load_module("__main__", text, "notebook", ("", "r", PY_SOURCE))  # type: ignore[arg-type]
    return _hashes(finder)


def function_code(function: Callable[..., Any]) -> str:
    """Hash of what computes a function: its name, and the modules that its module needs.

    Comments and docstrings do not count, nor does what only draws, tells or organises.
    """
    return json_hash([function.__qualname__, _module_code(function.__module__)])


@cache
def _module_code(name: str) -> dict[str, str]:
    folders = [str(PACKAGE.parent)]
    if not name.startswith("ionas."):  # the tests' own study
        folders.append(str(Path(str(sys.modules[name].__file__)).parent))
    finder = ModuleFinder(folders, excludes=[n for n in NOT_COMPUTING if n != name])
    finder.import_hook(name)
    return _hashes(finder)


def _hashes(finder: ModuleFinder) -> dict[str, str]:
    return {
        name: _code_hash(Path(path))
        for name, module in sorted(finder.modules.items())
        if name != "__main__" and (path := getattr(module, "__file__", None))
    }


@cache
def _code_hash(path: Path) -> str:
    """Hash of a module without its comments and docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return text_hash(ast.dump(tree))


def seeds_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Seeds among the parameters."""
    return {name: value for name, value in parameters.items() if "seed" in name}


def inputs_only(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that decide the results."""
    return {name: value for name, value in parameters.items() if name not in NOT_INPUTS}


def revision(folder: Path) -> dict[str, Any]:
    """Git revision of a folder, and whether files differ from it.

    Returns
    -------
    dict
        `revision` (hex) and `dirty`; "unknown" and None where the folder is not the top of a
        repository: one that it merely lies in says nothing of it.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=ours)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).samefile(folder):
            return {
                "revision": git("rev-parse", "HEAD"),
                "dirty": bool(git("status", "--porcelain", "--", ".")),
            }
    except (OSError, subprocess.CalledProcessError):
        pass
    return {"revision": "unknown", "dirty": None}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> str:
    """System, processor architecture and number of cores; no names."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def peak_memory() -> float:
    """Peak memory of this process or of its largest finished child, in MB (10^6 bytes)."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    used = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in used) * unit / 1e6


def pick_device(device: str = "auto") -> str:
    """Settle the device: `auto` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    ValueError
        If the device does not exist here.
    """
    if device == "cpu":
        return device
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next((name for name, there in present.items() if there), "cpu")
    kind, _, index = device.partition(":")
    if not present.get(kind) or (index and int(index) >= torch.cuda.device_count()):
        here = ["cpu", *(name for name, there in present.items() if there)]
        raise ValueError(f"device {device!r} is not there; here are: {', '.join(here)}, or auto")
    return device
