"""Where results come from: hashes of inputs and outputs, code, versions, machine."""

import ast
import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ionas

PACKAGE = Path(ionas.__file__).resolve().parent
# Its classes only carry the values that are hashed as parameters, and its checks read modules that
# a notebook need not use: following it would make every notebook depend on nearly everything.
NOT_FOLLOWED = "ionas.book.parameters"
NOT_INPUTS = ("run", "jobs", "device")  # where and how something is computed, not what
DISTRIBUTIONS = ("ionas", "torch", "torch-geometric", "numpy", "pandas", "scikit-learn", "pyarrow")


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


def files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder as (relative path with slashes, path), sorted; hidden ones left out."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            yield relative.as_posix(), path


def data_hash(path: Path) -> str:
    """Hash of a file, or of the names and contents of all files of a folder; "" if missing."""
    if path.is_file():
        return file_hash(path)
    contents = {name: file_hash(file) for name, file in files_in(path)}
    return json_hash(contents) if contents else ""


def artifact_hash(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of a stage's outputs, as its manifest lists them, but for those that hold times."""
    return json_hash(
        {name: entry["sha256"] for name, entry in outputs.items() if not entry.get("measured")}
    )


def damaged(folder: Path, outputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Outputs of a manifest that are missing from the folder or have another content."""
    return [
        name
        for name, entry in outputs.items()
        if not (folder / name).is_file() or file_hash(folder / name) != entry["sha256"]
    ]


def notebook_code(path: Path) -> list[str]:
    """Sources of the code cells of a notebook, without magics."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [
        "\n".join(
            "" if line.lstrip().startswith(("%", "!")) else line for line in source.split("\n")
        )
        for source in sources
    ]


def imported_modules(sources: Iterable[str], package: Path | None = None) -> dict[str, str]:
    """Find the modules of the package that sources import, directly or through one another.

    Imports inside functions count too, those for type checkers do not. Nothing is executed.

    Parameters
    ----------
    sources
        Python code.
    package
        Folder of the package; that of `ionas` if None.

    Returns
    -------
    dict
        Module name -> hash of its source, sorted.

    Raises
    ------
    ValueError
        If a source is not valid Python.
    """
    package = package or PACKAGE
    found: dict[str, str] = {}
    waiting = [name for source in sources for name in _imports(source, "", package)]
    while waiting:
        name = waiting.pop()
        if name in found or name == NOT_FOLLOWED:
            continue
        path = _module_path(name, package)
        assert path is not None  # `_imports` gives only modules that exist
        source = path.read_text("utf-8")
        found[name] = text_hash(source)
        parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _imports(source, parent, package)
    return dict(sorted(found.items()))


def _imports(source: str, parent: str, package: Path) -> Iterator[str]:
    """Modules of the package that one source imports, with the packages they are in."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"not valid Python: {error}") from error
    names: set[str] = set()
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, parent)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            module = ".".join(parts[:length])
            if _module_path(module, package) is not None:
                yield module


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    yield node
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for child in node.orelse if typing_only else ast.iter_child_nodes(node):  # type: ignore
        yield from _walk(child)


def _module_path(name: str, package: Path) -> Path | None:
    parts = name.split(".")
    if parts[0] != package.name:
        return None
    path = package.joinpath(*parts[1:])
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def parameters_hashed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that decide the results."""
    return {name: value for name, value in parameters.items() if name not in NOT_INPUTS}


def seeds_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Seeds among the parameters."""
    return {name: value for name, value in parameters.items() if "seed" in name}


def revision(folder: Path) -> dict[str, Any]:
    """Git revision of a folder, and whether files differ from it.

    Returns
    -------
    dict
        `revision` (hex, or "unknown" outside of git) and `dirty` (None if unknown).
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {
            "revision": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--", ".")),
        }
    except (OSError, subprocess.CalledProcessError):
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
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
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
