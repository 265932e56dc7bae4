"""Running notebooks: what is up to date, failures, kills; on three fake notebooks and the study."""

import dataclasses
import io
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

import fake_study
import nbformat
import psutil
import pytest
import yaml
from rich.console import Console

from ionas import parts
from ionas.book import execute
from ionas.book import run as runner
from ionas.book.folders import RunFolder, locked

TESTS = Path(__file__).parent
ROOT = TESTS.parent


class Fake:
    """The fake study in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.notebooks = folder / "notebooks"
        self.profile = folder / "fake.yaml"
        self.runs = folder / "runs"
        self.folder = RunFolder(self.runs / "fake")
        if not self.profile.exists():
            fake_study.write_notebooks(self.notebooks)
            self.profile.write_text("{}")

    def run(self, *overrides: str, **options: Any) -> str:
        """Run it, and return what is printed."""
        printed = io.StringIO()
        runner.run(
            str(self.profile),
            overrides,
            stages=fake_study.STAGES,
            notebooks=self.notebooks,
            console=Console(file=printed, width=500),
            **options,
        )
        return printed.getvalue()

    def artifacts(self) -> dict[str, bytes]:
        """Contents of all artifacts but those that hold times."""
        return {
            path.relative_to(self.folder.path).as_posix(): path.read_bytes()
            for name in fake_study.STAGES
            for path in self.folder.stage(name).glob("[!.]*.json")
            if path.name not in ("manifest.json", "times.json", "kept.json")
        }


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, with its time of change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def ran(printed: str) -> list[str]:
    """Names of the notebooks that ran, from what was printed."""
    lines = [line.split() for line in printed.splitlines() if "  done  " in line]
    return sorted(words[0][3:] for words in lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the fake study; only copied."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        patch.setenv("IONAS_RUNS", str(folder / "runs"))
        assert ran(Fake(folder).run()) == ["first", "second", "third"]
    return folder


@pytest.fixture
def fake(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A copy of the finished run."""

    folder = tmp_path / "fake {study}"  # papermill formats paths: braces must do no harm
    shutil.copytree(finished, folder)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("IONAS_RUNS", str(folder / "runs"))
    return Fake(folder)


def test_a_run_has_what_the_design_says(fake: Fake) -> None:
    assert fake.artifacts() == {
        "first/numbers.json": b"[\n 0,\n 1,\n 2\n]",
        "second/products.json": b"[\n 0.0,\n 2.0,\n 4.0\n]",
        "third/sum.json": b"3",
    }
    manifest = fake.folder.manifest("first")
    assert manifest is not None
    assert manifest["parameters"] == {"run": "fake", "seed": 1, "size": 3, "data_file": ""}
    assert manifest["seeds"] == {"seed": 1}
    assert manifest["outputs"]["times.json"]["measured"]
    assert {"wall_time_s", "peak_memory_mb", "device", "versions", "revision", "dirty"} <= set(
        manifest
    )
    assert "ionas.book.stage" in manifest["inputs"]["modules"]
    for name in fake_study.STAGES:
        notebook = nbformat.read(
            (fake.folder.path / "notebooks") / f"{fake_study.STAGES[name].stem}.ipynb", as_version=4
        )
        nbformat.validate(notebook)
        assert all(c.execution_count for c in notebook.cells if c.cell_type == "code")
        assert "papermill" not in nbformat.writes(notebook)
        assert str(fake.runs) not in nbformat.writes(notebook)
        injected = [cell for cell in notebook.cells if cell.id == "injected-parameters"]
        assert [cell.metadata.tags for cell in injected] == [["injected-parameters", "hide-input"]]


def test_nothing_runs_when_nothing_has_changed(fake: Fake) -> None:
    before = files(fake.runs)
    assert ran(fake.run()) == []
    assert files(fake.runs) == before


def test_prose_is_renewed_without_running(fake: Fake) -> None:
    path = fake.notebooks / "02_second.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = "# Another title"
    notebook.cells.append(nbformat.v4.new_markdown_cell("The end", id="end"))
    nbformat.write(notebook, path)
    assert ran(fake.run()) == []
    published = nbformat.read((fake.folder.path / "notebooks") / "02_second.ipynb", as_version=4)
    assert published.cells[0].source == "# Another title"
    assert published.cells[-1].source == "The end"
    assert published.cells[-2].outputs


def test_a_changed_parameter_runs_its_notebook_and_what_reads_it(fake: Fake) -> None:
    assert "changed: parameter factor" in fake.run("second.factor=3")
    assert fake.artifacts()["second/products.json"] == b"[\n 0.0,\n 3.0,\n 6.0\n]"
    # The order of keys, the number of processes and files with times change nothing later.
    assert ran(fake.run("second.factor=3.0", "second.jobs=2")) == []


def test_edits_of_params_yaml_outlast_a_failure_and_other_notebooks(fake: Fake) -> None:
    path = fake.folder.parameters
    text = path.read_text().replace("factor: 2.0", "factor: 5.0").replace("extra: []", "extra: [8]")
    path.write_text(text)
    fake.profile = path
    with pytest.raises(runner.RunError):
        fake.run("second.fail=error", name="fake", only=["01", "02"])
    path.write_text(path.read_text().replace("fail: error", "fail: ''"))
    assert ran(fake.run(name="fake")) == ["second", "third"]
    assert json.loads(fake.artifacts()["second/products.json"]) == [0, 5, 10]
    assert fake.artifacts()["third/sum.json"] == b"11"
    copy = fake.runs / "copy"
    shutil.copytree(fake.folder.path, copy)
    fake.profile = copy / "params.yaml"
    fake.run(name="copy", only=["01"])
    named = yaml.safe_load(fake.profile.read_text()).values()
    assert {values["run"] for values in named} == {"copy"}


def test_later_notebooks_rest_when_results_are_the_same(fake: Fake) -> None:
    assert ran(fake.run(force=True, only=["first"])) == ["first"]
    assert ran(fake.run()) == []


def test_what_is_optional_is_read_where_it_has_run(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = dataclasses.replace(fake_study.STAGES["third"], optional=("second",))
    monkeypatch.setitem(fake_study.STAGES, "third", third)
    shutil.rmtree(fake.folder.stage("second"))
    assert ran(fake.run(only=["third"])) == ["third"]
    assert ran(fake.run(only=["third"])) == []
    assert ran(fake.run()) == ["second", "third"]
    (fake.folder.stage("second") / "products.json").write_text("[]")
    with pytest.raises(runner.RunError, match=r"products\.json is not what second wrote; run"):
        fake.run(only=["third"])


def test_changed_data_run_the_notebook_that_names_them(fake: Fake) -> None:
    data = fake.runs.parent / "data.csv"
    data.write_text("one")
    assert ran(fake.run(f"first.data_file={data}")) == ["first"]
    data.write_text("two")
    printed = fake.run(f"first.data_file={data}")
    assert "changed: data data_file" in printed
    assert ran(printed) == ["first"]


def test_a_flipped_byte_is_noticed_named_and_mended(fake: Fake) -> None:
    good = fake.artifacts()
    path = fake.folder.stage("first") / "numbers.json"
    times = path.stat()
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # size and times tell nothing
    printed = fake.run()
    assert f"01_first  runs: {path} has changed since it was written" in printed
    assert ran(printed) == ["first"]
    assert fake.artifacts() == good


def test_a_missing_file_is_named_and_made_again(fake: Fake) -> None:
    good = fake.artifacts()
    path = fake.folder.stage("third") / "sum.json"
    path.unlink()
    ((fake.folder.path / "notebooks") / "02_second.ipynb").write_text("not what the run wrote")
    assert f"{path} is missing" in fake.run()
    assert fake.artifacts() == good
    assert nbformat.read((fake.folder.path / "notebooks") / "02_second.ipynb", as_version=4).cells


def test_a_failure_says_where_and_leaves_the_last_good_run(fake: Fake) -> None:
    before = files(fake.folder.path)
    with pytest.raises(runner.RunError) as caught:
        fake.run("second.fail=error")
    message = str(caught.value)
    half = fake.folder.partial("second") / "executed.ipynb"
    assert "failed in cell 5: stage.kept('products.json'" in message
    assert "AssertionError: told to fail" in message
    assert str(half) in message
    assert half.is_file()
    assert "go on with the same command" in message
    assert "Traceback" not in message
    after = files(fake.folder.path)
    before.pop("params.yaml")  # it says what was asked for, by which the run goes on
    assert "fail: error" in fake.folder.parameters.read_text()
    assert {name: after[name] for name in before} == before
    assert ran(fake.run()) == []


def test_a_dead_kernel_is_a_failure(fake: Fake) -> None:
    """Papermill calls the cells completed that never ran after one."""
    with pytest.raises(runner.RunError, match=r"failed in cell 5(.|\n)*the kernel died"):
        fake.run("second.fail=kill")
    assert ran(fake.run()) == []


def test_a_kernel_that_cannot_start_is_told_by_its_message(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ipykernel_launcher.py").write_text("raise SystemExit('no kernel')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(runner.RunError, match=r"RuntimeError: Kernel died(.|\n)*log\.txt"):
        fake.run("second.fail=kill")


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        (["first.sized=3"], {}, "first has no parameter 'sized'; did you mean 'size'"),
        (["frist.size=3"], {}, "no notebook 'frist'; did you mean 'first'"),
        (["first.size=11"], {}, "first.size is 11: it should be less than or equal to 10"),
        (["first.size=2.5"], {}, "first.size is '2.5': it should be a valid integer"),
        (["first.size=many"], {}, "first.size is 'many': it should be a valid integer"),
        (["first.size"], {}, "not of the form notebook.parameter=value"),
        (["first.data_file=/nowhere.csv"], {}, "there is no file or folder /nowhere.csv"),
        ([], {"only": ["fourth"]}, "no notebook 'fourth'"),
        ([], {"name": "a/b"}, "run is 'a/b'"),
        ([], {"jobs": -1}, "--jobs is -1"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    fake: Fake, overrides: list[str], options: dict[str, Any], message: str
) -> None:
    before = files(fake.runs)
    with pytest.raises(ValueError, match=message) as caught:
        fake.run(*overrides, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert files(fake.runs) == before


def test_a_notebook_alone_needs_what_it_reads(fake: Fake) -> None:
    with pytest.raises(runner.RunError, match=r"reads first, which run new lacks.*--only 01"):
        fake.run(name="new", only=["02"])
    (fake.folder.stage("first") / "numbers.json").write_text("9")
    with pytest.raises(
        runner.RunError, match=r"numbers\.json is not what first wrote; .* --only 01"
    ):
        fake.run("second.factor=5", only=["02_second"])


def test_results_that_do_not_belong_together_are_not_read(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = dataclasses.replace(fake_study.STAGES["third"], upstream=("first", "second"))
    monkeypatch.setitem(fake_study.STAGES, "third", both)
    good = fake.artifacts()["third/sum.json"]
    with pytest.raises(runner.RunError, match="third reads second, which run new lacks"):
        fake.run(name="new", only=["01", "03"])
    assert not (fake.runs / "new" / "first").exists()  # told before anything runs
    refused = "third reads second, which was made from other results of first .*--only 02"
    with pytest.raises(runner.RunError, match=refused):
        fake.run("first.seed=7", only=["01", "03"])
    assert fake.artifacts()["third/sum.json"] == good
    with pytest.raises(runner.RunError, match=refused):
        fake.run("first.seed=7", "third.extra=[4]", only=["03"])
    printed = fake.run("first.seed=7", only=["02", "03"])
    assert ran(printed) == ["second", "third"]
    assert "01_first  does not run, so its --set has no effect now" in printed
    assert fake.artifacts()["third/sum.json"] == b"21"


def test_two_processes_cannot_write_one_run(fake: Fake) -> None:
    with (
        locked(fake.folder.path),
        pytest.raises(runner.RunError, match="another process is writing"),
    ):
        fake.run()


def test_a_kill_between_the_renames_of_a_swap_loses_nothing(fake: Fake) -> None:
    good = fake.artifacts()
    final = fake.folder.stage("first")
    final.replace(final.with_name("first.old"))
    assert ran(fake.run()) == []
    assert fake.artifacts() == good


def fake_process(fake: Fake, wait: float, *overrides: str) -> subprocess.Popen[bytes]:
    """Run the fake study in a process to be killed."""
    code = (
        "import sys; from pathlib import Path; import fake_study; from ionas.book.run import run; "
        "run(sys.argv[1], sys.argv[3:], stages=fake_study.STAGES, notebooks=Path(sys.argv[2]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(fake.profile), str(fake.notebooks), *overrides],
        env={**os.environ, "IONAS_FAKE_WAIT": str(wait)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def still_there(folder: Path) -> list[psutil.Process]:
    """Processes that work for a stage folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("IONAS_STAGE_DIR", "").startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_process_and_goes_on_where_it_was(
    fake: Fake, how: signal.Signals
) -> None:
    process = fake_process(fake, 3, "first.seed=7")
    numbers = fake.folder.partial("first") / "numbers"
    wait_for(lambda: (numbers / "0.json").exists())
    assert still_there(fake.runs)
    process.send_signal(how)
    process.wait()
    wait_for(lambda: not still_there(fake.runs), 20)
    assert not (numbers / "2.json").exists()
    assert (fake.folder.stage("first") / "numbers" / "2.json").read_text() == "2"
    written = (numbers / "0.json").stat().st_mtime_ns
    assert ran(fake.run("first.seed=7")) == ["first", "second", "third"]
    assert fake.artifacts()["third/sum.json"] == b"21"
    final = fake.folder.stage("first") / "numbers" / "0.json"
    assert final.stat().st_mtime_ns == written


def test_parts_of_other_parameters_are_not_used(fake: Fake) -> None:
    folder = fake.folder.partial("first")
    parts.write(folder / "numbers", "1.json", b"999")
    (folder / ".numbers.json").write_text('{"key": "another"}')
    fake.run("first.seed=2")
    assert fake.artifacts()["third/sum.json"] == b"6"


def test_a_larger_count_goes_on_with_the_parts_that_are_whole(fake: Fake) -> None:
    numbers = fake.folder.stage("first") / "numbers"
    (numbers / "1.json").write_text("999")  # damaged, so this one is made again
    written = {name: (numbers / f"{name}.json").stat().st_mtime_ns for name in (0, 1, 2)}
    assert "changed: parameter size" in fake.run("first.size=5")
    assert fake.artifacts()["third/sum.json"] == b"10"
    now = {name: (numbers / f"{name}.json").stat().st_mtime_ns for name in (0, 1, 2)}
    assert [name for name in now if now[name] != written[name]] == [1]
    assert sorted(path.stem for path in numbers.glob("*.json")) == list("01234")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("cut")])
def test_a_lost_part_is_named_and_made_again_alone(
    fake: Fake, damage: Callable[[Path], Any]
) -> None:
    good, numbers = fake.artifacts(), fake.folder.stage("first") / "numbers"
    damage(numbers / "1.json")
    with pytest.raises(runner.RunError, match=rf"{numbers} is not what first wrote; .*--only 01"):
        fake.run("second.factor=5", only=["02"])
    whole = (numbers / "2.json").stat().st_mtime_ns
    printed = fake.run()
    assert f"01_first  runs: {numbers} has changed since it was written" in printed
    assert ran(printed) == ["first"]
    assert fake.artifacts() == good
    assert (numbers / "2.json").stat().st_mtime_ns == whole
    assert (numbers / "1.json").read_text() == "1"
    shutil.rmtree(numbers)  # as a publication leaves them out
    assert ran(fake.run()) == []


def test_restyling_never_recomputes(fake: Fake) -> None:
    """A notebook with another drawing runs again; what it computed is read."""
    path = (fake.folder.path / "notebooks").parent.parent.parent / "notebooks" / "03_third.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[4].source += "\nprint('in another colour')"
    nbformat.write(notebook, path)
    made = (fake.folder.stage("third") / "sum.json").stat()
    assert "changed: its code" in (printed := fake.run())
    assert ran(printed) == ["third"]
    now = (fake.folder.stage("third") / "sum.json").stat()
    assert (now.st_ino, now.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_a_changed_function_is_computed_again_and_a_comment_is_not(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "code" / "fake_study.py"
    copy.parent.mkdir()
    source = (TESTS / "fake_study.py").read_text()
    copy.write_text(source.replace("# a comment", "# another comment") + "\n# the end\n")
    monkeypatch.setenv("PYTHONPATH", f"{copy.parent}:{ROOT}")
    made = {n: (fake.folder.stage("third") / n).stat().st_mtime_ns for n in ("sum.json",)}
    fake.run("third.extra=[]", force=False)
    assert {n: (fake.folder.stage("third") / n).stat().st_mtime_ns for n in made} == made
    copy.write_text(source.replace("sum(values) + sum", "sum(values) - sum"))
    assert ran(fake.run("third.extra=[2]")) == ["third"]
    assert fake.artifacts()["third/sum.json"] == b"1"


@pytest.mark.parametrize(
    "setting",
    [
        {"MPLBACKEND": "Agg"},
        {"IPYTHONDIR": "ipython"},
        {"JUPYTER_CONFIG_DIR": "jupyter"},
        {"PYTHONSTARTUP": "startup.py"},
        {"MPLCONFIGDIR": "matplotlib"},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_the_users_own_configuration_reaches_no_kernel(
    setting: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((name, value),) = setting.items()
    monkeypatch.setenv(name, str(tmp_path / value))
    given = execute.environment(tmp_path / "settings")
    assert given.get(name, "") != str(tmp_path / value)


def test_files_where_a_run_is_started_are_not_pythons(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random", "statistics", "numbers"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not Python's own')")
    monkeypatch.chdir(tmp_path)
    assert ran(fake.run("first.seed=11"))[:1] == ["first"]


def test_an_orphan_is_ended_before_its_folder_is_used(fake: Fake) -> None:
    """The machinery that ends kernels with their parent may be absent or late."""
    folder = fake.folder.partial("first")
    folder.mkdir()
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, "IONAS_STAGE_DIR": str(folder)},
    )
    fake.run("first.seed=3")
    assert not still_there(fake.runs)
    orphan.wait(10)


def test_by_hand_a_notebook_writes_beside_the_run(fake: Fake) -> None:
    before = files(fake.folder.path)
    out = fake.runs.parent / "out.ipynb"
    arguments = [str(fake.notebooks / "02_second.ipynb"), str(out), "-p", "run", "fake"]
    command = [sys.executable, "-m", "papermill", *arguments, "--no-progress-bar"]
    # Papermill formats its paths.
    command = [word.replace("{", "{{").replace("}", "}}") for word in command]
    done = subprocess.run([*command, "-p", "factor", "10.0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    products = fake.folder.by_hand("second") / "products.json"
    assert json.loads(products.read_text()) == [0.0, 10.0, 20.0]
    after = files(fake.folder.path)
    assert {name: after[name] for name in before} == before
    wrong = subprocess.run([*command, "-p", "facter", "10"], capture_output=True, text=True)
    assert wrong.returncode != 0
    assert "did you mean 'factor'" in wrong.stderr


def test_commands_tell_bad_input_from_failure(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from ionas.cli import app; app()", "run"]
    env = {**os.environ, "IONAS_RUNS": str(tmp_path)}
    for arguments in (["--set", "pretraining.epoch=3"], ["--profile", "tinny"]):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=env)
        assert done.returncode == 2
        assert "did you mean" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
