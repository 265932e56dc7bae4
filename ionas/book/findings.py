"""Findings of a run beside the paper's: how a notebook states one, and how pages read it.

A finding is judged in one place, the cell of the notebook that states it, by the rules of
`ionas.tasks.intervals`; its name is the id of that cell, the same in every run.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from nbformat import NotebookNode

if TYPE_CHECKING:
    import pandas as pd

MIME = "application/vnd.ionas.finding+json"
WORDS = {True: "yes", False: "no", None: "undecided"}
VALUES = ("scale", "name", "paper", "mean", "low", "high")  # columns of `Finding.compared`


class Finding(NamedTuple):
    """A claim, whether a run bears it out, and by which numbers.

    `stem`, `name`, `heading`: notebook, cell, the heading above it. `paper`: the claim, which the
    paper makes, or only this book asks where `own`. `shows`: whether the run bears it out; None if
    that is undecided. `here`: what the run shows, in words. `numbers`: the paper's and the run's
    result in a few characters, empty where there is none. `compared`: values without a unit, each
    with the `scale` that it is on, a `name`, the `paper`'s value or None, the run's `mean`, and
    `low` and `high`, its 95 % interval or None.
    """

    stem: str
    name: str
    heading: str
    paper: str
    shows: bool | None
    here: str
    own: bool = False
    numbers: tuple[str, str] = ("", "")
    compared: tuple[dict[str, Any], ...] = ()

    @property
    def link(self) -> str:
        """Address of its section, as a page in book/ links to it."""
        return f"../notebooks/{self.stem}.md#{anchor(self.heading)}"


def display_data(
    paper: str,
    shows: bool | None,
    here: str,
    own: bool = False,
    numbers: tuple[str, str] = ("", ""),
    compared: "pd.DataFrame | None" = None,
) -> dict[str, Any]:
    """A finding as a notebook displays it, by MIME type: in words, and for the pages to read."""
    same = None if shows is None else bool(shows)
    ask, answer = ("Asked here", "Holds") if own else ("Paper", "Same here")
    lines = [f"**{ask}:** {paper}", f"**This run:** {here}", f"**{answer}:** {WORDS[same]}"]
    text = "\n>\n".join(f"> {' '.join(line.split())}" for line in lines)
    rows = [] if compared is None else compared[list(VALUES)].to_dict("records")
    values = [{k: None if v != v else v for k, v in row.items()} for row in rows]  # NaN is not JSON
    data = {"paper": paper, "shows": same, "here": here, "own": own}
    return {"text/markdown": text, MIME: {**data, "numbers": list(numbers), "compared": values}}


def findings_of(notebook: NotebookNode, stem: str) -> list[Finding]:
    """All findings that an executed notebook states, in their order."""
    return [
        Finding(stem, cell.get("id", ""), heading, **output["data"][MIME])
        for heading, cell in with_headings(notebook)
        for output in cell.get("outputs", [])
        if MIME in output.get("data", {})
    ]


def anchor(heading: str) -> str:
    """The part of an address that leads to a heading of a page."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def literal(text: str) -> str:
    """A text as it is, whatever Markdown or HTML would make of it."""
    inside = r"(?<=[^\W_])[-_](?=[^\W_])"  # what joins a name marks nothing
    marks = rf"(?!{inside})([^\w\s,.;:()=]|_)"
    return re.sub(marks, lambda match: f"&#{ord(match[0])};", " ".join(text.split()))


def with_headings(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """Cells, each with the last heading down to it."""
    heading = ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            found = re.findall(r"^#{1,4} +(.+?) *$", cell["source"], re.MULTILINE)
            heading = [heading, *found][-1]
        yield heading, cell


def signed(mean: float, low: float, high: float, form: str = "+.3f") -> str:
    """A difference with its interval, ``+0.031 [-0.010, +0.072]``, or alone if that is NaN."""
    text = format(mean, form)
    return text if low != low or high != high else f"{text} [{low:{form}}, {high:{form}}]"
