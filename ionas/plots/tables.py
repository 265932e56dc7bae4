"""Tables of results that show themselves under a caption, rows in the order of `STYLES`."""

from collections.abc import Mapping
from html import escape
from typing import Any, Literal

import numpy as np
import pandas as pd

from ionas.plots.style import MODEL_LABELS, STYLES, columns_of, number

Best = Literal["", "most", "least"]


class Sheet:
    """A table of texts (`frame`) with a caption that says what its numbers are."""

    def __init__(self, frame: pd.DataFrame, caption: str) -> None:
        """Put rows of models in their order, under their labels; other rows follow as they are."""
        order = [n for n in STYLES if n in frame.index] + [
            n for n in frame.index if n not in STYLES
        ]
        labels = [MODEL_LABELS.get(row, str(row)) for row in order]
        heads = [_head(name) for name in frame.columns]
        self.frame = frame.reindex(order).fillna("–").set_axis(labels).set_axis(heads, axis=1)
        self.caption = caption

    def _repr_html_(self) -> str:
        caption = f"\n<caption>{escape(self.caption)}</caption>\n"
        return self.frame.to_html(border=0, escape=False).replace("\n", caption, 1)

    def __repr__(self) -> str:
        return f"{self.caption}\n{self.frame.replace('</?b>', '', regex=True)}"


def interval(mean: float, low: float, high: float, form: str = ".3f") -> str:
    """Text of a mean and its interval: ``0.683 ± 0.004``, ``0.683 [0.670, 0.691]`` if uneven."""
    if np.isnan(mean):
        return "–"
    if np.isnan(low) or np.isnan(high):
        return f"{mean:{form}}"
    up, down = high - mean, mean - low
    if abs(up - down) <= 0.02 * max(up, down) + 1e-12:
        return f"{mean:{form}} ±\u00a0{(high - low) / 2:{form.lstrip('+')}}"
    return f"{mean:{form}} [{low:{form}},\u00a0{high:{form}}]"


def sheet(
    values: pd.DataFrame, caption: str, forms: Mapping[str, str] | None = None, best: Best = ""
) -> Sheet:
    """Show numbers, a row per model; `forms` has the format of a column, else it has plain digits.

    The best of each column, the `most` or the `least`, is bold.
    """
    texts = {
        name: [_text(value, (forms or {}).get(str(name), "")) for value in column]
        for name, column in values.items()
    }
    return Sheet(_bold(pd.DataFrame(texts, values.index), values, best), caption)


def interval_table(
    summary: pd.DataFrame,
    caption: str,
    *,
    rows: str = "embedding",
    columns: str = "size",
    heads: Mapping[str, str] | None = None,
    form: str = ".3f",
    best: Best = "",
) -> Sheet:
    """Show a long table with columns `mean`, `low`, `high` as a mean and its interval per cell.

    The values of the columns `rows` and `columns` become the rows and columns, of the latter only
    those in `heads`, under its texts. The best mean of each column is bold. ValueError if a column
    is missing, or a cell has several lines.
    """
    long = columns_of(summary, rows, columns, "mean", "low", "high")
    if long.duplicated([rows, columns]).any():
        raise ValueError(f"the table has several lines for one ({rows}, {columns}): select first")
    text = _intervals(long, form)
    wide = long.assign(text=text).pivot(index=rows, columns=columns, values=["text", "mean"])
    wide = wide.loc[list(dict.fromkeys(long[rows]))]
    order = list(heads or dict.fromkeys(long[columns]))
    texts = _bold(wide["text"][order], wide["mean"][order].astype(float), best)
    return Sheet(texts.rename(columns=heads or {}), caption)


def training_table(
    values: pd.DataFrame,
    summary: pd.DataFrame,
    caption: str,
    *,
    rows: str = "embedding",
    form: str = "+.3f",
    beside: pd.DataFrame | None = None,
) -> Sheet:
    """Show a value of each training, and their mean with its interval.

    `values` has the columns `rows`, `training` and `value`; `summary` has `rows`, `mean`, `low` and
    `high`. `beside`, by `rows`, has columns of texts that stand first.
    """
    wide = columns_of(values, rows, "training", "value").pivot(
        index=rows, columns="training", values="value"
    )
    texts = wide.map(lambda value: _text(value, form)).rename(columns=str)
    mean = pd.Series(_intervals(summary, form), summary[rows], name="mean")
    joined = texts if beside is None else beside.join(texts, how="right")
    return Sheet(joined.join(mean).loc[list(dict.fromkeys(values[rows]))], caption)


def _head(name: Any) -> str:
    return MODEL_LABELS.get(name, name) if isinstance(name, str) else number(name)


def _intervals(summary: pd.DataFrame, form: str) -> list[str]:
    ends = columns_of(summary, "mean", "low", "high").to_numpy(float)
    return [interval(mean, low, high, form) for mean, low, high in ends]


def _text(value: object, form: str) -> str:
    if isinstance(value, str):
        return value
    given = float(value)  # type: ignore[arg-type]
    return "–" if np.isnan(given) else f"{given:{form}}" if form else number(given)


def _bold(texts: pd.DataFrame, values: pd.DataFrame, best: Best) -> pd.DataFrame:
    """Texts, of which those of the best value of each column are bold."""
    if not best:
        return texts
    limits = values.max() if best == "most" else values.min()
    return texts.where(values != limits, "<b>" + texts + "</b>")
