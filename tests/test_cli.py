"""The command `ionas`: what it prints, and one line for a bad name. Also commands in the prose."""

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ionas import __version__
from ionas.book.configure import STAGES, parse_overrides, resolve
from ionas.book.folders import project_root
from ionas.book.run import RunError
from ionas.cli import app, type_name

ROOT = project_root()
PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]


def ionas(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def on_a_terminal(columns: int, *arguments: str) -> list[str]:
    """Lines that a terminal of so many columns shows."""
    done = subprocess.run(
        [sys.executable, "-m", "ionas", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(columns)},
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()


@pytest.fixture
def no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IONAS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_version() -> None:
    done = ionas("--version")
    assert (done.exit_code, done.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize("module", ["ionas", "ionas.cli"])
def test_python_m_is_the_command(module: str) -> None:
    command = [sys.executable, "-m", module, "params", "reinforced"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("there is no notebook 'reinforced'; did you mean 'reinforce'?")


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("no such cell"), 2, "no such cell\n"),
        (FileNotFoundError(2, "No such file", "a.csv"), 2, "[Errno 2] No such file: 'a.csv'\n"),
        (RunError("02 failed"), 1, "02 failed\n"),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on from here\n"),
    ],
)
def test_errors_of_every_command_end_in_one_line(
    error: BaseException, status: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ionas.book.configure.resolve", fail)
    monkeypatch.setattr("ionas.benchmark.table.load_table", fail)
    for arguments in (["params"], ["benchmark", "check"], ["data", "table", "t.csv"]):
        done = ionas(*arguments)
        assert (done.exit_code, done.stdout, done.stderr) == (status, "", told)


def test_a_fault_of_the_program_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ionas.book.configure.resolve", lambda _: 1 / 0)
    assert isinstance(ionas("params").exception, ZeroDivisionError)


# --- what is written -------------------------------------------------------------------------

ROWS = 'adjacency,operations,test_accuracy\n0100,"input,output",0.5\n'


def test_a_table_is_never_written_over_its_source(tmp_path: Path) -> None:
    source = tmp_path / "mine.csv"
    source.write_text(ROWS)
    for name in ("mine.csv", "other.csv", "other", "other.parquet.gz"):
        done = ionas("data", "table", str(source), "--out", str(tmp_path / name))
        assert (done.exit_code, done.stdout) == (2, ""), name
        assert name in done.stderr
    checked = tmp_path / "mine.parquet"
    assert ionas("data", "table", str(source), "--out", str(checked)).exit_code == 0
    before = checked.read_bytes()
    (tmp_path / "link.parquet").symlink_to(checked)
    for read, written in (("mine", "mine"), ("link", "mine"), ("mine", "link")):
        paths = [str(tmp_path / f"{name}.parquet") for name in (read, written)]
        done = ionas("data", "table", paths[0], "--out", paths[1])
        assert done.exit_code == 2
        assert "is the file that is read" in done.stderr
    assert (source.read_text(), checked.read_bytes()) == (ROWS, before)


def test_the_book_may_be_written_elsewhere(
    no_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_runs / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ionas.book.html.build", lambda runs, out: f"{runs} in {out}")
    assert ionas("book").stdout == "open in a browser: ['digits'] in None\n"
    done = ionas("book", "mine", "yours", "--out", "there")
    assert done.stdout == f"open in a browser: ['mine', 'yours'] in {tmp_path / 'there'}\n"


# --- params ----------------------------------------------------------------------------------


def rows(lines: list[str]) -> list[str]:
    """Parameters of all tables: first words of their lines, but of those that go on another."""
    found, in_table = [], False
    for line in lines:
        if line.startswith("parameter "):
            in_table = True
        elif not line.strip():
            in_table = False
        elif in_table and line[0] != " ":
            found.append(line.split()[0])
    return found


def names(stage: str) -> list[str]:
    return [name for name in STAGES[stage].model.model_fields if name != "run"]


def test_params_prints_every_parameter_on_one_line_when_piped() -> None:
    lines = ionas("params").stdout.splitlines()
    assert rows(lines) == [name for stage in STAGES for name in names(stage)]
    assert [line.split(":")[0] for line in lines if re.match(r"\d\d_", line)] == [
        stage.stem for stage in STAGES.values()
    ]
    for stage in STAGES.values():
        for name, field in stage.model.model_fields.items():
            if name != "run":
                assert field.description, f"{stage.name}.{name} has no meaning"
                said = (type_name(field.annotation), repr(field.default), field.description)
                assert any(
                    line.startswith(name) and all(word in line for word in said) for line in lines
                ), name


@pytest.mark.parametrize("text", ["05", "embedding_training", "05_embedding_training.ipynb"])
def test_params_of_one_notebook(text: str) -> None:
    lines = ionas("params", text).stdout.splitlines()
    assert lines[0].startswith("05_embedding_training: arch2vec")
    assert rows(lines) == names("embedding_training")


def test_params_shows_the_value_of_a_profile_beside_the_default(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("pretraining: {epochs: 17}")
    lines = ionas("params", "02", "--profile", str(mine)).stdout.splitlines()
    assert next(line for line in lines if line.startswith("epochs")).split()[:4] == [
        "epochs",
        "int",
        "6",
        "17",
    ]


@pytest.mark.parametrize("profile", ["digits", "paper"])
def test_params_is_readable_at_80_columns(profile: str) -> None:
    lines = on_a_terminal(80, "params", "--profile", profile)
    assert max(map(len, lines)) <= 80
    assert rows(lines) == [name for stage in STAGES for name in names(stage)]
    assert "…" not in "".join(lines), "a word was cut"
    heads = [line for line in lines if line.startswith("parameter ")]
    assert len(heads) == len(STAGES)
    assert max(head.index("meaning") for head in heads) <= 55, "too little room for the meaning"


@pytest.mark.parametrize(
    ("annotation", "text"),
    [(int, "int"), (list[int], "list[int]"), (bool, "bool")],
)
def test_types_are_written_as_python_does(annotation: object, text: str) -> None:
    assert type_name(annotation) == text


# --- status and book -------------------------------------------------------------------------


def test_status_of_a_run_that_has_begun(no_runs: Path) -> None:
    (no_runs / "mine" / "search_space.partial").mkdir(parents=True)
    expected = {stage.stem: "none" for stage in STAGES.values()} | {"01_search_space": "begun"}
    for lines in (ionas("status", "mine").stdout.splitlines(), on_a_terminal(80, "status", "mine")):
        assert dict(line.split() for line in lines[1:]) == expected


@pytest.mark.slow
def test_status_of_a_finished_run_and_of_a_damaged_one(tiny_copy: Path) -> None:
    lines = ionas("status", "tiny").stdout.splitlines()
    for stage in STAGES.values():
        line = next(line for line in lines if stage.stem in line)
        assert re.search(r" \d+ files  .*\d+ s  +\d+ MB  +(cpu|cuda|mps)  ", line), line
    with (tiny_copy / "search_space" / "table.parquet").open("ab") as file:
        file.write(b"x")
    assert "damaged: table.parquet" in ionas("status", "tiny").stdout


def test_benchmark_check_of_a_table_without_repeats(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text(ROWS)
    done = ionas("benchmark", "check", str(table))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "mine: 1 cells, budget unknown"
    assert "fewer than two repeats" in done.stdout


# --- bad names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["params", "search_spac"], "there is no notebook 'search_spac'; did you mean 'search_sp"),
        (["params", "99"], "there is no notebook '99'; there are: search_space, pretraining"),
        (["params", "--profile", "digit"], "there is no profile 'digit'; did you mean 'digits'?"),
        (["params", "--profile", "none.yaml"], "profile none.yaml cannot be read"),
        (["status"], "there is no run 'digits' in"),
        (["book", "longer"], "there is no run 'longer' in"),
        (["run", "--profile", "paperr"], "there is no profile 'paperr'; did you mean 'paper'?"),
        (["run", "--only", "reinforced"], "there is no notebook 'reinforced'; did you mean 'rein"),
        (["run", "--set", "reinforce.run=3"], "reinforce.run cannot be set here"),
        (["run", "--set", "reinforce.rnus=3"], "reinforce has no parameter 'rnus'; did you mean"),
        (["run", "--set", "epochs=3"], "--set 'epochs=3' is not of the form"),
        (["run", "--name", "../up"], "run is '../up'"),
        (["benchmark", "check", "digit"], "there is no table 'digit'; give digits"),
    ],
    ids=" ".join,
)
def test_a_bad_name_gives_one_line(no_runs: Path, arguments: list[str], message: str) -> None:
    done = ionas(*arguments)
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not no_runs.exists()


def test_a_bad_run_name_is_told_with_the_nearest(no_runs: Path) -> None:
    (no_runs / "digits").mkdir(parents=True)
    for command in ("status", "book"):
        done = ionas(command, "digitz")
        assert done.exit_code == 2
        assert done.stderr.endswith("; did you mean 'digits'?\n")


# --- commands in README and book -------------------------------------------------------------


def commands(word: str) -> list[tuple[str, str]]:
    """Every line of a code block of the prose that calls a command, with its file."""
    found = []
    for path in PROSE:
        for block in re.findall(r"^```\w*\n(.*?)^```", path.read_text("utf-8"), re.M | re.S):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                line = line.removeprefix("$ ").partition("  #")[0].strip().partition(" # ")[0]
                if re.match(rf"(\.venv/bin/)?{word} ", line):
                    found.append((path.name, line.strip()))
    return found


def test_ionas_commands_of_the_prose_are_valid() -> None:
    from typer.main import get_command

    lines = commands("ionas")
    assert {name for name, _ in lines} >= {"README.md", "CONTRIBUTING.md", "running.md"}
    for name, line in lines:
        words = shlex.split(line)[1:]
        command = get_command(app)
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, f"{name}: {line}"
            command = command.commands[words.pop(0)]
        options = {text for parameter in command.params for text in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= options, f"{name}: {line}"
        overrides = [value for flag, value in pairwise(words) if flag == "--set"]
        resolve("digits", parse_overrides(overrides))


def test_papermill_commands_of_the_prose_are_valid() -> None:
    lines = commands("papermill")
    assert {name for name, _ in lines} >= {"README.md", "running.md"}
    stems = {stage.stem: stage for stage in STAGES.values()}
    for name, line in lines:
        words = line.split()
        stage = stems[Path(words[1]).stem]
        for flag, parameter, value in zip(words, words[1:], words[2:], strict=False):
            if flag == "-p":
                assert parameter in stage.model.model_fields, f"{name}: {line}"
                resolve("digits", {stage.name: {parameter: int(value)}})
