"""Labels of other doses, numbers and kinds; distances of networks; cheap signals of accuracy."""

from itertools import pairwise
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import squareform
from scipy.stats import ortho_group, rankdata, spearmanr
from sklearn.linear_model import Ridge
from torch import nn

from ionas import io_dataset, parts, pretraining
from ionas.book.checks import check
from ionas.embedding import metrics, training, variants
from ionas.embedding.data import batches, gather, unpack
from ionas.images import load_images
from ionas.networks import load_network
from ionas.parameters import (
    EmbeddingTraining,
    IODataset,
    LabelValue,
    OutputFeatures,
    Pretraining,
    SearchSpace,
)
from ionas.space.cells import CellSet, enumerate_cells
from ionas.tasks import distances, labels, outputs, signals

CELLS = enumerate_cells(5)
SMALL = Pretraining(channels=4, stacks=2, epochs=1, train_images=128)
seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "", 297, 128, False)


# Linear CKA


def test_cka_of_hand_worked_features() -> None:
    x = np.array([[-1.0, 0], [1, 0], [0, 0]])
    both = np.array([[-1.0, 1], [1, 1], [0, -2]])
    # Centred: X'Y = [[2, 0], [0, 0]], |X'X| = 2, |Y'Y| = |diag(2, 6)| = sqrt(40).
    found = distances.cka(x[None], both[None])
    np.testing.assert_allclose(found, [[4 / (2 * 40**0.5)]], rtol=1e-12)
    other = np.array([[1.0], [1], [-2]])  # not correlated with the first feature
    np.testing.assert_allclose(distances.cka(x[None, :, :1], other[None]), [[0]], atol=1e-12)


def test_cka_of_features_that_do_not_vary_is_zero() -> None:
    features = np.random.default_rng(0).normal(size=(2, 6, 3))
    features[1] = 5.0
    np.testing.assert_allclose(distances.cka(features, features), [[1, 0], [0, 0]], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 5), st.floats(0.01, 100), st.floats(-5, 5))
def test_cka_is_the_same_for_rotated_scaled_and_shifted_features(seed, width, scale, shift) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 12, width))
    turned = scale * x @ ortho_group.rvs(width, random_state=seed) + shift
    pair = distances.cka(np.stack([x, turned]), np.stack([x, y]))
    assert pair[0, 0] == pytest.approx(1) == pytest.approx(pair[1, 0])
    assert pair[0, 1] == pytest.approx(pair[1, 1])
    assert pair.min() >= 0
    assert pair.max() <= 1 + 1e-12


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_cka_agrees_with_centred_gram_matrices(seed) -> None:
    x, y = np.random.default_rng(seed).normal(size=(2, 7, 4))
    centre = np.eye(7) - 1 / 7
    k, m = (centre @ z @ z.T @ centre for z in (x, y))
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    assert distances.cka(x[None], y[None])[0, 0] == pytest.approx(expected)


# Graph edit distance


def graph(cells: CellSet, row: int) -> nx.DiGraph:
    n = int(cells.n_vertices[row])
    made = nx.DiGraph(zip(*map(list, np.nonzero(cells.adjacency[row, :n, :n])), strict=True))
    names = cells.operations[row, :n].tolist()
    ends = {0: "input", n - 1: "output"}
    nx.set_node_attributes(made, {v: ends.get(v, k) for v, k in enumerate(names)}, "name")
    return made


def edit_distance(one: nx.DiGraph, two: nx.DiGraph) -> float:
    def rename(a: dict, b: dict) -> float:
        fixed = isinstance(a["name"], str) or isinstance(b["name"], str)
        return float(a["name"] != b["name"]) * (1000 if fixed else 1)

    def remove(a: dict) -> float:
        return 1000 if isinstance(a["name"], str) else 1

    costs = {"node_subst_cost": rename, "node_del_cost": remove, "node_ins_cost": remove}
    return nx.graph_edit_distance(one, two, **costs)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(CELLS) - 1), min_size=2, max_size=3, unique=True))
def test_graph_edit_distances_agree_with_networkx(rows) -> None:
    cells = CELLS[np.array(rows)]
    found = squareform(distances.graph_edit_distances(cells))
    for a in range(len(rows)):
        for b in range(a):
            assert found[a, b] == edit_distance(graph(cells, a), graph(cells, b))


def test_graph_edit_distance_is_a_metric() -> None:
    rows = np.random.default_rng(0).choice(len(CELLS), 40, replace=False)
    found = squareform(distances.graph_edit_distances(CELLS[rows]))
    assert (found[~np.eye(40, dtype=bool)] > 0).all()  # the cells differ
    assert (found[:, :, None] + found[None] >= found[:, None] - 1e-12).all()


# Which distance knows accuracy


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_correlation_of_distances_is_spearmans(seed) -> None:
    rng = np.random.default_rng(seed)
    accuracy, pairs = rng.random(9), dict(zip("ab", rng.random((2, 36)), strict=True))
    one, two = np.triu_indices(9, 1)
    networks = pd.DataFrame({"labeled": "train", "index": range(9)})
    found = distances.correlations(pairs, networks, SimpleNamespace(values=lambda _: accuracy), 0)
    gaps = np.abs(accuracy[one] - accuracy[two])
    for name, drawn in found.items():
        assert drawn.shape == (1 + distances.DRAWS,)
        assert drawn[0] == pytest.approx(spearmanr(pairs[name], gaps).statistic)


def test_a_distance_that_is_the_difference_in_accuracy_knows_it_best() -> None:
    rng = np.random.default_rng(1)
    accuracy = rng.random(14)
    one, two = np.triu_indices(14, 1)
    pairs = {"cka": np.abs(accuracy[one] - accuracy[two]), "graph": rng.random(len(one))}
    networks = pd.DataFrame({"labeled": "train", "index": range(14)})
    table = SimpleNamespace(values=lambda _: accuracy)
    drawn = distances.correlations(pairs, networks, table, seed=1)
    found = distances.compare(pairs, drawn, networks, table, OutputFeatures())
    found = found.set_index("distance")
    assert found.loc["cka", "mean"] == pytest.approx(1)
    assert found.loc["cka", "p_value"] == 1 / (distances.DRAWS + 1)
    assert found.loc["cka", "explained"] > 0.9
    assert found.loc["graph", "p_value"] > 0.01
    lead = distances.interval(drawn["cka"] - drawn["graph"])
    assert 0 < lead["low"] <= lead["mean"] <= lead["high"]


def test_mantels_p_value_of_no_relation_is_uniform() -> None:
    rng = np.random.default_rng(0)
    found = [distances.mantel({"": rng.random(28)}, rng.random(8), seed) for seed in range(60)]
    assert 0.35 < np.mean(found) < 0.65
    assert np.mean(np.array(found) < 0.1) < 0.25


def test_twins_are_near_in_one_distance_and_far_in_the_other() -> None:
    rows = np.random.default_rng(3).choice(len(CELLS), 12, replace=False)
    rng = np.random.default_rng(4)
    pairs = {"cka": rng.permutation(66) / 66, "graph": rng.integers(1, 5, 66).astype(float)}
    networks = pd.DataFrame({"labeled": "train", "index": rows, "hash": CELLS.hashes[rows]})
    accuracies = SimpleNamespace(cells=CELLS, values=lambda _: np.arange(len(CELLS)))
    found = distances.twins(pairs, networks, accuracies)
    one, other = (part for _, part in found.groupby("kind", sort=False))
    assert 1 - one["cka"].iloc[0] == pairs["cka"].min()  # a hundredth of 66 pairs is one
    alike = pairs["graph"] == 1
    assert (other["graph"] == 1).all()
    assert 1 - other["cka"].iloc[0] == pytest.approx(pairs["cka"][alike].max())
    texts = other[["adjacency", "operations"]].apply(tuple, axis=1)
    assert texts.is_unique
    made = CELLS[found["accuracy"].to_numpy()].to_text()
    assert made == (list(found["adjacency"]), list(found["operations"]))


# Outputs without training, and of other kinds


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_ridge_readout_agrees_with_scikit_learn(seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(40, 5, generator=generator, dtype=torch.float64) + 1
    y = torch.randint(3, (40,), generator=generator)
    found = outputs.ridge_readout(x, y, 3)
    alpha = outputs.PENALTY * float((x - x.mean(0)).square().sum(0).mean())
    oracle = Ridge(alpha=alpha).fit(x.numpy(), np.eye(3)[y.numpy()])
    np.testing.assert_allclose(found["weight"].numpy(), oracle.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found["bias"].numpy(), oracle.intercept_, rtol=1e-6, atol=1e-9)


def test_ridge_readout_of_dead_features_answers_with_the_share_of_each_class() -> None:
    found = outputs.ridge_readout(torch.ones(4, 2), torch.tensor([0, 0, 0, 1]), 2)
    assert not found["weight"].any()
    torch.testing.assert_close(found["bias"], torch.tensor([0.75, 0.25]))


def test_an_untrained_network_has_the_weights_that_its_training_begins_with(
    digits, tmp_path
) -> None:
    cell = CELLS[200]
    still = SMALL.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0})
    split = pd.DataFrame({"index": [200, 201], "hash": CELLS.hashes[200:202],
                          "labeled": ["train", "validation"], "rank": 0})  # fmt: skip
    table = SimpleNamespace(cells=CELLS)
    pretraining.train_networks(table, split, None, still, tmp_path, jobs=1)
    network = load_network(tmp_path, cell)
    seed = outputs.network_seed(cell, still.seed)
    begun = outputs.untrained(cell, still, digits.channels, 10, seed)
    for one, other in zip(network.parameters(), begun.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_outputs_of_a_dose_are_those_of_the_calibrated_network(digits, tmp_path) -> None:
    split = pd.DataFrame({"index": [200, 201], "hash": CELLS.hashes[200:202],
                          "labeled": ["train", "validation"], "rank": 0})  # fmt: skip
    table = SimpleNamespace(cells=CELLS)
    networks = pretraining.train_networks(table, split, None, SMALL, tmp_path / "n", jobs=1)
    seen = digits.validation[:5]
    shown = {"validation_pixels": seen.pixels.numpy(), "validation_labels": seen.labels.numpy()}
    targets = {f"{part}_validation": np.full((1, 4, 3), 0.1) for part in outputs.PARTS}
    given = networks, table, shown, targets, None, SMALL.model_copy(update={"epochs": 6}), [0, 1]
    found = outputs.by_dose(*given, 40, parts=tmp_path / "doses", jobs=1)
    assert outputs.doses_of(found) == ["0", "1", "all"]
    assert {values.shape for key, values in found.items() if "y" not in key} == {(1, 4, 3)}
    network = load_network(tmp_path / "n", CELLS[201])  # of one epoch
    outputs.calibrate(network, digits.train.pixels[:40])
    expected = io_dataset.network_targets(network, seen[:4], IODataset(top_k=3))
    np.testing.assert_allclose(found["1/validation"][0], expected, rtol=2e-3, atol=1e-4)
    accuracy = pretraining.accuracy(network, digits.test)
    np.testing.assert_allclose(found["1/validation_accuracy"], [accuracy], rtol=1e-6)
    assert found["0/train_accuracy"] > 0.15  # a readout of random features beats chance
    assert np.abs(found["0/train"] - found["1/train"]).max() > 0
    reached = networks.set_index("labeled")["test_accuracy"]
    np.testing.assert_allclose(found["all/train_accuracy"], reached["train"], rtol=1e-6)
    described = outputs.summary(found).set_index("dose")
    assert described.loc["0", "mean"] == pytest.approx(found["0/train_accuracy"][0])


def test_a_calibrated_network_answers_its_batch_as_in_training(digits) -> None:
    network = outputs.untrained(CELLS[900], SMALL, 1, 10, 0)
    pixels = digits.train.pixels
    features = outputs.calibrate(network, pixels)
    assert not network.training
    with torch.no_grad():
        torch.testing.assert_close(network.features(pixels), features, rtol=0.02, atol=0.02)
    assert features.std() > 0.1


def test_kinds_of_output_of_one_network(digits) -> None:
    network = outputs.untrained(CELLS[900], SMALL, 1, 10, 0)
    outputs.calibrate(network, digits.train.pixels)
    nn.init.normal_(network.classifier.weight)
    images = digits.validation[:7]
    found = outputs.network_kinds(network, images, top_k=3)
    with torch.no_grad():
        features, head = network.features(images.pixels), network.classifier
        paper = io_dataset.targets(features, head.weight, head.bias, images.labels, 3)
        torch.testing.assert_close(found["logits"], network(images.pixels))
    largest = torch.cat([head.weight, head.bias[:, None]], 1).sort(1, descending=True).values
    weighted = found["unweighted"] * largest[images.labels, :3].detach()
    torch.testing.assert_close(weighted, paper)
    # The mean of a channel over its regions is its pooled feature.
    regions = found["maps"].view(7, 3, 4).mean(2)
    expected = (features * head.weight[images.labels].detach()).gather(
        1, head.weight.argsort(dim=1, descending=True)[images.labels, :3]
    )
    torch.testing.assert_close(regions, expected)
    torch.testing.assert_close(found["features"], features)


# Variants


def study():
    rng = np.random.default_rng(0)
    order = rng.permutation(len(CELLS))[:60]
    table = SimpleNamespace(cells=CELLS[order], values=lambda _: np.linspace(0, 1, 60))
    networks = pd.DataFrame({"index": [*range(8), *range(50, 53)],
                             "labeled": ["train"] * 8 + ["validation"] * 3})  # fmt: skip
    split = pd.DataFrame({"index": range(60), "part": ["train"] * 45 + ["validation"] * 15})
    split["labeled"] = split["index"].map(networks.set_index("index")["labeled"])
    shape = {"train": (8, 6, 4), "validation": (3, 6, 4)}
    made = {part: rng.normal(size=shape[part]).astype(np.float32) for part in shape}
    targets = {f"{part}_{seen}": made[part] for part in shape for seen in ("validation", "test")}
    pixels = rng.normal(size=(9, 1, 8, 8)).astype(np.float32)
    shown = {"validation_pixels": pixels, "test_pixels": pixels}
    splits = {"validation_networks": [0], "test_networks": [1]}
    given = made | {f"{part}_accuracy": rng.random(len(made[part])) for part in shape}
    return (table, split, networks, targets, shown, splits), given


def pairs_of(data) -> set[tuple[int, bytes, bytes]]:
    pixels, outputs_of = data.labeled.pixels.numpy(), data.labeled.outputs.numpy()
    return {
        (int(row), pixels[i].tobytes(), outputs_of[n, i].tobytes())
        for batch in batches("io", data, EmbeddingTraining(batch_size=8), 0)
        if batch.networks is not None
        for row, n, i in zip(batch.rows, batch.networks, batch.images, strict=True)
    }


@pytest.mark.parametrize(("axis", "numbers"), [("networks", (2, 5, 8)), ("images", (1, 4, 6))])
def test_numbers_are_nested_and_make_as_many_steps(axis, numbers) -> None:
    inputs, given = study()
    whole, made = gather(*inputs)[0]["io"], []
    for number in numbers:
        sizes = {"networks": 8, "images": 6, axis: number}
        variant = variants.Variant(f"{axis}-{number}", "all", **sizes)
        data = variants.variant_data(whole, given, variant)
        made.append((number, data, pairs_of(data)))
        assert len(data.labeled) == 8 * 6
        assert len(made[-1][2]) == sizes["networks"] * sizes["images"]
        assert len(data.watched["unseen_networks"].pixels) == sizes["images"]
        assert set(data.labeled.networks.tolist()) == set(range(sizes["networks"]))
        assert len(data.unlabeled) == 45 - sizes["networks"]
        assert not set(data.watched["unseen_networks"].networks.tolist()) & set(range(45))
    for (_, _, few), (_, _, more) in pairwise(made):
        assert few < more


def test_variants_leave_out_what_is_not_smaller() -> None:
    levels = {"dose": [0, 2], "networks": [2, 8, 9], "images": [6], "kind": ["cka"]}
    chosen = variants.variants(levels, 8, 6)
    assert [v.name for v in chosen] == ["reference", "dose-0", "dose-2", "networks-2", "kind-cka"]


def test_trained_variants_tell_the_errors_of_a_blind_answer(tmp_path) -> None:
    inputs, given = study()
    doses = {f"{dose}/{name}": values for dose in ("0", "all") for name, values in given.items()}
    kinds = {f"logits/{part}": 7 * given[part] for part in outputs.PARTS}
    p = variants.settings(LabelValue(seeds=[1], hidden=8, image_channels=2, head_hidden=8))
    levels = {"dose": [0], "networks": [2], "images": [], "kind": ["logits"]}
    found = variants.train_variants(
        *inputs, doses=doses, kinds=kinds, levels=levels, p=p, parts=tmp_path, jobs=1
    )
    embedded = {name for name in found if "/" not in name}
    labeled = {
        f"{m}_{v}_seed1" for m in ("io", "accuracy") for v in ("reference", "dose-0", "networks-2")
    }
    means = {f"io_mean-{v}_seed1" for v in ("reference", "dose-0")}
    assert embedded == labeled | means | {"arch2vec_reference_seed1", "io_kind-logits_seed1"}
    blind = np.square(given["validation"] - given["train"].mean(0)).mean((1, 2))
    np.testing.assert_allclose(found["blind/io_reference_seed1"], blind, rtol=1e-5)
    few = np.square(given["validation"] - given["train"][:2].mean(0)).mean((1, 2))
    np.testing.assert_allclose(found["blind/io_networks-2_seed1"], few, rtol=1e-5)
    mean = np.square(given["validation_accuracy"] - given["train_accuracy"].mean())
    np.testing.assert_allclose(found["blind/accuracy_reference_seed1"], mean, rtol=1e-4)
    # The loss of all unseen networks together is what notebook 05 measures after the last epoch.
    for model in ("io", "accuracy"):
        data = unpack(parts.read(tmp_path, "reference.safetensors"))
        trained = training.train(model, 1, data, p, tmp_path / "reference").model
        cells = data.adjacency, data.operations
        loss = metrics.labeled_loss(trained, *cells, data.watched["unseen_networks"])
        assert found[f"loss/{model}_reference_seed1"].mean() == pytest.approx(loss, rel=1e-5)
    # A kind that is the reference but for its scale, and a dose that is the reference itself.
    same = found["io_reference_seed1"]
    np.testing.assert_allclose(found["io_kind-logits_seed1"], same, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found["io_dose-0_seed1"], same)
    assert np.abs(found["io_networks-2_seed1"] - same).max() > 0
    assert same.shape == (60, 16)


def test_measures_and_gains_by_hand() -> None:
    trained = {f"blind/io_reference_seed{k}": np.array([2.0, 6]) for k in (1, 2)}
    trained["loss/io_reference_seed1"] = np.array([1.0, 2])
    trained["loss/io_reference_seed2"] = np.array([3.0, 2])
    scores = pd.DataFrame({
        "embedding": ["io_reference", "io_dose-0", "io_reference", "encoding"],
        "training_seed": pd.array([1, 1, 2, None], "Int64"), "pearson": [0.6, 0.2, 0.9, 0.8],
        "kendall": 0.5,
    })  # fmt: skip
    measured = labels.measures(scores, trained)
    rows = labels.levels(measured, {"dose-0": "none", "reference": "all"})
    assert list(rows["level"].unique()) == ["none", "all"]
    assert set(rows["model"]) == {"io"}
    found = rows.set_index(["level", "measure"])
    assert found.loc[("all", "loss"), "mean"] == pytest.approx(8 / 16)
    assert found.loc[("all", "loss"), "low"] <= 0.5 <= found.loc[("all", "loss"), "high"]
    assert found.loc[("all", "pearson"), "mean"] == pytest.approx(0.75)
    gap = labels.gains(scores, "io_reference", "io_dose-0")
    np.testing.assert_allclose(gap, [0.4])  # the second training has no such dose
    assert not len(labels.gains(scores, "io_reference", "io_dose-9"))


# Cheap signals


def test_nlc_of_a_linear_network_is_one() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3)).double()
    pixels = torch.randn(30, 1, 4, 4, dtype=torch.float64) * torch.linspace(0.1, 3, 4)
    assert signals.nlc(network, pixels) == pytest.approx(1, abs=1e-6)


def test_nlc_of_a_square_by_hand() -> None:
    # f = x^2 at x = -1, 0, 1, 2: slopes 2x, E slope^2 = 6, var x = 1.25, var f = 2.25.
    pixels = torch.tensor([[-1.0], [0], [1], [2]])
    found = signals.nlc(lambda x: x**2, pixels)
    assert found == pytest.approx((6 * 1.25 / 2.25) ** 0.5)
    assert np.isnan(signals.nlc(lambda x: 0 * x, pixels))


def test_naswot_by_hand() -> None:
    network = nn.Sequential(nn.ReLU())
    codes = torch.tensor([[1.0, 1, -1], [1, -1, -1]])  # agree in two of three units
    assert signals.naswot(network, codes) == pytest.approx(np.log(3 * 3 - 2 * 2))
    assert signals.naswot(nn.ReLU(), codes[[0, 0]]) == float("-inf")


def test_fear_stops_at_the_threshold_and_reads_the_features(digits) -> None:
    def after(threshold: float) -> tuple[float, torch.Tensor]:
        network = outputs.untrained(CELLS[900], SMALL, 1, 10, 0)
        found = signals.fear(network, digits.train[:64], SMALL, threshold, batch=8, seed=0)
        return found, network.classifier.weight

    (soon, first), (late, last) = after(1e-9), after(1.0)
    assert 0.1 < soon <= 1
    assert 0.1 < late <= 1
    assert (last - first).abs().max() > 0  # it has trained on


def test_signals_beside_accuracy() -> None:
    rng = np.random.default_rng(0)
    accuracy = rng.random(60)
    values = {
        "parameters": rng.random(60),
        "naswot": accuracy**3,
        "fear": -accuracy,
        "nlc": np.full(60, 2.0),
    }
    frame = pd.DataFrame(values).rename_axis("index").reset_index()
    table = SimpleNamespace(values=lambda _: accuracy)
    found = signals.compare(frame, table, LabelValue()).set_index("signal")
    assert list(found.index) == list(values)
    expected = spearmanr(values["parameters"], accuracy).statistic
    assert found.loc["parameters", "mean"] == pytest.approx(expected)
    assert found.loc["naswot", "mean"] == pytest.approx(1) == -found.loc["fear", "mean"]
    assert found.loc["naswot", "gain_low"] > 0 > found.loc["fear", "gain_high"]
    assert np.isnan(found.loc["nlc", "mean"])


def test_read_out_never_sees_the_accuracy_that_it_predicts() -> None:
    rng = np.random.default_rng(0)
    noise, accuracy = rng.normal(size=(50, 200)), rng.random(50)
    assert abs(spearmanr(signals.read_out(noise, accuracy, 1), accuracy).statistic) < 0.5
    told = signals.read_out(rankdata(accuracy)[:, None] ** 1.0, accuracy, 1)
    assert spearmanr(told, accuracy).statistic > 0.95


# Bad input


@pytest.mark.parametrize("wrong", [{"doses": [2, 1]}, {"networks": [5, 5]}, {"images": [0]}])
def test_levels_are_distinct_positive_and_ascending(wrong) -> None:
    with pytest.raises(ValueError, match="ascending"):
        LabelValue(**wrong)


def test_what_cannot_run_is_told_before_anything_runs() -> None:
    others = {"pretraining": Pretraining(epochs=2), "search_space": SearchSpace()}
    with pytest.raises(ValueError, match=r"doses has 2, but pretraining.epochs is 2"):
        check("label_value", others | {"label_value": LabelValue(doses=[1, 2])})
    with pytest.raises(ValueError, match="sample has 2531"):
        check("label_value", others | {"label_value": LabelValue(doses=[1], sample=2531)})
    few = {"pretraining": Pretraining(epochs=2, train_networks=9)}
    with pytest.raises(ValueError, match="there are 9 labeled train networks, too few"):
        check("label_value", others | few | {"label_value": LabelValue(doses=[1])})
    check("label_value", others | {"label_value": LabelValue(doses=[1])})


def test_signals_are_the_same_whatever_the_number_of_processes(tmp_path) -> None:
    p = LabelValue(signal_images=12, initialisations=2, readout_images=40)
    table = SimpleNamespace(cells=CELLS)
    networks = pd.DataFrame({"index": [3, 200], "labeled": "train"})
    one, two = (
        signals.measure_all(networks, table, None, SMALL, p, parts=tmp_path / str(j), jobs=j)
        for j in (1, 2)
    )
    columns = ["index", "signal", "value"]
    pd.testing.assert_frame_equal(one[columns], two[columns])
    assert set(one["signal"]) == {signals.PARAMETERS, *signals.CHEAP}
