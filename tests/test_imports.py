"""The house keeps its order: imports run downward, the package is light."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ionas.book.folders import project_root

PACKAGE = project_root() / "ionas"
# A module imports those of earlier floors; on a floor with several rooms, none of its neighbors.
FLOORS = [
    {"ionas"},
    {"files"},
    {"image_folder"},
    {"space", "images", "parallel", "paper", "parameters"},
    {"parts"},
    {"networks", "plots", "predictors"},
    {"pretraining", "io_dataset"},
    {"benchmark"},
    {"embedding"},
    {"tasks"},
    {"book"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room(path: Path) -> str:
    """The module, or the package of modules, that a file belongs to."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "ionas" if parts == ("__init__",) else parts[0]


def imported(path: Path) -> set[str]:
    """Rooms that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.split(".")[0] == "ionas"]
    rooms = {part[1] if len(part) > 1 else "ionas" for part in parts}
    return {name if name in FLOOR else "ionas" for name in rooms}


FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if "data" not in path.relative_to(PACKAGE).parts
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    here = room(path)
    assert here in FLOOR, f"{here} has no floor yet: add it to FLOORS"
    upward = {name for name in imported(path) if name != here and FLOOR[name] >= FLOOR[here]}
    assert not upward


def test_modules_of_one_package_do_not_import_each_other_in_a_circle() -> None:
    graph = {}
    for path in FILES:
        name = ".".join(("ionas", *path.relative_to(PACKAGE).with_suffix("").parts))
        tree = ast.parse(path.read_text("utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        targets = {f"{node.module}.{alias.name}" for node in imports for alias in node.names}
        graph[name] = targets | {str(node.module) for node in imports}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_search_and_prediction_know_no_models() -> None:
    for path in (PACKAGE / "tasks").glob("*.py"):
        assert "embedding" not in imported(path)


@pytest.mark.parametrize("name", ["ionas", "ionas.embedding", "ionas.book", "ionas.cli"])
def test_packages_and_the_command_are_light(name: str) -> None:
    code = f"import {name}, sys; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "pandas", "sklearn", "matplotlib", "papermill", "pyarrow"}
    assert not heavy & set(done.stdout.split())


def test_every_module_is_on_the_page_of_the_api() -> None:
    page = (project_root() / "book" / "api.md").read_text("utf-8")
    inner = {"cli", "__main__", "book.execute", "book.progress"}  # commands, not for callers
    modules = {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in FILES}
    wanted = {name for name in modules if not name.endswith("__init__")} - inner
    assert not [name for name in sorted(wanted) if f"automodule:: ionas.{name}\n" not in page]
