"""Tables of results in readable text, rows in the order of `STYLES`."""

import numpy as np
import pandas as pd

from ionas.plots.style import MODEL_LABELS, STYLES, columns_of, number


def interval(mean: float, low: float, high: float, digits: int = 3) -> str:
    """Text of a mean and its interval: ``0.683 ± 0.004``, ``0.683 [0.670, 0.691]`` if uneven."""
    if np.isnan(mean):
        return "–"
    if np.isnan(low) or np.isnan(high):
        return f"{mean:.{digits}f}"
    up, down = high - mean, mean - low
    if abs(up - down) <= 0.02 * max(up, down, 10.0**-digits):
        return f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def interval_table(
    summary: pd.DataFrame, *, rows: str = "embedding", columns: str | None = "size", digits: int = 3
) -> pd.DataFrame:
    """Turn a long table with columns `mean`, `low`, `high` into a readable one of text.

    The values of the columns `rows` and `columns` become the rows and columns of the result;
    ``columns=None`` gives one column, "mean (95 % interval)". Models and embeddings stand in the
    order of `STYLES` under their labels, other rows after them as they are. ValueError if a column
    is missing, or a pair of row and column has several lines.
    """
    columns_of(summary, rows, "mean", "low", "high", *([columns] if columns else []))
    values = summary[["mean", "low", "high"]].to_numpy(float)
    heads = summary[columns] if columns else ["mean (95 % interval)"] * len(summary)
    long = pd.DataFrame({"row": summary[rows].to_numpy(), "head": list(heads)})
    if long.duplicated().any():
        raise ValueError(f"the table has several lines for one ({rows}, {columns}): select first")
    long["text"] = [interval(mean, low, high, digits) for mean, low, high in values]
    table = long.pivot(index="row", columns="head", values="text").rename_axis(columns=None)
    given = list(dict.fromkeys(long["row"]))
    table = table.reindex([n for n in STYLES if n in given] + [n for n in given if n not in STYLES])
    table.index = pd.Index([MODEL_LABELS.get(row, str(row)) for row in table.index])
    return table.rename(columns=lambda h: h if isinstance(h, str) else number(h)).fillna("–")


def score_table(summary: pd.DataFrame, metric: str, digits: int = 3) -> pd.DataFrame:
    """Means of a metric with both of its intervals, a row per embedding (Tables 6 and 7).

    Columns `embedding`, `size`, `metric`, `interval` (`regressor` or `training`), `mean`, `low`,
    `high`.
    """
    rows = summary[summary["metric"] == metric]
    heads = {"regressor": "± over regressor seeds", "training": "± over trainings"}
    kinds = {heads[kind]: rows[rows["interval"] == kind] for kind in heads}
    parts = {head: interval_table(part, digits=digits) for head, part in kinds.items() if len(part)}
    return pd.concat(parts, axis=1)
