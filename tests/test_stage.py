"""What a notebook calls, outside of any notebook."""

import json
from pathlib import Path
from typing import Any

import fake_study
import pytest

from ionas.book.parameters import InvalidParameters
from ionas.book.stage import Stage, StageError, finding, start


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IONAS_RUNS", str(tmp_path))
    monkeypatch.delenv("IONAS_STAGE_DIR", raising=False)
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    return tmp_path


@pytest.fixture(autouse=True)
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the notebook would show."""
    shown: list[Any] = []
    monkeypatch.setattr("ionas.book.stage._display", shown.append)
    return shown


def begin(name: str = "first", **values: Any) -> Stage:
    return start(name, {"run": "fake", **values}, fake_study.STAGES)


def finish_first(runs: Path) -> Path:
    """A finished stage `first`, as `ionas run` leaves it."""
    stage = begin()
    stage.output("numbers/0.json").write_text("0")
    stage.output("times", measured=True).mkdir()
    (stage.folder / "times" / "t.json").write_text("3")
    stage.finish()
    final = runs / "fake" / "first"
    stage.folder.replace(final)
    (final / "stage.json").rename(final / "manifest.json")
    return final


def test_values_come_from_the_notebook_and_are_checked() -> None:
    stage = begin(seed=5, In=["import x"], Out={}, json=json, MAXIMUM=3, _i="x", list_=len)
    assert stage.parameters == fake_study.First(run="fake", seed=5)
    assert stage.device == "cpu"
    with pytest.raises(InvalidParameters, match="no parameter 'sead'; did you mean 'seed'"):
        begin(sead=5)
    with pytest.raises(InvalidParameters, match=r"first.size is 0"):
        begin(size=0)


def test_a_notebook_may_start_again_with_its_own_variables_there() -> None:
    stage = begin()
    assert begin(stage=stage, total=3, seed=2).parameters == fake_study.First(run="fake", seed=2)


def test_a_tuple_counts_as_a_list(runs: Path) -> None:
    finish_first(runs)
    third = start("third", {"run": "fake", "extra": (1, 2)}, fake_study.STAGES)
    assert third.parameters == fake_study.Third(run="fake", extra=[1, 2])


def test_by_hand_partial_results_stay_only_while_the_inputs_are_the_same() -> None:
    begin(seed=1).output("a.json").write_text("1")
    assert begin(seed=1).output("a.json").exists()
    leftover = begin(seed=1).output("b.json.tmp")
    leftover.write_text("half")
    assert not begin(seed=1).output("b.json.tmp").exists()
    assert not begin(seed=2).output("a.json").exists()


def test_outputs_stay_in_the_folder() -> None:
    stage = begin()
    assert stage.output("deep/er/x.json").parent.is_dir()
    for wrong in ("../x.json", "/x.json", "", "."):
        with pytest.raises(StageError, match="not a path inside"):
            stage.output(wrong)


def test_outputs_are_recorded_with_their_hashes(runs: Path) -> None:
    manifest = json.loads((finish_first(runs) / "manifest.json").read_text())
    assert set(manifest["outputs"]) == {"numbers/0.json", "times/t.json"}
    assert manifest["outputs"]["numbers/0.json"] == {
        "sha256": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
        "size": 1,
        "measured": False,
    }
    assert manifest["outputs"]["times/t.json"]["measured"]


def test_a_stage_must_write_something() -> None:
    with pytest.raises(StageError, match="first wrote no files"):
        begin().finish()


def test_inputs_are_checked(runs: Path) -> None:
    with pytest.raises(StageError, match=r"'fake' has no first.*ionas run"):
        begin("second")
    first = finish_first(runs)
    stage = begin("second")
    assert stage.input("first", "numbers/0.json") == first / "numbers" / "0.json"
    assert stage.input("first", "numbers") == first / "numbers"
    with pytest.raises(StageError, match=r"first writes no numb; it writes: numbers/0\.json"):
        stage.input("first", "numb")
    with pytest.raises(StageError, match="second does not read third"):
        stage.input("third", "sum.json")
    (first / "numbers" / "0.json").write_text("1")
    for file in ("numbers/0.json", "numbers"):
        with pytest.raises(StageError, match=r"0\.json is not the file that first wrote"):
            stage.input("first", file)


@pytest.mark.parametrize(("shows", "word"), [(True, "yes"), (False, "no"), (None, "in part")])
def test_a_finding_has_one_look(shows: bool | None, word: str, displayed: list[Any]) -> None:
    finding("a  is\nlarger", shows, "it is 3 % larger")
    assert displayed[0].data.split("\n>\n") == [
        "> **Paper:** a is larger",
        "> **This run:** it is 3 % larger",
        f"> **Same here:** {word}",
    ]


def test_the_footer_tells_where_results_come_from(displayed: list[Any]) -> None:
    stage = begin(seed=7, data_file="<b>.csv")
    stage.output("a.json").write_text("1")
    stage.finish()
    text = displayed[0].data
    for word in ("seed = 7", "&lt;b&gt;.csv", "Revision", "Machine", "torch", "MB"):
        assert word in text
    assert str(stage.folder) not in text
