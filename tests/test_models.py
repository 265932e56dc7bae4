"""The three models against slow plain-Python versions of their formulas."""

import math

import numpy as np
import pytest
import torch
from embedding_data import small_data

from ionas.embedding.accuracy_model import AccuracyModel
from ionas.embedding.arch2vec import Arch2vec, kl_term
from ionas.embedding.io_model import IOModel
from ionas.space import INPUT, OUTPUT
from ionas.space.cells import Cell, cell_tensors
from ionas.space.nasbench101 import CONV3X3


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cross_entropy(p, t):
    return -(t * math.log(p) + (1 - t) * math.log(1 - p))


def test_kl_by_hand():
    """One cell, two vertices, one dimension: mu (1, 0), deviation (1, e)."""
    mu, log_std = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[0.0], [1.0]]])
    first, second = 1 + 0 - 1 - 1, 1 + 2 - 0 - math.e**2
    assert kl_term(mu, log_std).item() == pytest.approx(-0.5 / 2 * (first + second) / 2)


def test_kl_is_zero_for_the_prior():
    assert kl_term(torch.zeros(3, 7, 16), torch.zeros(3, 7, 16)).item() == 0


class Answers(Arch2vec):
    """Decodes to the probabilities that it was given."""

    def answer(self, edges, named):
        self.answers = (torch.as_tensor(edges).float().logit(), torch.as_tensor(named).float())

    def logits(self, z):
        edges, named = self.answers
        return edges, named.log() if self.activation == "softmax" else named.logit()


def test_loss_by_hand():
    """The chain input - conv - output with a decoder that answers 0.9 or 0.2 everywhere."""
    adjacency, operations = cell_tensors([Cell([[0, 1, 0], [0, 0, 1], [0, 0, 0]],
                                               [INPUT, CONV3X3, OUTPUT])])  # fmt: skip
    zeros = torch.zeros(1, 7, 16)
    on_edges = (2 * cross_entropy(0.9, 1) + 19 * cross_entropy(0.9, 0)) / 49
    on_operations = (3 * cross_entropy(0.2, 1) + 32 * cross_entropy(0.2, 0)) / 35
    for activation in ("sigmoid", "softmax"):  # five times 0.2: a distribution
        vae = Answers(activation=activation)
        vae.answer(torch.full((1, 7, 7), 0.9), torch.full((1, 7, 5), 0.2))
        found = vae.loss(zeros, zeros, zeros, adjacency, operations)
        assert found.item() == pytest.approx(on_edges + on_operations, rel=1e-5)


def test_loss_against_a_loop():
    rng = np.random.default_rng(0)
    batch, v, o, width = 3, 4, 5, 2
    adjacency = np.triu(rng.integers(0, 2, (batch, v, v)), 1)
    operations = np.eye(o)[rng.integers(0, o, (batch, v))]
    edges, named = rng.uniform(0.05, 0.95, (batch, v, v)), rng.uniform(0.05, 0.95, (batch, v, o))
    mu, log_std = rng.normal(size=(2, batch, v, width))
    expected = 0.0
    for b in range(batch):
        for i in range(v):
            for j in range(i + 1, v):
                expected += cross_entropy(edges[b, i, j], adjacency[b, i, j]) / (batch * v * v)
            for k in range(o):
                expected += cross_entropy(named[b, i, k], operations[b, i, k]) / (batch * v * o)
            for m, s in zip(mu[b, i], log_std[b, i], strict=True):
                expected -= 0.5 / (batch * v) ** 2 * (1 + 2 * s - m**2 - math.exp(2 * s))
    tensors = [torch.tensor(x, dtype=torch.float32) for x in (mu, log_std, adjacency, operations)]
    vae = Answers(v, o, latent=width)
    vae.answer(edges, named)
    assert vae.loss(tensors[0], *tensors).item() == pytest.approx(expected, rel=1e-5)


def test_encoder_against_the_library():
    """GIN layers of torch_geometric with the same perceptrons."""
    from torch_geometric.nn import DenseGINConv

    torch.manual_seed(0)
    data = small_data()
    vae = Arch2vec(4, hidden=6, latent=3, layers=2)
    vae.epsilon.data = torch.tensor([0.3, -0.2])
    for module in vae.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    vae.eval()
    adjacency, x = data.adjacency[:20], data.operations[:20]
    with torch.no_grad():
        mu, log_std = vae.encode(adjacency, x)
        for perceptron, epsilon in zip(vae.perceptrons, vae.epsilon, strict=True):
            rows = torch.nn.Sequential(
                torch.nn.Flatten(0, 1), *perceptron, torch.nn.Unflatten(0, (20, 4))
            )
            layer = DenseGINConv(torch.nn.Identity(), eps=float(epsilon))
            layer.nn = rows  # given at once, its weights would be drawn anew
            x = layer(x, adjacency + adjacency.mT)
        both = vae.mu_and_log_std(x)
    np.testing.assert_allclose(torch.cat([mu, log_std], 2), both, atol=1e-5)


def test_encoder_against_a_loop():
    """GIN by its formula: MLP((1 + eps) x_v + sum of both-way neighbors), over nodes one by one."""
    torch.manual_seed(0)
    data = small_data()
    vae = Arch2vec(4, hidden=6, latent=3, layers=2)
    vae.epsilon.data.fill_(0.3)
    for module in vae.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    vae.eval()
    adjacency, one_hot = data.adjacency[:20], data.operations[:20]
    with torch.no_grad():
        mu, log_std = vae.encode(adjacency, one_hot)
        for b in range(20):
            x = [one_hot[b, v] for v in range(4)]
            for perceptron in vae.perceptrons:
                after = []
                for v in range(4):
                    total = 1.3 * x[v]
                    for u in range(4):
                        if adjacency[b, v, u] or adjacency[b, u, v]:
                            total = total + x[u]
                    after.append(perceptron(total[None])[0])
                x = after
            both = torch.stack([vae.mu_and_log_std(row) for row in x])
            np.testing.assert_allclose(torch.cat([mu[b], log_std[b]], 1), both, atol=1e-5)


def test_normalisation_runs_over_batch_and_vertices():
    vae = Arch2vec(4, hidden=6, latent=3, layers=1).train()
    data = small_data()
    seen = []
    norm = vae.perceptrons[0][1]
    norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    vae.encode(data.adjacency[:20], data.operations[:20])
    assert seen == [(80, 6)]


def test_sample_spreads_by_the_exponential_of_the_log_deviation():
    vae = Arch2vec(4, latent=3)
    mu, log_std = torch.full((20000, 4, 3), 5.0), torch.full((20000, 4, 3), math.log(2))
    torch.manual_seed(0)
    drawn = vae.sample(mu, log_std)
    assert drawn.mean().item() == pytest.approx(5, abs=0.02)
    assert drawn.std().item() == pytest.approx(2, abs=0.02)
    assert torch.equal(vae.eval().sample(mu, log_std), mu)


def test_decoder_by_hand():
    vae = Arch2vec(2, operations=2, latent=2).eval()
    vae.operations.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    vae.operations.bias.data = torch.tensor([0.0, -1.0])
    z = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])
    edges, named = vae.decode(z)
    assert edges[0].tolist() == [
        pytest.approx([sigmoid(5), sigmoid(1)]),
        pytest.approx([sigmoid(1), sigmoid(10)]),
    ]
    assert named[0].tolist() == [
        pytest.approx([sigmoid(1), sigmoid(3)]),
        pytest.approx([sigmoid(3), sigmoid(-3)]),
    ]


def test_softmax_is_an_option():
    vae = Arch2vec(4, latent=3, activation="softmax").eval()
    named = vae.decode(torch.randn(6, 4, 3))[1]
    np.testing.assert_allclose(named.sum(2).detach(), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="'relu'; choose sigmoid or softmax"):
        Arch2vec(activation="relu")


def test_widths_of_the_paper():
    vae = Arch2vec()
    dense = [[tuple(layer[k].weight.shape) for k in (0, 3)] for layer in vae.perceptrons]
    assert dense == [[(128, 5), (128, 128)], *[[(128, 128)] * 2] * 3]
    assert vae.mu_and_log_std.weight.shape == (2 * 16, 128)
    io = IOModel(vae)
    convolutions = [layer for layer in io.tower if isinstance(layer, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride[0]) for c in convolutions] == [
        (3, 128, 1), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2),
    ]  # fmt: skip
    assert all(c.bias is None for c in convolutions)  # METHOD 4
    assert io.flatten.weight.shape == (16, 112)
    dense = [tuple(layer.weight.shape) for layer in io.head if isinstance(layer, torch.nn.Linear)]
    assert dense == [(512, 528), (512, 512), (10, 512)]
    assert [layer.p for layer in io.head if isinstance(layer, torch.nn.Dropout)] == [0.5, 0.5]
    accuracy = AccuracyModel(vae)
    dense = [layer.weight.shape for layer in accuracy.head if isinstance(layer, torch.nn.Linear)]
    assert dense == [(512, 16), (1, 512)]
    assert not any(isinstance(layer, torch.nn.Dropout) for layer in accuracy.head)


def test_shapes():
    torch.manual_seed(0)
    vae = Arch2vec(4, latent=3, hidden=8)
    io = IOModel(vae, 3, channels=4, embedding=6, hidden=7, outputs=5)
    features = io.tower(torch.randn(9, 3, 8, 8))
    assert features.shape == (9, 16)
    z = torch.randn(9, 4, 3)
    assert io.predict(z, features).shape == (9, 5)
    predicted = AccuracyModel(vae, 6, 7).predict(z)
    assert predicted.shape == (9,)
    assert ((predicted > 0) & (predicted < 1)).all()


def test_accuracy_model_by_hand():
    model = AccuracyModel(Arch2vec(2, operations=2, latent=1), embedding=2, hidden=1)
    model.flatten.weight.data, model.flatten.bias.data = (
        torch.tensor([[1.0, 0], [0, 1]]),
        torch.zeros(2),
    )
    model.head[1].weight.data, model.head[1].bias.data = torch.tensor([[2.0, 5.0]]), torch.ones(1)
    model.head[3].weight.data, model.head[3].bias.data = torch.tensor([[0.5]]), torch.zeros(1)
    # Z (3, -4): the ReLU drops -4; 2 * 3 + 1 = 7; 7 / 2
    assert model.predict(torch.tensor([[[3.0], [-4.0]]])).item() == pytest.approx(sigmoid(3.5))
