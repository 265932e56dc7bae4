"""Charts of search methods: regret over queries and time, and when a target is reached."""

from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ionas.plots import style
from ionas.plots.style import MODEL_LABELS, STYLES, Chart, chart, columns_of, in_order

BANDS = 7  # searches of which a chart shows the intervals; more would cover each other


@style.own_style()
def search_methods(curves: pd.DataFrame, time_unit: str, limit: float) -> Chart:
    """Mean test regret over queries, and over simulated time, a line per search.

    Columns `search`, `axis` (`query` or `time`), `at`, `mean`, `low`, `high`. The dotted line is
    the `limit`: what a search ends with that has found the best validation accuracy of all.
    """
    data = columns_of(curves, "search", "axis", "at", "mean", "low", "high").dropna()
    names = in_order(data["search"])
    figure, axes = chart(2, height=6.6, sharey=True)
    for ax, axis in zip(axes.flat, ("query", "time"), strict=True):
        for name in names:
            rows = data[(data["search"] == name) & (data["axis"] == axis)]
            _steps(ax, rows["at"], rows["mean"], name)
            if len(names) <= BANDS:
                look: Any = {"color": STYLES[name].color, "alpha": 0.13, "lw": 0}
                ax.fill_between(rows["at"], rows["low"], rows["high"], step="post", **look)
        if limit > 0:
            ax.axhline(limit, color=style.MUTED, linewidth=1, linestyle=":")
        ax.set(ylabel="test regret", yscale="log")
    _finish(figure, axes, time_unit, "xy")
    last = data[data["axis"] == "query"].groupby("search").tail(1).sort_values("mean")
    told = [f"{row.mean:.4f} with {MODEL_LABELS[row.search]}" for row in last.itertuples()]
    alt = (
        f"After {last['at'].max():.0f} queries the mean test regret is {', '.join(told)}; the cell "
        f"of the best validation accuracy has {limit:.4f}."
    )
    return figure.tell(alt, data)


@style.own_style()
def time_to_target(reached: pd.DataFrame, target: float, time_unit: str) -> Chart:
    """Share of the runs that have reached a target, over queries and over simulated time.

    Columns `search`, `query` and `time`, a row per run, infinite where it never does.
    """
    data = columns_of(reached, "search", "query", "time")
    figure, axes = chart(1, 2, height=4.2, sharey=True)
    for ax, axis in zip(axes.flat, ("query", "time"), strict=True):
        end = data.loc[np.isfinite(data[axis]), axis].max()
        for name in in_order(data["search"]):
            values = data.loc[data["search"] == name, axis]
            done = np.sort(values[np.isfinite(values)])
            share = 100 * np.arange(len(done) + 1) / len(values)
            _steps(ax, np.r_[0, done, end], np.r_[share, share[-1]], name)
    axes[0, 0].set(ylabel=f"runs with a test regret\nof at most {target:.4f} (%)", ylim=(0, 100))
    _finish(figure, axes, time_unit, "x")
    shares = np.isfinite(data["query"]).groupby(data["search"]).mean()[in_order(data["search"])]
    told = ", ".join(f"{share:.0%} of the runs of {MODEL_LABELS[n]}" for n, share in shares.items())
    return figure.tell(f"A test regret of at most {target:.4f} is reached by {told}.", data)


def _steps(ax: Axes, x: Any, y: Any, name: str) -> None:
    look: Any = {"color": STYLES[name].color, "ls": STYLES[name].line}
    ax.step(x, y, where="post", label=fill(MODEL_LABELS[name], 28), **look)


def _finish(figure: Chart, axes: np.ndarray, time_unit: str, plain: str) -> None:
    """Name the axes of queries and of time, and explain the lines below both."""
    for ax, label in zip(axes.flat, ("queries", f"simulated time ({time_unit})"), strict=True):
        ax.set(xlabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(4 if len(axes) > 1 else 3))
        style.plain_ticks(ax, plain)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
