"""The whole study at tiny scale: what a run holds, kills, damage, changed code, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import pytest
import yaml

from ionas.book import provenance
from ionas.book import run as runner
from ionas.book.folders import RunFolder, project_root
from ionas.book.parameters import STAGES, resolve

pytestmark = pytest.mark.slow
ROOT = project_root()
COMMAND = [sys.executable, "-c", "from ionas.cli import app; app()", "run", "--profile", "tiny"]


def ionas_run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `ionas run --profile tiny` as a user does."""
    env = {**os.environ, "COLUMNS": "500", **environment}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=env, cwd=ROOT)


def ran(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Names of the notebooks that ran."""
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if "  done  " in line]
    return sorted(words[0].partition("_")[2] for words in lines)


def artifacts(run: Path) -> dict[str, str]:
    """Hashes of all artifacts of a run, freshly computed, but of those that hold times."""
    folder = RunFolder(run)
    found = {}
    for name in STAGES:
        manifest = folder.manifest(name)
        assert manifest is not None, name
        for file, entry in manifest["outputs"].items():
            if not entry["measured"]:
                found[f"{name}/{file}"] = provenance.file_hash(folder.stage(name) / file)
    return found


def snapshot(run: Path) -> dict[str, tuple[int, str]]:
    """Every file of a run with its hash and time of change."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(p): (p.stat().st_mtime_ns, provenance.file_hash(p)) for p in files}


def test_a_run_is_complete(tiny_run: Path) -> None:
    folder = RunFolder(tiny_run)
    written = yaml.safe_load((tiny_run / "params.yaml").read_text())
    resolved = resolve("tiny")
    for name, notebook in STAGES.items():
        manifest = folder.manifest(name)
        assert manifest is not None
        assert manifest["parameters"] == written[name]
        assert manifest["parameters"] == resolved[name].model_dump(mode="json")
        assert set(manifest["inputs"]["upstream"]) == set(notebook.upstream)
        assert manifest["wall_time_s"] > 0
        assert manifest["peak_memory_mb"] > 10
        assert (folder.notebooks / f"{notebook.stem}.ipynb").is_file()
        there = {
            name
            for name, _ in provenance.files_in(folder.stage(name))
            if name not in ("manifest.json", "executed.ipynb")
        }
        assert there == set(manifest["outputs"])
        assert not provenance.damaged(folder.stage(name), manifest["outputs"])


def test_artifacts_are_of_kinds_that_cannot_execute_code(tiny_run: Path) -> None:
    endings = {Path(name).suffix for name in artifacts(tiny_run)}
    assert endings <= {".parquet", ".safetensors", ".npy", ".json"}


def test_nothing_runs_again(tiny_copy: Path) -> None:
    before = snapshot(tiny_copy)
    assert ran(ionas_run()) == []
    assert snapshot(tiny_copy) == before


@pytest.mark.parametrize(
    ("name", "progress"),
    [("pretraining", "networks/*.safetensors"), ("embedding_training", "checkpoints/**/*.*")],
)
def test_a_run_killed_inside_a_notebook_goes_on_to_the_same_bytes(
    tiny_copy: Path, name: str, progress: str
) -> None:
    good = artifacts(tiny_copy)
    folder = RunFolder(tiny_copy)
    shutil.rmtree(folder.stage(name))
    partial = folder.partial(name)
    process = subprocess.Popen(
        [*COMMAND, "--only", name],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: any(partial.glob(progress)) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not folder.stage(name).exists(), "it was over before it was killed"
    kept = {path: path.stat().st_mtime_ns for path in partial.glob(progress)}
    assert kept
    assert ran(ionas_run()) == [name]
    assert artifacts(tiny_copy) == good
    final = {path: folder.stage(name) / path.relative_to(partial) for path in kept}
    untouched = [
        p for p, new in final.items() if new.exists() and new.stat().st_mtime_ns == kept[p]
    ]
    assert untouched or name != "pretraining", "the finished networks were trained again"


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def test_a_flipped_byte_is_noticed_named_and_mended(tiny_copy: Path) -> None:
    good = artifacts(tiny_copy)
    path = tiny_copy / "search_space" / "table.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = ionas_run()
    assert f"{path} has changed since it was written: 01_search_space runs again" in done.stdout
    assert ran(done) == ["search_space"]
    assert artifacts(tiny_copy) == good


def code_copy(folder: Path) -> Path:
    """A copy of the package and the notebooks."""
    skip = shutil.ignore_patterns("__pycache__")
    for part in ("ionas", "notebooks"):
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    shutil.copy(ROOT / "_toc.yml", folder)
    return folder


def importers(module: str, root: Path) -> set[str]:
    """Stages whose notebooks import a module, as the standard library's ModuleFinder sees it.

    The checks of parameters run before a notebook and do not count.
    """
    found = set()
    for name, notebook in STAGES.items():
        script = root / f"{notebook.stem}.py"
        code = provenance.notebook_code(root / "notebooks" / f"{notebook.stem}.ipynb")
        script.write_text("\n".join(code))
        finder = ModuleFinder(path=[str(root)], excludes=[provenance.NOT_FOLLOWED])
        finder.run_script(str(script))
        if module in finder.modules:
            found.add(name)
    return found


@pytest.mark.parametrize("module", ["images", "models.io_model", "search", "plots", "analysis"])
def test_a_changed_module_concerns_exactly_the_notebooks_that_import_it(
    module: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = code_copy(tmp_path)
    source = root / "ionas" / f"{module.replace('.', '/')}.py"
    source.write_text(source.read_text() + "\n# changed\n")
    monkeypatch.setattr(provenance, "PACKAGE", root / "ionas")
    study = runner.Study(STAGES, root / "notebooks", RunFolder(tiny_run))
    stale = set()
    for name, parameters in resolve("tiny").items():
        if why := runner.reason_to_run(study, name, runner.inputs_of(study, name, parameters)):
            assert why == f"changed: ionas.{module}"
            stale.add(name)
    assert stale == importers(f"ionas.{module}", root)
    assert stale


def test_a_changed_module_runs_its_notebook_again(tiny_copy: Path, tmp_path: Path) -> None:
    good = artifacts(tiny_copy)
    root = code_copy(tmp_path / "code")
    source = root / "ionas" / "search.py"
    source.write_text(source.read_text() + "\n# changed\n")
    done = subprocess.run(
        COMMAND,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "500", "PYTHONPATH": str(root)},
        cwd=root,
    )
    assert "changed: ionas.tasks.reinforce" in done.stdout
    assert ran(done) == ["reinforce"]
    assert artifacts(tiny_copy) == good


def bad_inputs(folder: Path) -> dict[str, tuple[str, str]]:
    """Override and the words that must be in its error."""
    (folder / "no_table.parquet").write_bytes(b"PAR1 this is none")
    (folder / "columns.csv").write_text("hash,accuracy\nabc,0.5\n")
    (folder / "empty").mkdir()
    broken = folder / "images"
    for part in ("train", "test"):
        for kind in ("cat", "dog"):
            (broken / part / kind).mkdir(parents=True)
            (broken / part / kind / "1.png").write_text("no picture")
    images = "pretraining.images=folder"
    return {
        "unknown parameter": ("pretraining.epoch=3", "did you mean 'epochs'"),
        "out of range": ("pretraining.epochs=0", "greater than or equal to 1"),
        "missing table": (f"search_space.table={folder}/none.parquet", "none.parquet"),
        "no table": (f"search_space.table={folder}/no_table.parquet", "no_table.parquet"),
        "table without columns": (f"search_space.table={folder}/columns.csv", "columns.csv"),
        "missing images": (f"{images} pretraining.images_path={folder}/none", "none"),
        "empty images": (f"{images} pretraining.images_path={folder}/empty", "empty"),
        "broken images": (f"{images} pretraining.images_path={broken}", "1.png"),
    }


def test_bad_input_gives_one_clear_error_and_leaves_the_last_good_run(
    tiny_copy: Path, tmp_path: Path
) -> None:
    before = snapshot(tiny_copy)
    for case, (overrides, words) in bad_inputs(tmp_path).items():
        sets: list[Any] = [["--set", text] for text in overrides.split()]
        done = ionas_run(*[word for pair in sets for word in pair])
        assert done.returncode == 2, case + done.stdout + done.stderr
        assert words in done.stderr, case
        assert "Traceback" not in done.stderr, case
        assert len(done.stderr.strip().splitlines()) == 1, case
        assert snapshot(tiny_copy) == before, case


def test_a_notebook_works_by_itself_after_a_run(tiny_copy: Path, tmp_path: Path) -> None:
    before = {path: entry for path, entry in snapshot(tiny_copy).items() if "by_hand" not in path}
    out = tmp_path / "out.ipynb"
    values = yaml.safe_load((tiny_copy / "params.yaml").read_text())["embedding_training"]
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(json.dumps({**values, "epochs": 2}))
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-f", str(parameters)]
    notebook = str(ROOT / "notebooks" / "05_embedding_training.ipynb")
    done = subprocess.run([*command, notebook, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tiny_copy / "by_hand" / "embedding_training" / "stage.json").read_text())
    assert record["parameters"]["epochs"] == 2
    after = {path: entry for path, entry in snapshot(tiny_copy).items() if "by_hand" not in path}
    assert after == before
