"""The split of the cells."""

import numpy as np
import pytest

from ionas.split import split_cells

HASHES = np.array([f"{k:032x}" for k in range(200)])


def test_sizes_and_nesting():
    frame = split_cells(HASHES, 30, 7, 0.1, seed=4)
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
    assert not one["part"].equals(two["part"])


@pytest.mark.parametrize(("train", "validation"), [(181, 0), (0, 21)])
def test_too_many_labels_are_refused(train, validation):
    with pytest.raises(ValueError, match=r"has only \d+ cells; ask for fewer"):
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
