"""Provenance: hashes that see what they should, and the modules that code imports."""

import json
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ionas.book import execute, provenance


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `p`: a <- b <- c (inside a function), d <- models.m (relative), e alone."""
    files = {
        "__init__": "",
        "a": "import math",
        "b": "from p import a",
        "c": "def f():\n    import p.b",
        "d": "from p.models.m import thing",
        "e": "import json",
        "models/__init__": "",
        "models/m": "from ..b import x\nfrom . import n\nthing = 1",
        "models/n": "",
    }
    for name, source in files.items():
        path = tmp_path / "p" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "p")
    provenance._code_hash.cache_clear()
    return tmp_path / "p"


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import numpy", ""),
        ("import p", "p"),
        ("from p import a", "p p.a"),
        ("from p import a as b", "p p.a"),
        ("import p.c", "p p.a p.b p.c"),
        ("if True:\n    from p.c import f", "p p.a p.b p.c"),
        ("from p import d", "p p.a p.b p.d p.models p.models.m p.models.n"),
        ("from p.models import n", "p p.models p.models.n"),
        ("from p import e", "p p.e"),
        ("from p import e, nothing", "p p.e"),
        ("from package import p", ""),
    ],
)
def test_imports_are_followed(package: Path, source: str, modules: str) -> None:
    assert list(provenance.notebook_modules([source])) == modules.split()


def hash_of(package: Path, source: str) -> str:
    """Hash of the module `p.a` with this source."""
    (package / "a.py").write_text(source)
    provenance._code_hash.cache_clear()
    return provenance.notebook_modules(["from p import c"])["p.a"]


def test_a_module_counts_with_its_code_but_not_with_its_comments(package: Path) -> None:
    plain = hash_of(package, "class C:\n    def f(self):\n        return 'x'")
    told = "class C:\n    'A class.'\n    def f(self):  # so\n        'Says x.'\n        return 'x'"
    assert hash_of(package, told) == plain
    assert hash_of(package, "class C:\n    def f(self):\n        return 'y'") != plain


def test_what_draws_or_organises_does_not_decide_a_result() -> None:
    from ionas import pretraining
    from ionas.embedding import training

    networks = provenance._module_code(pretraining.__name__)
    models = provenance._module_code(training.__name__)
    assert {"ionas.pretraining", "ionas.images", "ionas.networks"} <= set(networks)
    assert "ionas.embedding.arch2vec" in models
    assert not {name for name in networks if "embedding" in name}
    for name in (*networks, *models):
        assert not name.startswith(("ionas.book", "ionas.plots", "ionas.parameters"))


def test_code_that_is_no_python_is_refused(package: Path) -> None:
    with pytest.raises(SyntaxError):
        provenance.notebook_modules(["from p import"])


def test_magics_are_no_code(tmp_path: Path) -> None:
    cells = [new_markdown_cell("text"), new_code_cell("%matplotlib inline\n!ls\nimport p")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "n.ipynb")
    assert provenance.notebook_code(tmp_path / "n.ipynb") == ["\n\nimport p"]


def test_the_hash_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    assert provenance.data_hash(tmp_path / "nothing") == ""
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "a").write_text("1")
    hashes = [provenance.data_hash(tmp_path / "data")]
    (tmp_path / "data" / ".hidden").write_text("1")
    assert provenance.data_hash(tmp_path / "data") == hashes[0]
    (tmp_path / "data" / "sub" / "a").rename(tmp_path / "data" / "sub" / "b")
    hashes.append(provenance.data_hash(tmp_path / "data"))
    (tmp_path / "data" / "sub" / "b").write_text("2")
    hashes.append(provenance.data_hash(tmp_path / "data"))
    assert len(set(hashes)) == 3


def test_a_file_hash_is_that_of_the_published_test_vector(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert provenance.file_hash(tmp_path / "abc") == expected


def test_files_with_times_do_not_count_for_later_stages() -> None:
    outputs = {"a": {"sha256": "1"}, "t": {"sha256": "2", "measured": True}}
    later = {"t": {"sha256": "3", "measured": True}, "a": {"sha256": "1"}}
    assert provenance.artifact_hash(outputs) == provenance.artifact_hash(later)
    later["a"] = {"sha256": "4"}
    assert provenance.artifact_hash(outputs) != provenance.artifact_hash(later)


def test_a_revision_knows_what_is_not_committed(tmp_path: Path) -> None:
    assert provenance.revision(tmp_path) == {"revision": "unknown", "dirty": None}

    def git(*arguments: str) -> None:
        author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *author, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    clean = provenance.revision(tmp_path)
    assert len(clean["revision"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert provenance.revision(tmp_path) == {**clean, "dirty": True}


def test_a_folder_inside_another_repository_has_no_revision(tmp_path: Path) -> None:
    subprocess.run(["git", "init"], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "inner").mkdir()
    assert provenance.revision(tmp_path / "inner")["revision"] == "unknown"


def test_a_device_that_is_not_there_is_refused() -> None:
    assert provenance.pick_device("cpu") == "cpu"
    assert provenance.pick_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match=r"device 'tpu' is not there; here are: cpu"):
        provenance.pick_device("tpu")


def executed(count: int | None = 2, error: bool = False) -> nbformat.NotebookNode:
    """A notebook as papermill leaves it."""
    failed = new_output("error", ename="ValueError", evalue="no\nway", traceback=[])
    header = new_markdown_cell("An error", metadata={"tags": ["papermill-error-cell-tag"]})
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("a = 1", execution_count=1, id="one"),
        new_code_cell("a = 2", execution_count=1, metadata={"tags": ["injected-parameters"]}),
        new_code_cell(
            "# look\nprint(a)", execution_count=count, outputs=[failed] if error else [], id="two"
        ),
        new_code_cell(""),
    ]
    return new_notebook(cells=[header, *cells] if error else cells)


def test_the_failed_cell_is_counted_as_in_the_source() -> None:
    assert execute.first_failure(executed()) is None
    assert execute.first_failure(executed(error=True)) == execute.Failure(
        3, "print(a)", "ValueError: no way"
    )
    stopped = execute.first_failure(executed(count=None))
    assert stopped is not None
    assert stopped.cell == 2


def test_scrubbing_leaves_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed()
    notebook.metadata.papermill = {"output_path": "/home/a", "duration": 3}
    notebook.metadata.kernelspec = {"name": "my-env", "display_name": "Mine"}
    notebook.cells[1].metadata = {"execution": {"iopub.status.busy": "now"}, "papermill": {}}
    text = f"{Path.home()}/x.py:1: UserWarning: be careful"
    notebook.cells[1].outputs = [new_output("stream", name="stderr", text=text)]
    execute.scrub(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[1].metadata == {}
    assert str(Path.home()) + "/x" not in execute.text(notebook)
    assert "UserWarning: be careful" in execute.text(notebook)
    assert "papermill" not in execute.text(notebook)
    assert notebook.cells[2].metadata.tags == ["injected-parameters", "hide-input"]


def test_prose_comes_from_the_source_and_outputs_from_the_run() -> None:
    ran = executed()
    source = new_notebook(
        cells=[
            new_code_cell("a = 1", id="one", metadata={"tags": ["parameters"]}),
            new_markdown_cell("New words"),
            new_code_cell("# look\nprint(a)", id="two", metadata={"tags": ["hide-input"]}),
            new_code_cell("", id="three"),
        ]
    )
    merged = execute.with_prose(ran, source)
    assert [cell.source for cell in merged.cells] == [
        "a = 1",
        "a = 2",
        "New words",
        "# look\nprint(a)",
        "",
    ]
    assert [cell.get("execution_count") for cell in merged.cells] == [1, 1, None, 2, None]
    assert merged.cells[3].metadata.tags == ["hide-input"]
    json.loads(execute.text(merged))
    source.cells[0].source = "a = 5"
    assert execute.with_prose(ran, source) is ran
