"""What the charts show: the values of their frames, names as they are, one order, one look."""

import base64
import json
import os
import subprocess
import sys
import warnings
from functools import cache
from io import StringIO
from itertools import pairwise, product

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from ionas import plots
from ionas.benchmark import summaries
from ionas.benchmark.table import load_table
from ionas.plots import style

CLASSES = ["$x_$", "猫と犬", "a\nb", r"\frac{", "automobile", *["horse"] * 5]
EMBEDDINGS = ["encoding", "arch2vec", "io_mean", "accuracy_flatten", "io_flatten"]  # in disorder
ORDER = ["io_flatten", "io_mean", "accuracy_flatten", "arch2vec", "encoding"]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def frame(**levels: list) -> pd.DataFrame:
    """Every combination of these values, a row each."""
    return pd.DataFrame(product(*levels.values()), columns=list(levels))


def scores() -> pd.DataFrame:
    every = frame(embedding=EMBEDDINGS, size=[10, 5000], training_seed=[1, 2])
    return every.assign(pearson=np.random.default_rng(0).random(len(every)))


def curves() -> pd.DataFrame:
    every = frame(embedding=EMBEDDINGS, time=[1, 2, 4])
    mean = 0.1 / every["time"]
    return every.assign(mean=mean, low=mean / 2, high=2 * mean)


def ends() -> pd.DataFrame:
    """Regrets at the end of two trainings of each embedding."""
    every = frame(embedding=EMBEDDINGS[1:], training=["1", "2"])
    return every.assign(mean=np.linspace(0.02, 0.03, len(every)))


def losses() -> pd.DataFrame:
    every = frame(set=["train", "unseen_networks"], seed=[1, 2], epoch=[1, 2, 3])
    return every.assign(loss=np.linspace(0.001, 0.9, len(every)))


def samples() -> pd.DataFrame:
    every = frame(embedding=EMBEDDINGS, sample=["random", "random, passed", "paper", "passed"])
    failed = every.groupby("embedding").cumcount()
    return every.assign(failed=failed, pearson=0.1 * failed)


def predicted() -> pd.DataFrame:
    """Two draws of two predictors, at two sizes, with failed cells and without them."""
    every = frame(
        predictor=["forest, plain encoding", "Gaussian process, structure"],
        sample=["random", "random, passed"], size=[10, 5000], draw=[0, 1],
    )  # fmt: skip
    return every.assign(kendall=np.linspace(0.3, 0.8, len(every)))


def published() -> pd.DataFrame:
    return pd.DataFrame({"size": [10, 10, 5000], "mean": [0.2, 0.4, 0.7]})


def hexagons() -> pd.DataFrame:
    points, accuracy = np.random.default_rng(0).normal(size=(300, 2)), np.linspace(0.5, 0.9, 300)
    found = summaries.hexagon_medians(points, accuracy, 8).assign(neighbors=0.5, variance=0.4)
    return pd.concat([found.assign(embedding=name) for name in EMBEDDINGS])


def rules() -> pd.DataFrame:
    rows = [("mean target", "", 0.5), ("image alone", "unseen_networks", 0.4)]
    return pd.DataFrame(rows, columns=["rule", "set", "loss"])


def clustered(sizes: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Networks in clusters of these sizes, and the clusters of three or more."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    networks = pd.DataFrame({"cluster": labels, "accuracy": np.linspace(0.5, 0.9, len(labels))})
    shown = networks.groupby("cluster")["accuracy"].agg(["size", "min", "mean", "max"])
    shown = shown[shown["size"] >= 3].reset_index()
    return networks, shown.assign(chance_min=0.55, chance_max=0.85)


@cache
def every_chart() -> dict[str, plots.Chart]:
    table, rng = load_table("digits"), np.random.default_rng(0)
    weights = np.sort(rng.normal(size=33))[::-1]
    bins = summaries.histogram({"pairs": rng.random(50)}, 10)
    accuracies = {"all cells": rng.random(99), "$labeled_$ train cells": rng.random(9)}
    return {
        "rank": plots.noise_and_signal(summaries.accuracy_by_rank(table, 50)),
        "gallery": plots.cell_gallery(summaries.extreme_cells(table)),
        "counts": plots.accuracy_by_counts(summaries.accuracy_by_counts(table)),
        "distribution": plots.accuracy_distribution(summaries.histogram(accuracies)),
        "images": plots.image_row(rng.random((10, 3, 8, 8)), CLASSES),
        "agreement": plots.agreement(
            pd.DataFrame({"labeled": ["train", "validation"], "table": [0.5, 0.6], "here": 0.4})
        ),
        "contributions": plots.ordered_contributions(weights, weights, 10),
        "heatmaps": plots.feature_heatmaps(
            {"worst, $a_$": rng.normal(size=(9, 10)), "best, 猫": rng.normal(size=(9, 10))},
            "images", {0: CLASSES[0], 4: CLASSES[1]}, groups=True,
        ),
        "distances": plots.distance_histogram(bins, 0.3),
        "clusters": plots.clusters(*clustered([3, 1, 1])),
        "losses": plots.labeled_losses(losses(), "io", rules(), "loss"),
        "maps": plots.embedding_maps(hexagons()),
        "search": plots.search_curves(curves(), "seconds", 4, ends()),
        "shifted": plots.search_curves(curves(), "seconds", 2),
        "scores": plots.prediction_scores(scores(), "pearson", "r"),
        "predictors": plots.predictor_scores(predicted(), "kendall", "τ", 0.9, published()),
        "one size": plots.predictor_scores(predicted().query("size == 10"), "kendall", "τ"),
        "samples": plots.sample_effects(samples(), "pearson", "r"),
    }  # fmt: skip


def texts(chart: plots.Chart) -> list[mpl.text.Text]:
    found = chart.findobj(mpl.text.Text)
    return [text for text in found if text.get_text() and text.get_visible()]


# --- the table of styles ----------------------------------------------------------------------


def contrast(*colors: str) -> float:
    value = np.array([mpl.colors.to_rgb(color) for color in colors])
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", plots.STYLES)
def test_colors_stand_out_on_the_card_and_on_the_dark_page(name):
    color = plots.STYLES[name].color
    assert contrast(color, style.CARD) >= 3
    assert contrast(color, "#14181e") >= 3


def test_hues_of_models_are_used_for_nothing_else():
    of_models = {look.color for look in plots.STYLES.values()}
    for name in ("rank", "gallery", "counts", "distribution", "contributions", "clusters"):
        chart = every_chart()[name]
        for artist in chart.findobj(mpl.patches.Patch) + chart.findobj(mpl.lines.Line2D):
            get = getattr(artist, "get_facecolor", None) or artist.get_color
            assert mpl.colors.to_hex(get()) not in of_models


def test_embeddings_have_one_order():
    assert style.in_order(EMBEDDINGS) == ORDER
    labels = [plots.STYLES[name].label for name in ORDER]
    (ax,) = plots.search_curves(curves(), "s", 4).axes
    legend = [text.replace("\n", " ") for text in ax.get_legend_handles_labels()[1]]
    assert legend == labels
    for ax in plots.prediction_scores(scores(), "pearson", "r").axes:
        assert [text.get_text() for text in ax.get_yticklabels()] == labels[:-1]
    titles = [ax.get_title() for ax in plots.sample_effects(samples(), "pearson", "r").axes]
    assert [title.replace("\n", " ") for title in titles] == labels
    summary = scores().query("training_seed == 1").assign(mean=0.5, low=0.4, high=0.6)
    assert plots.interval_table(summary, "").frame.index.tolist() == labels


def test_an_unknown_embedding_is_named():
    with pytest.raises(ValueError, match="no style for gcn"):
        plots.search_curves(curves().replace("io_mean", "gcn"), "s", 4)


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"needs the columns low, high; there are: embedding"):
        plots.search_curves(curves().drop(columns=["low", "high"]), "s", 4)


# --- every chart ------------------------------------------------------------------------------


def test_every_chart_tells_what_it_shows_and_holds_its_data():
    for name, chart in every_chart().items():
        assert len(chart.alt) > 20, name
        assert "nan" not in chart.alt, chart.alt
        data, metadata = chart._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
        assert metadata["image/png"]["alt"] == data["text/plain"] == chart.alt
        assert len(pd.read_csv(StringIO(data["text/csv"]))) == len(chart.data) > 0


def test_text_is_readable_where_a_chart_is_350_pixels_wide():
    for name, chart in every_chart().items():
        for text in texts(chart):
            pixels = text.get_fontsize() / 72 / chart.get_figwidth() * 350
            assert pixels >= 9, (name, text.get_text())


def test_nothing_leaves_the_chart():
    for name, chart in every_chart().items():
        chart.canvas.draw()
        parts = [ax for ax in chart.axes if ax.get_visible()] + chart.legends + chart.texts
        for part in parts:
            box, whole = part.get_tightbbox(), chart.bbox.padded(1)
            joined = mpl.transforms.Bbox.union([box, whole])
            assert joined.bounds == pytest.approx(whole.bounds), (name, part)


# --- names of the user's ----------------------------------------------------------------------


def test_names_are_written_as_they_are():
    figure = plots.image_row(np.zeros((10, 1, 8, 8)), CLASSES)
    figure.png()
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0] == "$x_$"
    assert titles[1] in ("猫と犬", r"\u732b\u3068\u72ac")  # by the fonts of the machine
    assert titles[2] == r"a\nb"
    assert titles[3] == r"\frac{"
    assert not any(text.get_parse_math() for text in texts(figure))


def test_a_glyph_that_no_font_has_is_escaped():
    assert style.literal("é ß × Ω") == "é ß × Ω"
    assert style.literal("\U00012345\x07") == r"\U00012345\x07"


def test_another_font_writes_what_the_first_cannot(monkeypatch):
    other = mpl.font_manager.get_font(mpl.font_manager.findfont("STIXGeneral")).get_charmap()
    first = mpl.font_manager.get_font(mpl.font_manager.findfont("DejaVu Sans")).get_charmap()
    char = next(chr(k) for k in sorted(set(other) - set(first)) if chr(k).isprintable())
    try:
        for fonts, wanted in ((("no such font",), ascii(char)[1:-1]), (("STIXGeneral",), char)):
            monkeypatch.setattr(style, "FONTS", fonts)
            style.fonts.cache_clear()
            style._glyphs.cache_clear()
            figure = plots.image_row(np.zeros((1, 1, 8, 8)), [char])
            assert figure.axes[0].get_title() == wanted
            figure.png()  # a glyph that is missing would warn
    finally:
        style.fonts.cache_clear()
        style._glyphs.cache_clear()


def test_names_of_classes_do_not_meet():
    names = ["airplane", "automobile", "a name of a class that is long", *["horse"] * 7]
    figure = plots.image_row(np.random.default_rng(0).random((10, 3, 8, 8)), names)
    figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in figure.axes if ax.get_title()]
    same_row = [(a, b) for a, b in pairwise(boxes) if abs(a.y0 - b.y0) < 5]
    assert len(same_row) >= 5
    assert min(right.x0 - left.x1 for left, right in same_row) > 2


# --- independence of the user's settings ------------------------------------------------------

DRAW = """
import hashlib, sys
import pandas as pd
from ionas import plots
if sys.argv[1] == "styled":
    plots.use_style()
frame = pd.DataFrame({"labeled": ["train"] * 2, "table": [0.5, 0.6], "here": [0.123456789, 0.7]})
print(hashlib.sha256(plots.agreement(frame).png()).hexdigest())
print(frame)
print("torch" in sys.modules, "ionas.embedding" in sys.modules, "ionas.benchmark" in sys.modules)
"""
HOSTILE = """
no.such.key: 3
axes.linewidth: maybe
text.usetex: True
backend: TkAgg
font.family: serif
font.size: 30
axes.grid: False
axes.prop_cycle: cycler('color', ['r'])
figure.dpi: 30
savefig.dpi: 30
savefig.bbox: tight
savefig.transparent: True
lines.linewidth: 9
axes.formatter.use_mathtext: True
"""


def drawn(tmp_path, rc: str, *, styled: bool, startup: str = "") -> list[str]:
    (tmp_path / "matplotlibrc").write_text(rc)
    env = os.environ | {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "MPLBACKEND": ""}
    command = [sys.executable, "-c", startup + DRAW, "styled" if styled else "plain"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert not done.stderr
    return done.stdout.splitlines()


def test_settings_of_the_user_change_nothing(tmp_path):
    options = "import pandas; pandas.set_option('display.precision', 1)\n"
    wanted = drawn(tmp_path, "", styled=True)
    assert drawn(tmp_path, HOSTILE, styled=True, startup=options) == wanted
    assert drawn(tmp_path, HOSTILE, styled=False)[0] == wanted[0]
    assert wanted[-1] == "False False False"


def test_drawing_leaves_the_settings_of_others_alone():
    with mpl.rc_context({"font.size": 30}):
        before = dict(mpl.rcParams)
        plots.distance_histogram(summaries.histogram({"pairs": np.arange(9.0)}, 3), 1.0).png()
        assert dict(mpl.rcParams) == before


# --- single charts ----------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "scale"), [(33, "linear"), (513, "log")])
def test_contributions_keep_the_first_ones_in_sight(count, scale):
    rng = np.random.default_rng(0)
    weights = np.sort(rng.normal(size=count))[::-1]
    products = weights * rng.exponential(size=count)
    (ax,) = plots.ordered_contributions(weights, products, 10).axes
    kept, dropped = ax.containers
    assert [bar.get_height() for bar in kept] == products[:10].tolist()
    assert [bar.get_height() for bar in dropped] == products[10:].tolist()
    assert ax.lines[0].get_ydata().tolist() == weights.tolist()
    assert ax.get_xscale() == scale
    left, right = ax.transData.transform([[0.6, 0], [10.4, 0]])[:, 0]
    assert right - left > 0.25 * ax.get_window_extent().width


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1, 1, 1, 1], ["4\nothers"]),  # no cluster of three
        ([4, 3], ["4", "3"]),  # no network left over
        ([3, 1], ["3", "1\nothers"]),
        ([3] * 30 + [1], ["3"] * 30 + ["1 others"]),
    ],
)
def test_clusters_show_every_network_once(sizes, expected):
    networks, shown = clustered(sizes)
    (ax,) = plots.clusters(networks, shown).axes
    points = np.concatenate([dots.get_offsets()[:, 1] for dots in ax.collections])
    assert sorted(points) == networks["accuracy"].tolist()
    assert [label.get_text() for label in ax.get_xticklabels()] == expected
    low, high = ax.get_ylim()
    assert low < 0.5 - 0.01  # the worst network is not cut at the edge
    assert high > 0.9 + 0.01


def test_failed_networks_are_drawn_at_the_edge():
    accuracy = np.r_[0.1, np.linspace(0.9, 0.95, 99)]
    networks, shown = clustered([1] * 100)
    (ax,) = plots.clusters(networks.assign(accuracy=accuracy), shown).axes
    low, _ = ax.get_ylim()
    assert 0.85 < low < 0.9
    above, below = (dots.get_offsets()[:, 1] for dots in ax.collections)
    assert sorted(above) == accuracy[1:].tolist()
    assert len(below) == 1
    assert below[0] > low


def test_scores_show_every_training_and_the_encoding():
    every = scores()
    every.loc[every["embedding"] == "io_mean", "pearson"] = np.nan  # not defined: an empty row
    for ax, size in zip(
        plots.prediction_scores(every, "pearson", "r").axes, (10, 5000), strict=True
    ):
        values = every[every["size"] == size].dropna().groupby("embedding")["pearson"].agg(list)
        for y, (name, marks) in enumerate(zip(ORDER[:-1], ax.collections, strict=True)):
            wanted = [[value, y] for value in values.get(name, [])]
            assert marks.get_offsets().tolist() == wanted
        assert ax.lines[0].get_xdata() == pytest.approx([np.mean(values["encoding"])] * 2)
    plots.prediction_scores(every.assign(pearson=np.nan), "pearson", "r").png()


def test_predictors_show_every_draw_the_limit_and_what_is_published():
    every = predicted()
    drawn = plots.predictor_scores(every, "kendall", "τ", 0.9, published())
    for ax, size in zip(drawn.axes, (10, 5000), strict=True):
        rows = every[every["size"] == size].groupby(["sample", "predictor"], sort=False)["kendall"]
        marks = [dots.get_offsets()[:, 0].tolist() for dots in ax.collections]
        wanted = {key: list(values) for key, values in rows}
        samples, names = ("random", "random, passed"), list(every["predictor"].unique())
        assert marks[:-1] == [wanted[sample, name] for sample in samples for name in names]
        assert marks[-1] == published().loc[published()["size"] == size, "mean"].tolist()
        assert ax.lines[-1].get_xdata() == [0.9, 0.9]


def test_samples_show_every_mark():
    ax = plots.sample_effects(samples(), "pearson", "r").axes[0]
    marks = [dots.get_offsets().tolist() for dots in ax.collections]
    assert marks == [[[k, 0.1 * k]] for k in range(4)]


def test_losses_have_a_line_for_each_training_and_each_rule():
    every = losses()
    chart = plots.labeled_losses(every, "io", rules(), "Loss")
    (ax,) = chart.axes
    drawn_lines = [line for line in ax.lines if len(line.get_xdata()) == 3]
    wanted = [rows["loss"].tolist() for _, rows in every.groupby(["set", "seed"])]
    assert [line.get_ydata().tolist() for line in drawn_lines] == wanted
    assert {line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 2} == {0.5, 0.4}
    assert "0.777 on the unseen networks, 94% above the image alone;" in chart.alt


def test_regrets_at_the_end_stand_beside_the_searches():
    lines, strip = plots.search_curves(curves(), "s", 4, ends()).axes
    each = ends().groupby("embedding")["mean"].agg(list)
    for x, (name, marks) in enumerate(zip(ORDER, strip.collections, strict=True)):
        assert marks.get_offsets().tolist() == [[x, value] for value in each.get(name, [])]
    assert [line.get_ydata()[-1] for line in lines.lines] == [0.1 / 4] * 5
    assert [bar.get_y() for bar in strip.patches] == pytest.approx([0.1 / 8] * 5)


@pytest.mark.parametrize(("low", "high"), [(0.55, 1.02), (0.01, 0.9), (1e-4, 20)])
def test_a_log_axis_has_enough_ticks(low, high):
    _, [[ax]] = style.chart(height=2)
    ax.set(yscale="log", ylim=(low, high))
    style.plain_ticks(ax)
    assert 4 <= len(ax.get_yticks()) <= 8


def test_a_log_axis_has_readable_ticks():
    (ax,) = plots.search_curves(curves(), "s", 4).axes
    ticks = [text.get_text() for text in ax.get_yticklabels() if text.get_text()]
    assert 4 <= len(ticks) <= 8
    assert [float(text) for text in ticks] == ax.get_yticks().tolist()
    assert not [text for text in ax.get_yticklabels(minor=True) if text.get_text()]


def test_a_map_has_the_frames_hexagons():
    every = hexagons()
    axes = [ax for ax in plots.embedding_maps(every).axes if ax.collections and ax.get_title()]
    assert len(axes) == len(ORDER)
    one = every[every["embedding"] == ORDER[0]]
    centers = [path.vertices[:6].mean(0) for path in axes[0].collections[0].get_paths()]
    np.testing.assert_allclose(centers, one[["x", "y"]].to_numpy(), atol=1e-9)


def test_edges_pass_beside_boxes():
    """An edge over a layer has a way point there, apart from the boxes of the layer."""
    from ionas.plots.cell import BOX, cell_layout

    matrix = np.zeros((5, 5), int)
    for edge in [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (0, 3), (1, 4)]:
        matrix[edge] = 1
    points, routes = cell_layout(matrix)
    assert sorted((route[0], route[-1]) for route in routes) == sorted(
        map(tuple, np.argwhere(matrix))
    )
    for route in routes:
        assert (np.diff(points[route][:, 1]) > 0).all()  # downward, layer by layer
        for way in route[1:-1]:
            boxes = points[:5][points[:5, 1] == points[way, 1]]
            assert (np.abs(boxes[:, 0] - points[way, 0]) > BOX[0] / 2).all()


def test_cells_of_the_table_can_all_be_drawn():
    rows = summaries.extreme_cells(load_table("digits"), 3)
    chart = plots.cell_gallery(rows)
    titles = [text.get_text() for text in texts(chart)]
    assert [title for title in titles if title in set(rows["title"])] == rows["title"].tolist()
    operations = sum(len(text.split(",")) for text in rows["operations"])
    assert len(chart.axes[0].findobj(mpl.patches.FancyBboxPatch)) == operations


# --- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.5, 0.4, 0.6), "0.500 ±\u00a00.100"),
        ((0.5, 0.4, 0.9), "0.500 [0.400,\u00a00.900]"),
        ((0.5, np.nan, np.nan), "0.500"),
        ((np.nan, np.nan, np.nan), "–"),
    ],
)
def test_interval(values, text):
    assert plots.interval(*values) == text


def test_an_interval_has_the_form_of_its_mean():
    assert plots.interval(-0.25, -0.3, -0.2, "+.1%") == "-25.0% ±\u00a05.0%"


def test_a_table_has_intervals_and_the_best_in_bold():
    rows = [("encoding", 10_000, 0.5, np.nan, np.nan), ("io_mean", 10_000, 0.2, 0.1, 0.3)]
    summary = pd.DataFrame(rows, columns=["embedding", "size", "mean", "low", "high"])
    table = plots.interval_table(summary, "r & more", form=".2f", best="most")
    assert table.frame.index.tolist() == ["IO model, mean", "Plain encoding of the cell"]
    assert table.frame["10,000"].tolist() == ["0.20 ±\u00a00.10", "<b>0.50</b>"]
    assert "<caption>r &amp; more</caption>" in table._repr_html_()
    assert "<td><b>0.50</b></td>" in table._repr_html_()
    assert "<b>" not in repr(table)
    least = plots.interval_table(summary, "", best="least").frame["10,000"]
    assert least["IO model, mean"].startswith("<b>")
    with pytest.raises(ValueError, match="several lines"):
        plots.interval_table(pd.concat([summary, summary]), "")


def test_a_table_takes_the_columns_that_have_heads():
    every = frame(embedding=["arch2vec", "io_mean"], metric=["rmse", "kendall", "pearson"])
    heads = {"pearson": "Pearson's r", "rmse": "RMSE"}
    summary = every.assign(mean=[1.0, 2, 3, 4, 5, 6], low=np.nan, high=np.nan)
    table = plots.interval_table(summary, "", columns="metric", heads=heads, form=".0f").frame
    assert table.columns.tolist() == ["Pearson's r", "RMSE"]
    assert table.to_numpy().tolist() == [["6", "4"], ["3", "1"]]


def test_a_table_of_trainings_has_each_and_their_mean():
    values = frame(set=["b", "a"], training=[1, 2]).assign(value=[0.1, 0.3, np.nan, 0.5])
    summary = pd.DataFrame({"set": ["a", "b"], "mean": [0.5, 0.2], "low": [np.nan, 0.1]})
    beside = pd.DataFrame({"the paper": ["-1.0%"]}, index=["a"])
    options = {"rows": "set", "form": "+.0%", "beside": beside}
    table = plots.training_table(values, summary.assign(high=[np.nan, 0.3]), "", **options).frame
    assert table.columns.tolist() == ["the paper", "1", "2", "mean"]
    assert table.loc["a"].tolist() == ["-1.0%", "–", "+50%", "+50%"]
    assert table.loc["b"].tolist() == ["–", "+10%", "+30%", "+20% ±\u00a010%"]


def test_a_sheet_has_plain_numbers_or_those_of_its_form():
    values = pd.DataFrame({"cells": [2532.0, np.nan], "loss": [0.5, 0.25]}, ["other", "io"])
    table = plots.sheet(values, "", {"loss": ".2f"}, best="least").frame
    assert table.index.tolist() == ["IO model", "other"]
    assert table["cells"].tolist() == ["–", "<b>2,532</b>"]
    assert table["loss"].tolist() == ["<b>0.25</b>", "0.50"]
    assert plots.sheet(values.T, "").frame.columns.tolist() == ["other", "IO model"]


# --- in a kernel ------------------------------------------------------------------------------


def test_a_chart_shows_itself_in_a_notebook_whatever_the_backend():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    make = "plots.distance_histogram(summaries.histogram({'pairs': [1., 2.]}, 2), 1.0)"
    cells = [
        "from ionas import plots\nfrom ionas.benchmark import summaries\nplots.use_style()",
        make,
        f"plots.show({make}, 'my words')\n1",
    ]
    v4 = nbformat.v4
    book = v4.new_notebook(cells=[v4.new_code_cell(source) for source in cells])
    env = os.environ | {"MPLBACKEND": "Agg"}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute(env=env)
    _, value, told = book.cells
    for output in (value.outputs[0], told.outputs[0]):
        assert output.data["image/png"]
        assert output.data["text/csv"].startswith("low,high,pairs")
    assert len(value.outputs) == 1
    assert told.outputs[0].metadata["image/png"]["alt"] == "my words"
    json.dumps(book)
