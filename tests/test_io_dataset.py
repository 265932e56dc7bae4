"""The IO dataset: targets against hand work and a plain-Python oracle, splits, the five sets."""

import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ionas import io_dataset
from ionas.images import Images
from ionas.networks import Network, build, describe, load_network, to_bytes
from ionas.paper import paper_table
from ionas.parameters import IODataset, Pretraining
from ionas.parts import write
from ionas.space.cells import Cell, enumerate_cells

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
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "do not fit"),
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
        values = io_dataset.network_targets(network, images, IODataset(top_k=9, batch_size=4))
        assert values.shape == (11, 9)
        assert values.dtype == np.float32
        with torch.no_grad():
            logits = network.eval()(images.pixels)[torch.arange(11), images.labels]
        np.testing.assert_allclose(values.sum(1), logits, rtol=1e-4, atol=1e-5)


def test_batch_size_changes_nothing(networks, images):
    one, all_ = (
        io_dataset.network_targets(networks[0], images, IODataset(top_k=5, batch_size=size))
        for size in (1, 64)
    )
    np.testing.assert_allclose(one, all_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_diverged_network_is_named(networks, images, value):
    broken = copy.deepcopy(networks[1])
    broken.classifier.bias.data[:] = value
    name = broken.cell.hash
    with pytest.raises(ValueError, match=f"network {name} are too large or not finite"):
        io_dataset.network_targets(broken, images, IODataset(top_k=9))


@pytest.fixture
def kept(tmp_path):
    """A table of cells, the rows of its networks as kept in a folder, images, and the folder."""
    cells = enumerate_cells(4)[5:10]
    p = Pretraining(channels=4, stacks=2)
    torch.manual_seed(2)
    for cell in cells:
        about = {"cell": describe(cell), "parameters": {"channels": 4, "stacks": 2},
            "in_channels": 1, "classes": 4}  # fmt: skip
        write(tmp_path, cell.hash, to_bytes(build(cell, p, 1, 4), about))
    networks = pd.DataFrame(
        {
            "index": [3, 0, 4, 2, 1],
            "hash": [cells[k].hash for k in (3, 0, 4, 2, 1)],
            "labeled": ["train"] * 3 + ["validation"] * 2,
            "trained_from": [f"{k:064x}" for k in (3, 0, 4, 2, 1)],
        }
    )
    rng = np.random.default_rng(0)
    sizes = {"validation": 6, "test": 5}
    images = {f"{k}_pixels": rng.normal(size=(n, 1, 8, 8)).astype("f4") for k, n in sizes.items()}
    images |= {f"{k}_labels": rng.integers(4, size=n) for k, n in sizes.items()}
    return networks, SimpleNamespace(cells=cells), images, tmp_path


def test_targets_of_kept_networks_stand_in_the_order_of_the_rows(kept):
    networks, table, images, folder = kept
    p = IODataset(validation_images=4, top_k=3)
    found = io_dataset.io_targets(networks, table, images, p, folder)
    assert {name: values.shape for name, values in found.items()} == {
        "train_validation": (3, 4, 3), "train_test": (3, 5, 3),
        "validation_validation": (2, 4, 3), "validation_test": (2, 5, 3),
        "train_from": (3, 32), "validation_from": (2, 32),
    }  # fmt: skip
    shown = io_dataset.chosen_images(images, p)
    assert [len(values) for values in shown.values()] == [4, 5]
    for part, order in (("train", [3, 0, 4]), ("validation", [2, 1])):
        loaded = [load_network(folder, table.cells[k]) for k in order]
        for seen, values in shown.items():
            expected = [io_dataset.network_targets(network, values, p) for network in loaded]
            np.testing.assert_array_equal(found[f"{part}_{seen}"], np.float16(expected))
    own = io_dataset.own_order_targets(networks, table, images, p, folder)["train_validation"]
    for network, values in zip((3, 0, 4), own, strict=True):
        loaded = load_network(folder, table.cells[network])
        expected = io_dataset.network_targets(loaded, shown["validation"], p, ordered=False)
        np.testing.assert_array_equal(values, np.float16(expected))


def test_what_is_known_needs_no_network(kept):
    """As from a publication: targets of more networks, of which only the new ones are kept."""
    networks, table, images, folder = kept
    makers = {
        maker: partial(maker, table=table, images=images, folder=folder, **more)
        for maker, more in (
            (io_dataset.io_targets, {"p": IODataset(validation_images=4, top_k=3)}),
            (io_dataset.own_order_targets, {"p": IODataset(validation_images=4, top_k=3)}),
            (io_dataset.worked_pair, {}),
        )
    }
    expected = {maker: call(networks) for maker, call in makers.items()}
    known = {maker: call(networks.iloc[[1, 0, 3]]) for maker, call in makers.items()}
    known[io_dataset.worked_pair] = expected[io_dataset.worked_pair]
    for name in networks["hash"].iloc[[0, 1, 3]]:
        (folder / name).unlink()
    for maker, call in makers.items():
        found = call(networks, known=known[maker])
        assert found.keys() == expected[maker].keys()
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[maker][name])
        others = networks.assign(trained_from=[f"{k:064x}" for k in range(10, 15)])
        with pytest.raises(ValueError, match=r"is missing or was damaged; run notebook 02 again"):
            call(others, known=known[maker])


def test_the_worked_pair_is_the_first_target_with_its_origin(kept):
    networks, table, images, folder = kept
    pair = io_dataset.worked_pair(networks, table, images, folder)
    network = load_network(folder, table.cells[3])
    one = {name: values[:1] for name, values in images.items()}
    shown = io_dataset.chosen_images(one, IODataset(validation_images=1))["validation"]
    target = io_dataset.network_targets(network, shown, IODataset(top_k=9))[0]
    np.testing.assert_allclose(pair["contribution"][:9], target, rtol=1e-5, atol=1e-7)
    label = int(pair["label"])
    assert label == images["validation_labels"][0]
    with torch.no_grad():
        features = network.features(shown.pixels)[0]
        logit = network(shown.pixels)[0, label]
    assert float(pair["logit"]) == float(logit)
    assert pair["contribution"].sum() == pytest.approx(float(logit), abs=1e-6)
    assert sorted(pair["feature"]) == list(range(len(features) + 1))
    assert (np.diff(pair["weight"]) <= 0).all()
    head = network.classifier
    for feature, weight, value in zip(
        *(pair[k] for k in ("feature", "weight", "value")), strict=True
    ):
        bias = feature == len(features)
        assert weight == (head.bias[label] if bias else head.weight[label, feature]).item()
        assert value == pytest.approx(1 if bias else float(features[feature]))


def test_sizes(kept):
    networks, _, images, _ = kept
    sizes = io_dataset.sizes(networks, images, IODataset(validation_images=4))
    assert sizes["networks"].tolist() == [3, 2, pd.NA]
    assert sizes["images"].tolist() == [pd.NA, 4, 5]


def test_a_missing_network_is_named(kept):
    networks, table, images, folder = kept
    (folder / networks["hash"][1]).unlink()
    wanted = IODataset(validation_images=0, top_k=3)
    with pytest.raises(ValueError, match=f"{networks['hash'][1]} is missing .* notebook 02 again"):
        io_dataset.io_targets(networks, table, images, wanted, folder)
    with pytest.raises(ValueError, match="cannot take 100 validation images"):
        io_dataset.io_targets(networks, table, images, IODataset(), folder)


def test_the_first_images_are_chosen(images):
    kept = {f"{part}_pixels": images.pixels.numpy() for part in ("validation", "test")}
    kept |= {f"{part}_labels": images.labels.numpy() for part in ("validation", "test")}
    chosen = io_dataset.chosen_images(kept, IODataset(validation_images=4))
    assert torch.equal(chosen["validation"].pixels, images.pixels[:4])
    assert torch.equal(chosen["validation"].labels, images.labels[:4])
    assert len(chosen["test"]) == 11
    with pytest.raises(ValueError, match="cannot take 12 test images: notebook 02 keeps 11"):
        io_dataset.chosen_images(kept, IODataset(validation_images=0, test_images=12))


def rows(train, validation=()):
    """Networks with these hashes."""
    labeled = ["train"] * len(train) + ["validation"] * len(validation)
    return pd.DataFrame({"hash": [*train, *validation], "labeled": labeled})


def sets_of(train, targets, share, validation=()):
    parts = ("train_validation", "validation_validation", "train_test", "validation_test")
    named = dict(zip(parts, targets, strict=True))
    p = IODataset(validation_share=share)
    return io_dataset.set_table(named, rows(train, validation), p).set_index("set")


@given(st.lists(st.text(min_size=1), min_size=2, unique=True), st.floats(0.01, 0.99))
def test_split_takes_the_first_by_hash(hashes, fraction):
    split = io_dataset.splits(rows(hashes, ["0", "1"]), IODataset(validation_share=fraction))
    validation, test = split["validation_networks"], split["test_networks"]
    assert len(validation) >= 1
    assert len(test) >= 1
    assert sorted([*validation, *test]) == list(range(len(hashes)))
    assert abs(len(validation) - fraction * len(hashes)) <= 1
    assert max(hashes[k] for k in validation) < min(hashes[k] for k in test)


def test_one_network_cannot_be_split():
    with pytest.raises(ValueError, match="1 train networks cannot be split"):
        io_dataset.splits(rows(["a"], ["b"]), IODataset())


def test_the_sets_have_the_sizes_of_table_2():
    """608 and 77 networks, 1,000 and 2,000 images; one feature, so that it stays small."""
    shapes = [(608, 1000, 1), (77, 1000, 1), (608, 2000, 1), (77, 2000, 1)]
    table = sets_of(HASHES, [np.broadcast_to(np.float16(0), shape) for shape in shapes], 0.1)
    paper = paper_table(2)
    assert table["network_count"].tolist() == [608, 77, 61, 547, 77]
    assert table["size"].tolist() == [608_000, 77_000, 122_000, 1_094_000, 154_000]
    assert table["size"].tolist() == paper["size"].tolist()
    assert table["labeled"].tolist() == paper["labeled"].tolist()
    assert table["networks"].tolist() == paper["networks"].tolist()


def test_baselines_are_those_of_the_mean_target():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=shape) for shape in ((6, 4, 3), (2, 4, 3), (6, 5, 3), (2, 5, 3))]
    table = sets_of("dafcbe", parts, 1 / 3)
    sets = {
        "train": parts[0],
        "unseen networks": parts[1],
        "unseen images": parts[2][[1, 4]],
        "test: unseen images": parts[2][[0, 2, 3, 5]],
        "test: unseen networks and images": parts[3],
    }
    for name, values in sets.items():
        pairs = [row for network in values.tolist() for row in network]
        mean = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)]
        errors = [(x - m) ** 2 for row in pairs for x, m in zip(row, mean, strict=True)]
        assert table.loc[name, "baseline"] == pytest.approx(sum(errors) / len(errors))
        assert table.loc[name, "size"] == len(pairs)


def test_blind_baselines_by_hand():
    """Two train networks, one validation network; two images in each part; one target each."""
    train_validation = np.array([[[1.0], [3.0]], [[3.0], [7.0]]])
    # Mean over networks on each image: 2 and 5. Mean over images of each network: 2 and 5.
    validation_validation = np.array([[[2.0], [8.0]]])
    train_test = np.array([[[2.0], [4.0]], [[5.0], [4.0]]])
    parts = [train_validation, validation_validation, train_test, np.zeros((1, 2, 1))]
    found = sets_of("ba", parts, 0.5)  # the second is for validation
    assert found["network_blind"].tolist()[:2] == [(1 + 4 + 1 + 4) / 4, (0 + 9) / 2]
    assert found["network_blind"].isna().tolist() == [False, False, True, True, True]
    assert found.loc["train", "image_blind"] == (1 + 1 + 4 + 4) / 4
    assert found.loc["unseen images", "image_blind"] == (0 + 1) / 2
    assert found.loc["test: unseen images", "image_blind"] == (0 + 4) / 2
    assert found["image_blind"].isna().tolist() == [False, True, False, False, True]
    assert found.loc["unseen networks", "baseline"] == 9
