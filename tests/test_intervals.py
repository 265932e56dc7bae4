"""Intervals and comparisons by hand, against SciPy, and by how often they cover the truth."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ionas.tasks.embeddings import split_names
from ionas.tasks.intervals import (
    all_hold,
    bootstrap,
    holds,
    judge,
    over_seeds,
    paired_differences,
    told,
)


def test_names_tell_embedding_and_training():
    names = split_names(["io_mean_seed2", "arch2vec_original_seed13", "encoding"])
    assert names.index.tolist() == ["io_mean_seed2", "arch2vec_original_seed13", "encoding"]
    assert names["embedding"].tolist() == ["io_mean", "arch2vec_original", "encoding"]
    assert names["training_seed"].tolist() == [2, 13, pd.NA]


def test_intervals_over_seeds_are_those_of_scipy():
    values = {"io": [0.2, 0.6, 0.1], "accuracy": [0.4], "undefined": [np.nan, np.nan]}
    rows = [(model, seed, v) for model, all_ in values.items() for seed, v in enumerate(all_)]
    table = over_seeds(pd.DataFrame(rows, columns=["model", "seed", "value"]), ["model"])
    io, accuracy, undefined = (row for _, row in table.iterrows())
    low, high = scipy.stats.t.interval(
        0.95, 2, np.mean(values["io"]), scipy.stats.sem(values["io"])
    )
    assert [io["mean"], io["low"], io["high"], io["seeds"]] == pytest.approx([0.3, low, high, 3])
    assert accuracy[["mean", "seeds"]].tolist() == [0.4, 1]
    assert accuracy[["std", "low", "high"]].isna().all()
    assert np.isnan(undefined["mean"])
    assert undefined["seeds"] == 0


def test_intervals_over_few_seeds_cover_the_truth():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"study": np.repeat(np.arange(2000), 3), "value": rng.normal(size=6000)})
    found = over_seeds(rows, ["study"])
    assert ((found["low"] < 0) & (found["high"] > 0)).mean() == pytest.approx(0.95, abs=0.02)


def test_differences_are_taken_within_a_training():
    rows = [
        ("io", 1, 5.0), ("io", 2, 9.0), ("arch2vec", 2, 7.0), ("arch2vec", 1, 4.0),
        ("arch2vec", 3, 1.0), ("io", 3, np.nan), ("encoding", None, 10.0),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["embedding", "training_seed", "value"])
    frame["training_seed"] = frame["training_seed"].astype("Int64")

    def values(first, second):
        found = paired_differences(frame, second, ["training_seed"])
        found = found[found["embedding"] == first]
        return dict(zip(found["training_seed"], found["value"], strict=True))

    assert values("io", "arch2vec") == {1: 1, 2: 2}
    assert values("arch2vec", "io") == {1: -1, 2: -2}
    assert values("encoding", "arch2vec") == {1: 6, 2: 3, 3: 9}
    assert values("arch2vec", "encoding") == {1: -6, 2: -3, 3: -9}


def test_pairs_also_agree_in_other_columns():
    frame = pd.DataFrame({
        "embedding": ["a", "a", "b", "b"], "training_seed": pd.array([1, 1, None, None], "Int64"),
        "seed": [0, 1, 1, 0], "value": [1.0, 2, 10, 20],
    })  # fmt: skip
    found = paired_differences(frame, "a", ["training_seed", "seed"])
    assert found.sort_values("seed")["value"].tolist() == [19, 8]
    assert found["training_seed"].tolist() == [1, 1]


def test_bootstrap_over_runs():
    rng = np.random.default_rng(0)
    runs = rng.normal([0, 5], size=(200, 2))
    mean, low, high = bootstrap([runs], seed=1)
    np.testing.assert_allclose(mean, runs.mean(0))
    half = 1.96 * runs.std(0) / np.sqrt(200)
    np.testing.assert_allclose(high - mean, half, rtol=0.15)
    np.testing.assert_allclose(mean - low, half, rtol=0.15)
    again = bootstrap([runs], seed=1)
    assert all(map(np.array_equal, (mean, low, high), again))


def test_bootstrap_over_trainings_shows_how_they_differ():
    trainings = [np.full((50, 1), value) for value in (1.0, 2.0, 6.0)]
    mean, low, high = bootstrap(trainings)
    assert (mean, low, high) == (3, 1, 6)
    alone = bootstrap([np.ones((1, 2))])
    assert alone[0].tolist() == [1, 1]
    assert np.isnan(alone[1:]).all()


@pytest.mark.parametrize(
    ("low", "high", "greater", "less", "same"),
    [
        (0.1, 0.3, True, False, False),
        (0.01, 0.3, True, False, None),
        (0.01, 0.03, True, False, True),  # surely greater, and surely by little
        (-0.03, 0.03, False, False, True),
        (-0.03, 0.3, None, False, None),
        (-0.3, 0.3, None, None, None),
        (-0.3, -0.1, False, True, False),
        (np.nan, np.nan, None, None, None),
    ],
)
def test_claims_by_hand(low, high, greater, less, same):
    found = [holds(claim, low, high, margin=0.05) for claim in ("greater", "less", "same")]
    assert found == [greater, less, same]


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_claims_mirror_each_other(low, width, margin):
    high = low + width
    assert holds("greater", low, high, margin) == holds("less", -high, -low, margin)
    assert holds("same", low, high, margin) == holds("same", -high, -low, margin)
    words = {holds(claim, low, high, margin) for claim in ("greater", "less")}
    assert words != {True}


def test_a_misspelt_claim_is_refused():
    with pytest.raises(ValueError, match="choose one of greater, less, same"):
        holds("better", 0, 1, 0)


def test_a_claim_of_parts():
    assert all_hold([True, True]) is True
    assert all_hold([True, None]) is None
    assert all_hold([None, False, True]) is False
    assert all_hold([]) is None


def test_a_finding_is_judged_over_trainings_and_told():
    parts = [
        ("more", "{io} minus {arch2vec}", "greater", (0.5, 0.6, 0.7)),
        ("more", "{arch2vec}", "same", (0.5,)),
        ("less", "{io}", "less", (0.5, 0.6, 0.7)),
        ("none", "{io}", "less", ()),
    ]
    judged = judge(parts, margin=0.1)
    assert judged["holds"].tolist() == [True, None, False, None]
    labels = {"io": "IO model", "arch2vec": "arch2vec"}
    shows, text = told(judged, "more", labels, 2)
    assert shows is None  # one training has no interval
    assert text == (
        "IO model minus arch2vec +0.60 (+0.35 to +0.85), greater: yes; "
        "arch2vec +0.50, same: undecided."
    )
    assert told(judged, "less", labels)[0] is False


def test_many_parts_are_told_together():
    gains = {"a": (0.5, 0.6, 0.7), "b": (0.2, 0.3), "c": (0.3, 0.3), "d": (0.0, 0.0), "e": (0.4,)}
    judged = judge([("more", name, "greater", gain) for name, gain in gains.items()], margin=0.1)
    shows, text = told(judged, "more", {}, 1)
    assert shows is False
    assert text == (
        "greater: yes in 2 of 5, +0.3 to +0.6 (a; c); greater: undecided in 2 of 5, +0.2 to +0.4 "
        "(b; e); greater: no in 1 of 5, +0.0 (d)."
    )
