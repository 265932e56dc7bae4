"""Charts of notebook 10: what more labels change, and correlations with their intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from ionas.plots.style import (
    INK,
    MODEL_LABELS,
    MUTED,
    SLATE,
    STYLES,
    Chart,
    chart,
    columns_of,
    in_order,
    own_style,
)

PANELS = {
    "pearson": ("Pearson's r", "Pearson's r of accuracies predicted from the embedding"),
    "loss": ("the relative loss", "loss on unseen networks, relative to no look at the cell"),
}


@own_style()
def label_levels(
    levels: pd.DataFrame, rules: Mapping[str, float], label: str, ordered: bool = True
) -> Chart:
    """Pearson's r and the relative loss over the levels of one kind of labels, by model.

    Columns `model`, `level`, `measure`, `mean`, `low`, `high`, as of `labels.levels`; levels stand
    in the order of the rows, along an axis called `label`, and are joined by lines if `ordered`.
    `rules` are values of Pearson's r of models without labels, drawn as lines.
    """
    data = columns_of(levels, "model", "level", "measure", "mean", "low", "high")
    names, at = in_order(data["model"]), list(data["level"].unique())
    figure, axes = chart(2, height=4.9, sharex=True)
    told = []
    for ax, (measure, (what, title)) in zip(axes.flat, PANELS.items(), strict=True):
        for k, name in enumerate(names):
            rows = data[data["model"].eq(name) & data["measure"].eq(measure)]
            rows = rows.set_index("level").reindex(at)
            x = np.arange(len(at)) + 0.12 * (k - (len(names) - 1) / 2)
            look: Any = {"color": STYLES[name].color, "marker": STYLES[name].marker}
            ax.vlines(x, rows["low"], rows["high"], color=look["color"], linewidth=1.4)
            ax.plot(x, rows["mean"], ls=":" * ordered, lw=1, label=MODEL_LABELS[name], **look)
            first, last = (f"{rows['mean'][level]:.3f} at {level}" for level in (at[0], at[-1]))
            told.append(f"{what} of the {MODEL_LABELS[name]} is {first} and {last}")
        ax.set_title(title, loc="left")
        ax.set(xticks=range(len(at)), xticklabels=at, xlim=(-0.4, len(at) - 0.6))
        ax.yaxis.set_major_locator(MaxNLocator(5))
    for name, value in rules.items():
        text = {"arch2vec": "arch2vec, no labels"}.get(name, MODEL_LABELS[name])
        axes[0, 0].axhline(value, color=STYLES[name].color, ls="--", lw=1.4, label=text)
    axes[1, 0].axhline(1, color=MUTED, linewidth=1)
    axes[1, 0].set_xlabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure.tell(f"By {label}: {'; '.join(told)}.", data)


@own_style()
def correlations(values: pd.DataFrame, label: str) -> Chart:
    """Correlations with their intervals, a row each.

    Columns `name`, `mean`, `low`, `high`, and `main`, whether the row is one that the text is
    about, in the order of drawing; the axis is called `label`.
    """
    data = columns_of(values, "name", "mean", "low", "high", "main")
    figure, [[ax]] = chart(height=0.26 * len(data) + 0.8)
    at, colors = np.arange(len(data)), np.where(data["main"], INK, SLATE)
    ax.hlines(at, data["low"], data["high"], colors=colors, linewidth=1.6)
    ax.scatter(data["mean"], at, s=34, c=colors, zorder=3, lw=0)
    ax.axvline(0, color=MUTED, linewidth=1)
    ax.set_yticks(at, data["name"])
    ax.set(ylim=(len(data) - 0.5, -0.5), xlabel=label)
    last, first = (data.loc[place(data["mean"])] for place in (pd.Series.idxmin, pd.Series.idxmax))
    return figure.tell(
        f"{label} is highest for {first['name']}, {first['mean']:.2f}, and lowest for "
        f"{last['name']}, {last['mean']:.2f}.".replace("\n", " "), data,
    )  # fmt: skip
