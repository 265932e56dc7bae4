"""The charts of the notebooks, in their order, from small frames and arrays; nothing is computed.

Each function says which columns it takes, and raises ValueError naming those that are missing. What
it returns shows itself in a notebook, tells in one sentence what it shows (`alt`) and holds what it
drew (`data`). Names of a user's own, of classes or titles, are written as they are.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ionas.plots import style
from ionas.plots.style import (
    CARD,
    CHANCE,
    INK,
    MODEL_LABELS,
    MUTED,
    PALE,
    SLATE,
    STYLES,
    Chart,
    chart,
    columns_of,
    in_order,
    literal,
    number,
    own_style,
    plain_ticks,
)

QUANTILES = {"q05": "whislo", "q25": "q1", "q50": "med", "q75": "q3", "q95": "whishi"}
SETS = {  # set of labeled pairs -> label, line; in the order of drawing
    "train": ("train set", ":"),
    "unseen_images": ("unseen images", style.DASHED),
    "unseen_networks": ("unseen networks", "-"),
}
SAMPLES = {  # sample -> what it is, marker, size, whether filled
    "random": ("random cells", "o", 18, True),
    "random, passed": ("the same draws without failed cells", "o", 18, False),
    "paper": ("labeled cells", "D", 34, True),
    "passed": ("labeled cells that have not failed", "D", 34, False),
}
BELOW: Any = {"loc": "outside lower left", "ncols": 2}  # a legend below all axes


@own_style()
def noise_and_signal(cells: pd.DataFrame) -> Chart:
    """Cells from the worst to the best, and the single repeats around each.

    Columns `rank`, `mean` and one `repeat_K` or more, in the order of ranks, as of
    `summaries.accuracy_by_rank`.
    """
    repeats = [name for name in cells if str(name).startswith("repeat_")]
    data = columns_of(cells, "rank", "mean", *(repeats or ["repeat_0"]))
    figure, [[ax]] = chart(height=3.2)
    low, worst = _zoom(ax, data[["mean", *repeats]].to_numpy())
    for name in repeats:
        _points(ax, data["rank"], data[name], low, s=4, color=SLATE, alpha=0.55)
    ax.plot(data["rank"], data["mean"].clip(lower=low), color=INK)
    repeat = Line2D([], [], ls="", marker="o", ms=3, color=SLATE, label="one repeat")
    mean = Line2D([], [], color=INK, label="mean of the repeats")
    ax.legend(handles=[repeat, mean, *worst], loc="lower right")
    ax.set(xlabel="cells, from worst to best", ylabel="test accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    plain_ticks(ax, "x")
    apart, noise = np.ptp(data["mean"]), data[repeats].std(axis=1).median()
    alt = (
        f"Mean test accuracies of cells span {apart:.3f}; the repeats of a cell scatter with a "
        f"standard deviation of {noise:.4f} in the median."
    )
    return figure.tell(alt, data)


@own_style()
def accuracy_by_counts(groups: pd.DataFrame) -> Chart:
    """Quantiles of test accuracy by one property of the cells per panel, with the failed below.

    Columns `property`, `least`, `most`, `failed`, `threshold`, `q05`, `q25`, `q50`, `q75`, `q95`,
    as of `summaries.accuracy_by_counts`.
    """
    data = columns_of(groups, "property", "least", "most", "failed", "threshold", *QUANTILES)
    names = list(dict.fromkeys(data["property"]))
    rows = ceil(len(names) / 2)
    ratios = {"height_ratios": [4, 1] * rows}
    figure, axes = chart(2 * rows, 2, height=2.5 * rows, sharey="row", gridspec_kw=ratios)
    pairs = [axes[2 * r : 2 * r + 2, c] for r in range(rows) for c in range(2)]
    least, most = data["threshold"].min(), data["q95"].max()
    looks: Any = {"patch_artist": True, "boxprops": {"facecolor": PALE}, "showfliers": False}
    for (boxes, strip), name in zip(pairs, names, strict=False):
        part = data[data["property"] == name].reset_index(drop=True)
        stats = part.rename(columns=QUANTILES).to_dict("records")
        boxes.bxp(stats, part.index, widths=0.66, **looks)
        strip.bar(part.index, 100 * part["failed"], 0.66, color=SLATE)
        boxes.set(ylim=(least, most + 0.04 * (most - least)))
        strip.set(ylim=(0, max(100 * data["failed"].max() * 1.1, 1)), xlabel=literal(name))
        boxes.tick_params(labelbottom=False)
        ranges = (part["least"] != part["most"]).any()
        shown = part[:: ceil(len(part) / (3 if ranges else 8))]
        middles = np.sqrt(shown["least"] * shown["most"]) if ranges else shown["least"]
        for ax in (boxes, strip):
            ax.set_xticks(shown.index, [_short(value) for value in middles])
            ax.set_xlim(-0.6, len(part) - 0.4)
            ax.grid(axis="x", visible=False)
        strip.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    for boxes, strip in pairs[::2]:
        boxes.set_ylabel("test accuracy")
        strip.set_ylabel("failed\n(%)")
    for ax in np.ravel(pairs[len(names) :]):
        ax.set_visible(False)
    medians = data.groupby("property", sort=False)["q50"].agg(["first", "last"])
    alt = "Median test accuracy from the lowest to the highest group: " + "; ".join(
        f"{name} {row['first']:.3f} to {row['last']:.3f}" for name, row in medians.iterrows()
    )
    return figure.tell(alt, data)


@own_style()
def accuracy_distribution(bins: pd.DataFrame) -> Chart:
    """Test accuracy of all cells and of some of them (Fig. 9), as shares of each set.

    Columns `low`, `high`, and one of counts for each set, the largest first, as of
    `summaries.histogram`.
    """
    data = columns_of(bins, "low", "high", *(n for n in bins if n not in ("low", "high")))
    figure, [[ax]] = chart(height=3.0)
    edges, fullest = [*data["low"], data["high"].iloc[-1]], []
    looks: Any = (
        {"facecolor": (PALE, 0.75), "edgecolor": SLATE, "linewidth": 1, "fill": True},
        {"color": INK, "linewidth": 1.8},
        {"color": CHANCE, "linewidth": 1.8, "linestyle": "--"},
    )
    for name, look in zip(data.columns[2:], cycle(looks), strict=False):
        total, row = data[name].sum(), data.loc[data[name].idxmax()]
        shares, label = 100 * data[name] / max(total, 1), f"{literal(name)} ({number(total)})"
        ax.stairs(shares, edges, label=label, **look)
        fullest.append(f"{name} {row['low']:.3f} to {row['high']:.3f}")
    ax.set(xlabel="test accuracy", ylabel="cells (%)")
    ax.legend(loc="upper left")
    return figure.tell("Most frequent test accuracies: " + "; ".join(fullest), data)


@own_style()
def image_row(images: np.ndarray, names: Sequence[str]) -> Chart:
    """Show (K, C, H, W) images, scaled for viewing, each under its name of K."""
    texts = [fill(literal(name), 18, max_lines=2, placeholder="…") for name in names]
    longest = max(len(line) for text in texts for line in text.splitlines())
    columns = min(len(texts), 10, max(2, int(72 * style.WIDTH / (6.6 * longest + 8))))
    rows = ceil(len(texts) / columns)
    lines = max(text.count("\n") for text in texts) + 1
    size = min(style.WIDTH / columns, 1.0)
    figure, axes = chart(rows, columns, height=rows * (size + 0.24 * lines))
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, text in zip(axes.flat, np.asarray(images, np.float64), texts, strict=False):
        scaled = (image - image.min()) / max(np.ptp(image), 1e-9)
        ax.imshow(scaled.transpose(1, 2, 0), cmap="gray_r")
        ax.set_title(text)
    alt = "One image of each class: " + ", ".join(map(literal, names)) + "."
    return figure.tell(alt, pd.DataFrame({"class": list(names)}))


@own_style()
def agreement(networks: pd.DataFrame) -> Chart:
    """Test accuracy reached here against that of the table, a point per network.

    Columns `labeled` (`train` or `validation`), `table` and `here`, two accuracies.
    """
    data = columns_of(networks, "labeled", "table", "here")
    figure, [[ax]] = chart(height=3.6, width=0.8 * style.WIDTH)
    looks = {"train": (SLATE, CARD, "o"), "validation": (CARD, INK, "D")}
    for part, rows in data.groupby("labeled"):
        face, edge, marker = looks[str(part)]
        look: Any = {"facecolor": face, "edgecolor": edge, "marker": marker, "linewidth": 1}
        ax.scatter(rows["table"], rows["here"], s=26, label=f"{part} network", **look)
    (table, here), (most, top) = data[["table", "here"]].min(), data[["table", "here"]].max()
    if most >= here and top >= table:  # the line of equality is in sight
        ax.axline((table, table), slope=1, color=MUTED, linewidth=1, linestyle=":", label="equal")
    ax.set(xlabel="test accuracy in the table", ylabel="test accuracy here")
    figure.legend(**BELOW)
    alt = (
        f"Of {len(data)} networks, test accuracies reached here run from {here:.3f} to {top:.3f}, "
        f"in the table from {table:.3f} to {most:.3f}."
    )
    return figure.tell(alt, data)


@own_style()
def ordered_contributions(weights: np.ndarray, products: np.ndarray, top_k: int) -> Chart:
    """All (F + 1,) contributions of one pair in the order of their weights, the first ones kept.

    Many features are drawn on a log axis of ranks, so that the first ones stay in sight.
    """
    figure, [[ax]] = chart(height=3.0)
    rank = np.arange(1, len(products) + 1)
    kept, many = rank <= top_k, len(rank) > 60
    ax.bar(rank[kept], products[kept], color=MUTED, label="contribution, kept")
    ax.bar(rank[~kept], products[~kept], color=PALE, label="contribution, dropped")
    ax.plot(rank, weights, "" if many else ".-", color=INK, lw=1.5, ms=5, label="weight")
    ax.axhline(0, color=MUTED, linewidth=0.8)
    ax.set(xlabel="rank by weight", ylabel="weight, and contribution\nto the logit")
    ax.set(xscale="log" if many else "linear", xlim=(0.55 if many else 0.2, rank[-1] + 0.8))
    plain_ticks(ax, "x")
    ax.legend(loc="lower left" if many else "upper right")
    alt = (
        f"Weights fall from {weights[0]:.2f} to {weights[-1]:.2f}. The first {top_k} contributions "
        f"add up to {products[kept].sum():.2f}, all {len(rank)} to {products.sum():.2f}."
    )
    data = pd.DataFrame({"rank": rank, "weight": weights, "contribution": products})
    return figure.tell(alt, data)


@own_style()
def feature_heatmaps(
    panels: Mapping[str, np.ndarray], ylabel: str, ticks: Mapping[int, str], groups: bool = False
) -> Chart:
    """Heat maps of (R, k) targets by title, on one scale: columns are the features by rank.

    Values beyond the 98th percentile of all panels share one colour; the scale is diverging around
    zero where negative values matter. Titles break at a comma. `ticks` label some of the rows, and
    with `groups` a group of rows begins at each.
    """
    whole = np.concatenate([values.ravel() for values in panels.values()])
    limit = float(np.quantile(np.abs(whole), 0.98)) or 1.0
    negative = float(np.quantile(whole, 0.02)) < -0.02 * limit
    scale = {"cmap": "RdGy" if negative else "bone_r", "vmin": -limit if negative else 0}
    one = len(panels) == 1
    texts = [t if len(t) <= 16 else f"{t:.15}…" for t in map(literal, ticks.values())]
    figure, axes = chart(1, len(panels), height=4.6, sharey=True)
    for ax, (title, values) in zip(axes[0], panels.items(), strict=True):
        drawn = ax.imshow(values, aspect="auto", interpolation="nearest", vmax=limit, **scale)
        ax.set_title(literal(title).replace(", ", ", " if one else ",\n"))
        ax.grid(False)
        ax.set_xticks(range(0, values.shape[1], 3), range(1, values.shape[1] + 1, 3))
        ax.set_yticks(list(ticks), texts)
        if groups:
            ax.hlines(np.array(list(ticks)) - 0.5, -0.5, values.shape[1] - 0.5, CARD, lw=1)
    axes[0, 0].set_ylabel(ylabel)
    xlabel = "feature, by rank of its weight" if one else "feature, by rank\nof its weight"
    axes[0, len(panels) // 2].set_xlabel(xlabel)
    extend = "both" if negative else "max"
    _colorbar(figure, axes, drawn, "contribution to the true class's logit", extend)
    alt = f"Contributions of the first {values.shape[1]} features to the logit: " + "; ".join(
        f"{literal(title)}, standard deviation {v.std():.3f}" for title, v in panels.items()
    )
    frames = [pd.DataFrame(v).assign(panel=title) for title, v in panels.items()]
    return figure.tell(alt, pd.concat(frames))


@own_style()
def distance_histogram(bins: pd.DataFrame, threshold: float) -> Chart:
    """Distances of all pairs of networks, and the threshold of the clusters.

    Columns `low`, `high`, `pairs`; larger distances are counted in the last bin.
    """
    data = columns_of(bins, "low", "high", "pairs")
    figure, [[ax]] = chart(height=2.5)
    width = data["high"] - data["low"]
    ax.bar(data["low"], data["pairs"], width, align="edge", color=SLATE, edgecolor=CARD, lw=0.4)
    ax.axvline(threshold, color=INK, linewidth=1.6, label=f"threshold {threshold:.3g}")
    ax.set(xlabel="distance of two networks (largest at the end)", ylabel="pairs")
    plain_ticks(ax, "xy")
    ax.legend()
    below = data.loc[data["high"] <= threshold, "pairs"].sum() / max(data["pairs"].sum(), 1)
    alt = f"About {below:.0%} of the pairs of networks are closer than {threshold:.3g}."
    return figure.tell(alt, data)


@own_style()
def clusters(networks: pd.DataFrame, shown: pd.DataFrame) -> Chart:
    """Test accuracies in each cluster, worst cluster first, and of all other networks (Fig. 4).

    `networks` has the columns `cluster` and `accuracy`; `shown` has `cluster`, `size`, `min`,
    `mean`, `max`, `chance_min`, `chance_max` in the order of drawing, the last two of which are
    what as many networks span if they are drawn at random.
    """
    data = columns_of(networks, "cluster", "accuracy")
    shown = columns_of(shown, "cluster", "size", "min", "mean", "max", "chance_min", "chance_max")
    figure, [[ax]] = chart(height=3.8)
    low, worst = _zoom(ax, data["accuracy"].to_numpy())
    at, ends = np.arange(len(shown)), shown.drop(columns=["cluster", "size"]).clip(lower=low)
    ax.bar(at, ends["max"] - ends["min"], 0.62, ends["min"], color=PALE, alpha=0.6)
    chance, dashes = ends["chance_max"] - ends["chance_min"], (0, (3, 2))
    look: Any = {"fill": False, "edgecolor": CHANCE, "linewidth": 1.4, "linestyle": dashes}
    ax.bar(at, chance, 0.78, ends["chance_min"], **look)
    ax.plot([at - 0.3, at + 0.3], [ends["mean"], ends["mean"]], color=INK)
    members = [data.loc[data["cluster"] == name, "accuracy"] for name in shown["cluster"]]
    rest = data.loc[~data["cluster"].isin(shown["cluster"]), "accuracy"]
    for x, values in enumerate([*members, rest]):
        spread = 0.5 * (np.arange(1, len(values) + 1) * 0.618034 % 1 - 0.5)  # even, not random
        color = MUTED if x < len(shown) else SLATE
        _points(ax, x + spread, np.sort(values), low, s=18, color=color, alpha=0.8)
    many, names = len(shown) > 16, [str(size) for size in shown["size"]]
    if len(rest):
        names.append(f"{len(rest)} others" if many else f"{len(rest)}\nothers")
    ax.set_xticks(range(len(names)), names, rotation=90 if many else 0)
    ax.set(xlabel="networks in the cluster", ylabel="test accuracy of the network")
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.grid(axis="x", visible=False)
    mean = Line2D([], [], color=INK, label="mean of the cluster")
    random = Line2D([], [], color=CHANCE, ls=dashes, label="range of as many random networks")
    figure.legend(handles=[mean, random, *worst], **BELOW)
    narrower = (shown["max"] - shown["min"]) < (shown["chance_max"] - shown["chance_min"])
    alt = (
        f"{narrower.sum()} of {len(shown)} clusters span a smaller range of accuracies than as "
        f"many random networks; {len(rest)} of {len(data)} networks are in no cluster shown."
    )
    return figure.tell(alt, data)


@own_style()
def labeled_losses(
    curves: pd.DataFrame,
    model: str,
    references: Mapping[str, float],
    ylabel: str,
    log: bool = False,
) -> Chart:
    """Losses on labels by epoch in one panel, a line for each training (Figs 10 and 11).

    Columns `set` (of SETS), `seed`, `epoch`, `loss`. The model, `io` or `accuracy`, gives the hue;
    `references` are losses of rules that need no embedding, in the unit of the curves, by label.
    """
    data = columns_of(curves, "set", "seed", "epoch", "loss")
    figure, [[ax]] = chart(height=3.9)
    last = data[data["epoch"] == data["epoch"].max()].groupby("set")["loss"].mean()
    ends = []
    for name in (name for name in SETS if name in last):
        label, line = SETS[name]
        color = MUTED if name == "train" else STYLES[model].color
        for _, rows in data[data["set"] == name].sort_values("epoch").groupby("seed"):
            ax.plot(rows["epoch"], rows["loss"], color=color, linestyle=line, linewidth=1.5)
        ax.plot([], [], color=color, linestyle=line, label=label)
        ends.append(f"{label} {last[name]:.3g}")
    lines = ("-", style.DASHED, (0, (1, 1.5)), "-.")
    for (label, value), line in zip(references.items(), cycle(lines), strict=False):
        ax.axhline(value, color=INK, linestyle=line, linewidth=1.1, label=literal(label))
    ax.set(xlabel="epoch", ylabel=ylabel, yscale="log" if log else "linear")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plain_ticks(ax)
    figure.legend(**BELOW)
    rules = [f"{label} {value:.3g}" for label, value in references.items()]
    alt = f"After the last epoch: {', '.join(ends)}; without an embedding: {', '.join(rules)}."
    return figure.tell(alt, data)


@own_style()
def embedding_maps(hexagons: pd.DataFrame, neighbors: Mapping[str, float] | None = None) -> Chart:
    """Cells in the plane, a panel per embedding; the colour of a hexagon is its median accuracy.

    Columns `embedding`, `x`, `y` (centres, in widths of a hexagon), `accuracy`, as of
    `summaries.hexagon_medians`. `neighbors` has the correlation of the accuracies of nearest cells
    by embedding, written above its panel.
    """
    data = columns_of(hexagons, "embedding", "x", "y", "accuracy")
    names, neighbors = in_order(data["embedding"]), neighbors or {}
    rows = ceil(len(names) / 2)
    figure, axes = chart(rows, 2, height=2.75 * rows + 0.6)
    colors = ScalarMappable(Normalize(*np.quantile(data["accuracy"], [0.05, 0.95])), "cividis")
    angles = np.deg2rad(60 * np.arange(6) + 90)
    corners = np.column_stack([np.cos(angles), np.sin(angles)]) * 1.02 / np.sqrt(3)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        part = data[data["embedding"] == name]
        places = part[["x", "y"]].to_numpy()[:, None] + corners
        ax.add_collection(PolyCollection(places, facecolors=colors.to_rgba(part["accuracy"])))
        ax.set(aspect="equal")
        ax.autoscale_view()
        known = f"\nneighbours: r = {neighbors[name]:.2f}" if name in neighbors else ""
        ax.set_title(_two_lines(name) + known)
    _colorbar(figure, axes, colors, "median test accuracy in the table", "both")
    alt = f"Maps of {len(names)} embeddings, coloured by the accuracy of the cells."
    if neighbors:
        most = max(neighbors, key=lambda name: neighbors[name])
        alt += f" Accuracies of neighbours are most alike in {MODEL_LABELS[most]}."
    return figure.tell(alt, data)


@own_style()
def search_curves(curves: pd.DataFrame, time_unit: str, metric: str = "test") -> Chart:
    """Mean regret over simulated time with its interval, a line per search (Figs 5 and 6).

    Columns `embedding`, `time`, `mean`, `low`, `high`, regrets on a log axis.
    """
    data = columns_of(curves, "embedding", "time", "mean", "low", "high").dropna()
    figure, [[ax]] = chart(height=3.9)
    for name in in_order(data["embedding"]):
        rows, (_, color, line, _) = data[data["embedding"] == name], STYLES[name]
        x, low, high = rows["time"], rows["low"], rows["high"]
        ax.step(x, rows["mean"], color=color, ls=line, where="post", label=_two_lines(name))
        ax.fill_between(x, low, high, color=color, step="post", alpha=0.14, linewidth=0)
    ax.set(xlabel=f"simulated time ({time_unit})", ylabel=f"{metric} regret", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    plain_ticks(ax, "xy")
    figure.legend(**BELOW)
    ends = data[data["time"] == data["time"].max()].groupby("embedding")["mean"].mean()
    best, worst = ends.idxmin(), ends.idxmax()
    alt = (
        f"At the end the mean {metric} regret is least with {MODEL_LABELS[best]}, {ends[best]:.4f}"
        f", and largest with {MODEL_LABELS[worst]}, {ends[worst]:.4f}."
    )
    return figure.tell(alt, data)


@own_style()
def prediction_scores(
    scores: pd.DataFrame, metric: str, label: str, paper: pd.DataFrame | None = None
) -> Chart:
    """Scores of each embedding, a panel per sample size, a dot per training (Figs 7 and 8).

    Columns `embedding`, `size` and the metric, which the axis calls `label`; one row for each
    training. The plain encoding of the cell is a vertical line. The `mean` of the `paper` by
    `embedding` and `size` is a hollow diamond.
    """
    data = columns_of(scores, "embedding", "size", metric)
    names, sizes = in_order(data["embedding"]), sorted(data["size"].unique())
    rows = [name for name in names if name != "encoding"]
    height = len(sizes) * (0.55 + 0.27 * len(rows)) + 0.75
    figure, axes = chart(len(sizes), height=height, sharex=True)
    handles = [Line2D([], [], ls="", marker="o", color=SLATE, label="one training")]
    dashed: Any = {"color": STYLES["encoding"].color, "linestyle": "--"}
    hollow: Any = {"marker": "D", "lw": 1.1}
    for ax, size in zip(axes.flat, sizes, strict=True):
        at = data[data["size"] == size].dropna().set_index("embedding")[metric]
        for y, name in enumerate(rows):
            values = at[at.index == name]
            _, color, _, marker = STYLES[name]
            ax.scatter(values, [y] * len(values), s=38, color=color, marker=marker, lw=0)
        if "encoding" in at:
            ax.axvline(at[at.index == "encoding"].mean(), linewidth=1.6, **dashed)
        if paper is not None:
            theirs = paper[paper["size"] == size].set_index("embedding")["mean"].reindex(rows)
            ax.scatter(theirs, range(len(rows)), **hollow, s=46, facecolor="none", edgecolor=INK)
        ax.set_title(f"fitted on {number(size)} cells", loc="left")
        ax.set_yticks(range(len(rows)), [_two_lines(name) for name in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    if "encoding" in names:
        handles.append(Line2D([], [], label="plain encoding of the cell", **dashed))
    if paper is not None:
        handles.append(Line2D([], [], ls="", marker="D", mfc="none", color=INK, label="the paper"))
    figure.legend(handles=handles, **BELOW)
    means = data[data["size"] == sizes[-1]].groupby("embedding")[metric].mean().reindex(names)
    alt = f"{label}, fitted on {number(sizes[-1])} cells: " + ", ".join(
        f"{MODEL_LABELS[name]} {value:.3f}" for name, value in means.items()
    )
    return figure.tell(alt, data)


@own_style()
def sample_effects(samples: pd.DataFrame, metric: str, label: str) -> Chart:
    """A metric over the number of failed cells in the sample, a panel for each embedding.

    Columns `embedding`, `sample` (of SAMPLES), `failed` and the metric, which the axis calls
    `label`; a row for each mark.
    """
    data = columns_of(samples, "embedding", "sample", "failed", metric)
    names = in_order(data["embedding"])
    lines = ceil(len(names) / 2)
    figure, axes = chart(lines, 2, height=1.2 + 1.65 * lines, sharex=True, sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        ax.set_title(_two_lines(name))
        color = STYLES[name].color
        for sample, (_, marker, size, filled) in SAMPLES.items():
            points = data[(data["embedding"] == name) & (data["sample"] == sample)]
            x, y, face = points["failed"], points[metric], color if filled else CARD
            ax.scatter(x, y, size, face, marker=marker, edgecolor=color, linewidth=1.1)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    axes[0, 0].set_xlim(-0.7, data["failed"].max() + 0.7)
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles = []
    for text, marker, size, filled in SAMPLES.values():
        look: Any = {"ls": "", "ms": size**0.5, "marker": marker, "mfc": INK if filled else CARD}
        handles.append(Line2D([], [], color=INK, label=text, **look))
    figure.legend(handles=handles, loc="outside upper left")
    figure.supxlabel("failed cells in the sample", fontsize=style.TEXT)
    figure.supylabel(label, fontsize=style.TEXT)
    means = data.groupby("sample")[metric].mean()
    alt = f"Mean {label} over all embeddings: " + ", ".join(
        f"{text} {means[sample]:.3f}" for sample, (text, *_) in SAMPLES.items() if sample in means
    )
    return figure.tell(alt, data)


def _zoom(ax: Axes, accuracy: np.ndarray) -> tuple[float, list[Line2D]]:
    """Limit an axis of accuracies to all but the worst few, if these take much of the range.

    Returns the lower end of what is shown at its place, and the entry of the legend for the rest.
    """
    least, low, most = np.nanquantile(accuracy, [0, 0.03, 1])
    if low - least > (most - least) / 3:
        low -= 0.08 * (most - low)
        ax.set_ylim(low - 0.05 * (most - low), most + 0.04 * (most - low))
        return low, [Line2D([], [], ls="", marker="v", ms=5, color=SLATE, label=f"below {low:.2f}")]
    margin = 0.05 * (most - least or 1)
    ax.set_ylim(least - margin, most + margin)
    return -np.inf, []


def _points(ax: Axes, x: Any, y: Any, low: float, **look: Any) -> None:
    """Scatter points, those below the limit as triangles at its edge."""
    x, y = np.asarray(x), np.asarray(y)
    seen = y >= low
    ax.scatter(x[seen], y[seen], linewidth=0, **look)
    if (~seen).any():
        look |= {"marker": "v", "s": 22}
        ax.scatter(x[~seen], np.full((~seen).sum(), low), linewidth=0, **look)


def _colorbar(figure: Chart, axes: np.ndarray, colors: Any, label: str, extend: str) -> None:
    """Draw the scale of colours below all axes."""
    below: Any = {"location": "bottom", "shrink": 0.8, "aspect": 36, "pad": 0.02}
    bar = figure.colorbar(colors, ax=axes, extend=extend, label=label, **below)
    bar.outline.set_visible(False)


def _short(value: float) -> str:
    """A count in two digits or so: 1.2 M, 350 k."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{float(f'{value:.2g}') / unit:g}{name}"
    return number(round(value, 2))


def _two_lines(name: str) -> str:
    return MODEL_LABELS[name].replace(" (", "\n(")
