"""The charts of the notebooks, in their order, from small frames and arrays; nothing is computed.

Each function says which columns it takes, and raises ValueError naming those that are missing. What
it returns shows itself in a notebook, tells in one sentence what it shows (`alt`) and holds what it
drew (`data`). Names of a user's own, of classes or titles, are written as they are.
"""

import re
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
from matplotlib.colors import LinearSegmentedColormap, Normalize
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
    ax.plot(data["rank"], data["mean"], color=INK, label="mean of the repeats")
    repeat = Line2D([], [], ls="", marker="o", ms=3, color=SLATE, label="one repeat")
    ax.legend(handles=[*ax.lines, repeat, *worst], loc="lower right")
    ax.set(xlabel="cells, from worst to best", ylabel="test accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    plain_ticks(ax, "x")
    apart, noise = np.ptp(data["mean"]), data[repeats].std(axis=1).median()
    alt = (
        f"The mean test accuracies of the cells span {apart:.3f}, which is {apart / noise:.0f} "
        f"times the standard deviation of the repeats of one cell, {noise:.4f} in the median."
    )
    return figure.tell(alt, data)


@own_style()
def accuracy_by_counts(groups: pd.DataFrame) -> Chart:
    """Quantiles of test accuracy by one property of the cells per panel, with the failed below.

    Columns `property`, `least`, `most`, `cells`, `failed`, `threshold`, `q05`, `q25`, `q50`, `q75`,
    `q95`, as of `summaries.accuracy_by_counts`.
    """
    groups_of = ("property", "least", "most", "cells", "failed", "threshold")
    data = columns_of(groups, *groups_of, *QUANTILES)
    names = list(dict.fromkeys(data["property"]))
    rows = ceil(len(names) / 2)
    ratios = {"height_ratios": [4, 1] * rows}
    figure, axes = chart(2 * rows, 2, height=2.5 * rows, sharey="row", gridspec_kw=ratios)
    pairs = [axes[2 * r : 2 * r + 2, c] for r in range(rows) for c in range(2)]
    low, high = np.floor(20 * data["threshold"].min()) / 20, np.ceil(20 * data["q95"].max()) / 20
    looks: Any = {"patch_artist": True, "boxprops": {"facecolor": PALE}, "showfliers": False}
    for (boxes, strip), name in zip(pairs, names, strict=False):
        part = data[data["property"] == name].reset_index(drop=True)
        boxes.bxp(
            part.rename(columns=QUANTILES).to_dict("records"), part.index, widths=0.66, **looks
        )
        strip.bar(part.index, 100 * part["failed"], 0.66, color=SLATE)
        boxes.set(ylim=(low, high), xticks=[])
        strip.set(ylim=(0, max(110 * data["failed"].max(), 1)), xlabel=_times(name))
        ranges = (part["least"] != part["most"]).any()
        shown = part[:: ceil(len(part) / (3 if ranges else 8))]
        strip.set_xticks(shown.index, map(_short, np.sqrt(shown["least"] * shown["most"])))
        for ax in (boxes, strip):
            ax.set_xlim(-0.6, len(part) - 0.4)
            ax.grid(axis="x", visible=False)
        strip.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    for boxes, strip in pairs[::2]:
        boxes.set_ylabel("test accuracy")
        strip.set_ylabel("failed\n(%)")
    for ax in np.ravel(pairs[len(names) :]):
        ax.set_visible(False)
    common = data[data["cells"] > 0.01 * data.groupby("property")["cells"].transform("sum")]
    medians = common.groupby("property")["q50"].agg(["min", "max"])
    most = (medians["max"] - medians["min"]).idxmax()
    alt = (
        f"Of all groups of more than 1% of the cells, those by {_times(most)} differ most: their "
        f"median test accuracies lie between {medians['min'][most]:.3f} and "
        f"{medians['max'][most]:.3f}. "
        f"In a group, the middle half still spans {(common['q75'] - common['q25']).median():.3f} "
        "(median)."
    )
    return figure.tell(alt, data)


@own_style()
def accuracy_distribution(bins: pd.DataFrame) -> Chart:
    """Test accuracy of all cells and of some of them (Fig. 9), as shares of each set.

    Columns `low`, `high`, and one of counts for each set, the largest first, as of
    `summaries.histogram`.
    """
    sets = [name for name in bins if name not in ("low", "high")]
    data = columns_of(bins, "low", "high", *sets)
    figure, [[ax]] = chart(height=3.0)
    looks: Any = (
        {"facecolor": (PALE, 0.75), "edgecolor": SLATE, "linewidth": 1, "fill": True},
        {"color": INK, "linewidth": 1.8},
        {"color": CHANCE, "linewidth": 1.8, "linestyle": "--"},
    )
    fullest = []
    for name, look in zip(sets, cycle(looks), strict=False):
        total, row = data[name].sum(), data.loc[data[name].idxmax()]
        label = f"{literal(name)} ({number(total)})"
        edges = [*data["low"], data["high"].iloc[-1]]
        ax.stairs(100 * data[name] / max(total, 1), edges, label=label, **look)
        fullest.append((f"between {row['low']:.3f} and {row['high']:.3f}", name))
    ax.set(xlabel="test accuracy", ylabel="cells (%)")
    ax.legend(loc="upper left")
    same = len({where for where, _ in fullest}) == 1
    among = [f"{where} among {name}" for where, name in fullest]
    found = f"{fullest[0][0]}, in all sets" if same and len(sets) > 1 else " and ".join(among)
    alt = (
        f"Of test accuracies from {data['low'].min():.3f} to {data['high'].max():.3f}, the most "
        f"frequent lie {found}."
    )
    return figure.tell(alt, data)


@own_style()
def image_row(images: np.ndarray, names: Sequence[str]) -> Chart:
    """Show (K, C, H, W) images, scaled for viewing, each under its name of K."""
    texts = [fill(literal(name), 18, max_lines=2, placeholder="…") for name in names]
    longest = max(len(line) for text in texts for line in text.splitlines())
    columns = min(len(texts), 10, max(2, int(72 * style.WIDTH / (6.6 * longest + 8))))
    rows, lines = ceil(len(texts) / columns), max(text.count("\n") for text in texts) + 1
    size = min(style.WIDTH / columns, 1.0)
    figure, axes = chart(rows, columns, height=rows * (size + 0.24 * lines))
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, text in zip(axes.flat, np.asarray(images, np.float64), texts, strict=False):
        scaled = (image - image.min()) / max(np.ptp(image), 1e-9)
        ax.imshow(scaled.transpose(1, 2, 0), cmap="gray_r")
        ax.set_title(text)
    height, width = np.shape(images)[2:]
    classes = ", ".join(map(literal, names))
    alt = f"One image, {width} × {height} pixels, of each of {len(names)} classes: {classes}."
    return figure.tell(alt, pd.DataFrame({"class": list(names)}))


@own_style()
def agreement(networks: pd.DataFrame) -> Chart:
    """Test accuracy of trained networks against that of their cells in the table, a point each.

    Columns `labeled` (`train` or `validation`), `table` and `here`, two accuracies.
    """
    data = columns_of(networks, "labeled", "table", "here").dropna()
    figure, [[ax]] = chart(height=3.6, width=0.8 * style.WIDTH)
    looks = {"train": (SLATE, CARD, "o"), "validation": (CARD, INK, "D")}
    for part, rows in data.groupby("labeled"):
        face, edge, marker = looks[str(part)]
        look: Any = {"facecolor": face, "edgecolor": edge, "marker": marker, "linewidth": 1}
        ax.scatter(rows["table"], rows["here"], s=26, label=f"{part} network", **look)
    (table, here), (most, top) = data[["table", "here"]].min(), data[["table", "here"]].max()
    if most >= here and top >= table:  # the line of equality is in sight
        ax.axline((table, table), slope=1, color=MUTED, linewidth=1, linestyle=":", label="equal")
    ax.set(xlabel="mean test accuracy of the cell in the table")
    ax.set(ylabel="test accuracy of the\nnetwork trained here")
    figure.legend(**BELOW)
    apart, r = (data["here"] - data["table"]).abs().mean(), data["here"].corr(data["table"])
    related = f", and Pearson's r is {r:.2f}" if np.isfinite(r) else ""
    alt = (
        f"Test accuracies reached by {len(data)} networks run from {here:.3f} to {top:.3f}, those "
        f"of their cells in the table from {table:.3f} to {most:.3f}. The two differ by "
        f"{apart:.3f} on average{related}."
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
        f"The weights fall from {weights[0]:.2f} to {weights[-1]:.2f}. The first {top_k} "
        f"contributions, which make the target, add up to {products[kept].sum():.2f}; all "
        f"{len(rank)} add up to a logit of {products.sum():.2f}."
    )
    data = pd.DataFrame({"rank": rank, "weight": weights, "contribution": products})
    return figure.tell(alt, data)


@own_style()
def feature_heatmaps(
    panels: Mapping[str, np.ndarray], rows: str, ticks: Mapping[int, str], groups: bool = False
) -> Chart:
    """Heat maps of (R, k) targets by title, on one scale: columns are the features by rank.

    Values beyond the 98th percentile of all panels share one shade; negative ones, where they
    matter, are ochre. Titles break at a comma. `rows` says what the rows are; `ticks` label some of
    them, and with `groups` a group of rows begins at each.
    """
    whole = np.concatenate([values.ravel() for values in panels.values()])
    limit = float(np.quantile(np.abs(whole), 0.98)) or 1.0
    negative = float(np.quantile(whole, 0.02)) < -0.02 * limit
    shades = LinearSegmentedColormap.from_list("", [CHANCE, CARD, INK][1 - negative :])
    scale: Any = {"cmap": shades, "vmin": -limit if negative else 0, "vmax": limit}
    texts = [t if len(t) <= 16 else f"{t:.15}…" for t in map(literal, ticks.values())]
    figure, axes = chart(1, len(panels), height=4.6, sharey=True)
    for ax, (title, values) in zip(axes[0], panels.items(), strict=True):
        drawn = ax.imshow(values, aspect="auto", interpolation="nearest", **scale)
        ax.set_title(literal(title).replace(", ", ",\n"))
        ax.grid(False)
        ax.set_xticks(range(0, values.shape[1], 3), range(1, values.shape[1] + 1, 3))
        ax.set_yticks(list(ticks), texts)
        if groups:
            ax.hlines(np.array(list(ticks)) - 0.5, -0.5, values.shape[1] - 0.5, CARD, lw=1)
    axes[0, 0].set_ylabel(rows)
    axes[0, len(panels) // 2].set_xlabel("rank of the feature")
    extend = "both" if negative else "max"
    _colorbar(figure, axes, drawn, "contribution to the true class's logit", extend)
    spreads = [
        f"{v.std(0).mean():.2f} around a mean of {v.mean():.2f} ({literal(title)})"
        for title, v in panels.items()
    ]
    alt = (
        f"Between the {rows.partition(',')[0]}, contributions of the same rank vary with a "
        f"standard deviation of {'; '.join(spreads)}."
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
    ax.set(xlabel="distance of two networks (largest 1% at the end)", ylabel="pairs")
    plain_ticks(ax, "xy")
    ax.legend()
    passed = ((threshold - data["low"]) / width).clip(0, 1)
    below = (passed * data["pairs"]).sum() / max(data["pairs"].sum(), 1)
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
    figure, [[ax]] = chart(height=3.9)
    low, worst = _zoom(ax, data["accuracy"].to_numpy())
    at, ends = np.arange(len(shown)), shown.drop(columns=["cluster", "size"]).clip(lower=low)
    dashes: Any = (0, (3, 2))
    bar: Any = {"color": PALE, "alpha": 0.6, "label": "range of the cluster"}
    frame: Any = {"fill": False, "edgecolor": CHANCE, "linewidth": 1.4, "linestyle": dashes}
    frame |= {"label": "range of as many random networks"}
    handles: list[Any] = [
        ax.bar(at, ends["max"] - ends["min"], 0.62, ends["min"], **bar),
        ax.bar(at, ends["chance_max"] - ends["chance_min"], 0.78, ends["chance_min"], **frame),
    ]
    means = [at - 0.3, at + 0.3], [ends["mean"], ends["mean"]]
    handles += ax.plot(*means, color=INK, label="mean of the cluster")[:1]
    members = [data.loc[data["cluster"] == name, "accuracy"] for name in shown["cluster"]]
    rest = data.loc[~data["cluster"].isin(shown["cluster"]), "accuracy"]
    for x, values in enumerate([*members, rest]):
        spread = 0.5 * (np.arange(1, len(values) + 1) * 0.618034 % 1 - 0.5)  # even, not random
        _points(ax, x + spread, np.sort(values), low, s=18, color=MUTED, alpha=0.8)
    many, names = len(shown) > 16, [str(size) for size in shown["size"]]
    if len(rest):
        names.append(f"{len(rest)} others" if many else f"{len(rest)}\nothers")
    ax.set_xticks(range(len(names)), names, rotation=90 if many else 0)
    ax.set(xlabel="networks in the cluster", ylabel="test accuracy of the network")
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.grid(axis="x", visible=False)
    figure.legend(handles=[*handles, *worst], **BELOW)
    narrower = (shown["max"] - shown["min"]) < (shown["chance_max"] - shown["chance_min"])
    alt = (
        f"{narrower.sum()} of {len(shown)} clusters span a narrower range of test accuracies than "
        f"as many networks drawn at random; {len(rest)} of {len(data)} networks belong to none of "
        "these clusters."
    )
    return figure.tell(alt, data)


@own_style()
def labeled_losses(curves: pd.DataFrame, model: str, rules: pd.DataFrame, label: str) -> Chart:
    """Losses on labels by epoch on a log axis, a line for each training (Figs 10 and 11).

    Columns `set` (of SETS), `seed`, `epoch`, `loss`. The model, `io` or `accuracy`, gives the hue,
    `label` says what a loss is. `rules` are answers that need no embedding, a line each: columns
    `rule`, `set` (empty if it is for every set), `loss`.
    """
    data = columns_of(curves, "set", "seed", "epoch", "loss")
    rules = columns_of(rules, "rule", "set", "loss")
    figure, [[ax]] = chart(height=4.0)
    last = data[data["epoch"] == data["epoch"].max()].groupby("set")["loss"].mean()
    names, ends = [name for name in SETS if name in last], []
    for name in names:
        look: Any = {"color": MUTED if name == "train" else STYLES[model].color}
        look |= {"linestyle": SETS[name][1], "linewidth": 1.6}
        for _, rows in data[data["set"] == name].sort_values("epoch").groupby("seed"):
            ax.plot(rows["epoch"], rows["loss"], **look)
        ax.plot([], [], label=SETS[name][0], **look)
    for rule, name, loss in rules.itertuples(index=False):
        line = SETS[name][1] if name else (0, (4, 2, 1, 2))
        ax.axhline(loss, color=INK, linestyle=line, linewidth=1.1, label=literal(rule))
    for name in names[::-1]:
        loss = f"{last[name]:#.3g}" if last[name] >= 1e-4 else number(last[name])
        end = f"{loss} on the {SETS[name][0]}"
        for rule, _, other in rules[rules["set"] == name].itertuples(index=False):
            gap = last[name] / other - 1
            end += f", {abs(gap):.0%} {'below' if gap < 0 else 'above'} the {rule}"
        ends.append(end)
    ax.set(xlabel="epoch", ylabel=fill(label, 30), yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plain_ticks(ax)
    figure.legend(**BELOW)
    return figure.tell(f"{label}, after the last epoch: {'; '.join(ends)}.", data)


@own_style()
def embedding_maps(hexagons: pd.DataFrame) -> Chart:
    """Cells in the plane, a panel per embedding; the colour of a hexagon is its median accuracy.

    Columns `embedding`, `x`, `y` (centres, in widths of a hexagon), `accuracy`, and, the same in
    all rows of an embedding, `neighbors`, the correlation of the accuracies of nearest cells, and
    `variance`, the share of it in the plane; as of `extract.maps`.
    """
    data = columns_of(hexagons, "embedding", "x", "y", "accuracy", "neighbors", "variance")
    figure, panels, names = _panels(data["embedding"], 2.55, 0.6)
    colors = ScalarMappable(Normalize(*np.quantile(data["accuracy"], [0.05, 0.95])), "cividis")
    angles = np.deg2rad(60 * np.arange(6) + 90)
    corners = np.column_stack([np.cos(angles), np.sin(angles)]) * 1.02 / np.sqrt(3)
    known = data.groupby("embedding")[["neighbors", "variance"]].first().loc[names]
    for ax, (name, (neighbors, variance)) in zip(panels, known.iterrows(), strict=True):
        part = data[data["embedding"] == name]
        places = part[["x", "y"]].to_numpy()[:, None] + corners
        ax.add_collection(PolyCollection(places, facecolors=colors.to_rgba(part["accuracy"])))
        ax.set_axis_off()
        ax.set(aspect="equal", title=f"{ax.get_title()}\nr = {neighbors:.2f}, {variance:.0%}")
        ax.autoscale_view()
    _colorbar(figure, panels, colors, "median test accuracy in the table", "both")
    alt = (
        "The correlation between the accuracies of a cell and of its nearest cell "
        f"{_between(known['neighbors'], '.2f')}."
    )
    return figure.tell(alt, data)


@own_style()
def search_curves(
    curves: pd.DataFrame, time_unit: str, at: float, trainings: pd.DataFrame | None = None
) -> Chart:
    """Mean test regret over simulated time, a line per search, on a log axis (Figs 5 and 6).

    Columns `embedding`, `time`, `mean`, `low`, `high`. Regrets `at` one time are told; where
    `trainings` (`embedding`, `mean`) has those of each, they stand beside the lines, with the
    interval over all.
    """
    data = columns_of(curves, "embedding", "time", "mean", "low", "high").dropna()
    names = in_order(data["embedding"])
    strip = [] if trainings is None else [1.0]
    ratios: Any = {"width_ratios": [2.1, *strip]}
    figure, [axes] = chart(1, 1 + len(strip), height=4.3, sharey=True, gridspec_kw=ratios)
    then = _at(data, at)
    for x, name in enumerate(names):
        rows, (_, color, line, marker) = data[data["embedding"] == name], STYLES[name]
        look: Any = {"color": color, "ls": line, "label": _two_lines(name)}
        axes[0].step(rows["time"], rows["mean"], where="post", **look)
        if trainings is not None and name in then.index:
            each = trainings.loc[trainings["embedding"] == name, "mean"]
            mean, low, high = then.loc[name]
            axes[1].bar(x, high - low, 0.8, low, color=color, alpha=0.2)
            axes[1].plot([x - 0.4, x + 0.4], [mean, mean], color=color)
            axes[1].scatter([x] * len(each), each, s=18, color=color, marker=marker, lw=0, zorder=3)
    axes[0].set(xlabel=f"simulated time ({time_unit})", ylabel="test regret", yscale="log")
    axes[0].xaxis.set_major_locator(MaxNLocator(4))
    plain_ticks(axes[0], "xy")
    if trainings is None:
        axes[0].axvline(at, color=MUTED, linewidth=1, linestyle=":")
    else:
        axes[1].set(xlabel="at the end", xticks=[])
        axes[1].grid(axis="x", visible=False)
    figure.legend(*axes[0].get_legend_handles_labels(), **BELOW)
    told = [
        f"fter {number(round(time))} {time_unit} the mean test regret of the embeddings "
        + _between(_at(data, time)["mean"].drop("random", errors="ignore"), ".4f")
        for time in ([at] if trainings is None else [at / 10, at])
    ]
    alt = f"A{'; a'.join(told)}"
    if "random" in then.index:
        alt += f"; random search reaches {then['mean']['random']:.4f}"
    return figure.tell(alt + ".", data)


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
    height = len(sizes) * (0.55 + 0.29 * len(rows)) + 0.75
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
    means = data[data["size"] == sizes[-1]].groupby("embedding")[metric].mean()
    trained = means.drop(["latent", "encoding"], errors="ignore")
    alt = f"Fitted on {number(sizes[-1])} cells, {label} {_between(trained, '.3g')}"
    for name, words in (("latent", "the whole latent matrix"), ("encoding", "the plain encoding")):
        alt += f"; {words} has {means[name]:.3g}" if name in means else ""
    return figure.tell(alt + ".", data)


@own_style()
def predictor_scores(
    scores: pd.DataFrame,
    metric: str,
    label: str,
    limit: float | None = None,
    published: pd.DataFrame | None = None,
) -> Chart:
    """Scores of predictors, a panel for each sample size, a dot for each draw, a line at the mean.

    Columns `predictor`, `sample` (of SAMPLES), `size` and the metric, which the axis calls `label`;
    predictors stand in the order of the rows. `limit` is the best that the noise of the table
    allows. The `mean` of what is `published`, by `size`, is a row of hollow diamonds.
    """
    data = columns_of(scores, "predictor", "sample", "size", metric)
    names, sizes = list(data["predictor"].unique()), sorted(data["size"].unique())
    samples = [sample for sample in SAMPLES if sample in set(data["sample"])]
    rows = [fill(name, 18) for name in names] + ["published"] * (published is not None)
    columns = min(len(sizes), 2)
    height = ceil(len(sizes) / 2) * (0.5 + 0.38 * len(rows)) + 1.1
    figure, axes = chart(ceil(len(sizes) / 2), columns, height=height, sharex=True, sharey=True)
    looks: Any = {"limit": {"color": CHANCE, "linestyle": "--", "linewidth": 1.6}}
    looks["published"] = {"marker": "D", "color": INK}
    for ax, size in zip(axes.flat, sizes, strict=False):
        for k, sample in enumerate(samples):
            _, marker, area, filled = SAMPLES[sample]
            part = data[(data["size"] == size) & (data["sample"] == sample)]
            for y, name in enumerate(names):
                values = part.loc[part["predictor"] == name, metric]
                at = y + 0.44 * (k - (len(samples) - 1) / 2)
                face = SLATE if filled else CARD
                look: Any = {"marker": marker, "edgecolor": SLATE}
                ax.scatter(values, [at] * len(values), area, face, **look)
                ax.plot([values.mean()] * 2, [at - 0.17, at + 0.17], color=INK)
        if published is not None:
            theirs = published.loc[published["size"] == size, "mean"]
            hollow: Any = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.1}
            ax.scatter(theirs, [len(names)] * len(theirs), 30, marker="D", **hollow)
        if limit is not None:
            ax.axvline(limit, **looks["limit"])
        ax.set_title(f"{number(size)} cells", loc="left")
        ax.set_yticks(range(len(rows)), rows)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.xaxis.set_major_locator(MaxNLocator(3))
    for ax in axes.flat[len(sizes) :]:
        ax.remove()
    handles = []
    for sample in samples:
        text, marker, area, filled = SAMPLES[sample]
        look = {"marker": marker, "ms": area**0.5, "mfc": SLATE if filled else CARD}
        handles.append(Line2D([], [], ls="", color=SLATE, label=text, **look))
    handles.append(Line2D([], [], color=INK, label="mean of the draws"))
    if limit is not None:
        handles.append(Line2D([], [], label="what noise allows", **looks["limit"]))
    if published is not None:
        handles.append(Line2D([], [], ls="", mfc="none", label="published", **looks["published"]))
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    figure.supxlabel(label, fontsize=style.TEXT)
    means = data[data["size"] == sizes[-1]].groupby(["sample", "predictor"])[metric].mean()
    told = [f"fitted on {SAMPLES[s][0]} it {_between(means[s], '.3f')}" for s in samples]
    alt = f"{label} of {len(names)} predictors, {number(sizes[-1])} cells: {'; '.join(told)}."
    return figure.tell(alt, data)


@own_style()
def compared_values(values: pd.DataFrame) -> Chart:
    """Values without a unit, the paper's beside those of runs, a panel for each scale.

    Columns `scale`, `name`, `run`, `paper` (NaN where it has none), `mean`, `low`, `high`; a row
    for each value of each run. Axes end near the means and the paper's values; longer intervals are
    cut.
    """
    data = columns_of(values, "scale", "name", "run", "paper", "mean", "low", "high")
    runs, scales = list(data["run"].unique()), list(data["scale"].unique())
    rows = {scale: list(data.loc[data["scale"] == scale, "name"].unique()) for scale in scales}
    counts = [len(names) for names in rows.values()]
    height = 0.25 * sum(counts) + 0.85 * len(scales) + 0.4
    figure, axes = chart(len(scales), height=height, gridspec_kw={"height_ratios": counts})
    looks = dict(zip(runs, cycle((("o", INK), ("s", SLATE), ("^", MUTED))), strict=False))
    handles = [Line2D([], [], ls="", marker="D", mfc="none", color=INK, label="the paper")]
    for run, (marker, color) in looks.items():
        handles.append(Line2D([], [], marker=marker, color=color, label=literal(run)))
    for ax, (scale, names) in zip(axes.flat, rows.items(), strict=True):
        part = data[data["scale"] == scale]
        for k, (run, (marker, color)) in enumerate(looks.items()):
            own = part[part["run"] == run].set_index("name").reindex(names)
            at = np.arange(len(names)) + 0.5 * ((k + 0.5) / len(runs) - 0.5)
            ax.hlines(at, own["low"], own["high"], color=color, linewidth=1.4)
            ax.scatter(own["mean"], at, s=30, color=color, marker=marker, lw=0, zorder=3)
        theirs = part.groupby("name")["paper"].first().reindex(names)
        hollow: Any = {"marker": "D", "s": 46, "lw": 1.2, "facecolor": "none", "edgecolor": INK}
        ax.scatter(theirs, range(len(names)), **hollow, zorder=4)
        points = part[["mean", "paper"]].to_numpy(float)
        low, high = np.nanmin(points), np.nanmax(points)
        margin = 0.25 * (high - low) or 0.1
        ax.set(xlim=(low - margin, high + margin), ylim=(len(names) - 0.5, -0.5))
        if low - margin < 0 < high + margin:
            ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_yticks(range(len(names)), [fill(name, 30) for name in names])
        ax.set_title(fill(scale, 36), loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    figure.legend(handles=handles, **BELOW)
    apart = data.assign(apart=data["mean"] - data["paper"]).dropna(subset="apart")
    means = apart.groupby(["scale", "run"], sort=False)["apart"].mean()
    alt = "Values of the runs less those of the paper, on average: " + "; ".join(
        f"{scale}, {run} {value:+.3g}" for (scale, run), value in means.items()
    )
    return figure.tell(alt, data)


@own_style()
def sample_effects(samples: pd.DataFrame, metric: str, label: str) -> Chart:
    """A metric over the number of failed cells in the sample, a panel for each embedding.

    Columns `embedding`, `sample` (of SAMPLES), `failed` and the metric, which the axis calls
    `label`; a row for each mark.
    """
    data = columns_of(samples, "embedding", "sample", "failed", metric)
    figure, panels, names = _panels(data["embedding"], 1.75, 1.3, sharex=True, sharey=True)
    for ax, name in zip(panels, names, strict=True):
        color = STYLES[name].color
        for sample, (_, marker, size, filled) in SAMPLES.items():
            points = data[(data["embedding"] == name) & (data["sample"] == sample)]
            x, y, face = points["failed"], points[metric], color if filled else CARD
            ax.scatter(x, y, size, face, marker=marker, edgecolor=color, linewidth=1.1)
    most = data["failed"].max()
    panels[0].set_xlim(-0.7, most + 0.7)
    panels[0].set_xticks(range(0, int(most) + 1, max(1, ceil(most / 4))))
    handles = []
    for text, marker, size, filled in SAMPLES.values():
        look: Any = {"ls": "", "ms": size**0.5, "marker": marker, "mfc": INK if filled else CARD}
        handles.append(Line2D([], [], color=INK, label=text, **look))
    figure.legend(handles=handles, loc="outside upper left")
    figure.supxlabel("failed cells in the sample", fontsize=style.TEXT)
    figure.supylabel(label, fontsize=style.TEXT)
    found = data.groupby(["sample", "embedding"])[metric].agg(["mean", np.ptp]).groupby("sample")
    (mean, range_), (passed, passed_range) = (
        found.mean().loc[["random", "random, passed"]].to_numpy()
    )
    alt = (
        f"On random samples of the smallest size {label} is {mean:.3f} on average over embeddings "
        f"and differs by {range_:.3f} between the best and the worst draw; without failed cells "
        f"it is {passed:.3f} and differs by {passed_range:.3f}."
    )
    return figure.tell(alt, data)


def _panels(
    embeddings: pd.Series, height: float, more: float, **subplots: Any
) -> tuple[Chart, np.ndarray, list[str]]:
    """A chart with a panel under its name for each embedding, three in a row, and their names."""
    names = in_order(embeddings)
    rows = ceil(len(names) / 3)
    figure, axes = chart(rows, 3, height=height * rows + more, **subplots)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    panels = axes.flat[: len(names)]
    for ax, name in zip(panels, names, strict=True):
        ax.tick_params(labelbottom=bool(ax in panels[-3:]))
        ax.set_title(fill(MODEL_LABELS[name], 18))
    return figure, panels, names


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


def _at(curves: pd.DataFrame, time: float) -> pd.DataFrame:
    """The last values of each search up to a time."""
    return curves[curves["time"] <= time].groupby("embedding")[["mean", "low", "high"]].last()


def _between(values: pd.Series, form: str) -> str:
    """Between which two of several embeddings or predictors their values lie."""
    found = values.dropna().sort_values()
    ends = [f"{found[n]:{form}} with {MODEL_LABELS.get(n, n)}" for n in found.index]
    return f"lies between {ends[0]}, and {ends[-1]}" if ends else "is not defined"


def _times(name: object) -> str:
    """A name in which 3x3 is written 3×3."""
    return re.sub(r"(?<=\d)x(?=\d)", "×", literal(name))


def _short(value: float) -> str:
    """A count in two digits or so: 1.2 M, 350 k."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{float(f'{value:.2g}') / unit:g}{name}"
    return number(round(value, 2))


def _two_lines(name: str) -> str:
    return fill(MODEL_LABELS[name], 25)
