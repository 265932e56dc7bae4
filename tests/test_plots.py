"""What the charts of notebooks 2 to 4 show, at the sizes where they change."""

from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ionas import plots
from ionas.tasks import clusters as analysis


@pytest.fixture(autouse=True)
def close_figures():
    mpl.use("agg")
    yield
    plt.close("all")


def test_names_of_classes_do_not_meet():
    names = ["airplane", "automobile", *["horse"] * 8]
    figure = plots.image_row(np.random.default_rng(0).random((10, 3, 8, 8)), np.arange(10), names)
    figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in figure.axes]
    gaps = [right.x0 - left.x1 for left, right in pairwise(boxes)]
    assert min(gaps) > 2


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


def cluster_labels(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


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
    labels = np.repeat(np.arange(len(sizes)), sizes)
    accuracy = np.linspace(0.5, 0.9, len(labels))
    shown = analysis.cluster_accuracy(labels, accuracy)
    (ax,) = plots.clusters(labels, accuracy, shown).axes
    points = np.concatenate([dots.get_offsets()[:, 1] for dots in ax.collections])
    assert sorted(points) == accuracy.tolist()
    assert cluster_labels(ax) == expected
    low, high = ax.get_ylim()
    assert low < 0.5 - 0.01  # the worst network is not cut at the edge
    assert high > 0.9 + 0.01
