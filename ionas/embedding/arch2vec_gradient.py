"""The training loss of `arch2vec` with its gradient written out, for speed; same arithmetic.

A batch of 32 cells is 224 rows of 128 numbers. On matrices so small the bookkeeping of automatic
differentiation costs as much as the arithmetic. Here nothing is recorded, and gradients are written
where the optimizer reads them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ionas.embedding.arch2vec import Arch2vec

# A product with so few columns takes three times as long as its transpose.
NARROW = 16
# The overload is named because its lookup would cost as much as a small operation.
_aten: Any = torch.ops.aten
_entropy = _aten.binary_cross_entropy.default
_entropy_backward = _aten.binary_cross_entropy_backward.default
_normalise_backward = _aten.native_batch_norm_backward.default
_relu_backward = _aten.threshold_backward.grad_input
_sigmoid_backward = _aten.sigmoid_backward.default
_softmax_backward = _aten._softmax_backward_data.default


class _Dense(NamedTuple):
    weight: Tensor
    bias: Tensor
    to_weight: Tensor  # gradients
    to_bias: Tensor


class _Norm(NamedTuple):
    weight: Tensor
    bias: Tensor
    running: tuple[Tensor, Tensor]
    momentum: float
    eps: float


class Plan(NamedTuple):
    """The tensors of an autoencoder by place, so that a step need not look them up."""

    vae: Arch2vec
    epsilons: list[Tensor]
    to_epsilons: list[Tensor]
    dense: list[_Dense]  # two for each layer
    norms: list[_Norm]  # the same
    to_norms: list[Tensor]  # gradients of weights and biases in turns
    counts: list[Tensor]
    mu: _Dense
    log_std: _Dense
    operations: _Dense
    identity: Tensor  # (V, V)
    one: Tensor


def plan(vae: Arch2vec) -> Plan:
    """Prepare for `step`; every parameter must have a `grad`, which steps overwrite."""
    convolutions: Any = vae.convolutions  # modules in a list lose their types
    dense: list[_Dense] = []
    norms: list[Any] = []
    for convolution, norm in zip(convolutions, vae.norms, strict=True):
        _, first, inner, _, second, _ = convolution.nn
        dense += [_dense(first), _dense(second)]
        norms += [inner, norm]
    for layer in dense:
        # What normalisation subtracts again has no gradient. Rounding gives a little, which Adam
        # would blow up to a random walk.
        layer.to_bias.zero_()
    epsilons = [convolution.eps for convolution in convolutions]
    like = vae.mu.weight.detach()
    return Plan(
        vae,
        [epsilon.detach() for epsilon in epsilons],
        [gradient_of(epsilon).view(()) for epsilon in epsilons],
        dense,
        [_norm(norm) for norm in norms],
        [gradient_of(part) for norm in norms for part in (norm.weight, norm.bias)],
        [norm.num_batches_tracked for norm in norms],
        _dense(vae.mu),
        _dense(vae.log_std),
        _dense(vae.operations),
        torch.eye(vae.vertices, dtype=like.dtype, device=like.device),
        like.new_ones(()),
    )


@torch.no_grad()
def step(
    plan: Plan,
    adjacency: Tensor,
    operations: Tensor,
    label_loss: Callable[[Tensor], Tensor] | None = None,
    weight: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Loss of a batch in training mode; leaves its gradient in the parameters' `grad`.

    Parameters
    ----------
    adjacency, operations
        (B, V, V) upper triangular and (B, V, O) one-hot.
    label_loss, weight
        From Z (B, V, L) to a loss that is added with this weight. It is differentiated
        automatically; the gradients of other parameters that it meets are added to their `grad`.

    Returns
    -------
    loss, mu, label_loss
        The sum; (B, V, L); and the part on labels, None without it.
    """
    activations, mu, log_std = _encode(plan, adjacency, operations)
    std = log_std.exp()
    noise = torch.randn_like(mu)
    z = torch.addcmul(mu, std, noise)
    total, to_z = _reconstruction(plan, z, adjacency, operations)
    labels = None
    if label_loss is not None:
        with torch.enable_grad():
            labels = label_loss(z.requires_grad_())
            (weight * labels).backward()
        labels = labels.detach()
        total, to_z = total + weight * labels, to_z + gradient_of(z)
    # `kl_term`, and its gradients mu / n^2 and (sigma^2 - 1) / n^2, where n = B * V.
    share = (mu.shape[0] * mu.shape[1]) ** -2
    squares = _square_sum(mu).add_(_square_sum(std))
    total += squares.sub_(log_std.sum(), alpha=2).sub_(mu.numel()).mul_(share / 2)
    to_mu = torch.add(to_z, mu, alpha=share)
    to_log_std = to_z.mul_(noise).add_(std, alpha=share).mul_(std).sub_(share)
    _backward(plan, activations, to_mu.flatten(0, 1), to_log_std.flatten(0, 1))
    return total, mu, labels


class _Activations(NamedTuple):
    """What the way back needs, R = B * V rows: one entry for each layer, or two."""

    aggregations: Tensor  # (layers, B, V, V): A + A^T + (1 + epsilon) I
    inputs: list[Tensor]  # (R, D), and the last output
    dense: list[Tensor]  # inputs of dense layers, (R, D)
    norms: list[tuple[Tensor, Tensor, Tensor, Tensor]]  # input, ReLU of output, mean, 1 / deviation


def _encode(
    plan: Plan, adjacency: Tensor, operations: Tensor
) -> tuple[_Activations, Tensor, Tensor]:
    batch, vertices, _ = adjacency.shape
    both_ways = adjacency + adjacency.transpose(1, 2)
    factors = torch.stack(plan.epsilons).add_(1).view(-1, 1, 1, 1)
    aggregations = torch.addcmul(both_ways, factors, plan.identity)
    saved = _Activations(aggregations, [operations.flatten(0, 1)], [], [])
    torch._foreach_add_(plan.counts, 1)
    for layer, aggregation in enumerate(aggregations.unbind()):
        x = torch.bmm(aggregation, saved.inputs[-1].view(batch, vertices, -1)).flatten(0, 1)
        for k in (2 * layer, 2 * layer + 1):
            dense, norm = plan.dense[k], plan.norms[k]
            before = torch.addmm(dense.bias, x, dense.weight.t())
            after, mean, inverse = torch.native_batch_norm(
                before, norm.weight, norm.bias, *norm.running, True, norm.momentum, norm.eps
            )
            saved.dense.append(x)
            x = after.relu_()
            saved.norms.append((before, x, mean, inverse))
        saved.inputs.append(x)
    mu, log_std = (
        torch.addmm(dense.bias, x, dense.weight.t()).view(batch, vertices, -1)
        for dense in (plan.mu, plan.log_std)
    )
    return saved, mu, log_std


def _reconstruction(
    plan: Plan, z: Tensor, adjacency: Tensor, operations: Tensor
) -> tuple[Tensor, Tensor]:
    """Reconstruction loss of Z in training, and its gradient there."""
    kept = torch.dropout(torch.ones_like(z), plan.vae.dropout.p, train=True)
    z = z * kept
    # The lower triangle is 0 in prediction and target: no loss, and no gradient.
    edges = torch.bmm(z, z.transpose(1, 2)).sigmoid_().triu_(1)
    rows = z.flatten(0, 1)
    dense = plan.operations
    logits = torch.addmm(dense.bias, rows, dense.weight.t()).view_as(operations)
    softmax = plan.vae.activation == "softmax"
    named = logits.softmax(-1) if softmax else logits.sigmoid_()
    total = _entropy(edges, adjacency) + _entropy(named, operations)
    to_edges = _sigmoid_backward(_entropy_backward(plan.one, edges, adjacency), edges)
    to_named = _entropy_backward(plan.one, named, operations)
    if softmax:
        to_logits = _softmax_backward(to_named, named, -1, named.dtype)
    else:
        to_logits = _sigmoid_backward(to_named, named)
    to_z = torch.bmm(to_edges + to_edges.transpose(1, 2), z)
    to_z += _dense_backward(dense, rows, to_logits.flatten(0, 1)).view_as(z)
    return total, to_z.mul_(kept)


def _backward(plan: Plan, saved: _Activations, to_mu: Tensor, to_log_std: Tensor) -> None:
    x = saved.inputs[-1]
    batch, vertices, _ = saved.aggregations[0].shape
    gradient = _dense_backward(plan.mu, x, to_mu)
    gradient += _dense_backward(plan.log_std, x, to_log_std)
    to_norms: list[Tensor] = []
    for layer in reversed(range(len(plan.epsilons))):
        for k in (2 * layer + 1, 2 * layer):
            before, after, mean, inverse = saved.norms[k]
            gradient = _relu_backward(gradient, after, 0, grad_input=gradient)
            gradient, to_weight, to_bias = _normalise_backward(
                gradient, before, plan.norms[k].weight, None, None,
                mean, inverse, True, plan.norms[k].eps, [True, True, True],
            )  # fmt: skip
            to_norms += [to_bias, to_weight]
            gradient = _dense_backward(plan.dense[k], saved.dense[k], gradient, bias=False)
        torch.dot(gradient.flatten(), saved.inputs[layer].flatten(), out=plan.to_epsilons[layer])
        if layer:  # aggregations are symmetric
            gradient = gradient.view(batch, vertices, -1)
            gradient = torch.bmm(saved.aggregations[layer], gradient).flatten(0, 1)
    torch._foreach_copy_(plan.to_norms, to_norms[::-1])


def _square_sum(x: Tensor) -> Tensor:
    return torch.dot(x.flatten(), x.flatten())


def _dense_backward(layer: _Dense, x: Tensor, gradient: Tensor, bias: bool = True) -> Tensor:
    """Write the gradients of a dense layer and return that at its input."""
    if bias:
        torch.sum(gradient, 0, out=layer.to_bias)
    if x.shape[1] < NARROW:
        layer.to_weight.copy_(torch.mm(x.t(), gradient).t())
        return torch.mm(layer.weight.t(), gradient.t()).t().contiguous()
    torch.mm(gradient.t(), x, out=layer.to_weight)
    return torch.mm(gradient, layer.weight)


def _dense(layer: nn.Linear) -> _Dense:
    weight, bias = layer.weight, layer.bias
    return _Dense(weight.detach(), bias.detach(), gradient_of(weight), gradient_of(bias))


def _norm(norm: nn.BatchNorm1d) -> _Norm:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    running = (norm.running_mean, norm.running_var)
    return _Norm(norm.weight.detach(), norm.bias.detach(), running, norm.momentum, norm.eps)


def gradient_of(parameter: Tensor) -> Tensor:
    """Where the gradient of a parameter is written; it must be there."""
    assert parameter.grad is not None
    return parameter.grad
