"""LSTM on the tokens of a cell, as the encoder of SemiNAS (Luo et al. 2020)."""

import numpy as np
import torch
from torch import Tensor, nn

from ionas.predictors.interface import Predict
from ionas.predictors.training import Loss, fit_network

WIDTH, DROPOUT = 64, 0.1


class Sequence(nn.Module):
    """Tokens (B, T) -> (B,): an LSTM, the mean over its states of length 1, a perceptron."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, WIDTH, padding_idx=0)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, 1)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.lstm(self.embed(tokens))
        present = (tokens > 0)[:, :, None]
        mean = (states * present).sum(1) / present.sum(1).clamp_min(1)
        return self.head(nn.functional.normalize(mean, dim=1))[:, 0]


def fit_lstm(inputs: np.ndarray, targets: np.ndarray, seed: int, loss: Loss = "squared") -> Predict:
    """Fit on (n, T) tokens of `encodings.sequence`."""

    def tensors(given: np.ndarray) -> list[Tensor]:
        return [torch.from_numpy(given.astype(np.int64))]

    return fit_network(lambda: Sequence(12), tensors, inputs, targets, seed, loss)
