"""A study of three tiny notebooks, to test the running of notebooks without waiting."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pydantic import Field

from ionas import parts as kept_parts
from ionas.book.configure import Notebook
from ionas.parameters import Parameters


class First(Parameters):
    """Writes numbers."""

    NAMES_DATA = ("data_file",)

    seed: int = Field(1, ge=0, description="seed")
    size: int = Field(3, ge=1, le=10, description="how many numbers")
    data_file: str = Field("", description="a file")


class Second(Parameters):
    """Multiplies them."""

    factor: float = Field(2.0, gt=0, description="factor")
    fail: Literal["", "error", "kill"] = Field("", description="how to fail")
    jobs: int = Field(0, ge=0, description="processes")


class Third(Parameters):
    """Adds them."""

    extra: list[int] = Field([], description="more numbers")


STAGES = {
    notebook.name: notebook
    for notebook in (
        Notebook("first", "01", First),
        Notebook("second", "02", Second, ("first",)),
        Notebook("third", "03", Third, ("first",)),
    )
}


def numbers(p: First, data: Any, parts: Path) -> list[int]:
    """`seed * k` for each k, each of them a part."""
    found = []
    for number in range(p.size):
        content = kept_parts.read(parts, f"{number}.json")
        if content is None:
            time.sleep(float(os.environ.get("IONAS_FAKE_WAIT", 0)))
            content = json.dumps(p.seed * number).encode()
            kept_parts.write(parts, f"{number}.json", content)
        found.append(json.loads(content))
    return found


def now() -> float:
    """The time."""
    return time.time()


def products(values: list[int], p: Second) -> list[float]:
    """`factor` times each value, or a failure."""
    if p.fail == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    assert not p.fail, "told to fail"
    return [p.factor * value for value in values]


def total(values: list[int], p: Third) -> int:
    """Their sum."""
    return sum(values) + sum(p.extra)


CELLS = {
    "first": (
        "seed: int = 1\nsize: int = 3\ndata_file: str = ''",
        "stage.made('numbers.json', fake_study.numbers, p, stage.data('data_file'),\n"
        "           parts='numbers', grows=('size',))\n"
        "stage.made('times.json', fake_study.now, measured=True)",
    ),
    "second": (
        "factor: float = 2.0\nfail: str = ''\njobs: int = 0",
        "# a comment\n"
        "stage.kept('products.json', fake_study.products, stage.input('first', 'numbers.json'), p)",
    ),
    "third": (
        "extra: list = []",
        "stage.kept('sum.json', fake_study.total, stage.input('first', 'numbers.json'), p)",
    ),
}


def write_notebooks(folder: Path) -> None:
    """Write the three notebooks, without outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (parameters, body) in CELLS.items():
        cells = [
            new_markdown_cell(f"# {name}", id="title"),
            new_code_cell("import fake_study\nfrom ionas.book.stage import start", id="imports"),
            new_code_cell(
                f"run: str = 'digits'\n{parameters}",
                id="parameters",
                metadata={"tags": ["parameters"]},
            ),
            new_code_cell(
                f'stage = start("{name}", globals(), fake_study.STAGES)\np = stage.parameters',
                id="start",
            ),
            new_code_cell(body, id="work"),
            new_code_cell(
                "stage.finish()", id="finish", metadata={"tags": ["nbval-ignore-output"]}
            ),
        ]
        notebook = new_notebook(
            cells=cells,
            metadata={
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
            },
        )
        nbformat.write(notebook, folder / f"{STAGES[name].stem}.ipynb")
