"""The paper's values are those of its text."""

import re
from pathlib import Path

import pandas as pd
import pytest

from ionas.paper import paper_table


@pytest.fixture
def text() -> str:
    """The text of the paper, where it stands beside the project."""
    for folder in Path(__file__).resolve().parents[2:]:
        if (path := folder / "shared" / "paper.txt").is_file():
            return path.read_text("utf-8")
    pytest.skip("the paper's text does not stand beside the project (../shared/paper.txt)")


def printed(text: str, number: int) -> list[list[float]]:
    """Numbers of each row of a table of the paper's text, without its heading."""
    body = text.partition(f"\nTable {number}:")[2].partition("\n\n")[2].partition("\n\n")[0]
    rows = []
    for line in body.splitlines()[1:]:
        cells = re.sub(r"test_2k|</?\w+>|\b(\d+) (?=\d{3}\b)", r"\1", line).split("\t")[1:]
        rows.append([float(n) for cell in cells for n in re.findall(r"\d+(?:\.\d+)?", cell)])
    return rows


def test_tables_4_and_5_are_those_of_the_text(text: str) -> None:
    wanted = [[v for v in row[1:] if pd.notna(v)] for row in paper_table(4).to_numpy().tolist()]
    assert printed(text, 4) == wanted
    names = ["mean", "std", "baseline", "baseline_half_width"]
    rows = paper_table(5)[names].to_numpy().tolist()
    assert printed(text, 5) == rows


def test_table_2_is_that_of_the_text(text: str) -> None:
    assert [row[-1] for row in printed(text, 2)] == paper_table(2)["size"].tolist()


@pytest.mark.parametrize("number", [6, 7])
def test_tables_6_and_7_are_those_of_the_text(text: str, number: int) -> None:
    body = text.partition(f"\nTable {number}:")[2].partition("\n\n")[2]
    names = [line.split("\t")[0] for line in body.splitlines()[1:7]]
    model = {"Accuracy Model": "accuracy", "IO Model": "io", "arch2vec": "arch2vec"}
    kind = {" 1": "_flatten", " 2": "_mean", " original": "_original", "": ""}
    wanted = {model[a] + kind[b]: row for (a, b), row in zip(map(split, names), printed(text, number), strict=True)}  # fmt: skip # noqa: E501
    table = paper_table(number)
    for name, rows in table.groupby("embedding"):
        found = rows.sort_values("size")[["mean", "half_width"]].to_numpy().ravel().tolist()
        assert found == wanted.pop(str(name))
        assert (rows["high"] - rows["low"]).tolist() == pytest.approx(
            (2 * rows["half_width"]).tolist()
        )
    assert not wanted


def split(name: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?)( \d| original|)", name)
    assert match is not None
    return match[1], match[2]


def test_every_table_tells_its_place() -> None:
    for number in range(1, 8):
        assert paper_table(number).attrs["where"].startswith(f"Table {number}, ")
