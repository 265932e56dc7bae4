"""Where runs live, and how their files are written."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

import ionas
from ionas.book.configure import nearest, profiles
from ionas.parts import write_whole

BOOK = ("_toc.yml", "notebooks/01_search_space.ipynb")  # what the folder of the book holds
RECORD = "publication.json"  # makes the folder of a run a publication


def project_root() -> Path:
    """Folder of this book: the working one or the nearest above, else that of the package.

    Where there is none, the working folder. A book with notebooks of its own is not this one.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(ionas.__file__).resolve().parent.parent):
        if all((folder / name).is_file() for name in BOOK):
            return folder
    return here


def runs_folder() -> Path:
    """Folder of all runs: the environment variable IONAS_RUNS, else `runs` beside the book."""
    return Path(os.environ.get("IONAS_RUNS") or project_root() / "runs").absolute()


def results_folder() -> Path:
    """Folder of all publications: IONAS_RESULTS, else `results` beside the book."""
    return Path(os.environ.get("IONAS_RESULTS") or project_root() / "results").absolute()


def put_back(path: Path) -> Path:
    """A folder, put back in its place where a publication was killed while a new one took it."""
    old = path.with_name(f".{path.name}.old") if path.name else path
    if old.exists() and not path.exists():
        old.replace(path)
    return path


def find_run(text: str) -> "RunFolder":
    """Find a run by its name, or a publication by its path; a ValueError if there is none."""
    for path in (Path(text), project_root() / text):
        if (put_back(path) / RECORD).is_file():
            return RunFolder(path.absolute())
    there = sorted(path.name for path in runs_folder().glob("[!.]*") if path.is_dir())
    if text not in there:
        mend = nearest(text, there) if there else "; make one with: ionas run"
        raise ValueError(f"there is no run {text!r} in {runs_folder()}{mend}")
    return RunFolder(runs_folder() / text)


@dataclass(frozen=True)
class RunFolder:
    """The layout of `runs/NAME`, and of `results/NAME`, at `path`."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def parameters(self) -> Path:
        """File of the parameters of all notebooks; a profile for `ionas run`."""
        return self.path / "params.yaml"

    @property
    def command(self) -> str:
        """Command that brings the run up to date."""
        if self.parameters.is_file():
            return f"ionas run --profile {self.parameters} --name {self.name}"
        return f"ionas run {'--profile' if self.name in profiles() else '--name'} {self.name}"

    @property
    def is_publication(self) -> bool:
        """Whether it holds only the small results of a run."""
        return (self.path / RECORD).is_file()

    def stage(self, name: str) -> Path:
        """Results of a finished stage, with its manifest and its executed notebook."""
        return self.path / name

    def partial(self, name: str) -> Path:
        """Results in the making; stays after a failure, so that a later run goes on there."""
        return self.path / f"{name}.partial"

    def by_hand(self, name: str) -> Path:
        """Results of a notebook that was run outside of `ionas run`."""
        return self.path / "by_hand" / name

    def manifest(self, name: str) -> dict[str, Any] | None:
        """Manifest of a finished stage, or None if there is none, or not the one written."""
        manifest = read_json(self.stage(name) / "manifest.json")
        return manifest if manifest and sealed(manifest) == manifest else None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder, so that no other process writes it; a TimeoutError if another holds it."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        lock = filelock.FileLock(path / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        raise TimeoutError(f"another process is writing {path}; wait for it") from None
    with lock:
        yield


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON mapping with its own hash, so that a change of it is noticed."""
    bare = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(bare, sort_keys=True)
    return {**bare, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON mapping; None if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON such that it is complete or absent."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def write_text(path: Path, text: str) -> None:
    """Write a text such that it is complete or absent."""
    write_whole(path, text.encode())
