"""The written-out gradient against the plain model, differentiated automatically."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from embedding_data import SMALL, small_data

from ionas.embedding import arch2vec_gradient, training
from ionas.embedding.arch2vec import Arch2vec, loss
from ionas.embedding.training import Settings, build
from ionas.space.cells import cell_tensors, random_cells


def plain_step(vae, adjacency, operations, label_loss=None, weight=1.0):
    """The formulas of `Arch2vec` and `loss`; gradients by autograd."""
    mu, log_std = vae.encode(adjacency, operations)
    z = vae.sample(mu, log_std)
    total = loss(vae.decode(z), adjacency, operations, mu, log_std)
    labels = None
    if label_loss:
        labels = label_loss(z)
        total = total + weight * labels
    vae.zero_grad(set_to_none=False)
    total.backward()
    return total.detach(), mu.detach(), labels


def cells(n, dtype=torch.float32):
    tensors = cell_tensors(random_cells(n, np.random.default_rng(0), 5))
    return [tensor.to(dtype) for tensor in tensors]


def pair(**options):
    """Twice the same autoencoder, with gradients to write to."""
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        vae = Arch2vec(**options).train()
        for parameter in vae.parameters():
            parameter.grad = torch.full_like(parameter, 7.0)  # must be overwritten
        found.append(vae)
    return found


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("labeled", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "softmax"}, {"dropout": 0.0}, {"hidden": 12, "latent": 3, "layers": 1}],
    ids=str,
)
def test_gradient_of_every_parameter(options, labeled):
    plain, fast = pair(**options)
    adjacency, operations = cells(20, torch.float64)
    for vae in (plain, fast):
        for convolution in vae.convolutions:
            convolution.eps.data.fill_(0.3)
    head = torch.nn.Parameter(torch.ones(plain.vertices, plain.latent))

    def label_loss(z):
        return (z * head).sum((1, 2)).square().mean() / 100

    results = []
    for number in range(2):
        torch.manual_seed(number)
        head.grad = None
        extra = (label_loss, 0.5) if labeled else ()
        first = plain_step(plain, adjacency, operations, *extra)
        of_head, head.grad = head.grad, None
        torch.manual_seed(number)
        second = arch2vec_gradient.step(arch2vec_gradient.plan(fast), adjacency, operations, *extra)
        results.append(second[0])
        for one, other in zip(first, second, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_allclose(other, one.detach(), rtol=1e-12, atol=1e-14)
        if labeled:
            np.testing.assert_allclose(head.grad, of_head, rtol=1e-10)
    for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert one.grad.abs().max() > 0
        np.testing.assert_allclose(other.grad, one.grad, rtol=1e-9, atol=1e-13, err_msg=name)
    for (name, one), other in zip(plain.named_buffers(), fast.buffers(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-12, err_msg=name)
    assert results[0] != results[1]


def test_losses_of_the_plain_model_at_the_papers_width():
    """Float32, batches of 32, from the same parameters at each of 40 steps of a training."""
    settings = replace(Settings(), batch_size=32)
    adjacency, operations = cells(32 * 40)
    data = replace(small_data(7), adjacency=adjacency, operations=operations)
    trainer = training._Trainer("arch2vec", 1, build("arch2vec", data, settings, 1), data, settings)
    plain = build("arch2vec", data, settings, 1).train()
    trainer.model.train()
    found = []
    for number, rows in enumerate(torch.arange(len(adjacency)).split(32)):
        plain.load_state_dict(trainer.model.state_dict())
        torch.manual_seed(number)
        expected, mu, _ = plain_step(plain, adjacency[rows], operations[rows])
        torch.manual_seed(number)
        total, _, fast_mu = trainer._step(rows, None)
        assert total.item() == pytest.approx(expected.item(), rel=0, abs=1e-5)
        np.testing.assert_allclose(fast_mu, mu, rtol=1e-4, atol=1e-5)
        found.append(total.item())
    assert np.mean(found[-5:]) < 0.6 * np.mean(found[:5])


@pytest.mark.usefixtures("double")
def test_a_training_of_the_plain_model():
    """Float64, 30 steps with torch's Adam and clipping: every loss of the way is the same."""
    adjacency, operations = cells(32 * 30, torch.float64)
    settings = Settings(batch_size=32, clip=1.0)
    data = replace(small_data(7), adjacency=adjacency, operations=operations)
    trainer = training._Trainer("arch2vec", 1, build("arch2vec", data, settings, 1), data, settings)
    plain = build("arch2vec", data, settings, 1).train()
    trainer.model.train()
    adam = torch.optim.Adam(plain.parameters(), lr=1e-3)
    clipped = 0
    for number, rows in enumerate(torch.arange(len(adjacency)).split(32)):
        torch.manual_seed(number)
        expected, _, _ = plain_step(plain, adjacency[rows], operations[rows])
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        clipped += bool(norm > 1)
        adam.step()
        torch.manual_seed(number)
        assert trainer._step(rows, None)[0].item() == pytest.approx(expected.item(), abs=1e-5)
    assert 0 < clipped < 30


def test_a_checkpoint_of_torchs_adam_is_read(tmp_path):
    """What Adam remembers is kept under torch's names."""
    settings = replace(SMALL, epochs=1)
    training.train("io", 1, small_data(), settings, tmp_path)
    tensors, _ = training._read(
        tmp_path / "checkpoints" / "io_seed1.safetensors",
        training._key("io", 1, small_data(), settings),
    )
    names = {f"{k}.{entry}" for k in range(2) for entry in ("exp_avg", "exp_avg_sq", "step")}
    assert {n for n in tensors if n.startswith("labeled")} == {f"labeled.{n}" for n in names}
    assert tensors["labeled.0.step"] == 8  # 60 pairs in batches of 8
    assert tensors["unlabeled.0.step"] == 9  # 70 cells
