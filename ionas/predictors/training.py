"""How the neural predictors learn: AdamW, a one-cycle rate, and one of two losses."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ionas.predictors.interface import Predict

Loss = Literal["hinge", "squared"]
MARGIN, EPOCHS, DECAY, CLIP = 0.1, 60, 1e-3, 5.0
CHUNK = 512  # inputs predicted at a time: their states fit the cache of a core


def fit_network(
    make: Callable[[], nn.Module],
    tensors: Callable[[Any], list[Tensor]],
    inputs: Any,
    targets: np.ndarray,
    seed: int,
    loss: Loss,
) -> Predict:
    """Train the network that `make` gives on the tensors of its inputs, and predict with it.

    `hinge` is the mean of max(0, MARGIN - f(better) + f(worse)) over all pairs in a batch: what is
    predicted then ranks the inputs and has no scale (GATES, Ning et al. 2020). `squared` is the
    squared error of the standardised targets. Fewer inputs are seen in smaller batches. Torch's
    random state is left as it was.
    """
    mean, deviation = (0.0, 1.0) if loss == "hinge" else (targets.mean(), targets.std() or 1.0)
    y = torch.from_numpy((targets - mean) / deviation).float()
    batch, rate = (32 if len(y) < 200 else 64, 2e-3) if len(y) < 2000 else (128, 3e-3)
    batches = max(1, round(len(y) / batch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, given = make(), tensors(inputs)
        optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=DECAY, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, EPOCHS * batches)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(y)).tensor_split(batches):
                error = LOSSES[loss](network(*(tensor[rows] for tensor in given)), y[rows])
                optimizer.zero_grad()
                error.backward()
                nn.utils.clip_grad_norm_(network.parameters(), CLIP)
                optimizer.step()
                schedule.step()
    network.eval()

    @torch.inference_mode()
    def predict(others: Any) -> np.ndarray:
        given, found = tensors(others), np.empty(len(others))
        for start in range(0, len(found), CHUNK):
            part = slice(start, start + CHUNK)
            found[part] = network(*(tensor[part] for tensor in given))
        return found * deviation + mean

    return predict


def hinge(predicted: Tensor, y: Tensor) -> Tensor:
    """Mean hinge loss of all pairs of (B,) predictions whose targets differ."""
    better = y[:, None] > y
    missing = (MARGIN - predicted[:, None] + predicted).clamp_min(0)
    return (missing * better).sum() / better.sum().clamp_min(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": hinge,
    "squared": nn.functional.mse_loss,
}
