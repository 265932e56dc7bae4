"""The notebooks as they are committed: their parameters, and nothing in them but the source."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import nbformat
import papermill
import pytest

from ionas import plots
from ionas.book.configure import STAGES
from ionas.book.folders import project_root

FOLDER = project_root() / "notebooks"
every_notebook = pytest.mark.parametrize("name", STAGES)


def path(name: str) -> Path:
    return FOLDER / f"{STAGES[name].stem}.ipynb"


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(path(name), as_version=4)


def plain_type(annotation: Any) -> str:
    """The type of a parameter as a notebook writes it."""
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0]).__name__
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


@pytest.mark.slow
def test_executed_notebooks_give_the_same_outputs_again(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IONAS_RUNS", str(tiny_run.parent))
    options = ["-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    command = [sys.executable, "-m", "pytest", *options, str(tiny_run / "notebooks")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_one_notebook_per_stage() -> None:
    found = {file.stem for file in FOLDER.glob("*.ipynb")}
    assert found == {notebook.stem for notebook in STAGES.values()}


@every_notebook
def test_parameters_are_those_of_the_model(name: str) -> None:
    inferred = papermill.inspect_notebook(str(path(name)))
    fields = STAGES[name].model.model_fields
    assert list(inferred) == list(fields)
    for key, field in fields.items():
        default = field.get_default(call_default_factory=True)
        value = ast.literal_eval(inferred[key]["default"])
        assert (value, type(value)) == (default, type(default)), key
        written = inferred[key]["inferred_type_name"]
        expected = plain_type(
            list[Any] if get_origin(field.annotation) is list else field.annotation
        )
        assert written.split("[")[0] == expected.replace("typing.", "").split("[")[0], key


@every_notebook
def test_only_the_source_is_kept(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@every_notebook
def test_a_notebook_has_the_common_frame(name: str) -> None:
    notebook = read(name)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    after = code[code.index(tagged[0]) + 1]
    assert f'start("{name}", globals())' in after.source
    assert code[-1].source.strip().endswith("stage.finish()")
    assert "nbval-ignore-output" in code[-1].metadata.tags


@every_notebook
def test_a_chart_is_shown_once(name: str) -> None:
    """A chart is the value of its cell or given to `plots.show`; else it would be lost."""
    for cell in read(name).cells:
        body = ast.parse(cell.source).body if cell.cell_type == "code" else []
        shown = [body[-1].value] if body and isinstance(body[-1], ast.Expr) else []
        calls = [
            (node, node.func.attr)
            for statement in body
            for node in ast.walk(statement)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value) == "plots"
        ]
        shown += [argument for node, called in calls if called == "show" for argument in node.args]
        names = {one.id for one in shown if isinstance(one, ast.Name)}
        assigned = [one for one in body if isinstance(one, ast.Assign)]
        shown += [one.value for one in assigned if ast.unparse(one.targets[0]) in names]
        for node, called in calls:
            if getattr(plots, called).__annotations__["return"] is plots.Chart:
                assert any(node is one for one in shown), f"{cell.id}: {ast.unparse(node)}"


@every_notebook
def test_a_notebook_installs_nothing_and_names_no_machine(name: str) -> None:
    source = "\n".join(cell.source for cell in read(name).cells)
    for wrong in (r"pip install", r"sys\.path", r"/home/", r"/Users/", r"/tmp/", r"[A-Z]:\\"):
        assert not re.search(wrong, source), wrong
