"""The paper's own tables, kept in one data file, so that a page can show them beside its results.

Rows of Tables 6 and 7 are read as METHOD section 8 explains: Model 1 is flatten, Model 2 is mean.
"""

import json
from importlib.resources import files

import pandas as pd


def paper_table(number: int) -> pd.DataFrame:
    """Return Table `number` (1 to 7) of the paper; `attrs["where"]` says where it stands there.

    Raises
    ------
    ValueError
        If the paper has no such table.
    """
    tables = json.loads(files("ionas").joinpath("data/paper.json").read_text())
    if str(number) not in tables:
        raise ValueError(f"the paper has tables 1 to 7, not {number}")
    entry = tables[str(number)]
    frame = pd.DataFrame(entry["rows"], columns=entry["columns"])
    frame.attrs["where"] = entry["where"]
    return frame
