"""The whole study at tiny scale: what a run holds, kills, damage, changed code, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ionas import io_dataset, pretraining
from ionas.book import provenance
from ionas.book import run as runner
from ionas.book.configure import STAGES, resolve
from ionas.book.folders import RunFolder, project_root
from ionas.embedding import training
from ionas.tasks import prediction, reinforce

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
        assert set(manifest["inputs"]["upstream"]) == set(notebook.reads)
        assert manifest["peak_memory_mb"] > 10
        assert (tiny_run / "notebooks" / f"{notebook.stem}.ipynb").is_file()
        kept = {"manifest.json", "executed.ipynb", "kept.json"}
        there = {path.name for path in folder.stage(name).glob("[!.]*") if path.is_file()}
        assert there - kept == set(manifest["outputs"])
        assert not provenance.damaged(folder.stage(name), manifest["outputs"])


def test_artifacts_are_of_kinds_that_cannot_execute_code(tiny_run: Path) -> None:
    endings = {Path(name).suffix for name in artifacts(tiny_run)}
    assert endings <= {".parquet", ".safetensors", ".npy", ".json"}


def test_nothing_runs_again(tiny_copy: Path) -> None:
    before = snapshot(tiny_copy)
    assert ran(ionas_run()) == []
    assert snapshot(tiny_copy) == before


def test_a_run_killed_inside_a_notebook_goes_on_to_the_same_bytes(tiny_copy: Path) -> None:
    name, progress = "pretraining", "networks/*.sha256"
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
    assert untouched, "the finished networks were trained again"


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
    assert f"01_search_space  runs: {path} has changed since it was written" in done.stdout
    assert ran(done) == ["search_space"]
    assert artifacts(tiny_copy) == good


def code_copy(folder: Path) -> Path:
    """A copy of the package and the notebooks."""
    skip = shutil.ignore_patterns("__pycache__")
    for part in ("ionas", "notebooks"):
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    for file in ("_toc.yml", "_config.yml"):
        shutil.copy(ROOT / file, folder)
    return folder


HEAVY = {
    "networks": pretraining.train_networks,
    "targets": io_dataset.io_targets,
    "models": training.train_all,
    "search": reinforce.search_all,
    "scores": prediction.score_all,
}


@pytest.mark.parametrize(
    ("module", "computed"),
    [
        ("plots.figures", set()),
        ("book.stage", set()),
        ("book.run", set()),
        ("parameters", set()),
        ("parallel", set()),
        ("pretraining", {"networks"}),
        ("images", {"networks", "targets"}),
        ("networks", {"networks", "targets"}),
        ("embedding.arch2vec", {"models"}),
        ("tasks.reinforce", {"search"}),
        ("tasks.regressors", {"scores"}),
        ("space.cells", set(HEAVY)),
    ],
)
def test_what_a_changed_module_computes_again(
    module: str, computed: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def codes() -> dict[str, str]:
        provenance._module_code.cache_clear()
        provenance._code_hash.cache_clear()
        return {name: provenance.function_code(function) for name, function in HEAVY.items()}

    root = code_copy(tmp_path)
    monkeypatch.setattr(provenance, "PACKAGE", root / "ionas")
    before = codes()
    source = root / "ionas" / f"{module.replace('.', '/')}.py"
    text = source.read_text()
    source.write_text(text + "\n# a comment\n")
    assert codes() == before
    source.write_text(text + "\nCHANGED = True\n")
    after = codes()
    monkeypatch.undo()
    codes()
    assert {name for name in HEAVY if after[name] != before[name]} == computed


def test_restyling_never_recomputes(tiny_copy: Path, tmp_path: Path) -> None:
    """Another colour in the charts and another comment: these run, and nothing is computed."""
    names = ["embedding_training", "label_value", "performance_prediction", "pretraining"]
    root = code_copy(tmp_path / "code")
    style = root / "ionas" / "plots" / "style.py"
    style.write_text(style.read_text() + "\nANOTHER_COLOUR = '#123456'\n")
    networks = root / "ionas" / "pretraining.py"
    networks.write_text(networks.read_text() + "\n# told otherwise\n")
    results = [p for p in tiny_copy.rglob("*") if p.suffix in (".parquet", ".safetensors")]
    made = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in results}
    done = subprocess.run(
        [*COMMAND, *(word for name in names for word in ("--only", name))],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "500", "PYTHONPATH": str(root)},
        cwd=root,
    )
    assert "changed: ionas.plots.style" in done.stdout
    assert "changed: ionas.pretraining" not in done.stdout
    assert ran(done) == names
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in results} == made


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


def test_a_notebook_alone_is_checked_against_what_the_run_has(tiny_copy: Path) -> None:
    before = snapshot(tiny_copy)
    for number, override, words in [
        ("02", "pretraining.train_networks=15", "search_space.labeled_train is 14"),
        ("03", "io_dataset.top_k=18", "top_k is 18, but the networks have 16 features"),
        ("06", "reinforce.budget=0.001", "one training of .*table.parquet takes up to"),
        ("07", "performance_prediction.sizes=[2531]", "sizes has 2531, but the table has 2532"),
        ("10", "label_value.doses=[1]", "doses has 1, but pretraining.epochs is 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            runner.run("tiny", [override], only=[number])
    assert snapshot(tiny_copy) == before


def test_a_notebook_works_by_itself_after_a_run(tiny_copy: Path, tmp_path: Path) -> None:
    before = {path: entry for path, entry in snapshot(tiny_copy).items() if "by_hand" not in path}
    out = tmp_path / "out.ipynb"
    values = yaml.safe_load((tiny_copy / "params.yaml").read_text())["reinforce"]
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(json.dumps({**values, "runs": 3}))
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-f", str(parameters)]
    notebook = str(ROOT / "notebooks" / "06_reinforce.ipynb")
    done = subprocess.run([*command, notebook, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tiny_copy / "by_hand" / "reinforce" / "stage.json").read_text())
    assert record["parameters"]["runs"] == 3
    after = {path: entry for path, entry in snapshot(tiny_copy).items() if "by_hand" not in path}
    assert after == before
