"""The paper's own tables, kept in one data file, so that notebooks can show them beside theirs.

Rows of Tables 6 and 7 are read as METHOD section 8 explains: Model 1 is flatten, Model 2 is mean.
"""

import json
from importlib.resources import files
from typing import Any

import pandas as pd

CELLS = 423_624  # of NAS-Bench-101, the paper's search space


def published_predictors() -> pd.DataFrame:
    """Kendall's tau of published predictors: `predictor`, `source`, `size`, `mean`.

    `attrs` has the `protocol` in words, and `sources` in full by their short names.
    """
    content = json.loads(
        files("ionas").joinpath("data/published_predictors.json").read_text("utf-8")
    )
    frame = pd.DataFrame(content["rows"], columns=content["columns"])
    frame.attrs = {name: content[name] for name in ("protocol", "sources")}
    return frame


def paper_table(number: int) -> pd.DataFrame:
    """Return Table `number` (1 to 7) of the paper; `attrs["where"]` says where it stands there.

    A mean that has a `half_width` has `low` and `high`, the ends of its 95 % interval, too.
    """
    entry = _data("paper.json")[str(number)]
    frame = pd.DataFrame(entry["rows"], columns=entry["columns"])
    if "half_width" in frame:
        half = frame["half_width"]
        frame = frame.assign(low=frame["mean"] - half, high=frame["mean"] + half)
    frame.attrs = {name: value for name, value in entry.items() if name not in ("rows", "columns")}
    return frame


def published_searches() -> pd.DataFrame:
    """Test errors that search methods were published with: `method`, `search`, `test_error` (%).

    `attrs` has `protocol`, `source`, `queries`, `trials`, and `optimum`, the least error there is.
    """
    content = _data("searches.json")
    frame = pd.DataFrame(content.pop("rows"), columns=content.pop("columns"))
    frame.attrs = content
    return frame


def _data(name: str) -> dict[str, Any]:
    return json.loads(files("ionas").joinpath("data", name).read_text("utf-8"))
