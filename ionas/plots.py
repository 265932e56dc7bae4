"""The book's one visual language: one colour per model, one look for every chart.

Static charts are drawn by matplotlib and kept as PNG at twice the screen's resolution, on an opaque
white card, so that they read the same in print, on a phone and in both themes of the book. Where
hovering helps, `interactive` shows a plotly chart that needs no network.

Every function takes arrays or tables and returns the figure (or axes) that it drew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from ionas.space.cells import Cell

WIDTH = 6.6  # inches: the width of a full-width figure
INK = "#1f2933"  # text and axes
MUTED = "#6b7280"  # secondary text, baselines
GRID = "#e3e7ec"
CARD = "#ffffff"  # background of every chart, in the dark theme too

# Colours told apart by readers with any common colour blindness (after Okabe and Ito): blues for
# the IO model, oranges for the Accuracy model, green and pink for arch2vec, greys for references.
# In each pair the flatten embedding has the darker colour and the unbroken line.
MODEL_COLORS: dict[str, str] = {
    "io": "#0072b2",
    "io_flatten": "#0072b2",
    "io_mean": "#56b4e9",
    "accuracy": "#d55e00",
    "accuracy_flatten": "#d55e00",
    "accuracy_mean": "#e69f00",
    "arch2vec": "#009e73",
    "arch2vec_original": "#cc79a7",
    "latent": "#5b3a8c",
    "encoding": "#111111",
    "random": "#8a8f98",
}
MODEL_LABELS: dict[str, str] = {
    "io": "IO model",
    "io_flatten": "IO model, flatten",
    "io_mean": "IO model, mean",
    "accuracy": "Accuracy model",
    "accuracy_flatten": "Accuracy model, flatten",
    "accuracy_mean": "Accuracy model, mean",
    "arch2vec": "arch2vec, trained jointly",
    "arch2vec_original": "arch2vec, original",
    "latent": "arch2vec, whole latent matrix",
    "encoding": "Plain encoding of the cell",
    "random": "Random search",
}
_LINES: dict[str, Any] = {
    "io": "-",
    "io_flatten": "-",
    "io_mean": (0, (5, 1.5)),
    "accuracy": "-",
    "accuracy_flatten": "-",
    "accuracy_mean": (0, (5, 1.5)),
    "arch2vec": "-",
    "arch2vec_original": (0, (5, 1.5)),
    "latent": (0, (1, 1)),
    "encoding": (0, (1, 1)),
    "random": (0, (3, 1, 1, 1)),
}
_MARKERS: dict[str, str] = {
    "io": "o",
    "io_flatten": "o",
    "io_mean": "s",
    "accuracy": "^",
    "accuracy_flatten": "^",
    "accuracy_mean": "v",
    "arch2vec": "D",
    "arch2vec_original": "P",
    "latent": "X",
    "encoding": "*",
    "random": ".",
}

OPERATION_COLORS: dict[str, str] = {
    "input": "#e5e7eb",
    "conv1x1-bn-relu": "#bfe0f5",
    "conv3x3-bn-relu": "#f7cf9c",
    "maxpool3x3": "#bfe6d8",
    "nor_conv_1x1": "#bfe0f5",
    "nor_conv_3x3": "#f7cf9c",
    "avg_pool_3x3": "#bfe6d8",
    "skip_connect": "#ffffff",
    "none": "#9ca3af",
    "output": "#e5e7eb",
}
OPERATION_LABELS: dict[str, str] = {
    "input": "input",
    "conv1x1-bn-relu": "1×1 conv",
    "conv3x3-bn-relu": "3×3 conv",
    "maxpool3x3": "3×3 pool",
    "nor_conv_1x1": "1×1 conv",
    "nor_conv_3x3": "3×3 conv",
    "avg_pool_3x3": "3×3 pool",
    "skip_connect": "skip",
    "none": "none",
    "output": "output",
}


def use_style() -> None:
    """Set the look of all static charts; call once at the top of a notebook.

    Inside a notebook the figures become PNG at twice the usual resolution. PNG and not SVG: charts
    of thousands of points stay small, and the same seed gives the same picture.
    """
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, 0.6 * WIDTH),
            "figure.dpi": 100,
            "savefig.dpi": 200,
            "figure.facecolor": CARD,
            "savefig.facecolor": CARD,
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",
            "font.size": 11,
            "axes.titlesize": 11.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 11,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 9.5,
            "legend.frameon": False,
            "legend.loc": "upper right",  # "best" takes long on many points, and then warns
            "axes.facecolor": CARD,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "lines.linewidth": 2.0,
            "lines.markersize": 6,
            "axes.prop_cycle": cycler(
                color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b3a8c"]
            ),
            "image.cmap": "cividis",
            "svg.hashsalt": "ionas",
        }
    )
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is not None:
        set_matplotlib_formats("retina")


def model_style(name: str, *, marker: bool = False) -> dict[str, Any]:
    """Colour, line, label (and marker) of one model: keyword arguments of ``Axes.plot``.

    Raises
    ------
    ValueError
        If the name is not one of `MODEL_COLORS`.
    """
    if name not in MODEL_COLORS:
        raise ValueError(f"no colour for model {name!r}; known: {', '.join(MODEL_COLORS)}")
    style = {"color": MODEL_COLORS[name], "linestyle": _LINES[name], "label": MODEL_LABELS[name]}
    return {**style, "marker": _MARKERS[name]} if marker else style


def band(
    ax: Axes,
    x: Sequence[float] | np.ndarray,
    mean: Sequence[float] | np.ndarray,
    low: Sequence[float] | np.ndarray,
    high: Sequence[float] | np.ndarray,
    model: str,
    *,
    marker: bool = False,
    step: bool = False,
    **line: Any,
) -> None:
    """Draw a mean as a line and its interval as a band, in the colours of the model.

    All arrays have shape (T,). `step` holds each value until the next x, as incumbents do. Further
    keyword arguments go to the line (``label=None`` keeps it out of the legend).
    """
    style = {**model_style(model, marker=marker), **line}
    drawstyle = "steps-post" if step else "default"
    ax.plot(np.asarray(x), np.asarray(mean), drawstyle=drawstyle, **style)
    ax.fill_between(
        np.asarray(x),
        np.asarray(low),
        np.asarray(high),
        step="post" if step else None,
        color=style["color"],
        alpha=0.16,
        linewidth=0,
    )


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
    summary: pd.DataFrame,
    *,
    rows: str = "embedding",
    columns: str | None = "size",
    digits: int = 3,
    labels: Mapping[str, str] = MODEL_LABELS,
) -> pd.DataFrame:
    """Turn a long table with columns ``mean``, ``low``, ``high`` into a readable one of text.

    Parameters
    ----------
    summary
        One line per (row, column) pair.
    rows, columns
        Names of the columns whose values become the rows and the columns of the result;
        ``columns=None`` gives one column, "mean (95 % interval)".
    labels
        Readable names of the rows; names without one stay as they are.
    """
    text = [
        interval(mean, low, high, digits)
        for mean, low, high in zip(summary["mean"], summary["low"], summary["high"], strict=True)
    ]
    heads = summary[columns] if columns else ["mean (95 % interval)"] * len(summary)
    long = pd.DataFrame({"row": summary[rows].to_numpy(), "column": list(heads), "text": text})
    if long.duplicated(["row", "column"]).any():
        raise ValueError(f"the table has several lines for one ({rows}, {columns}): select first")
    table = long.pivot(index="row", columns="column", values="text")
    table = table.reindex(index=list(dict.fromkeys(long["row"])))
    table.index = pd.Index([labels.get(row, str(row)) for row in table.index], name=None)
    table.columns = pd.Index([_thousands(head) for head in table.columns], name=None)
    return table.fillna("–")


def _thousands(head: object) -> str:
    return f"{head:,}".replace(",", " ") if isinstance(head, int | np.integer) else str(head)


def draw_cell(cell: Cell, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw a cell as a layered graph, input at the top, output at the bottom.

    A vertex stands in the layer of its longest path from the input. Edges that skip layers are led
    through the gaps between vertices, so that none runs behind a box. Text fits its box whatever
    the size of the axes.
    """
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path

    if ax is None:
        ax = plt.subplots(figsize=(2.4, 3.2))[1]
    points, routes = _layout(np.asarray(cell.matrix))
    half_width, half_height = 0.44, 0.24
    for route in routes:
        # A way point is passed straight down, beside the boxes of its layer.
        stops = [(x, y + side * half_height) for x, y in points[route] for side in (1, -1)][1:-1]
        path, codes = [stops[0]], [Path.MOVETO]
        for (x0, y0), (x1, y1) in pairwise(stops):
            bend = 0.45 * (y0 - y1)
            path += [(x0, y0 - bend), (x1, y1 + bend), (x1, y1)]
            codes += [Path.CURVE4] * 3
        ax.add_patch(PathPatch(Path(path, codes), fill=False, edgecolor=MUTED, linewidth=1.3))
        x, y = stops[-1]
        ax.fill([x, x - 0.055, x + 0.055], [y, y + 0.1, y + 0.1], color=MUTED, linewidth=0)
    n_vertices = len(cell.operations)
    xs, ys = points[:, 0], points[:, 1]
    ax.set_xlim(min(xs.min() - 0.55, -1.0), max(xs.max() + 0.55, 1.0))
    ax.set_ylim(ys.min() - 0.4, 0.4)
    ax.set_axis_off()
    if title:
        ax.set_title(title, loc="center", fontsize=10, fontweight="normal")
    one_line, two_lines = _fit_text(ax, 2 * half_width, 2 * half_height)
    for (x, y), operation in zip(points[:n_vertices], cell.operations, strict=True):
        ax.add_patch(
            FancyBboxPatch(
                (x - half_width, y - half_height),
                2 * half_width,
                2 * half_height,
                boxstyle="round,pad=0,rounding_size=0.1",
                facecolor=OPERATION_COLORS[operation],
                edgecolor=INK,
                linewidth=0.9,
                zorder=3,
            )
        )
        label = OPERATION_LABELS[operation]
        if two_lines > one_line:
            label = label.replace(" ", "\n")
        size = max(one_line, two_lines)
        ax.text(
            x,
            y,
            label,
            ha="center",
            va="center",
            fontsize=size,
            linespacing=1.0,
            zorder=4,
            color=INK,
        )
    return ax


def _layout(matrix: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """Positions (P, 2) of vertices and way points, and each edge's list of points.

    A layered drawing in the manner of Sugiyama: longest-path layers, a way point in each layer that
    an edge crosses, then the order within layers by the mean position of the neighbours.
    """
    n = len(matrix)
    layer = [0] * n
    for j in range(n):
        layer[j] = max((layer[i] + 1 for i in range(j) if matrix[i, j]), default=0)
    routes = []
    for i, j in np.argwhere(matrix):
        way = list(range(len(layer), len(layer) + layer[j] - layer[i] - 1))
        layer += range(layer[i] + 1, layer[j])
        routes.append([int(i), *way, int(j)])
    neighbors: list[list[int]] = [[] for _ in layer]
    for route in routes:
        for a, b in pairwise(route):
            neighbors[a].append(b)
            neighbors[b].append(a)
    rows = [[p for p in range(len(layer)) if layer[p] == k] for k in range(max(layer) + 1)]
    x = np.zeros(len(layer))
    for sweep in range(8):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            row.sort(key=lambda p: (np.mean([x[q] for q in neighbors[p]] or [0.0]), p))
            widths = [1.0 if p < n else 0.5 for p in row]
            right = np.cumsum(widths)
            x[row] = right - np.asarray(widths) / 2 - right[-1] / 2
    return np.column_stack([x, -0.85 * np.asarray(layer, float)]), routes


def _fit_text(ax: Axes, width: float, height: float) -> tuple[float, float]:
    """Font sizes at which an operation's name fits a box of data units, on one line and on two.

    Where the axes have room to spare, their limits are widened first, so that boxes in large axes
    do not grow beyond a readable size.
    """
    figure = ax.get_figure()
    if not isinstance(figure, Figure):
        return 8.0, 0.0
    figure.draw_without_rendering()  # the layout engine gives the axes their final size
    box = ax.get_window_extent()
    points = []  # per data unit
    for pixels, most, limits, widen in (
        (box.width, 92.0, ax.get_xlim(), ax.set_xlim),
        (box.height, 48.0, ax.get_ylim(), ax.set_ylim),
    ):
        room = pixels * 72 / figure.dpi
        span = max(limits[1] - limits[0], room / most)
        middle = (limits[0] + limits[1]) / 2
        widen(middle - span / 2, middle + span / 2)
        points.append(room / span)
    wide, tall = points[0] * width / 0.66, points[1] * height
    one_line = min(wide / len("3×3 conv"), 0.62 * tall)
    two_lines = min(wide / len("output"), 0.40 * tall)
    return float(np.clip(one_line, 2, 11)), float(np.clip(two_lines, 2, 11))


class Interactive:
    """A plotly figure that shows itself in JupyterLab and in the book."""

    def __init__(self, figure: Any) -> None:
        self.figure = figure

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        content = json.loads(self.figure.to_json(engine="json"))
        chart = {**content, "config": _PLOTLY_CONFIG}
        return {
            PLOTLY: chart,
            "text/html": chart_html(chart),
            "text/plain": "an interactive chart",
        }


def chart_html(chart: Mapping[str, Any]) -> str:
    """HTML that draws a plotly chart in the book, from what a notebook keeps of it (`PLOTLY`).

    Its place on the page is named after its content, so that the same data give the same text.
    """
    drawn = {"data": chart["data"], "layout": chart["layout"]}
    content = json.dumps(drawn, separators=(",", ":"), sort_keys=True)  # as a notebook file sorts
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return (
        _PLOTLY_PAGE.replace("ID", f"chart-{digest}", 2)
        .replace("CONFIG", json.dumps(chart["config"], sort_keys=True))
        .replace("DATA", content.replace("</", "<\\/"))
    )


PLOTLY = "application/vnd.plotly.v1+json"
_PLOTLY_CONFIG = {"responsive": True, "displaylogo": False, "scrollZoom": False}
# plotly.min.js lies among the book's own static files; the page knows the way to its root.
_PLOTLY_PAGE = """\
<div id="ID" class="ionas-chart"></div>
<script>
(function () {
  const place = document.getElementById("ID"), figure = DATA;
  window.ionasPlotly = window.ionasPlotly || new Promise(function (done, failed) {
    const script = document.createElement("script");
    const root = document.documentElement.dataset.content_root || "./";
    script.src = root + "_static/plotly.min.js";
    script.onload = function () { done(window.Plotly); };
    script.onerror = failed;
    document.head.appendChild(script);
  });
  window.ionasPlotly.then(function (Plotly) {
    Plotly.newPlot(place, figure.data, figure.layout, CONFIG);
  });
})();
</script>"""


def interactive(figure: Any, height: int = 460) -> Interactive:
    """Make a plotly figure show itself in JupyterLab and, without any network, in the book.

    Parameters
    ----------
    figure
        A ``plotly.graph_objects.Figure``; its look is set here, its size follows the page.
    height
        In pixels.
    """
    figure.update_layout(
        autosize=True,
        height=height,
        template="plotly_white",
        paper_bgcolor=CARD,
        plot_bgcolor=CARD,
        font={"color": INK, "size": 13, "family": "system-ui, sans-serif"},
        margin={"l": 55, "r": 12, "t": 40, "b": 50},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.18, "yanchor": "top"},
        hoverlabel={"font": {"size": 13}},
    )
    return Interactive(figure)


# Notebook 2: the images and the training of the labeled networks.


def image_row(pixels: Any, labels: Any, classes: Sequence[str]) -> Figure:
    """Show the first image of every class, (N, C, H, W) pixels scaled for viewing."""
    pixels, labels = np.asarray(pixels), np.asarray(labels)
    shown = [k for k in range(len(classes)) if (labels == k).any()]
    figure, axes = plt.subplots(1, len(shown), figsize=(WIDTH, 1.1), squeeze=False)
    longest = max(len(classes[k]) for k in shown)
    size = min(10, max(6, 105 * WIDTH / len(shown) / longest))  # names do not meet
    for ax, k in zip(axes[0], shown, strict=True):
        image = pixels[np.argmax(labels == k)].transpose(1, 2, 0)
        low, high = image.min(), image.max()
        ax.imshow((image - low) / max(high - low, 1e-9), cmap="gray_r")
        ax.set_title(classes[k], loc="center", fontsize=size, fontweight="normal")
        ax.set_axis_off()
    return figure


def loss_curves(networks: pd.DataFrame) -> Figure:
    """Train loss of every labeled network by epoch (column `losses`), and the mean of all."""
    losses = np.stack(networks["losses"].tolist())  # (N, epochs)
    figure, ax = plt.subplots(figsize=(WIDTH, 3.0))
    epochs = np.arange(1, losses.shape[1] + 1)
    ax.plot(epochs, losses.T, color=MUTED, linewidth=0.6, alpha=0.35)
    ax.plot(epochs, losses.mean(0), color=INK, linewidth=2.5, label="mean of all networks")
    ax.set(xlabel="epoch", ylabel="mean train loss (cross-entropy)", ylim=(0, None))
    ax.set_xticks(epochs[:: max(1, len(epochs) // 12)])
    ax.legend()
    return figure


def agreement(networks: pd.DataFrame, accuracy: np.ndarray) -> Figure:
    """Test accuracy reached here against the (N,) one of the table, a point per network."""
    figure, ax = plt.subplots(figsize=(0.62 * WIDTH, 0.6 * WIDTH))
    for part, color, marker in (("train", "#0072b2", "o"), ("validation", "#d55e00", "^")):
        rows = networks[networks["labeled"] == part]
        ax.scatter(
            accuracy[rows["index"]],
            rows["test_accuracy"],
            s=22,
            color=color,
            marker=marker,
            alpha=0.7,
            linewidth=0,
            label=f"{part} network",
        )
    ends = [min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])]
    ax.plot(ends, ends, color=MUTED, linewidth=1, linestyle=":", label="equal")
    ax.set(xlabel="test accuracy in the table", ylabel="test accuracy here", xlim=ends, ylim=ends)
    ax.legend(loc="upper left")
    return figure


# Notebook 3: the IO dataset.


def ordered_contributions(weights: np.ndarray, products: np.ndarray, top_k: int) -> Figure:
    """All (F + 1,) contributions of one pair in the order of their weights, the first ones kept.

    Many features are drawn on a log axis of ranks, so that the first ones stay in sight.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 3.0))
    rank = np.arange(1, len(products) + 1)
    kept, many = rank <= top_k, len(rank) > 60
    ax.bar(rank[kept], products[kept], color=MODEL_COLORS["io"], label="contribution, kept")
    ax.bar(rank[~kept], products[~kept], color="#c9ced6", label="contribution, dropped")
    marker = None if many else "."
    ax.plot(rank, weights, color=INK, linewidth=1.5, marker=marker, markersize=5, label="weight")
    ax.axhline(0, color=MUTED, linewidth=0.8)
    ax.set(xlabel="rank by weight", ylabel="weight, and contribution\nto the logit")
    if many:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    ax.set_xlim(0.55 if many else 0.2, rank[-1] + 0.8)
    ax.legend(loc="lower left" if many else "upper right")
    return figure


def target_profiles(sets: Mapping[str, np.ndarray]) -> Figure:
    """Mean target by rank of each set of (N, I, k) targets; the band is one standard deviation.

    The band belongs to the first set, the one that models are trained on.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
    styles = zip(["-", "--", "-.", ":", (0, (1, 2))], "os^vD", strict=True)
    for (name, values), (line, marker) in zip(sets.items(), styles, strict=False):
        flat = values.reshape(-1, values.shape[-1])
        rank, mean = np.arange(1, flat.shape[1] + 1), flat.mean(0)
        (drawn,) = ax.plot(rank, mean, linestyle=line, marker=marker, markersize=4, label=name)
        if name == next(iter(sets)):
            low, high = mean - flat.std(0), mean + flat.std(0)
            ax.fill_between(rank, low, high, color=drawn.get_color(), alpha=0.14, linewidth=0)
    ax.set(xlabel="rank by weight", ylabel="contribution to the logit")
    ax.set_xticks(rank[:: max(1, len(rank) // 10)])
    ax.legend()
    return figure


# Notebook 4: what the output features look like.


def feature_heatmaps(
    panels: Mapping[str, np.ndarray],
    ylabel: str,
    ticks: Mapping[int, str] | None = None,
    groups: bool = False,
) -> Figure:
    """Heat maps of (R, k) targets side by side, on one scale: columns are the features by rank.

    Values beyond the 98th percentile of all panels share one colour. The scale is diverging around
    zero where negative values matter.

    Parameters
    ----------
    panels
        Title -> values, all with the same rows.
    ylabel, ticks
        Meaning of the rows, and the labels of some of them: row -> text.
    groups
        Whether a group of rows begins at each tick; a line is drawn between groups.
    """
    whole = np.concatenate([values.ravel() for values in panels.values()])
    limit = float(np.quantile(np.abs(whole), 0.98)) or 1.0
    negative = float(np.quantile(whole, 0.02)) < -0.02 * limit
    scale = {"cmap": "RdBu_r" if negative else "magma_r", "vmin": -limit if negative else 0}
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 4.6), sharey=True, squeeze=False)
    for ax, (title, values) in zip(axes[0], panels.items(), strict=True):
        drawn = ax.imshow(values, aspect="auto", interpolation="nearest", vmax=limit, **scale)
        ax.set_title(title, loc="center", fontsize=10, fontweight="normal")
        ax.grid(False)
        ax.set_xticks(range(0, values.shape[1], 3), range(1, values.shape[1] + 1, 3))
        if ticks:
            ax.set_yticks(list(ticks), list(ticks.values()))
        if groups:
            ax.hlines(np.array(list(ticks or ())) - 0.5, -0.5, values.shape[1] - 0.5, CARD, lw=1)
    axes[0, 0].set_ylabel(ylabel)
    figure.supxlabel("feature, by rank of its weight", fontsize=11)
    extend = "both" if negative else "max"
    bar = figure.colorbar(drawn, ax=axes, extend=extend, shrink=0.7, aspect=30, pad=0.02)
    bar.set_label("contribution to the true class's logit")
    bar.outline.set_visible(False)
    return figure


def distance_histogram(distances: np.ndarray, threshold: float) -> Figure:
    """Distances of all pairs of an (N, N) matrix, and the threshold of the clusters."""
    pairs = distances[np.triu_indices(len(distances), 1)]
    figure, ax = plt.subplots(figsize=(WIDTH, 2.6))
    most = np.quantile(pairs, 0.99)
    ax.hist(np.minimum(pairs, most), bins=50, color=MODEL_COLORS["io"], alpha=0.75)
    ax.axvline(threshold, color=INK, linewidth=1.6, label=f"threshold {threshold:.3g}")
    ax.set(xlabel="distance of two networks (largest 1 % drawn at the end)", ylabel="pairs")
    ax.legend()
    return figure


def clusters(labels: np.ndarray, accuracy: np.ndarray, shown: pd.DataFrame) -> Figure:
    """Test accuracies in each cluster, worst cluster first, and of all other networks.

    Parameters
    ----------
    labels, accuracy
        (N,) cluster numbers and test accuracies.
    shown
        Columns `cluster`, `min`, `max`, `mean`, `size`, in the order of drawing.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 3.6))

    def column(x: int, values: np.ndarray, color: str) -> None:
        spread = 0.5 * (np.arange(1, len(values) + 1) * 0.618034 % 1 - 0.5)  # even, not random
        ax.scatter(x + spread, np.sort(values), s=20, color=color, alpha=0.75, linewidth=0)

    for x, row in enumerate(shown.itertuples()):
        ax.bar(x, row.max - row.min, 0.62, row.min, color=MODEL_COLORS["io"], alpha=0.12)
        ax.plot([x - 0.3, x + 0.3], [row.mean] * 2, color=INK, linewidth=1.6)
        column(x, accuracy[labels == row.cluster], MODEL_COLORS["io"])
    names = [f"{size}" for size in shown["size"]]
    many = len(names) > 22
    rest = accuracy[~np.isin(labels, shown["cluster"])]
    if len(rest):
        column(len(shown), rest, MODEL_COLORS["random"])
        names.append(f"{len(rest)} others" if many else f"{len(rest)}\nothers")
    style: dict[str, Any] = {"fontsize": 8, "rotation": 90} if many else {}
    ax.set_xticks(range(len(names)), names, **style)
    ax.set(xlabel="networks in the cluster", ylabel="test accuracy of the network")
    ax.use_sticky_edges = False  # or the bar of the worst network ends at the edge of the axes
    ax.autoscale_view()
    ax.grid(axis="x", visible=False)
    return figure


# Notebook 7: accuracy predicted from the embeddings.


def prediction_scores(scores: pd.DataFrame, metric: str, label: str) -> Figure:
    """Distribution of a metric over regressor seeds: for each embedding a line per sample size.

    Parameters
    ----------
    scores
        Columns `embedding`, `size`, `metric` and, if there are several trainings, `training_seed`:
        boxes and points show the first training, diamonds the means of the others.
    metric, label
        Column to draw and the name of its axis.
    """
    names = [name for name in MODEL_COLORS if name in set(scores["embedding"])]
    sizes = sorted(scores["size"].unique())
    lines = len(names) * (len(sizes) + 1)
    figure, ax = plt.subplots(figsize=(0.82 * WIDTH, 0.7 + 0.2 * lines))
    left = ax.get_yaxis_transform()
    heights: list[int] = []
    texts: list[str] = []
    for name in names:
        y = len(heights) + len(heights) // len(sizes)  # a line for the name of each embedding
        label_style: dict[str, Any] = {"va": "center", "fontsize": 10, "weight": "bold"}
        ax.text(0.01, y, MODEL_LABELS[name], transform=left, **label_style)
        for size in sizes:
            y += 1
            rows = scores[(scores["embedding"] == name) & (scores["size"] == size)]
            _distribution(ax, y, rows, metric, MODEL_COLORS[name])
            heights.append(y)
            texts.append(_thousands(size))
    ax.set(ylim=(lines - 0.3, -0.8), xlabel=label, ylabel="cells fitted on")
    ax.set_yticks(heights, texts)
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
    ax.grid(axis="y", visible=False)
    return figure


def _distribution(ax: Axes, y: int, scores: pd.DataFrame, metric: str, color: str) -> None:
    """Box and points of the first training at height y, diamonds for the means of the others."""
    trainings = scores.get("training_seed", pd.Series(0, scores.index)).fillna(0)
    is_first = trainings == trainings.min()
    first = scores.loc[is_first, metric].dropna()
    ax.boxplot(
        first, positions=[y], orientation="horizontal", widths=0.66, showfliers=False,
        patch_artist=True, boxprops={"facecolor": color, "alpha": 0.28, "edgecolor": color},
        medianprops={"color": color, "linewidth": 2}, manage_ticks=False,
        whiskerprops={"color": color}, capprops={"color": color},
    )  # fmt: skip
    spread = np.linspace(-0.2, 0.2, len(first)) if len(first) > 1 else np.zeros(len(first))
    ax.scatter(first, y + spread, s=6, color=color, linewidth=0, zorder=3)
    others = scores[~is_first].groupby(trainings[~is_first])[metric].mean()
    ax.scatter(
        others, np.full(len(others), y), s=26, marker="D", facecolor=CARD, edgecolor=color,
        linewidth=1.2, zorder=4,
    )  # fmt: skip


def sample_effects(samples: pd.DataFrame, metric: str, label: str) -> Figure:
    """A metric over the number of failed cells in the sample, a panel for each embedding.

    Parameters
    ----------
    samples
        From `prediction.score_samples`. Of the smallest size, each random draw is a point, the
        paper's sample a mean over seeds.
    metric, label
        Column to draw and the name of its axis.
    """
    at = samples[samples["size"] == samples["size"].min()]
    rows = at.set_index(["embedding", "sample"])[["failed", metric]]
    names = [name for name in MODEL_COLORS if name in set(at["embedding"])]
    lines = -(-len(names) // 2)
    figure, axes = plt.subplots(
        lines, 2, figsize=(WIDTH, 0.6 + 1.5 * lines), sharex=True, sharey=True, squeeze=False
    )
    looks = {  # sample -> what it is, marker, size, whether filled
        "random": ("random cells", "o", 18, True),
        "random, passed": ("the same draw without failed cells", "o", 18, False),
        "paper": ("labeled cells", "D", 34, True),
        "passed": ("labeled cells that have not failed", "D", 34, False),
    }
    for ax, name in zip(axes.flat, names, strict=False):
        ax.set_title(MODEL_LABELS[name], fontsize=10)
        color = MODEL_COLORS[name]
        for sample, (_, marker, size, filled) in looks.items():
            points = rows.loc[[(name, sample)]]
            if marker == "D":
                points = points.mean().to_frame().T
            ax.scatter(
                points["failed"], points[metric], s=size, marker=marker,
                facecolor=color if filled else CARD, edgecolor=color, lw=1.1,
            )  # fmt: skip
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    axes[0, 0].set_xlim(-0.7, at["failed"].max() + 0.7)
    axes[0, 0].xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    handles = [
        mpl.lines.Line2D(
            [], [], ls="", marker=marker, color=INK, label=text, ms=size**0.5,
            markerfacecolor=INK if filled else CARD,
        )
        for text, marker, size, filled in looks.values()
    ]  # fmt: skip
    figure.legend(handles=handles, ncols=2, loc="outside upper center")
    figure.supxlabel("failed cells in the sample", fontsize=11)
    figure.supylabel(label, fontsize=11)
    return figure


def score_table(summary: pd.DataFrame, metric: str, digits: int = 3) -> pd.DataFrame:
    """Means of a metric with both intervals of `prediction.summarise`, a row per embedding."""
    rows = summary[summary["metric"] == metric]
    names = [name for name in MODEL_COLORS if name in set(rows["embedding"])]
    heads = {"regressor": "± over regressor seeds", "training": "± over trainings"}
    return pd.concat(
        {
            head: interval_table(rows[rows["interval"] == kind], digits=digits).loc[
                [MODEL_LABELS[name] for name in names]
            ]
            for kind, head in heads.items()
            if kind in set(rows["interval"])
        },
        axis=1,
    )


# Notebook 6: the searches.


def search_curves(curves: pd.DataFrame, time_unit: str, metric: str = "test") -> Figure:
    """Mean regret over simulated time with its interval, a line per search (Figs 5 and 6).

    `curves` has the columns embedding, time, metric, mean, low, high; regret is on a log axis.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
    for name, rows in _by_model(curves[curves["metric"] == metric].dropna()):
        band(ax, rows["time"], rows["mean"], rows["low"], rows["high"], name, step=True)
    ax.set(
        yscale="log",
        xlabel=f"simulated time ({time_unit})",
        ylabel=f"{metric} regret",
    )
    _plain_log(ax)
    ax.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.45, -0.16))
    return figure


def interactive_search(curves: pd.DataFrame, time_unit: str, metric: str = "test") -> Interactive:
    """The same curves without their bands, for reading values by hovering."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, rows in _by_model(curves[curves["metric"] == metric].dropna()):
        figure.add_scatter(
            x=rows["time"].round(2).tolist(),
            y=rows["mean"].round(5).tolist(),
            name=MODEL_LABELS[name],
            line={"color": MODEL_COLORS[name], "shape": "hv"},
            hovertemplate="%{y:.4f}",
        )
    figure.update_yaxes(type="log", title=f"{metric} regret")
    figure.update_xaxes(title=f"simulated time ({time_unit})")
    figure.update_layout(hovermode="x unified")
    return interactive(figure)


def _by_model(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Groups of the column `embedding`, in the one order of the models."""
    return [
        (name, frame[frame["embedding"] == name])
        for name in MODEL_COLORS
        if (frame["embedding"] == name).any()
    ]


def _plain_log(ax: Axes) -> None:
    """Write the ticks of a log axis as plain numbers, also between powers of ten."""
    ax.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5), numticks=15))
    ax.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def listing(values: pd.Series, names: Sequence[str], digits: int = 4) -> str:
    """Write values of some models in words: "IO model, mean 0.0123, ..."."""
    return ", ".join(f"{MODEL_LABELS[name]} {values[name]:.{digits}f}" for name in names)


# Notebook 5: the training of the embedding models.

LABELED_SETS = {  # metric of a history -> title
    "labels_train": "train set",
    "labels_unseen_images": "unseen images",
    "labels_unseen_networks": "unseen networks",
}


def labeled_losses(
    curves: pd.DataFrame, model: str, baselines: Mapping[str, float], unit: str
) -> Figure:
    """Losses on labels by epoch, a panel per labeled set, with the baseline of the set (Fig. 10).

    Parameters
    ----------
    curves
        Columns `metric`, `epoch`, `mean`, `low`, `high`: the rows of one model; `labels_running`,
        if there, is drawn beside `labels_train`.
    model
        `io` or `accuracy`.
    baselines
        Metric -> loss of the set's own mean.
    unit
        What the loss is of.
    """
    shown = [metric for metric in LABELED_SETS if metric in set(curves["metric"])]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(WIDTH, 3.0), sharex=True, sharey=True, squeeze=False
    )
    for ax, metric in zip(axes[0], shown, strict=True):
        rows = curves[curves["metric"] == metric]
        band(ax, rows["epoch"], rows["mean"], rows["low"], rows["high"], model, marker=True)
        if metric == "labels_train":
            rows = curves[curves["metric"] == "labels_running"]
            ax.plot(
                rows["epoch"], rows["mean"], color=MODEL_COLORS[model], linewidth=1.2,
                linestyle=":", label="while training",
            )  # fmt: skip
        ax.axhline(baselines[metric], color=MUTED, linewidth=1.4, linestyle="--", label="baseline")
        ax.set_title(LABELED_SETS[metric], loc="center", fontsize=10, fontweight="normal")
        ax.set_xlabel("epoch")
        _whole_epochs(ax, rows["epoch"])
    axes[0, 0].set(ylabel=f"mean squared error\nof {unit}", ylim=(0, None))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


METRICS = {  # metric of a history -> title
    "operation_accuracy_real": "operations right, real vertices",
    "adjacency_accuracy": "edges right",
    "validity": "validity of random draws",
    "uniqueness": "uniqueness of the valid ones",
}


def reconstruction_curves(curves: pd.DataFrame) -> Figure:
    """Reconstruction, validity and uniqueness of every model by its share of training done.

    `curves` has the columns `model`, `metric`, `epoch`, `mean`, `low`, `high`.
    """
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 4.9), sharex=True)
    for ax, (metric, title) in zip(axes.flat, METRICS.items(), strict=True):
        for model, rows in curves[curves["metric"] == metric].groupby("model", sort=False):
            share = rows["epoch"] / rows["epoch"].max()
            band(ax, share, rows["mean"], rows["low"], rows["high"], str(model))
        ax.set_title(title, loc="center", fontsize=10, fontweight="normal")
        ax.set(ylim=(0, 1.03), xlim=(0, 1.01))
    for ax in axes[1]:
        ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
        ax.set_xlabel("share of the training done")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def embedding_maps(points: Mapping[str, np.ndarray], accuracy: np.ndarray) -> Figure:
    """Cells in the plane, a panel per embedding, (N, 2) points coloured by (N,) test accuracy."""
    columns = min(3, len(points))
    rows = -(-len(points) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.3 * rows), squeeze=False)
    low, high = np.quantile(accuracy, [0.05, 0.95])
    order = np.argsort(accuracy, kind="stable")  # the best cells on top
    colors = mpl.cm.ScalarMappable(mpl.colors.Normalize(low, high), "viridis")
    for ax, (name, values) in zip(axes.flat, points.items(), strict=False):
        ax.scatter(*values[order].T, c=colors.to_rgba(accuracy[order]), s=4, linewidth=0)
        ax.set_title(MODEL_LABELS[name], loc="center", fontsize=9.5, fontweight="normal")
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    for ax in axes.flat[len(points) :]:
        ax.set_axis_off()
    bar = figure.colorbar(colors, ax=axes, extend="both", shrink=0.8, aspect=32, pad=0.02)
    bar.set_label("test accuracy in the table")
    bar.outline.set_visible(False)
    return figure


def interactive_maps(
    points: Mapping[str, np.ndarray], accuracy: np.ndarray, texts: Sequence[str]
) -> Interactive:
    """The same maps one at a time, chosen from a menu; hovering names the cell (N texts)."""
    import plotly.graph_objects as go

    low, high = np.quantile(accuracy, [0.05, 0.95])
    order = np.argsort(accuracy, kind="stable")
    hover = [f"{texts[k]}<br>test accuracy {accuracy[k]:.3f}" for k in order]
    figure = go.Figure()
    for name, values in points.items():
        figure.add_scatter(
            x=np.round(values[order, 0], 3).tolist(),
            y=np.round(values[order, 1], 3).tolist(),
            mode="markers",
            name=MODEL_LABELS[name],
            visible=not figure.data,
            hovertemplate="%{text}<extra></extra>",
            text=hover,
            marker={
                "size": 5,
                "color": np.round(accuracy[order], 4).tolist(),
                "colorscale": "Viridis",
                "cmin": float(low),
                "cmax": float(high),
                "colorbar": {"title": {"text": "test<br>accuracy"}, "thickness": 12},
            },
        )
    buttons = [
        {
            "label": MODEL_LABELS[name],
            "method": "update",
            "args": [{"visible": [other == name for other in points]}],
        }
        for name in points
    ]
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    figure.update_layout(updatemenus=[menu], showlegend=False)
    figure.update_xaxes(title="first principal component")
    figure.update_yaxes(title="second principal component")
    return interactive(figure, height=520)


def _whole_epochs(ax: Axes, epochs: pd.Series) -> None:
    last = int(epochs.max())
    step = max(1, -(-last // 6))
    ax.set_xticks(range(step, last + 1, step))
    ax.set_xlim(0.6, last + 0.4)


# Notebook 1: the search space.


def accuracy_distribution(accuracy: np.ndarray, labeled: np.ndarray) -> Figure:
    """Test accuracy of all cells and of the labeled train cells (Fig. 9), as shares of cells."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
    known = accuracy[np.isfinite(accuracy)]
    bins = np.linspace(known.min(), known.max(), 41)
    for values, color, label in (
        (known, MUTED, "all cells"),
        (accuracy[labeled][np.isfinite(accuracy[labeled])], "#0072b2", "labeled train cells"),
    ):
        weights = np.full(len(values), 100 / len(values))
        style: dict[str, Any] = {"bins": bins, "weights": weights, "color": color}
        text = f"{label} ({len(values):,})"
        ax.hist(values, histtype="stepfilled", alpha=0.35, label=text, **style)
        ax.hist(values, histtype="step", linewidth=1.5, **style)
    ax.set(xlabel="test accuracy", ylabel="cells (%)")
    ax.legend(loc="upper left")
    return figure


def cell_gallery(cells: Sequence[Cell], titles: Sequence[str], columns: int = 4) -> Figure:
    """Draw several cells side by side, each under its title."""
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.9 * rows), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, cell, title in zip(axes.flat, cells, titles, strict=False):
        draw_cell(cell, ax, title)
    return figure


def accuracy_by(
    accuracy: np.ndarray, groups: Mapping[str, np.ndarray], limit: int = 20_000
) -> Figure:
    """Test accuracy against one property of the cells per panel.

    Few different values give a box for each (whiskers from the 5th to the 95th percentile), many
    a point for each cell, on a log axis.
    """
    figure, axes = plt.subplots(2, -(-len(groups) // 2), figsize=(WIDTH, 5.6), sharey=True)
    for ax, (name, values) in zip(axes.flat, groups.items(), strict=False):
        levels = np.unique(values)
        if len(levels) <= 12:
            boxes = [accuracy[values == level] for level in levels]
            ax.boxplot(
                [box[np.isfinite(box)] for box in boxes],
                tick_labels=[f"{level:g}" for level in levels],
                whis=(5, 95),
                showfliers=False,
                widths=0.6,
                medianprops={"color": "#d55e00", "linewidth": 2},
            )
        else:
            step = max(1, len(values) // limit)
            ax.scatter(values[::step], accuracy[::step], s=3, alpha=0.35, linewidth=0)
            ax.set_xscale("log")
        ax.set_xlabel(name)
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy")
    for ax in list(axes.flat)[len(groups) :]:
        ax.set_axis_off()
    return figure


def noise_and_signal(mean: np.ndarray, runs: np.ndarray) -> Figure:
    """Cells ordered by mean test accuracy, and the single repeats (R, N) around it."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
    order = np.argsort(mean)
    rank = np.arange(len(order))
    for index, run in enumerate(runs):
        label = "one repeat" if index == 0 else None
        ax.scatter(rank, run[order], s=2, color="#56b4e9", alpha=0.35, linewidth=0, label=label)
    ax.plot(rank, mean[order], color=INK, label="mean of the repeats")
    ax.set(xlabel="cells, from worst to best", ylabel="test accuracy")
    ax.legend(markerscale=4, loc="lower right")
    return figure
