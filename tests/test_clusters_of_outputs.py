"""Distances against a naive loop, clusters against SciPy, accuracy ranges by hand."""

from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from ionas.benchmark.table import Table
from ionas.parameters import OutputFeatures
from ionas.space.cells import enumerate_cells
from ionas.tasks import clusters

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
                errors.append(sum(squares))
            result[a][b] = sum(errors) / images
    return np.array(result)


def of_pairs(targets):
    return clusters.distances({"train_validation": targets})["distances"]


@settings(max_examples=40, deadline=None)
@given(arrays, st.integers(1, 8))
def test_distances_agree_with_a_naive_loop(targets, block):
    with mock.patch.object(clusters, "BLOCK", block):
        found = squareform(of_pairs(targets))
    np.testing.assert_allclose(found, naive_distances(targets), rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(arrays, st.floats(0.05, 0.95))
def test_clusters_agree_with_scipy(targets, quantile):
    pairs = of_pairs(targets)
    threshold = np.quantile(pairs, quantile) + 1e-9  # SciPy joins at the threshold too
    expected = fcluster(linkage(pairs, "complete"), threshold, "distance")
    found = clusters.cluster(pairs, threshold)
    same = found[:, None] == found
    assert np.array_equal(same, expected[:, None] == expected)
    assert squareform(pairs)[same].max() <= threshold  # what complete linkage promises
    sizes = np.bincount(found)
    assert (np.diff(sizes) <= 0).all()  # numbered from the largest


def test_clusters_by_hand():
    pairs = pdist(np.array([5.0, 0.0, 0.1, 0.2, 5.1, 9.0])[:, None])
    assert clusters.cluster(pairs, 1.0).tolist() == [1, 0, 0, 0, 1, 2]
    assert clusters.cluster(pairs, 100.0).tolist() == [0] * 6


def grouped(labels, accuracy):
    return pd.DataFrame({"cluster": labels, "accuracy": accuracy, "measured": accuracy})


def test_cluster_accuracy_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    accuracy = np.array([0.9, 0.8, 1.0, 0.1, 0.1, 0.5, 0.5, 0.6])
    table = clusters.cluster_accuracy(grouped(labels, accuracy), OutputFeatures())
    expected = {"cluster": [2, 0], "size": [3, 3], "min": [0.5, 0.8], "max": [0.6, 1.0]}
    pd.testing.assert_frame_equal(table[list(expected)], pd.DataFrame(expected))
    assert table["mean"].tolist() == pytest.approx([1.6 / 3, 0.9])
    for least, count in ((1, 3), (9, 0)):
        few = OutputFeatures(min_cluster=least)
        assert len(clusters.cluster_accuracy(grouped(labels, accuracy), few)) == count


def test_ranges_of_as_many_random_networks():
    accuracy = np.arange(100) / 100
    labels = np.where(np.arange(100) < 20, 0, np.arange(100))
    table = clusters.cluster_accuracy(grouped(labels, accuracy), OutputFeatures())
    assert table["chance_min"].tolist() == pytest.approx([1 / 30], abs=0.01)  # median of the least
    assert table["chance_max"].tolist() == pytest.approx([1 - 1 / 30], abs=0.02)
    assert table["max"].tolist() == [0.19]


def test_agreement_by_hand():
    """Two clusters whose means are 0 and 1, each with a variance of 1/4 within: half and half."""
    labels = np.array([0, 0, 1, 1])
    found = clusters.accuracy_agreement(labels, np.array([-0.5, 0.5, 0.5, 1.5]))
    assert found["explained"] == pytest.approx(0.5)


def test_agreement_tells_structure_from_chance():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 10)
    related = clusters.accuracy_agreement(labels, labels + rng.normal(size=100))
    unrelated = clusters.accuracy_agreement(labels, rng.normal(size=100))
    assert related["p_value"] < 0.01 < 0.05 < unrelated["p_value"]
    assert related["chance"] == pytest.approx(9 / 99, abs=0.02)  # the mean under shuffling
    assert np.isnan(clusters.accuracy_agreement(labels, np.ones(100))["explained"])
    for seed in range(20):  # clusters of one network explain all, however they are filled
        alone = clusters.accuracy_agreement(np.arange(30), rng.normal(size=30), seed)
        assert alone["p_value"] == 1


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 0, 5, 2, 1, 4]])
def test_clusters_of_the_worst_and_the_best_by_hand(order, monkeypatch):
    """Of six networks a third is two: the worst in clusters 0 and 1, the best in 1 and 2."""
    labels = np.array([0, 1, 3, 3, 1, 2])[order]
    accuracy = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])[order]
    outputs = {"train_validation": np.ones((6, 2, 1))}

    def counts(share, least):
        monkeypatch.setattr(clusters, "EXTREME", share)
        p = OutputFeatures(min_cluster=least)
        found = clusters.summary(outputs, grouped(labels, accuracy), p)
        return found["worst"], found["best"], found["mixed"]

    assert counts(1 / 3, 1) == (2, 2, 1)
    assert counts(1 / 3, 2) == (1, 1, 1)
    assert counts(0.01, 1) == (1, 1, 0)  # one network at least


def test_comparability():
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.normal(1, 1, size=(1, 50, 4)), 6, axis=0)
    assert clusters.comparability(alike) == pytest.approx({"distance": 0, "common": 1})
    independent = clusters.comparability(rng.normal(size=(40, 500, 4)))
    assert independent == pytest.approx({"distance": 2, "common": 0}, abs=0.03)
    # A mean that all share brings networks nearer, but tells nothing of an image.
    shifted = clusters.comparability(rng.normal(3, 1, size=(40, 500, 4)))
    assert shifted == pytest.approx({"distance": 0.2, "common": 0}, abs=0.03)


@settings(max_examples=20, deadline=None)
@given(arrays)
def test_comparability_is_the_mean_distance_of_pairs(targets):
    pairs = naive_distances(targets)[np.triu_indices(len(targets), 1)]
    expected = pairs.mean() / np.square(targets.astype(float)).sum(2).mean()
    assert clusters.comparability(targets)["distance"] == pytest.approx(expected)


def test_variance_shares_by_hand():
    """Feature = image number: all variance between images; = network number: between networks."""
    images = np.broadcast_to(np.arange(4.0)[None, :, None], (3, 4, 2))
    networks = np.broadcast_to(np.arange(3.0)[:, None, None], (3, 4, 2))
    assert clusters.variance_shares(images) == pytest.approx({"images": 1, "networks": 0})
    assert clusters.variance_shares(networks) == pytest.approx({"images": 0, "networks": 1})
    # Variances 1.25 and 2/3 add up where the two do.
    both = clusters.variance_shares(images + networks)
    assert both["images"] == pytest.approx(1.25 / (1.25 + 2 / 3))
    assert both["networks"] == pytest.approx(1 - both["images"])
    assert np.isnan(clusters.variance_shares(np.ones((2, 2, 1)))["images"])


@pytest.fixture
def study():
    """Six train networks, two others, five images; network r answers r * 0.1 throughout."""
    rows = np.arange(6)
    outputs = np.broadcast_to(0.1 * rows[:, None, None], (6, 5, 2)).astype(np.float32).copy()
    outputs[:, :, 1] += np.arange(5) / 100
    networks = pd.DataFrame(
        {
            "index": np.arange(8)[::-1], "hash": list("abcdefgh"),
            "labeled": ["train"] * 6 + ["validation"] * 2,
            "test_accuracy": [0.3, 0.1, 0.2, 0.6, 0.5, 0.4, 0, 0],
        }
    )  # fmt: skip
    cells = enumerate_cells(4)[:8]
    table = Table(cells, pd.DataFrame({"test_accuracy": np.arange(8) / 10}), {})
    images = {"validation_labels": np.array([1, 0, 1, 0, 2, 9])}
    return {"train_validation": outputs}, images, networks, table


def clustered(study, p=None):
    targets, _, networks, table = study
    return clusters.cluster_networks(
        clusters.distances(targets), networks, table, p or OutputFeatures()
    )


def test_accuracies_are_the_tables_where_it_has_all(study):
    found = clustered(study)
    assert found["accuracy"].tolist() == [0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert found["measured"].tolist() == [0.3, 0.1, 0.2, 0.6, 0.5, 0.4]
    assert set(found["source"]) == {"table"}
    study[3].frame.loc[4, "test_accuracy"] = np.nan
    found = clustered(study)
    assert found["accuracy"].tolist() == found["measured"].tolist()
    assert set(found["source"]) == {"networks"}


def test_heat_maps_by_hand(study):
    targets, images, _, _ = study
    maps = clusters.heat_maps(targets, images, clustered(study), 4)
    assert maps["labels"].tolist() == [0, 0, 1, 1, 2]
    assert maps["label"].tolist() == [2]
    assert maps["accuracy"].tolist() == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    np.testing.assert_allclose(maps["on_image"][:, 0], [0.5, 0.4, 0.3, 0.2, 0.1, 0], atol=1e-6)
    np.testing.assert_allclose(maps["best"][:, 1], [0.01, 0.03, 0, 0.02, 0.04], atol=1e-6)
    np.testing.assert_allclose(maps["worst"][:, 0], [0.5] * 5)
    np.testing.assert_allclose(maps["median"][:, 0], [0.2] * 5, atol=1e-6)
    with pytest.raises(ValueError, match=r"image is 5, but there are 5 images: choose 0 to 4"):
        clusters.heat_maps(targets, images, clustered(study), 5)


def test_networks_are_clustered_by_threshold_or_rule(study):
    targets, _, networks, table = study
    pairs = clusters.distances(targets)
    np.testing.assert_allclose(pairs["distances"][:5], 2 * (0.1 * np.arange(1, 6)) ** 2, atol=1e-6)
    given = clustered(study, OutputFeatures(threshold=0.03))
    assert given["cluster"].value_counts().tolist() == [2, 2, 2]
    assert set(given["threshold"]) == {0.03}
    rule = OutputFeatures(threshold_quantile=0.6)
    by_rule = clustered(study, rule)
    assert by_rule["threshold"].iloc[0] == np.quantile(pairs["distances"], 0.6)
    scaled = {"distances": 100 * pairs["distances"]}  # the rule does not depend on the units
    by_scaled = clusters.cluster_networks(scaled, networks, table, rule)
    assert by_scaled["cluster"].equals(by_rule["cluster"])
    numbers = clusters.summary(targets, given, OutputFeatures())
    assert [numbers[name] for name in ("networks", "images", "features")] == [6, 5, 2]
    assert numbers["shares"] == clusters.variance_shares(targets["train_validation"])
    assert 0 < numbers["agreement"]["explained"] <= 1
    histogram = clusters.distance_histogram(pairs)
    assert histogram["pairs"].sum() == 15
    assert histogram["low"].iloc[0] == pytest.approx(0.02)
