"""Metrics against counts by hand and one cell at a time."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from embedding_data import SMALL, small_data

from ionas.embedding import metrics as evaluation
from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.training import build
from ionas.space.cells import cell_tensors, enumerate_cells


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
        "validity": 0.8, "uniqueness": 2 / 4,
        "validity_as_in_paper": 0.8, "uniqueness_as_in_paper": 3 / 4,
    }  # fmt: skip


def test_nothing_valid():
    found = evaluation.validity(np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4), np.int8))
    assert found["validity"] == 0
    assert math.isnan(found["uniqueness"])
    assert found["validity_as_in_paper"] == 0
    assert math.isnan(found["uniqueness_as_in_paper"])


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
    model = build("io", data.shape, SMALL, 1)
    cells = data.adjacency, data.operations
    whole = evaluation.reconstruction(model, *cells)
    losses = evaluation.labeled_loss(model, *cells, data.labeled)
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 16)
    assert evaluation.reconstruction(model, *cells) == pytest.approx(whole, rel=1e-5)
    assert evaluation.labeled_loss(model, *cells, data.labeled) == pytest.approx(losses, rel=1e-5)


def test_labeled_loss_against_a_loop():
    data = small_data()
    for name in ("io", "accuracy"):
        model = build(name, data.shape, SMALL, 1).eval()
        errors = []
        with torch.no_grad():
            for n, network in enumerate(data.labeled.networks):
                cell = data.adjacency[network][None], data.operations[network][None]
                z = model.vae.encode(*cell)[0]
                for i, image in enumerate(data.labeled.pixels):
                    if name == "io":
                        predicted = model.predict(z, model.tower(image[None]))
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


CURVES = pd.DataFrame(
    [
        ("unseen_images", 1, 2, 3.0),
        ("unseen_images", 1, 1, 4.0),
        ("unseen_networks", 1, 1, 2.0),
        ("unseen_networks", 1, 2, 1.0),
        ("unseen_networks", 1, 3, 2.2),
        ("train", 1, 1, 9.0),
    ],
    columns=["set", "seed", "epoch", "loss"],
)


def test_courses_by_hand():
    found = evaluation.courses(CURVES)
    assert list(found.columns) == ["set", "seed", "loss", "lowest", "change", "rises", "steps"]
    assert found.to_numpy().tolist() == [
        ["unseen_images", 1, 3.0, 3.0, -0.25, 0, 1],
        ["unseen_networks", 1, 2.2, 1.0, pytest.approx(0.1), 1, 2],
    ]


def test_gaps_are_to_the_reference_of_the_same_seed():
    rows = [
        (model, seed, "validity", value + seed)
        for model, value in (("io", 0.5), ("accuracy", 0.3), ("arch2vec", 0.4), ("other", 0.9))
        for seed in (1, 2)
    ]
    final = pd.DataFrame(rows, columns=["model", "seed", "metric", "value"])
    found = evaluation.gaps_to_reference(final, ["validity"]).set_index(["model", "seed"])["gap"]
    expected = {("io", 1): 0.1, ("io", 2): 0.1, ("accuracy", 1): -0.1, ("accuracy", 2): -0.1}
    assert found.to_dict() == pytest.approx(expected)


def test_last_epochs_are_those_of_each_model():
    rows = [("io", 1), ("io", 2), ("arch2vec", 1), ("arch2vec", 2), ("arch2vec", 3)]
    found = evaluation.last_epochs(pd.DataFrame(rows, columns=["model", "epoch"]))
    assert found.to_numpy().tolist() == [["io", 2], ["arch2vec", 3]]


def test_curves_and_simple_answers_share_the_names_of_sets():
    rows = [
        ("io", 1, 1, "labels_unseen_networks", 3.0),
        ("io", 1, 1, "labels_train", 1.0),
        ("io", 1, 1, "labels_running", 7.0),
        ("io", 1, 1, "validity", 0.5),
        ("accuracy", 1, 1, "labels_unseen_networks", 8.0),
    ]
    history = pd.DataFrame(rows, columns=["model", "seed", "epoch", "metric", "value"])
    curves = evaluation.labeled_curves(history, "io")
    assert curves.to_numpy().tolist() == [["unseen_networks", 1, 1, 3.0], ["train", 1, 1, 1.0]]
    columns = ["set", "baseline", "network_blind", "image_blind"]
    sets = pd.DataFrame([("unseen networks", 5.0, 1.0, 3.0)], columns=columns)
    answers = evaluation.simple_answers(sets)
    assert curves.join(answers, on="set")["network_blind"].tolist()[0] == 1.0
