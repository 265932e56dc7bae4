"""Where runs live, and how their files are written."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ionas

RECORD = "publication.json"  # makes the folder of a run a publication


def project_root() -> Path:
    """Folder of the book: the nearest one above with a `_toc.yml`, else that of the package."""
    here = Path.cwd()
    candidates = [here, *here.parents, Path(ionas.__file__).resolve().parent.parent]
    for folder in candidates:
        if (folder / "_toc.yml").is_file():
            return folder
    return here


def runs_folder() -> Path:
    """Folder of all runs: the environment variable IONAS_RUNS, else `runs` beside the book."""
    return Path(os.environ.get("IONAS_RUNS") or project_root() / "runs").absolute()


def results_folder() -> Path:
    """Folder of all publications: IONAS_RESULTS, else `results` beside the book."""
    return Path(os.environ.get("IONAS_RESULTS") or project_root() / "results").absolute()


def find_publication(text: str) -> Path | None:
    """Folder of the publication that a text is the path of, from here or from the book."""
    for path in (Path(text), project_root() / text):
        if (path / RECORD).is_file():
            return path.absolute()
    return None


@dataclass(frozen=True)
class RunFolder:
    """The layout of `runs/NAME`."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def notebooks(self) -> Path:
        """Executed notebooks, as the book shows them."""
        return self.path / "notebooks"

    def stage(self, name: str) -> Path:
        """Artifacts of a finished stage, with its manifest and its executed notebook."""
        return self.path / name

    def partial(self, name: str) -> Path:
        """Artifacts in the making; stays after a failure, so that a later run goes on there."""
        return self.path / f"{name}.partial"

    def by_hand(self, name: str) -> Path:
        """Artifacts of a notebook that was run outside of `ionas run`."""
        return self.path / "by_hand" / name

    def manifest(self, name: str) -> dict[str, Any] | None:
        """Manifest of a finished stage, or None if there is none that can be read."""
        return read_json(self.stage(name) / "manifest.json")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON mapping; None if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_text(path: Path, text: str) -> None:
    """Write a file such that it is complete or absent, at whatever point the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, "utf-8", newline="\n")
    temporary.replace(path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON such that it is complete or absent."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
