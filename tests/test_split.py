"""The split of the cells."""

import numpy as np
import pandas as pd
import pytest

from ionas.benchmark import split
from ionas.parameters import SearchSpace

HASHES = np.array([f"{k:032x}" for k in range(200)])


def split_cells(hashes, train, validation, seed=1, known=None, **settings):
    settings |= {"labeled_train": train, "labeled_validation": validation, "seed": seed}
    return split.split_cells(
        hashes, np.ones(len(hashes), bool) if known is None else known, SearchSpace(**settings)
    )


def test_sizes_and_nesting():
    frame = split_cells(HASHES, 30, 7, seed=4)
    assert (frame["hash"] == HASHES).all()
    assert frame["part"].value_counts().to_dict() == {"train": 180, "validation": 20}
    counts = frame[frame["labeled"] != ""].groupby(["part", "labeled"]).size()
    assert counts.to_dict() == {("train", "train"): 30, ("validation", "validation"): 7}
    ranks = frame.groupby("labeled")["rank"].apply(sorted)
    assert ranks["train"] == list(range(30))
    assert ranks["validation"] == list(range(7))
    assert set(ranks[""]) == {-1}


def test_more_labels_keep_those_there_were():
    few, many = (split_cells(HASHES, n, 5, seed=2) for n in (10, 40))
    chosen = [set(frame.index[frame["labeled"] == "train"]) for frame in (few, many)]
    assert chosen[0] < chosen[1]
    assert few["part"].equals(many["part"])
    assert chosen[0] == set(many.index[(many["labeled"] == "train") & (many["rank"] < 10)])


def test_seed_decides():
    one, two = (split_cells(HASHES, 10, 5, seed=seed) for seed in (1, 2))
    assert one.equals(split_cells(HASHES, 10, 5, seed=1))
    assert one["part"].equals(two["part"])
    assert not one["labeled"].equals(two["labeled"])


def test_by_hand():
    """Of ten cells the eight of least hashes train; both draws as by the legacy functions."""
    hashes = np.array([f"{k:032x}" for k in (3, 1, 4, 15, 9, 2, 6, 5, 35, 8)])
    frame = split_cells(hashes, 2, 2, validation_fraction=0.2)
    assert list(np.flatnonzero(frame["part"] == "validation")) == [3, 8]
    ascending = np.argsort([int(name, 16) for name in hashes])
    np.random.seed(1)  # noqa: NPY002
    train = np.random.permutation(ascending[:8])  # noqa: NPY002
    chosen = np.random.RandomState(1).choice(train, 2, replace=False)
    labeled = frame[frame["labeled"] == "train"].sort_values("rank")
    assert list(labeled["index"]) == list(chosen)


def test_the_order_of_the_table_does_not_matter():
    shuffled = np.random.default_rng(3).permutation(HASHES)
    there, here = (split_cells(h, 12, 4, seed=3).set_index("hash") for h in (HASHES, shuffled))
    assert there.drop(columns="index").equals(here.drop(columns="index").loc[there.index])


@pytest.mark.shared
def test_the_labeled_cells_of_the_paper(shared_data):
    """The statistics that the authors' notebook prints of its 608 networks."""
    path = shared_data / "nasbench101.parquet"
    frame = pd.read_parquet(path, columns=["hash", "test_accuracy"])
    parts = split_cells(frame["hash"].to_numpy(), 608, 77)
    accuracy = frame["test_accuracy"][parts["labeled"] == "train"]
    assert len(accuracy) == 608
    assert accuracy.mean() == pytest.approx(0.8988011, abs=5e-8)
    assert accuracy.std(ddof=0) == pytest.approx(0.0465040, abs=5e-8)
    assert accuracy.max() == pytest.approx(0.94047, abs=5e-6)
    assert (accuracy <= 0.8).sum() == 7
    assert (accuracy < 0.5).sum() == 1
    validation = frame["test_accuracy"][parts["labeled"] == "validation"]
    assert (len(validation), (validation <= 0.8).sum()) == (77, 0)


@pytest.mark.parametrize(("train", "validation"), [(181, 2), (2, 21)])
def test_too_many_labels_are_refused(train, validation):
    with pytest.raises(ValueError, match=r"has only \d+ cells with a test accuracy; ask"):
        split_cells(HASHES, train, validation)


def test_only_cells_of_known_accuracy_are_labeled():
    known = np.arange(200) % 3 == 0
    frame = split_cells(HASHES, 20, 3, seed=5, known=known)
    labeled = frame["labeled"] != ""
    assert labeled.sum() == 23
    assert known[labeled].all()
    assert frame["part"].equals(split_cells(HASHES, 20, 3, seed=5)["part"])
    with pytest.raises(ValueError, match="cells with a test accuracy"):
        split_cells(HASHES, 100, 3, seed=5, known=known)
