"""Finished parts of a long computation, kept in a folder so that a killed call goes on.

A part is a file with its SHA-256 in a file beside it. What is incomplete, damaged or without a hash
counts as missing, and is then computed again.
"""

import hashlib
import os
import platform
from pathlib import Path

import psutil


def read(folder: Path, name: str) -> bytes | None:
    """Content of a part; None if it is missing or not what was written, and then it is removed."""
    path, beside = folder / name, folder / f"{name}.sha256"
    if not path.is_file():
        return None
    content = path.read_bytes()
    if beside.is_file() and _hash(content) in beside.read_bytes().split():
        return content
    path.unlink(missing_ok=True)
    return None


def write(folder: Path, name: str, content: bytes) -> None:
    """Write a part such that it is complete or as it was, at whatever point the process is killed.

    What processes that are no longer there have left half written in the folder is removed.
    """
    for left in folder.glob(f".*.{platform.node()}.*.tmp"):  # of this machine; others may share it
        if not psutil.pid_exists(int(left.name.split(".")[-2])):
            left.unlink(missing_ok=True)
    # The hashes come first: if the process ends between the two, the content before still fits one.
    before = read(folder, name)
    hashes = [_hash(part) for part in (content, before) if part is not None]
    write_whole(folder / f"{name}.sha256", b"\n".join(hashes))
    write_whole(folder / name, content)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file such that it is complete or absent, whenever the process or the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
