"""Metrics against counts by hand and one cell at a time."""

import math
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from embedding_data import SMALL, small_data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ionas.embedding import metrics as evaluation
from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.metrics import Labeled
from ionas.embedding.training import build
from ionas.space.cells import InvalidCell, cell_tensors, decode_cell, enumerate_cells


def one_by_one(adjacency, operations):
    """What `decode_cells` computes, by the slow way."""
    found, valid = [], []
    for matrix, codes in zip(adjacency, operations, strict=True):
        try:
            found.append(decode_cell(matrix, codes))
            valid.append(True)
        except InvalidCell:
            valid.append(False)
    return valid, found


def whole_one_by_one(adjacency, operations):
    """The authors' check in plain Python: prune between first and last position, then look."""
    found = []
    for matrix, codes in zip(adjacency, operations, strict=True):
        graph = nx.DiGraph(zip(*np.triu(matrix, 1).nonzero(), strict=True))
        first, last = 0, len(codes) - 1
        graph.add_nodes_from((first, last))
        kept = nx.descendants(graph, first) & nx.ancestors(graph, last) | {first, last}
        found.append(
            nx.has_path(graph, first, last)
            and graph.subgraph(kept).number_of_edges() <= 9
            and codes[first] == 0
            and codes[last] == 4
            and all(codes[v] in (1, 2, 3) for v in kept - {first, last})
        )
    return found


def assert_same(adjacency, operations):
    assert evaluation.whole_cells(adjacency, operations).tolist() == whole_one_by_one(
        adjacency, operations
    )
    valid, cells = evaluation.decode_cells(adjacency, operations)
    expected, found = one_by_one(adjacency, operations)
    assert valid.tolist() == expected
    assert len(cells) == len(found)
    assert cells.hashes.tolist() == [cell.hash for cell in found]
    assert list(cells) == found
    return sum(expected)


def test_validity_against_one_by_one():
    """Random drawings, most of them near to real cells so that many are valid."""
    rng = np.random.default_rng(0)
    for vertices, size in ((7, 7), (5, 5), (7, 5)):
        space = enumerate_cells(5) if size == 5 else enumerate_cells(4)
        cells = space[rng.integers(len(space), size=500)]
        adjacency = cells.adjacency[:, :vertices, :vertices].copy()
        operations = cells.operations[:, :vertices].copy()
        operations[operations < 0] = rng.integers(0, 5, (operations < 0).sum())
        flips = rng.random(adjacency.shape) < 0.08
        adjacency[flips] ^= 1
        changed = rng.random(operations.shape) < 0.04
        operations[changed] = rng.integers(0, 5, changed.sum())
        n_valid = assert_same(adjacency, operations)
        assert 30 < n_valid < 470


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.uint8, (6, 7, 7), elements=st.integers(0, 1)),
    arrays(np.int8, (6, 7), elements=st.integers(0, 4)),
)
def test_validity_of_anything(adjacency, operations):
    assert_same(adjacency, operations)
    operations[:, 0] = 0
    operations[:, 1:6] = operations[:, 1:6].clip(1, 3)
    operations[:, 6] = 4
    assert_same(adjacency, operations)


def test_uniqueness_by_hand():
    """A chain with an inner vertex off the path is the chain: two drawings, one cell."""
    chain = np.zeros((4, 4), np.uint8)
    chain[0, 1] = chain[1, 3] = 1
    dangling = chain.copy()
    dangling[0, 2] = 1
    broken = np.zeros((4, 4), np.uint8)
    adjacency = np.stack([chain, dangling, chain, broken, chain])
    operations = np.array([[0, 2, 1, 4]] * 4 + [[0, 1, 1, 4]], np.int8)
    found = evaluation.validity(adjacency, operations)
    assert found == {
        "validity": 0.8, "uniqueness": 2 / 4, "validity_whole": 0.8, "uniqueness_whole": 3 / 4
    }  # fmt: skip


def test_a_smaller_cell_is_no_whole_one():
    """Input, convolution and output, then padding that reads as input; and the other way round."""
    adjacency = np.zeros((2, 4, 4), np.uint8)
    adjacency[:, 0, 1] = adjacency[:, 1, 2] = 1
    adjacency[1, 1, 3] = 1
    operations = np.array([[0, 1, 4, 0], [0, 1, 0, 4]], np.int8)
    assert evaluation.decode_cells(adjacency, operations)[0].tolist() == [True, False]
    # the second has a vertex with a wrong operation, which is on no path to the last
    assert evaluation.whole_cells(adjacency, operations).tolist() == [False, True]


def test_nothing_valid():
    found = evaluation.validity(np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4), np.int8))
    assert found["validity"] == 0
    assert math.isnan(found["uniqueness"])
    assert found["validity_whole"] == 0
    assert math.isnan(found["uniqueness_whole"])


class Fixed(Arch2vec):
    """Decodes mu as it was told, whatever the cells."""

    def __init__(self, edges, operations):
        super().__init__(edges.shape[1], latent=2, hidden=4, layers=1)
        self.edges, self.named = edges, operations

    def decode(self, z):
        return self.edges, self.named


def test_reconstruction_by_hand():
    """Two cells of 3 rows; the second has two vertices, so one padded row."""
    adjacency, operations = (tensor[:, :3] for tensor in cell_tensors(enumerate_cells(3)))
    sizes = operations.sum((1, 2))
    pick = [int((sizes == 3).nonzero()[0, 0]), int((sizes == 2).nonzero()[0, 0])]
    adjacency, operations = adjacency[pick][:, :, :3].clone(), operations[pick].clone()
    adjacency[0] = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    edges = torch.full((2, 3, 3), 0.4)
    edges[0, 0, 1], edges[0, 1, 2], edges[1, 0, 1] = 0.9, 0.3, 0.8
    named = operations + 0.1  # right wherever there is a vertex
    named[1, 2, 3] = 0.9  # the padded row answers with a pool; its target reads 0
    named[0, 1] = torch.tensor([1.0, 0, 0, 0, 0])  # wrong
    found = evaluation.reconstruction(Fixed(edges, named), adjacency, operations)
    assert found == {
        "operation_accuracy": pytest.approx(4 / 6),
        "operation_accuracy_real": pytest.approx(4 / 5),
        "adjacency_accuracy": pytest.approx(5 / 6),
        "edges_mean": pytest.approx((0.9 + 0.3 + 0.8) / 3),
        "non_edges_mean": pytest.approx(0.4),
    }


def test_blocks_change_nothing(monkeypatch):
    data = small_data()
    model = build("io", data, SMALL, 1)
    cells = data.adjacency, data.operations
    whole = evaluation.reconstruction(model, *cells)
    losses = evaluation.labeled_loss(model, *cells, data.labeled)
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 16)
    assert evaluation.reconstruction(model, *cells) == pytest.approx(whole, rel=1e-5)
    assert evaluation.labeled_loss(model, *cells, data.labeled) == pytest.approx(losses, rel=1e-5)


def test_labeled_loss_against_a_loop():
    data = small_data()
    for name in ("io", "accuracy"):
        model = build(name, data, SMALL, 1).eval()
        errors = []
        with torch.no_grad():
            for n, network in enumerate(data.labeled.networks):
                cell = data.adjacency[network][None], data.operations[network][None]
                z = model.vae.encode(*cell)[0]
                for i, image in enumerate(data.labeled.pixels):
                    if name == "io":
                        predicted = model.predict(z, model.image_features(image[None]))
                        errors.append((predicted[0] - data.labeled.outputs[n, i]).square().mean())
                    else:
                        errors.append((model.predict(z)[0] - data.labeled.accuracy[n]).square())
        found = evaluation.labeled_loss(model, data.adjacency, data.operations, data.labeled)
        assert found == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)


def test_draw_decodes_noise_around_the_mean():
    model = Arch2vec(3, latent=2, hidden=4, layers=1).eval()
    mean = torch.tensor([[2.0, 0], [2, 0], [-2, 0]])
    adjacency, operations = evaluation.draw(model, mean, torch.zeros(3, 2), 5, seed=0)
    # z z^T is 4 between the first two, -4 with the third
    assert adjacency.tolist() == [[[0, 1, 0], [0, 0, 0], [0, 0, 0]]] * 5
    assert operations.shape == (5, 3)
    spread = evaluation.draw(model, mean, torch.full((3, 2), 3.0), 400, seed=0)
    again = evaluation.draw(model, mean, torch.full((3, 2), 3.0), 400, seed=0)
    assert 0.1 < spread[0][:, 0, 2].mean() < 0.9
    assert all(np.array_equal(a, b) for a, b in zip(spread, again, strict=True))


def test_baseline_is_the_variance_per_output():
    targets = torch.tensor([[[1.0, 10]], [[3.0, 10]]])
    assert evaluation.baseline(targets) == 0.5
    assert evaluation.baseline(torch.tensor([0.0, 1.0])) == 0.25


def test_over_seeds_by_hand():
    rows = [("io", seed, value) for seed, value in ((1, 1.0), (2, 2.0), (3, 3.0))]
    rows.append(("accuracy", 1, 5.0))
    table = evaluation.over_seeds(pd.DataFrame(rows, columns=["model", "seed", "value"]), ["model"])
    io, accuracy = (SimpleNamespace(**row) for row in table.to_dict("records"))
    assert (io.mean, io.std, io.seeds) == (2, 1, 3)
    half = 4.3027 / math.sqrt(3)  # Student's t, two degrees of freedom
    assert io.high - io.mean == pytest.approx(half, rel=1e-4)
    assert io.mean - io.low == pytest.approx(half, rel=1e-4)
    assert math.isnan(accuracy.low)


def test_unseen_trend_by_hand():
    rows = [
        ("labels_unseen_images", 2, 3.0),
        ("labels_unseen_images", 1, 4.0),
        ("labels_unseen_networks", 1, 2.0),
        ("labels_unseen_networks", 2, 2.2),
        ("labels_train", 1, 9.0),
    ]
    curves = pd.DataFrame(rows, columns=["metric", "epoch", "mean"])
    trend = evaluation.unseen_trend(curves, baseline=2.0)
    assert trend == pytest.approx({"images": -0.25, "networks": 0.1, "beyond": 0.1})


def test_gaps_by_hand():
    rows = [
        ("io", "validity", 0.50, 0.52),
        ("arch2vec", "validity", 0.45, 0.50),  # an interval of 0.1 hides a gap of 0.05
        ("other", "validity", 0.90, 0.91),
        ("io", "uniqueness", 0.990, 0.991),
        ("arch2vec", "uniqueness", 0.985, 0.986),  # beyond the intervals, but below 0.01
        ("io", "adjacency", 0.95, math.nan),
        ("arch2vec", "adjacency", 0.93, math.nan),  # one training: no interval is known
    ]
    metrics = pd.DataFrame(rows, columns=["model", "metric", "mean", "high"])
    names = ["adjacency", "validity", "uniqueness"]
    found = evaluation.gaps(metrics, ["io", "arch2vec"], names)
    assert found["gap"].tolist() == pytest.approx([0.02, 0.05, 0.005])
    assert found["apart"].tolist() == [True, False, False]
    narrow = metrics.assign(high=metrics["mean"] + 0.02)
    assert evaluation.gaps(narrow, ["io", "arch2vec"], names)["apart"].tolist() == [
        False,
        True,
        False,
    ]


def test_last_epochs_are_those_of_each_model():
    rows = [("io", 1), ("io", 2), ("arch2vec", 1), ("arch2vec", 2), ("arch2vec", 3)]
    found = evaluation.last_epochs(pd.DataFrame(rows, columns=["model", "epoch"]))
    assert found.to_numpy().tolist() == [["io", 2], ["arch2vec", 3]]


def test_table_5_has_a_row_per_set_and_seed():
    data = small_data()
    models = {seed: build("io", data, SMALL, seed).eval() for seed in (1, 2)}
    cells = data.adjacency, data.operations
    table = evaluation.labeled_losses(models, *cells, {"a": data.labeled, **data.watched})
    assert table[["set", "seed"]].to_numpy().tolist()[:3] == [
        ["a", 1], ["a", 2], ["unseen_networks", 1],
    ]  # fmt: skip
    assert table["loss"][1] == evaluation.labeled_loss(models[2], *cells, data.labeled)
    assert table["baseline"][1] == evaluation.baseline(data.labeled.outputs)


def test_labeled_sets_must_fit():
    with pytest.raises(ValueError, match="do not fit 2 networks and 3 images"):
        Labeled(torch.arange(2), torch.zeros(3, 1, 8, 8), torch.zeros(3, 2, 4), torch.zeros(2))
