"""Distances against a naive loop, clusters against SciPy, accuracy ranges by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from ionas.tasks import clusters as analysis

arrays = st.builds(
    lambda n, i, k, seed: np.random.default_rng(seed).normal(size=(n, i, k)).astype(np.float32),
    st.integers(2, 7),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 2**31),
)


def naive_distances(targets):
    count, images, width = targets.shape
    result = [[0.0] * count for _ in range(count)]
    for a in range(count):
        for b in range(count):
            errors = []
            for i in range(images):
                squares = [
                    (float(targets[a, i, f]) - float(targets[b, i, f])) ** 2 for f in range(width)
                ]
                errors.append(sum(squares) / width)
            result[a][b] = sum(errors) / images
    return np.array(result)


@settings(max_examples=40, deadline=None)
@given(arrays, st.integers(1, 8))
def test_distances_agree_with_a_naive_loop(targets, block):
    found = analysis.distances(targets, block)
    np.testing.assert_allclose(found, naive_distances(targets), rtol=1e-9, atol=1e-12)
    assert np.array_equal(found, found.T)
    assert not found.diagonal().any()


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 2), (3, 0, 2)])
def test_distances_refuse_other_shapes(shape):
    with pytest.raises(ValueError, match="expected"):
        analysis.distances(np.zeros(shape))


def test_distances_refuse_a_diverged_network():
    targets = np.zeros((3, 4, 2))
    targets[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        analysis.distances(targets)


@settings(max_examples=40, deadline=None)
@given(arrays, st.floats(0.05, 0.95))
def test_clusters_agree_with_scipy(targets, quantile):
    d = analysis.distances(targets)
    threshold = analysis.threshold_rule(d, quantile) + 1e-9  # SciPy joins at the threshold too
    expected = fcluster(linkage(squareform(d), "complete"), threshold, "distance")
    found = analysis.cluster(d, threshold)
    same = found[:, None] == found
    assert np.array_equal(same, expected[:, None] == expected)
    assert d[same].max() <= threshold  # what complete linkage promises
    sizes = np.bincount(found)
    assert (np.diff(sizes) <= 0).all()  # numbered from the largest


def test_clusters_by_hand():
    points = np.array([5.0, 0.0, 0.1, 0.2, 5.1, 9.0])
    d = abs(points[:, None] - points)
    assert analysis.cluster(d, 1.0).tolist() == [1, 0, 0, 0, 1, 2]
    assert analysis.cluster(d, 100.0).tolist() == [0] * 6
    assert analysis.cluster(d[:1, :1], 1.0).tolist() == [0]


def test_cluster_refuses():
    with pytest.raises(ValueError, match="expected"):
        analysis.cluster(np.zeros((2, 3)), 1.0)
    with pytest.raises(ValueError, match="not symmetric"):
        analysis.cluster(np.array([[0.0, 1.0], [2.0, 0.0]]), 1.0)
    with pytest.raises(ValueError, match="cannot be negative"):
        analysis.cluster(np.zeros((2, 2)), -1.0)


def test_threshold_is_a_quantile_of_the_pairs_at_every_scale():
    d = analysis.distances(np.random.default_rng(0).normal(size=(30, 5, 4)))
    threshold = analysis.threshold_rule(d, 0.25)
    pairs = [d[a, b] for a in range(30) for b in range(a)]
    assert np.mean(np.array(pairs) < threshold) == pytest.approx(0.25, abs=0.01)
    labels = analysis.cluster(d, threshold)
    assert np.array_equal(labels, analysis.cluster(100 * d, analysis.threshold_rule(100 * d, 0.25)))


@pytest.mark.parametrize(("size", "quantile"), [(1, 0.5), (3, 0.0), (3, 1.0)])
def test_threshold_refuses(size, quantile):
    with pytest.raises(ValueError, match=r"at least two|between 0 and 1"):
        analysis.threshold_rule(np.zeros((size, size)), quantile)


def test_cluster_accuracy_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    accuracy = np.array([0.9, 0.8, 1.0, 0.1, 0.1, 0.5, 0.5, 0.6])
    table = analysis.cluster_accuracy(labels, accuracy)
    expected = {"cluster": [2, 0], "size": [3, 3], "min": [0.5, 0.8], "max": [0.6, 1.0]}
    pd.testing.assert_frame_equal(table[list(expected)], pd.DataFrame(expected))
    assert table["mean"].tolist() == pytest.approx([1.6 / 3, 0.9])
    assert len(analysis.cluster_accuracy(labels, accuracy, min_size=1)) == 3
    assert analysis.cluster_accuracy(labels, accuracy, min_size=9).empty
    with pytest.raises(ValueError, match="8 cluster numbers but 2"):
        analysis.cluster_accuracy(labels, accuracy[:2])


def test_agreement_by_hand():
    """Two clusters whose means are 0 and 1, each with a variance of 1/4 within: half and half."""
    labels = np.array([0, 0, 1, 1])
    found = analysis.accuracy_agreement(labels, np.array([-0.5, 0.5, 0.5, 1.5]))
    assert found["explained"] == pytest.approx(0.5)


def test_agreement_tells_structure_from_chance():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 10)
    related = analysis.accuracy_agreement(labels, labels + rng.normal(size=100))
    unrelated = analysis.accuracy_agreement(labels, rng.normal(size=100))
    assert related["p_value"] < 0.01 < 0.05 < unrelated["p_value"]
    assert related["chance"] == pytest.approx(9 / 99, abs=0.02)  # the mean under shuffling
    assert np.isnan(analysis.accuracy_agreement(labels, np.ones(100))["explained"])
    for seed in range(20):  # clusters of one network explain all, however they are filled
        alone = analysis.accuracy_agreement(np.arange(30), rng.normal(size=30), seed)
        assert alone["p_value"] == 1


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 0, 5, 2, 1, 4]])
def test_extreme_clusters_by_hand(order):
    """Of six networks a third is two: the worst in clusters 0 and 1, the best in 1 and 2."""
    labels = np.array([0, 1, 3, 3, 1, 2])[order]
    accuracy = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])[order]
    worst, best = analysis.extreme_clusters(labels, accuracy, np.array([0, 1, 2, 3]), 1 / 3)
    assert (worst.tolist(), best.tolist()) == ([0, 1], [1, 2])
    worst, best = analysis.extreme_clusters(labels, accuracy, np.array([0, 3]), 1 / 3)
    assert (worst.tolist(), best.tolist()) == ([0], [])
    worst, best = analysis.extreme_clusters(labels, accuracy, np.arange(4), 0.01)
    assert (worst.tolist(), best.tolist()) == ([0], [2])  # one network at least


def test_comparability():
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.normal(1, 1, size=(1, 50, 4)), 6, axis=0)
    assert analysis.comparability(alike) == pytest.approx({"distance": 0, "common": 1})
    independent = analysis.comparability(rng.normal(size=(40, 500, 4)))
    assert independent == pytest.approx({"distance": 2, "common": 0}, abs=0.03)
    # A mean that all share brings networks nearer, but tells nothing of an image.
    shifted = analysis.comparability(rng.normal(3, 1, size=(40, 500, 4)))
    assert shifted == pytest.approx({"distance": 0.2, "common": 0}, abs=0.03)


@settings(max_examples=20, deadline=None)
@given(arrays)
def test_comparability_is_the_mean_distance_of_pairs(targets):
    pairs = naive_distances(targets)[np.triu_indices(len(targets), 1)]
    expected = pairs.mean() / np.square(targets.astype(float)).mean()
    assert analysis.comparability(targets)["distance"] == pytest.approx(expected)


def test_on_image():
    targets = np.arange(24).reshape(3, 4, 2)
    assert analysis.on_image(targets, 3).tolist() == [[6, 7], [14, 15], [22, 23]]
    for image in (4, -1):
        with pytest.raises(ValueError, match=f"image is {image}, but .* has 4 images.*0 to 3"):
            analysis.on_image(targets, image)


def test_variance_shares_by_hand():
    """Feature = image number: all variance between images; = network number: between networks."""
    images = np.broadcast_to(np.arange(4.0)[None, :, None], (3, 4, 2))
    networks = np.broadcast_to(np.arange(3.0)[:, None, None], (3, 4, 2))
    assert analysis.variance_shares(images) == pytest.approx({"images": 1, "networks": 0})
    assert analysis.variance_shares(networks) == pytest.approx({"images": 0, "networks": 1})
    # Variances 1.25 and 2/3 add up where the two do.
    both = analysis.variance_shares(images + networks)
    assert both["images"] == pytest.approx(1.25 / (1.25 + 2 / 3))
    assert both["networks"] == pytest.approx(1 - both["images"])
    assert np.isnan(analysis.variance_shares(np.ones((2, 2, 1)))["images"])
