"""Draws cells as layered graphs: input at the top, output at the bottom, every box of one size."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from ionas.plots.style import INK, MUTED, SMALL, WIDTH, Chart, chart, columns_of, literal, own_style

# What stands in the box of an operation, and its colour: no hue of a model.
_ONE, _THREE, _POOL = ("1×1\nconv", "#f1ead0"), ("3×3\nconv", "#dcc98c"), ("3×3\npool", "#d5dae0")
OPERATIONS: dict[str, tuple[str, str]] = {
    "conv1x1-bn-relu": _ONE, "conv3x3-bn-relu": _THREE, "maxpool3x3": _POOL,
    "nor_conv_1x1": _ONE, "nor_conv_3x3": _THREE, "avg_pool_3x3": _POOL,
    "skip_connect": ("skip", "#ffffff"), "none": ("none", "#aab2bd"),
}  # fmt: skip
BOX = np.array([38.0, 28.0])  # width and height of a box in points
STEP = np.array([42.0, 46.0])  # from box to box in a layer, and from layer to layer


def cell_layout(matrix: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """Positions (P, 2) in points of the vertices, then of way points, and each edge's points.

    A layered drawing in the manner of Sugiyama: longest-path layers, a way point in each layer that
    an edge crosses, so that none runs behind a box, then the order within layers by the mean
    position of the neighbours. The first point of the first layer is near (0, 0), down is positive.
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
    for a, b in (step for route in routes for step in pairwise(route)):
        neighbors[a].append(b)
        neighbors[b].append(a)
    rows = [[p for p in range(len(layer)) if layer[p] == k] for k in range(max(layer) + 1)]
    x = np.zeros(len(layer))
    for sweep in range(8):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            row.sort(key=lambda p: (np.mean([x[q] for q in neighbors[p]] or [0.0]), p))
            widths = np.array([1.0 if p < n else 0.3 for p in row])
            right = np.cumsum(widths)
            x[row] = right - widths / 2 - right[-1] / 2
    return np.column_stack([x, layer]) * STEP, routes


def draw_cell(
    ax: Axes, points: np.ndarray, routes: Sequence[Sequence[int]], operations: Sequence[str]
) -> None:
    """Draw a cell at the points of `cell_layout`, on axes whose unit is a point, y downward."""
    for route in routes:
        # A way point is passed straight down, beside the boxes of its layer.
        stops = [(x, y - side * BOX[1] / 2) for x, y in points[list(route)] for side in (1, -1)]
        path = [stops[1]]
        for (x0, y0), (x1, y1) in pairwise(stops[1:-1]):
            path += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1)]
        codes = [Path.MOVETO, *[Path.CURVE4] * (len(path) - 1)]
        ax.add_patch(PathPatch(Path(path, codes), fill=False, edgecolor=MUTED, linewidth=1.2))
        x, y = stops[-2]
        ax.fill([x, x - 3, x + 3], [y, y - 6, y - 6], color=MUTED, linewidth=0)
    (w, h), rounded = BOX, f"round,pad=0,rounding_size={BOX[1] / 5}"
    for (x, y), operation in zip(points, operations, strict=False):
        text, color = OPERATIONS.get(operation, (literal(operation), "#ffffff"))
        look: Any = {"facecolor": color, "edgecolor": INK, "linewidth": 0.8, "zorder": 3}
        ax.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle=rounded, **look))
        ax.text(x, y, text, ha="center", va="center", size=SMALL, linespacing=0.95, zorder=4)


def usual_operation(cells: pd.DataFrame) -> str:
    """The most frequent operation of cells, `operations` joined by commas, as a graph names it."""
    inner = [name for text in cells["operations"] for name in text.split(",")[1:-1]]
    names = [" ".join(OPERATIONS.get(name, (name, ""))[0].split()) for name in inner]
    return max(sorted(set(names)), key=names.count) if names else "none"


@own_style()
def cell_gallery(cells: pd.DataFrame) -> Chart:
    """Draw several cells, all at one scale, each under its title, in the order of the rows.

    Columns `adjacency` (n * n characters 0 or 1), `operations` (n names joined by commas), `title`.
    """
    data = columns_of(cells, "adjacency", "operations", "title")
    operations = [text.split(",") for text in data["operations"]]
    drawn = [
        cell_layout(np.array(list(text), int).reshape(len(names), -1))
        for text, names in zip(data["adjacency"], operations, strict=True)
    ]
    ends = np.array([
        [(p[:, 0] - half).min(), (p[:, 0] + half).max()]
        for (p, _), names in zip(drawn, operations, strict=True)
        for half in [np.where(np.arange(len(p)) < len(names), BOX[0] / 2, 0)]
    ])  # fmt: skip
    widths, page, height = np.ptp(ends, axis=1), 72 * WIDTH, 0.0
    for columns in (4, 2, 1):
        rows = [range(k, min(k + columns, len(drawn))) for k in range(0, len(drawn), columns)]
        if all(sum(widths[row]) + 6 * len(row) <= page for row in rows):
            break
    for row in rows:
        gap = (page - sum(widths[row])) / len(row)
        left = gap / 2
        for k in row:
            drawn[k][0][:] += [left - ends[k, 0], height + 26 + BOX[1] / 2]
            left += widths[k] + gap
        height = max(drawn[k][0][:, 1].max() for k in row) + BOX[1] / 2 + 10
    figure, [[ax]] = chart(height=height / 72)
    figure.set_layout_engine("none")
    ax.set(position=(0, 0, 1, 1), xlim=(0, page), ylim=(height, 0))
    ax.set_axis_off()
    for (points, routes), names, title in zip(drawn, operations, data["title"], strict=True):
        draw_cell(ax, points, routes, names)
        x, y = points[0] - [0, BOX[1] / 2 + 6]
        ax.text(x, y, literal(title), ha="center", va="bottom", fontsize=SMALL)
    titles = ", ".join(map(str, data["title"]))
    return figure.tell(f"{len(drawn)} cells as graphs: {titles}.", data)
