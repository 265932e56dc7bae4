"""What a notebook calls, outside of any notebook: what is kept, and when it holds."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import fake_study
import numpy as np
import pandas as pd
import pytest

from ionas.book import kept
from ionas.book.configure import InvalidParameters
from ionas.book.folders import RECORD, sealed, write_json
from ionas.book.kept import File, KeptError
from ionas.book.stage import Stage, StageError, finding, start

CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IONAS_RUNS", str(tmp_path))
    monkeypatch.delenv("IONAS_STAGE_DIR", raising=False)
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    CALLS.clear()
    return tmp_path


@pytest.fixture(autouse=True)
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the notebook would show."""
    shown: list[Any] = []
    monkeypatch.setattr("ionas.book.stage._display", lambda thing, **_: shown.append(thing))
    return shown


def begin(name: str = "first", **values: Any) -> Stage:
    return start(name, {"run": "fake", **values}, fake_study.STAGES)


def doubled(value: Any, **_: Any) -> Any:
    CALLS.append(value)
    return value * 2


def frame(rows: int) -> pd.DataFrame:
    CALLS.append(rows)
    return pd.DataFrame({"x": range(rows)})


def arrays(rows: int) -> dict[str, np.ndarray]:
    return {"a": np.arange(rows), "b": np.eye(rows)[:, ::-1]}


def counted(many: int, parts: Path) -> int:
    for number in range(many):
        if not (parts / f"{number}").exists():
            CALLS.append(number)
            (parts / f"{number}").write_text("x")
    return len(list(parts.iterdir()))


def counted_known(many: int, parts: Path, known: int | None = None) -> int:
    return counted(many, parts) + (known or 0)


def finish_first(runs: Path) -> Path:
    """A finished stage `first`, as `ionas run` leaves it."""
    stage = begin()
    stage.made("numbers.json", fake_study.numbers, stage.parameters, "", parts="numbers")
    stage.made("times.json", fake_study.now, measured=True)
    stage.finish()
    final = runs / "fake" / "first"
    stage.folder.replace(final)
    write_json(final / "manifest.json", sealed(json.loads((final / "stage.json").read_text())))
    return final


# --- what is kept ----------------------------------------------------------------------------


def test_what_holds_is_not_computed_again() -> None:
    assert begin().kept("a.json", doubled, 3) == 6
    assert begin().kept("a.json", doubled, 3) == 6
    assert CALLS == [3]
    assert begin().kept("a.json", doubled, 4) == 8
    assert begin().kept("a.json", doubled, 4, more=[1]) == 8
    assert CALLS == [3, 4, 4]


def test_where_something_is_computed_does_not_decide() -> None:
    for jobs in (1, 2):
        begin().kept("a.json", doubled, 3, jobs=jobs, device=str(jobs))
    assert CALLS == [3]


def test_another_function_is_another_result() -> None:
    assert begin().kept("a.json", doubled, 2) == 4
    assert begin().kept("a.json", fake_study.total, [1], fake_study.Third(extra=[5])) == 6


def test_forms_are_by_the_ending() -> None:
    stage = begin()
    pd.testing.assert_frame_equal(stage.kept("a.parquet", frame, 3), frame(3))
    found = stage.kept("a.safetensors", arrays, 3)
    assert all(np.array_equal(found[name], value) for name, value in arrays(3).items())
    for wrong in ("a.pickle", "a.npy", "../a.json", "b/a.json", "a"):
        with pytest.raises(KeptError, match="no file name that ends in one of"):
            stage.made(wrong, doubled, 1)


def test_a_result_can_be_handed_on_unread() -> None:
    for _ in range(2):
        stage = begin()
        numbers = stage.made("numbers.json", doubled, 2)
        assert isinstance(numbers, File)
        assert stage.kept("more.json", doubled, numbers) == 8
    assert CALLS == [2, 4]
    stage = begin()
    assert stage.kept("more.json", doubled, stage.made("numbers.json", doubled, 3)) == 12


def test_only_plain_values_and_files_can_be_told_apart() -> None:
    with pytest.raises(KeptError, match=r"a.json: argument 0 of doubled is a ndarray; give"):
        begin().made("a.json", doubled, np.ones(3))


def test_a_damaged_result_is_computed_again() -> None:
    stage = begin()
    path = stage.made("a.json", doubled, 3).path
    path.write_text("7")
    assert begin().kept("a.json", doubled, 3) == 6
    assert CALLS == [3, 3]


@pytest.mark.parametrize("change", [('"key"', '"kez"'), ('"sha256"', '"sha255"'), ("{", "[")])
def test_what_a_damaged_ledger_says_is_computed_again(change: tuple[str, str]) -> None:
    ledger = begin().made("a.json", doubled, 3).path.parent / "kept.json"
    ledger.write_text(ledger.read_text().replace(*change))
    assert begin().kept("a.json", doubled, 3) == 6
    assert CALLS == [3, 3]


def test_parts_hold_while_only_their_number_changes() -> None:
    call = {"parts": "numbers", "grows": ("many",)}
    assert begin().kept("n.json", counted, many=2, **call) == 2
    assert begin().kept("n.json", counted, many=4, **call) == 4
    assert CALLS == [0, 1, 2, 3]
    assert begin().kept("n.json", counted, many=3, parts="numbers") == 3  # the number decides now
    assert CALLS == [0, 1, 2, 3, 0, 1, 2]


def added(many: int, known: list[int] | None = None) -> list[int]:
    CALLS.extend(new := range(len(known or ()), many))
    return [*(known or ()), *new]


def test_a_result_grows_from_an_earlier_one_without_its_parts() -> None:
    call = {"grows": ("many",), "known": True}
    assert begin().kept("n.json", added, many=2, **call) == [0, 1]
    path = begin().made("n.json", added, many=4, **call).path
    assert json.loads(path.read_text()) == CALLS == [0, 1, 2, 3]
    path.write_text("[]")  # damaged
    assert begin().kept("n.json", added, many=3, **call) == [0, 1, 2]
    assert CALLS == [0, 1, 2, 3, 0, 1, 2]


def test_a_result_that_grows_counts_the_time_of_the_earlier_one(runs: Path) -> None:
    call = {"parts": "numbers", "grows": ("many",), "known": True}
    stage = begin()
    stage.made("n.json", counted_known, many=2, **call)
    ledger = json.loads((stage.folder / "kept.json").read_text())
    ledger["n.json"]["processor_s"] = 100.0
    (stage.folder / "kept.json").write_text(json.dumps(ledger))
    shutil.rmtree(stage.folder / "numbers")
    (stage.folder / ".numbers.json").unlink()
    begin().made("n.json", counted_known, many=3, **call)
    ledger = json.loads((stage.folder / "kept.json").read_text())
    assert 100 <= ledger["n.json"]["processor_s"] < 110


def test_results_of_the_run_serve_a_notebook_by_hand(runs: Path) -> None:
    first = finish_first(runs)
    made = (first / "numbers.json").stat().st_mtime_ns
    stage = begin()
    taken = stage.made("numbers.json", fake_study.numbers, stage.parameters, "", parts="numbers")
    assert taken.path.parent == stage.folder
    assert taken.path.stat().st_mtime_ns == made
    assert (stage.folder / "numbers" / "2.json").exists()


def test_all_can_be_computed_afresh(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = (finish_first(runs) / "numbers.json").stat().st_mtime_ns
    monkeypatch.setenv("IONAS_AFRESH", "yes")
    stage = begin()
    new = stage.made("numbers.json", fake_study.numbers, stage.parameters, "", parts="numbers")
    assert new.path.stat().st_mtime_ns != made


def test_time_that_a_killed_call_has_spent_counts(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp.json"
    stamp.write_text('{"key": "k", "wall_s": 100.0, "processor_s": 50.0}')
    with kept._clock(stamp) as spent:
        pass
    assert spent["wall_s"] >= 100
    assert spent["processor_s"] >= 50
    assert json.loads(stamp.read_text())["key"] == "k"


# --- parameters, inputs, the record ----------------------------------------------------------


def test_values_come_from_the_notebook_and_are_checked() -> None:
    stage = begin(seed=5, json=json, MAXIMUM=3, _i="x", list_=len)
    assert stage.parameters == fake_study.First(run="fake", seed=5)
    assert stage.device == "cpu"
    with pytest.raises(InvalidParameters, match="no parameter 'sead'; did you mean 'seed'"):
        begin(sead=5)
    with pytest.raises(InvalidParameters, match=r"first.size is 0"):
        begin(size=0)


def test_only_what_the_cells_have_set_is_a_parameter() -> None:
    """A start-up file of IPython may have set names; a later cell may have, too."""
    first, start_cell = "run = 'fake'\nseed = 5", "stage = start('first', globals())"
    cells = ["", first, "%matplotlib", start_cell, "n = 1"]
    assert begin(In=cells, seed=5, home="/x", n=1).parameters.seed == 5
    cells[1] = first.replace("seed", "sead")
    with pytest.raises(InvalidParameters, match="did you mean 'seed'"):
        begin(In=cells, sead=5, home="/x")


def test_a_name_that_papermill_makes_a_number_of_is_a_text(runs: Path) -> None:
    stage = start("search_space", {"dataset": 2024, "seed": 3})
    assert (stage.parameters.dataset, stage.parameters.seed) == ("2024", 3)
    for value in (1.5, True, None):  # how it was written is lost
        with pytest.raises(InvalidParameters, match=r"dataset is .* text, which papermill .* -r"):
            start("search_space", {"dataset": value})


def test_a_tuple_counts_as_a_list(runs: Path) -> None:
    finish_first(runs)
    third = start("third", {"run": "fake", "extra": (1, 2)}, fake_study.STAGES)
    assert third.parameters == fake_study.Third(run="fake", extra=[1, 2])


def test_results_are_recorded_with_their_hashes(runs: Path) -> None:
    manifest = json.loads((finish_first(runs) / "manifest.json").read_text())
    assert set(manifest["outputs"]) == {"numbers.json", "times.json"}
    entry = manifest["outputs"]["numbers.json"]
    assert (entry["size"], entry["measured"], entry["parts"]) == (14, False, "numbers")
    assert manifest["outputs"]["times.json"]["measured"]


def test_what_is_no_longer_asked_for_goes() -> None:
    begin().made("old.json", doubled, 1)
    stage = begin()
    stage.made("new.json", doubled, 2)
    stage.finish()
    there = {path.name for path in stage.folder.glob("[!.]*")}
    assert there == {"new.json", "kept.json", "stage.json"}


def test_inputs_are_checked(runs: Path) -> None:
    with pytest.raises(StageError, match=r"'fake' has no first.*ionas run"):
        begin("second")
    first = finish_first(runs)
    stage = begin("second")
    assert stage.input("first", "numbers.json").load() == [0, 1, 2]
    assert stage.input("first", "numbers").load() == first / "numbers"
    with pytest.raises(StageError, match=r"first writes no numb; it writes: numbers\.json"):
        stage.input("first", "numb")
    with pytest.raises(StageError, match="second does not read third"):
        stage.input("third", "sum.json")
    (first / "numbers.json").write_text("1")
    with pytest.raises(StageError, match=r"numbers\.json is not what first wrote"):
        stage.input("first", "numbers.json")


def test_a_stage_that_is_optional_and_has_not_run_gives_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = dataclasses.replace(fake_study.STAGES["third"], optional=("second",))
    monkeypatch.setitem(fake_study.STAGES, "third", third)
    first = finish_first(runs)
    assert begin("third").input("second", "products.json") is None
    shutil.copytree(first, runs / "fake" / "second")
    given = begin("third").input("second", "numbers.json")
    assert given is not None
    assert given.load() == [0, 1, 2]


def test_a_publication_is_read_and_nothing_is_computed(runs: Path) -> None:
    first = finish_first(runs)
    write_json(runs / "fake" / RECORD, {})
    shutil.rmtree(first / "numbers")
    (first / "times.json").unlink()
    stage = begin(seed=9)  # whatever the parameters are
    assert stage.kept("numbers.json", fake_study.numbers, stage.parameters, "") == [0, 1, 2]
    left_out = stage.made("times.json", fake_study.now)
    with pytest.raises(KeptError, match="too large for a publication"):
        left_out.load()
    with pytest.raises(StageError, match=r"no other\.json of first: it was made by an older"):
        stage.made("other.json", fake_study.now)
    before = sorted(first.rglob("*"))
    stage.finish()
    assert sorted(first.rglob("*")) == before


@pytest.mark.parametrize(("shows", "word"), [(True, "yes"), (False, "no"), (None, "undecided")])
def test_a_finding_has_one_look(shows: bool | None, word: str, displayed: list[Any]) -> None:
    finding("a  is\nlarger", shows, "it is 3 % larger")
    assert displayed[0]["text/markdown"].split("\n>\n") == [
        "> **Paper:** a is larger",
        "> **This run:** it is 3 % larger",
        f"> **Same here:** {word}",
    ]


def test_the_footer_tells_where_results_come_from(displayed: list[Any]) -> None:
    stage = begin(seed=7, data_file="<b>.csv")
    stage.made("a.json", doubled, 1)
    stage.finish()
    text = displayed[0].data
    for word in ("seed = 7", "&lt;b&gt;.csv", "revision", "Machine", "torch"):
        assert word in text
    assert str(stage.folder) not in text
