"""The pages that answer: sentences that follow the verdicts, one table, one chart, the README."""

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ionas.book import answer, execute
from ionas.book.chapter import BookRun, verdict
from ionas.book.configure import STAGES
from ionas.book.findings import MIME, display_data, findings_of, signed
from ionas.book.folders import (
    RunFolder,
    project_root,
    results_folder,
    sealed,
    write_json,
)
from ionas.paper import CELLS

CELL = "07_performance_prediction", "plain"
PNG = "iVBORw0KGgo="


def a_run(
    label: str,
    verdicts: Mapping[tuple[str, str], bool | None],
    folder: Path = Path("none"),
    **more: Any,
) -> BookRun:
    """A run whose notebooks state these findings."""
    notebooks: dict[str, Any] = {}
    for (stem, name), shows in verdicts.items():
        data = display_data(
            f"Claim of {name}.", shows, "So it is.", numbers=("+0.1", "+0.2"), **more
        )
        cells = notebooks.setdefault(stem, new_notebook()).cells
        cells.append(new_markdown_cell(f"## Where it's {name}?"))
        cells.append(new_code_cell(id=name, outputs=[new_output("display_data", data)]))
    return BookRun(label, RunFolder(folder), notebooks)


def every(shows: bool | None) -> dict[tuple[str, str], bool | None]:
    return dict.fromkeys(answer.SENTENCES, shows)


def texts_of(*runs: BookRun) -> dict[str, str]:
    return answer.pages(runs)[0]


def well_formed(text: str) -> bool:
    """Whether it is whole sentences: no gap, no loose mark, nothing that stands for nothing."""
    bare = re.sub(r"\[[^\]]*\]\(\S+\)|\*\*|^\d\. ", "", text).strip()
    sentences = re.split(r"(?<=[.:]) (?=[A-Z])", bare)
    return all(
        s[:1].isupper() and not re.search(r"  |None|nan|\(\)|[{}]|\.\.| ;|; ;| \.", s)
        for s in sentences
    ) and bare.endswith(".")


@pytest.mark.parametrize("shows", [True, False, None])
def test_the_answer_of_one_run_follows_its_verdicts(shows: bool | None) -> None:
    texts = texts_of(a_run("One", every(shows)))
    assert texts["answer"].startswith(f"**{answer.HEADS[frozenset([shows])]}**")
    assert 40 <= len(texts["answer"].split()) <= 75
    assert "One" not in texts["answer"]  # there is no other run to tell it from
    assert texts["answer"].count("undecided whether") == 3 * (shows is None)
    assert ("predicted no better" in texts["answer"]) == (shows is False)
    top, beyond = texts["top_findings"].splitlines(), texts["beyond_findings"].splitlines()
    assert [line[:3] for line in top] == ["1. ", "2. ", "3. ", "4. ", "5. "]
    lines = top + beyond
    assert len(lines) == len(answer.SENTENCES) == 9
    assert all("(+0.2)" in line for line in lines)
    assert all(well_formed(text) for text in [texts["answer"], *lines])


def test_each_finding_links_to_its_section() -> None:
    text = texts_of(a_run("One", every(True)))["top_findings"]
    assert "[Where it's plain?](../notebooks/07_performance_prediction.md#where-its-plain)" in text


@pytest.mark.parametrize(
    ("first", "second"), itertools.product([True, False, None, "missing"], repeat=2)
)
def test_sentences_of_two_runs_say_what_each_shows(first: Any, second: Any) -> None:
    both = {"A": first, "B": second}
    runs = [a_run(name, {} if s == "missing" else every(s)) for name, s in both.items()]
    texts = texts_of(*runs)
    assert well_formed(texts["answer"])
    there = {name: shows for name, shows in both.items() if shows != "missing"}
    if not there:
        assert texts["answer"] == f"**{answer.HEADS[frozenset()]}**"
        assert texts["top_findings"].count("has not been run") == 5
        assert texts["beyond_findings"].count("has not been run") == len(answer.BEYOND)
        return
    for line in f"{texts['top_findings']}\n{texts['beyond_findings']}".splitlines():
        assert well_formed(line)
        if len(set(there.values())) == 1:
            together = " and ".join(there)
            numbers = "(A: +0.2; B: +0.2)" if len(there) == 2 else "(+0.2)"
            assert f"On {together}, " in line
            assert numbers in line
        else:
            assert "On A, " in line
            assert "; on B, " in line
    assert texts["answer"].count("not known yet on") == (len(there) == 1)
    assert (answer.DEPENDS in texts["answer"]) == ({True, False} == set(there.values()))


def test_names_of_runs_and_images_are_no_markup(tmp_path: Path) -> None:
    name = "<b>|`x`$y$[a](b)*c*"
    for folder in (tmp_path / "one", tmp_path / "two"):
        finished(folder, "pretraining", images="folder", images_path=f"my/{name}")
        beside = pd.DataFrame({"labeled": ["train"] * 2, "here": [0.1, 0.2], "table": [0.1, 0.3]})
        beside.to_parquet(folder / "pretraining" / "beside_table.parquet")
    runs = [with_picture(f"{name} {end}", tmp_path / end, 10) for end in ("one", "two")]
    texts = texts_of(*runs)
    assert "&#60;b&#62;" in texts["answer"]
    for text in texts.values():
        assert not any(mark in text for mark in ("<b>", "`x`", "$y$", "[a](b)", "*c*"))
    assert {line.count("|") for line in texts["limits"].splitlines()[:5]} == {4}


def test_missing_chapters_are_named() -> None:
    text = texts_of(a_run("One", {answer.UNSEEN: True}))["top_findings"]
    assert text.count("has not been run") == 4
    assert "{doc}`../notebooks/06_reinforce`" in text


def test_every_finding_that_is_told_is_stated_by_a_notebook() -> None:
    for stem, name in [*answer.SENTENCES, answer.KEY]:
        notebook = execute.read(project_root() / "notebooks" / f"{stem}.ipynb")
        [source] = [cell.source for cell in notebook.cells if cell.id == name]
        states = re.search(r"^(finding|compared)\(", source, re.MULTILINE)
        assert bool(states) == ((stem, name) != answer.KEY)


def test_one_table_has_all_findings_and_says_who_has_not_run_them() -> None:
    asked = a_run("A", {CELL: None}, own=True)
    other = a_run("B", {("01_search_space", "finding"): True})
    lines = texts_of(asked, other)["comparison"].splitlines()[2:]
    yes, undecided = verdict(True), verdict(None)
    assert lines[0] == "| Claim | Paper | A | B |"
    assert lines[2].endswith(f"#where-its-finding) | yes: +0.1 | not run yet | {yes}: +0.2 |")
    assert lines[3].endswith(f"| does not ask | {undecided}: +0.2 | not run yet |")


def values(**changes: Any) -> pd.DataFrame:
    row = {"scale": "share", "name": "v", "paper": 0.4, "mean": 0.5, "low": 0.3, "high": 0.7}
    return pd.DataFrame([{**row, **changes}])


def test_the_chart_has_each_value_of_each_run() -> None:
    whole = pd.concat([values(), values(name="w", paper=np.nan, low=np.nan, high=np.nan)])
    first = a_run("A", {CELL: True}, compared=whole)
    second = a_run("B", {CELL: True}, compared=values(mean=np.nan))
    texts, files = answer.pages([first, second])
    assert files["book/_static/comparison.png"].startswith(b"\x89PNG")
    assert files["downloads/data/comparison.csv"].decode().splitlines() == [
        "scale,name,run,paper,mean,low,high",
        "share,v,A,0.4,0.5,0.3,0.7",
        "share,w,A,,0.5,,",
    ]
    assert (
        ":alt: Values of the runs less those of the paper, on average: share, A +0.1"
        in (texts["comparison"])
    )
    json.dumps(first.notebooks[CELL[0]].cells[1].outputs[0].data[MIME], allow_nan=False)
    assert "comparison.png" not in texts_of(a_run("A", {CELL: True}))["comparison"]


def test_a_finding_is_read_as_it_was_stated() -> None:
    run = a_run("A", {CELL: np.bool_(False)}, own=True, compared=values())
    [found] = findings_of(run.notebooks[CELL[0]], CELL[0])
    assert (found.name, found.shows, found.own, found.here) == ("plain", False, True, "So it is.")
    assert list(found.numbers) == ["+0.1", "+0.2"]
    assert found.compared[0]["high"] == 0.7
    said = run.notebooks[CELL[0]].cells[1].outputs[0].data["text/markdown"]
    assert said.startswith("> **Asked here:** Claim of plain.")
    assert said.endswith("> **Holds:** no")


def test_a_difference_is_written_with_its_sign_and_interval() -> None:
    assert signed(0.0312, -0.01, 0.0722) == "+0.031 [-0.010, +0.072]"
    assert signed(-0.12, float("nan"), float("nan"), "+.0%") == "-12%"


def with_picture(label: str, folder: Path, cells: int) -> BookRun:
    metadata = {"image/png": {"alt": "r is high"}}
    picture = new_output("display_data", {"image/png": PNG}, metadata=metadata)
    run = a_run(label, every(True), folder)
    run.notebooks[answer.KEY[0]].cells.append(new_code_cell(id=answer.KEY[1], outputs=[picture]))
    write_json(folder / "performance_prediction" / "setting.json", {"cells": cells})
    return run


def test_the_key_figure_is_of_the_first_run_that_has_it(tmp_path: Path) -> None:
    digits = with_picture("Digits", tmp_path / "digits", 2532)
    large = with_picture("NAS-Bench-101", tmp_path / "large", CELLS)
    texts, files = answer.pages([large, digits])
    assert files["book/_static/answer.png"] == b"\x89PNG\r\n\x1a\n"
    assert ":alt: r is high" in texts["key_figure"]
    assert "NAS-Bench-101: how well" in texts["key_figure"]
    assert "hollow diamond the paper" in texts["key_figure"]
    first = a_run("NAS-Bench-101", {("01_search_space", "finding"): True})
    text = texts_of(first, digits)["key_figure"]
    assert "Digits: how well" in text
    assert "diamond" not in text
    assert "It is not known yet on NAS-Bench-101." in text
    assert texts_of(first)["key_figure"] == ""


def finished(folder: Path, stage: str, **parameters: Any) -> None:
    manifest = {"parameters": parameters, "outputs": {"a.json": {"sha256": stage}}}
    write_json(folder / stage / "manifest.json", sealed(manifest))


def test_limits_are_those_of_the_runs(tmp_path: Path) -> None:
    large, digits = tmp_path / "large", tmp_path / "digits"
    beside = {
        "labeled": ["train", "train", "validation"],
        "here": [0.4, 0.5, 0.6],
        "table": [1, 2, 3],
    }
    for folder, images in ((large, ("folder", "cifar10-images.zip")), (digits, ("digits", ""))):
        finished(folder, "pretraining", images=images[0], images_path=images[1])
        pd.DataFrame(beside).to_parquet(folder / "pretraining" / "beside_table.parquet")
    finished(digits, "embedding_training", seeds=[1, 2, 3])
    write_json(digits / "reinforce" / "setting.json", {"searchable": 2000, "cells": 2532})
    text = answer.limits([a_run("NAS", {}, large), a_run("Digits", {}, digits)])
    assert text.splitlines()[0] == "|  | NAS | Digits |"
    assert (
        "| Trained networks | 2 to learn from, 1 to check | 2 to learn from, 1 to check |" in text
    )
    assert "| Their test accuracy | 50% on average; Spearman's ρ with the table's 1.00 |" in text
    assert "| Images | CIFAR-10 (JPEG re-encoded) | scikit-learn&#39;s digits |" in text
    assert "| Trainings of the embeddings | not run yet | 3 |" in text
    assert "| Cells that a search can reach | not run yet | 2,000 of 2,532 |" in text
    assert "With 3 trainings a 95% interval reaches 4.3 standard errors" in text
    assert "JPEG" in text.splitlines()[-1]
    alone = answer.limits([a_run("Digits", {}, digits)])
    assert "JPEG" not in alone


def test_readme_gets_the_answer_and_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "project_root", lambda: tmp_path)
    readme, run = tmp_path / "README.md", with_picture("Digits", tmp_path / "runs" / "digits", 2532)
    finished(run.folder.path, "search_space")
    readme.write_text("# ionas\n\nnothing\n")
    with pytest.raises(ValueError, match="has no part from '<!-- answer of' to"):
        answer.write_readme([run])
    readme.write_text("before\n\n<!-- answer of old -->\nold\n<!-- end of answer -->\n\nafter\n")
    answer.write_readme([run])
    text = readme.read_text()
    assert text.startswith(f"before\n\n<!-- answer of {answer.source(run.folder)} -->")
    assert text.endswith("<!-- end of answer -->\n\nafter\n")
    assert texts_of(run)["answer"] in text
    assert '<img src="book/_static/answer.png" width="560" alt="r is high">' in text
    assert (tmp_path / "book/_static/answer.png").read_bytes() == b"\x89PNG\r\n\x1a\n"
    answer.write_readme([run])
    assert readme.read_text() == text
    finished(run.folder.path, "pretraining")
    assert answer.source(run.folder) not in text  # so that an outdated answer is noticed


def test_readme_tells_of_every_published_run() -> None:
    text = (project_root() / "README.md").read_text("utf-8")
    [block] = answer.README.findall(text)
    for path in sorted(results_folder().glob("*/publication.json")):
        assert answer.source(RunFolder(path.parent)) in block
    assert (project_root() / answer.STATIC / "answer.png").is_file()


@pytest.mark.slow
def test_the_page_of_all_findings_is_short(tiny_run: Path) -> None:
    notebooks = {
        stage.stem: execute.read(tiny_run / "notebooks" / f"{stage.stem}.ipynb")
        for stage in STAGES.values()
    }
    runs = [BookRun(label, RunFolder(tiny_run), notebooks) for label in ("One", "Two")]
    stated = answer.findings(runs)
    assert set(answer.SENTENCES) <= set(stated)
    page = (project_root() / "book" / "comparison.md").read_text("utf-8")
    text = re.sub(r"\]\(\S+\)|<[^>]*>|:alt: .*", "", page + texts_of(*runs)["comparison"])
    assert len(re.findall(r"\w[\w'.-]*", text)) <= 1500
