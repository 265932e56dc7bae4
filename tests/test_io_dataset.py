"""The IO dataset: targets against hand work and a plain-Python oracle, splits, the five sets."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from ionas import io_dataset
from ionas.images import Images
from ionas.networks import Network
from ionas.paper import paper_table
from ionas.space.cells import Cell

HASHES = [f"{7919 * k % 1009:08x}" for k in range(608)]  # in no order


def test_targets_by_hand():
    """Class 1: weights 3, -1, 2 and bias 2 -> order by weight: feature 0, feature 2, bias."""
    features = torch.tensor([[1.0, 5.0, 10.0], [2.0, 0.0, 1.0]])
    weight = torch.tensor([[0.0, 1.0, 0.5], [3.0, -1.0, 2.0]])
    bias = torch.tensor([-4.0, 2.0])
    found = io_dataset.targets(features, weight, bias, torch.tensor([1, 0]), top_k=3)
    # Image 0, class 1: 3 * 1, then 2 * 10 before the bias 2 * 1: equal weights keep their order,
    # and the product 20 comes after 3, because the order is by weight.
    # Image 1, class 0: weights 1, 0.5, 0 (the bias is -4).
    assert found.tolist() == [[3.0, 20.0, 2.0], [0.0, 0.5, 0.0]]


def plain_targets(features, weight, bias, labels, top_k):
    rows = []
    for x, label in zip(features, labels, strict=True):
        pairs = list(zip([*weight[label], bias[label]], [*x, 1.0], strict=True))
        pairs.sort(key=lambda pair: -pair[0])  # stable
        rows.append([w * value for w, value in pairs[:top_k]])
    return rows


shapes = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**31))


def random_case(shape):
    images, width, classes, seed = shape
    rng = np.random.default_rng(seed)
    values = (
        rng.normal(size=(images, width)),
        rng.integers(-2, 3, size=(classes, width)).astype(float),  # with many ties
        rng.integers(-2, 3, size=classes).astype(float),
    )
    return *map(torch.from_numpy, values), torch.from_numpy(rng.integers(classes, size=images))


@settings(max_examples=60, deadline=None)
@given(shapes, st.data())
def test_targets_agree_with_a_plain_oracle(shape, data):
    case = random_case(shape)
    top_k = data.draw(st.integers(1, shape[1] + 1))
    expected = plain_targets(*(tensor.tolist() for tensor in case), top_k)
    np.testing.assert_allclose(io_dataset.targets(*case, top_k), expected, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(shapes)
def test_all_contributions_add_up_to_the_logit_of_the_true_class(shape):
    features, weight, bias, labels = random_case(shape)
    found = io_dataset.targets(features, weight, bias, labels, top_k=shape[1] + 1)
    logits = features @ weight.T + bias
    np.testing.assert_allclose(
        found.sum(1), logits[torch.arange(len(labels)), labels], rtol=1e-9, atol=1e-9
    )


def test_shuffled_features_give_the_same_targets():
    features, weight, bias, labels = random_case((6, 7, 4, 5))
    weight = weight + torch.rand_like(weight)  # no ties
    order = torch.randperm(7)
    first = io_dataset.targets(features, weight, bias, labels, 5)
    assert torch.equal(
        first, io_dataset.targets(features[:, order], weight[:, order], bias, labels, 5)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(4, 5)}, "do not fit"),
        ({"bias": torch.zeros(2)}, "do not fit"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "4 images have labels"),
        ({"labels": torch.full((4,), 3)}, "labels must be in 0 to 2"),
        ({"labels": torch.full((4,), -1)}, "labels must be in 0 to 2"),
        ({"top_k": 8}, "choose 1 to 7"),
        ({"top_k": 0}, "choose 1 to 7"),
    ],
)
def test_targets_refuse_what_does_not_fit(change, message):
    good = {
        "features": torch.zeros(4, 6),
        "weight": torch.zeros(3, 6),
        "bias": torch.zeros(3),
        "labels": torch.zeros(4, dtype=torch.int64),
        "top_k": 3,
    }
    with pytest.raises(ValueError, match=message):
        io_dataset.targets(**{**good, **change})


def test_without_order_the_first_contributions_are_kept():
    """Class 1 of the case by hand: products 3 * 1, -1 * 5, 2 * 10, and the bias 2."""
    features, weight = torch.tensor([[1.0, 5.0, 10.0]]), torch.tensor([[0.0, 1, 0.5], [3, -1, 2]])
    case = features, weight, torch.tensor([-4.0, 2.0]), torch.tensor([1])
    assert io_dataset.targets(*case, 3, ordered=False).tolist() == [[3, -5, 20]]
    assert io_dataset.targets(*case, 4, ordered=False).tolist() == [[3, -5, 20, 2]]


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    cell = Cell([[0, 1, 1], [0, 0, 1], [0, 0, 0]], ["input", "conv3x3-bn-relu", "output"])
    return [Network(cell, 1, 4, channels=4, stacks=2, cells_per_stack=1) for _ in range(3)]


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return Images(
        torch.randn(11, 1, 8, 8, generator=generator), torch.randint(4, (11,), generator=generator)
    )


def test_network_targets_sum_to_logits_in_evaluation_mode(networks, images):
    for network in networks:
        network.train()  # the functions must not use batch statistics
    found = io_dataset.network_targets((n for n in networks), images, top_k=9, batch_size=4)
    assert found.shape == (3, 11, 9)
    assert found.dtype == np.float32
    for network, values in zip(networks, found, strict=True):
        with torch.no_grad():
            logits = network.eval()(images.pixels)[torch.arange(11), images.labels]
        np.testing.assert_allclose(values.sum(1), logits, rtol=1e-4, atol=1e-5)


def test_batch_size_changes_nothing(networks, images):
    one = io_dataset.network_targets(networks, images, 5, batch_size=1)
    np.testing.assert_allclose(
        one, io_dataset.network_targets(networks, images, 5, batch_size=64), rtol=1e-4, atol=1e-6
    )


def test_contributions_are_the_targets_with_their_origin(networks, images):
    network, label = networks[0].eval(), int(images.labels[2])
    pair = io_dataset.contributions(network, images.pixels[2], label)
    target = io_dataset.network_targets([network], images[2:3], top_k=9)[0, 0]
    np.testing.assert_allclose(pair["contribution"], target, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        features = network.features(images.pixels[2:3])[0]
        logit = network(images.pixels[2:3])[0, label]
    assert pair["contribution"].sum() == pytest.approx(float(logit), abs=1e-6)
    assert sorted(pair["feature"]) == list(range(9))
    assert (pair["weight"].diff().dropna() <= 0).all()
    head = network.classifier
    for row in pair.itertuples():
        bias = row.feature == 8
        weight = head.bias[label] if bias else head.weight[label, row.feature]
        assert row.weight == weight.item()
        assert row.value == pytest.approx(1 if bias else float(features[row.feature]))


def test_a_diverged_network_is_named(networks, images):
    broken = copy.deepcopy(networks[1])
    broken.classifier.bias.data[:] = float("nan")
    with pytest.raises(ValueError, match="network 1 gives outputs that are not finite"):
        io_dataset.network_targets([networks[0], broken], images, top_k=9)


def test_published_targets_take_their_places(tmp_path):
    """By hand: train networks b, d published, a, c here; validation network e published."""
    published = pd.DataFrame(
        {"hash": ["d", "x", "b", "e"], "labeled": ["train"] * 3 + ["validation"]}
    )
    published.to_parquet(tmp_path / "networks.parquet")
    values = {"train_test": np.full((3, 2, 1), 7.0), "validation_test": np.full((1, 2, 1), 5.0)}
    values["train_test"][:, 0, 0] = 4, 24, 2
    save_file(
        {k: v.astype(np.float16) for k, v in values.items()}, tmp_path / "targets.safetensors"
    )
    networks = pd.DataFrame({"hash": list("abcde"), "labeled": ["train"] * 4 + ["validation"],
        "published": [False, True, False, True, True]})  # fmt: skip
    here = {"train_test": np.array([[[1.0], [8.0]], [[3.0], [8.0]]], np.float32)}
    found = io_dataset.with_published(here, networks, tmp_path)
    assert found["train_test"].tolist() == [[[1], [8]], [[2], [7]], [[3], [8]], [[4], [7]]]
    assert found["validation_test"].tolist() == [[[5], [5]]]
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
    with pytest.raises(
        ValueError, match="train_test have 2 images and 1 contributions, those here 3"
    ):
        io_dataset.with_published({"train_test": np.ones((2, 3, 1))}, networks, tmp_path)
    moved = networks.assign(labeled=["train"] * 3 + ["validation"] * 2)
    with pytest.raises(ValueError, match="network d is of the validation part here"):
        io_dataset.with_published(here, moved, tmp_path)


def test_first_images(images):
    first = io_dataset.first_images(images.pixels, images.labels, 4)
    assert torch.equal(first.pixels, images.pixels[:4])
    assert torch.equal(first.labels, images.labels[:4])
    assert len(io_dataset.first_images(images.pixels, images.labels, 0)) == 11
    with pytest.raises(ValueError, match="cannot take 12 images: notebook 02 keeps 11"):
        io_dataset.first_images(images.pixels, images.labels, 12)


def test_nothing_to_do_is_said(networks, images):
    with pytest.raises(ValueError, match="no images"):
        io_dataset.network_targets(networks, images[:0])
    with pytest.raises(ValueError, match="no networks"):
        io_dataset.network_targets([], images)


@given(st.lists(st.text(min_size=1), min_size=2, unique=True), st.floats(0.01, 0.99))
def test_split_takes_the_first_by_hash(hashes, fraction):
    validation, test = io_dataset.split_networks(hashes, fraction)
    assert len(validation) >= 1
    assert len(test) >= 1
    assert sorted([*validation, *test]) == list(range(len(hashes)))
    assert abs(len(validation) - fraction * len(hashes)) <= 1
    assert max(hashes[k] for k in validation) < min(hashes[k] for k in test)


def test_the_paper_has_61_networks_for_validation():
    assert len(io_dataset.split_networks(HASHES, 0.1)[0]) == 61


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.1), (0, 0.1), (10, 0.0), (10, 1.0)])
def test_split_refuses(count, fraction):
    with pytest.raises(ValueError, match=r"label at least two|between 0 and 1"):
        io_dataset.split_networks(HASHES[:count], fraction)


def test_five_sets_have_the_sizes_of_table_2():
    """608 and 77 networks, 1,000 and 2,000 images; one feature, so that it stays small."""

    def shaped(networks, images):
        return np.broadcast_to(np.float32(0), (networks, images, 1))

    table = io_dataset.five_sets(
        shaped(608, 1000),
        shaped(77, 1000),
        shaped(608, 2000),
        shaped(77, 2000),
        *io_dataset.split_networks(HASHES, 0.1),
    )
    paper = paper_table(2)
    assert table["size"].tolist() == [608_000, 77_000, 122_000, 1_094_000, 154_000]
    assert table["size"].tolist() == paper["size"].tolist()
    assert table["labeled"].tolist() == paper["labeled"].tolist()
    assert table["networks"].tolist() == paper["networks"].tolist()
    assert table["set"].is_unique


def test_baselines_are_those_of_the_mean_target():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=shape) for shape in ((6, 4, 3), (2, 4, 3), (6, 5, 3), (2, 5, 3))]
    validation, test = np.array([1, 4]), np.array([0, 2, 3, 5])
    table = io_dataset.five_sets(*parts, validation, test).set_index("set")
    sets = {
        "train": parts[0],
        "unseen networks": parts[1],
        "unseen images": parts[2][[1, 4]],
        "test: unseen images": parts[2][[0, 2, 3, 5]],
        "test: unseen networks and images": parts[3],
    }
    for name, values in sets.items():
        rows = [row for network in values.tolist() for row in network]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        errors = [(x - m) ** 2 for row in rows for x, m in zip(row, mean, strict=True)]
        assert table.loc[name, "baseline"] == pytest.approx(sum(errors) / len(errors))
        assert table.loc[name, "size"] == len(rows)


def test_five_sets_refuse_a_split_that_is_none():
    parts = [np.zeros((4, 2, 1)), np.zeros((1, 2, 1)), np.zeros((4, 2, 1)), np.zeros((1, 2, 1))]
    with pytest.raises(ValueError, match="must split the 4 train networks"):
        io_dataset.five_sets(*parts, np.array([0]), np.array([1, 2]))
