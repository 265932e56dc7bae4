"""The paper's own tables, kept in one data file, so that notebooks can show them beside theirs.

Rows of Tables 6 and 7 are read as METHOD section 8 explains: Model 1 is flatten, Model 2 is mean.
"""

import json
from importlib.resources import files

import pandas as pd

CELLS = 423_624  # of NAS-Bench-101, the paper's search space


def paper_table(number: int) -> pd.DataFrame:
    """Return Table `number` (1 to 7) of the paper; `attrs["where"]` says where it stands there.

    A mean that has a `half_width` has `low` and `high`, the ends of its 95 % interval, too.
    """
    content = json.loads(files("ionas").joinpath("data/paper.json").read_text("utf-8"))
    entry = content[str(number)]
    frame = pd.DataFrame(entry["rows"], columns=entry["columns"])
    if "half_width" in frame:
        half = frame["half_width"]
        frame = frame.assign(low=frame["mean"] - half, high=frame["mean"] + half)
    frame.attrs = {name: value for name, value in entry.items() if name not in ("rows", "columns")}
    return frame
