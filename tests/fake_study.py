"""A study of three tiny notebooks, to test the running of notebooks without waiting."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pydantic import Field

from ionas.book.parameters import Notebook, Parameters


class First(Parameters):
    """Writes numbers."""

    seed: int = Field(1, ge=0, description="seed")
    size: int = Field(3, ge=1, le=10, description="how many numbers")
    data_file: str = Field("", description="a file")

    def check(self, others: Mapping[str, Parameters]) -> None:
        if self.data_file and not Path(self.data_file).is_file():
            raise ValueError(f"first.data_file: there is no file {self.data_file}")

    def data(self) -> list[Path]:
        return [Path(self.data_file)] if self.data_file else []


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
        Notebook("first", "01", First, counts=("size",), made=("numbers",)),
        Notebook("second", "02", Second, ("first",)),
        Notebook("third", "03", Third, ("first",)),
    )
}

CELLS = {
    "first": (
        "seed: int = 1\nsize: int = 3\ndata_file: str = ''",
        """\
        import json, os, time
        for number in range(size):
            path = stage.output(f"numbers/{number}.json")
            if not path.exists():  # what a killed run has written is kept
                time.sleep(float(os.environ.get("FAKE_WAIT", 0)))
                temporary = path.with_suffix(".tmp")
                temporary.write_text(json.dumps(seed * number))
                temporary.replace(path)
        _ = stage.output("times.json", measured=True).write_text(str(time.time()))
        """,
    ),
    "second": (
        "factor: float = 2.0\nfail: str = ''\njobs: int = 0",
        """\
        import json, os, signal
        # a comment
        if fail == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        assert not fail, "told to fail"
        numbers = [json.loads(path.read_text()) for path in
                   sorted(stage.input("first", "numbers").glob("*.json"))]
        stage.output("products.json").write_text(json.dumps([factor * n for n in numbers]))
        """,
    ),
    "third": (
        "extra: list = []",
        """\
        import json
        numbers = [json.loads(path.read_text()) for path in
                   sorted(stage.input("first", "numbers").glob("*.json"))]
        stage.output("sum.json").write_text(json.dumps(sum(numbers) + sum(extra)))
        """,
    ),
}


def write_notebooks(folder: Path) -> None:
    """Write the three notebooks, without outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (parameters, body) in CELLS.items():
        lines = body.splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        cells = [
            new_markdown_cell(f"# {name}", id="title"),
            new_code_cell(
                "from fake_study import STAGES\nfrom ionas.book.stage import start", id="imports"
            ),
            new_code_cell(
                f"run: str = 'digits'\n{parameters}",
                id="parameters",
                metadata={"tags": ["parameters"]},
            ),
            new_code_cell(f'stage = start("{name}", globals(), STAGES)', id="start"),
            new_code_cell("\n".join(line[indent:] for line in lines), id="work"),
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
