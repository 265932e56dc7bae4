"""The paper's own tables, kept in one data file, so that a page can show them beside its results.

Rows of Tables 6 and 7 are read as METHOD section 8 explains: Model 1 is flatten, Model 2 is mean.
The text that the file was checked against has no page numbers, so it gives table and section.
"""

import json
from importlib.resources import files
from typing import Any

import pandas as pd

SETS = (  # rows of Table 2, by what is new in them
    "train",
    "unseen networks",
    "unseen images",
    "test: unseen images",
    "test: unseen networks and images",
)
TOGETHER = "io and arch2vec"  # trained together: one time in Table 4
ITEMS = ("Table 2", "Table 4", "Table 5", "Table 6", "Table 7", "Figure 6")


def paper_table(number: int) -> pd.DataFrame:
    """Return Table `number` (1 to 7) of the paper; `attrs["where"]` says where it stands there.

    Raises
    ------
    ValueError
        If the paper has no such table.
    """
    if number not in range(1, 8):
        raise ValueError(f"the paper has tables 1 to 7, not {number}")
    return _table(str(number))


def paper_values() -> pd.DataFrame:
    """Every value of Tables 2, 4 to 7 and of Figure 6 that is printed, with its interval.

    Returns
    -------
    DataFrame
        `item` (one of ITEMS), `column` and `row` in it, `value`, `digits` after the point; `half`,
        the printed half-width of the 95 % interval (0 for counts, NaN if none is printed); `low`
        and `high`, which without a printed interval are half a unit of the last digit away, or a
        whole one where the paper says "approximately".
    """
    metrics = _table("4").melt("model", var_name="column").dropna()
    timed = (metrics["model"] == "io") & (metrics["column"] == "seconds")
    metrics["row"] = metrics["model"].mask(timed, TOGETHER)
    tests = _table("5").rename(columns={"set": "row"})
    losses = tests.rename(columns={"mean": "value", "interval": "half"}).assign(column="mean")
    baselines = tests.rename(columns={"baseline": "value"}).assign(column="baseline")
    parts = {
        "2": _table("2").rename(columns={"size": "value"}).assign(row=SETS, column="size", half=0),
        "4": metrics,
        "5": pd.concat([losses, baselines]),
        "figure 6": _table("figure 6").rename(columns={"shift": "value"}).assign(column="shift"),
    }
    for key in ("6", "7"):
        scores = _table(key).rename(columns={"embedding": "row", "half_width": "half"})
        parts[key] = scores.assign(value=scores["mean"], column=scores["size"].astype(str))
    columns = ["item", "column", "row", "value", "digits", "half", "reach"]
    content = _content()
    values = pd.concat(
        [
            parts[key]
            .assign(
                item=item,
                digits=parts[key]["column"].map(content[key]["digits"]),
                reach=content[key].get("reach", 0.5),
            )
            .reindex(columns=columns)
            for item in ITEMS
            for key in [_key(item)]
        ],
        ignore_index=True,
    )
    margin = values["half"].fillna(values.pop("reach") * 10.0 ** -values["digits"])
    return values.assign(low=values["value"] - margin, high=values["value"] + margin)


def paper_claims() -> pd.DataFrame:
    """What the text says of Figure 5: `embedding`, `against` which, `claim` (same or worse).

    `attrs` has the `budget` of a search in simulated seconds; values are not printed.
    """
    return _table("figure 5")


def where(item: str) -> str:
    """Where in the paper a table or figure stands, and what it holds."""
    return str(_content()[_key(item)]["where"])


def _key(item: str) -> str:
    return item.lower().removeprefix("table ")


def _content() -> dict[str, Any]:
    return json.loads(files("ionas").joinpath("data/paper.json").read_text("utf-8"))


def _table(key: str) -> pd.DataFrame:
    entry = _content()[key]
    frame = pd.DataFrame(entry["rows"], columns=entry["columns"])
    frame.attrs = {name: value for name, value in entry.items() if name not in ("rows", "columns")}
    return frame
