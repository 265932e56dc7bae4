"""Finished parts of a long computation, kept in a folder so that a killed call goes on.

A part is a file, with its SHA-256 in a second file beside it. A part that is incomplete, damaged or
without its hash counts as missing, and is computed again.
"""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors import safe_open
from safetensors.numpy import save, save_file

from ionas import parallel

Call = tuple[tuple[Any, ...], tuple[str, ...]]  # plain arguments, and names of arrays


def read(folder: Path, name: str) -> bytes | None:
    """Content of a part; None if it is missing or damaged, in which case it is removed."""
    path, beside = folder / name, folder / f"{name}.sha256"
    if not path.is_file():
        return None
    content = path.read_bytes()
    if beside.is_file() and _hash(content) in beside.read_bytes().split():
        return content
    path.unlink(missing_ok=True)
    return None


def write(folder: Path, name: str, content: bytes) -> None:
    """Write a part so that it is complete or unchanged, even if the process is killed meanwhile."""
    # The hashes come first: if the process ends between the two, the content before still fits one.
    before = read(folder, name)
    hashes = [_hash(part) for part in (content, before) if part is not None]
    write_whole(folder / f"{name}.sha256", b"\n".join(hashes))
    write_whole(folder / name, content)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is complete or absent, even after a kill or a power failure.

    Half-written files that dead processes have left in the folder are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".*.{platform.node()}.*.tmp"):  # machines may share the folder
        if not _alive(int(left.name.split(".")[-2])):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:  # as of a full disk
            raise OSError(f"{path}: {error.strerror or error}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def complete(
    function: Callable[..., Any],
    calls: Sequence[Call],
    arrays: Mapping[str, np.ndarray],
    folder: Path,
    jobs: int,
    description: str,
    unit: str,
) -> list[Any]:
    """Return `function(*arguments, *arrays)` of every call, and keep each result as it comes.

    A call is its arguments, plain JSON values, and the names of its arrays. Its result, a JSON
    value, is a part that is named by the hash of both: it holds whatever other calls there are.
    Workers read the arrays from a file in the folder, because what is sent to a worker is lost if
    the worker dies.
    """
    arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    hashes = {name: _hash(save({"": values})).decode() for name, values in arrays.items()}
    keys = [json.dumps([arguments, [hashes[n] for n in names]]) for arguments, names in calls]
    files = [f"{_hash(key.encode()).decode()[:32]}.json" for key in keys]
    found = {file: read(folder, file) for file in files}
    missing = [place for place, file in enumerate(files) if found[file] is None]
    inputs = folder.resolve() / "inputs.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, inputs)
    try:
        items = [(function, inputs, *calls[place]) for place in missing]
        for position, result in parallel.completed(_call, items, jobs, description, unit):
            file = files[missing[position]]
            found[file] = content = json.dumps(result).encode()
            write(folder, file, content)
    finally:
        inputs.unlink(missing_ok=True)
    return [json.loads(found[file] or b"") for file in files]


def _call(
    function: Callable[..., Any], inputs: Path, arguments: tuple[Any, ...], names: tuple[str, ...]
) -> Any:
    if not names:
        return function(*arguments)
    with safe_open(inputs, "np") as file:
        return function(*arguments, *map(file.get_tensor, names))


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
