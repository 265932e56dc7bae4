"""Gaussian process on a matrix, with one length scale per feature (Rasmussen and Williams 2006).

With inputs and targets standardised, two inputs at distance d^2 = sum of ((x_j - x'_j) / l_j)^2
covary by the Matern kernel of smoothness 5/2,

    k = s (1 + sqrt(5) d + 5 d^2 / 3) exp(-sqrt(5) d),

and each target has noise of variance v. The logarithms of s, v and all l_j are fitted by Adam to
the marginal likelihood, with a small penalty that pulls them to where they start; this holds where
the unbounded search of a quasi-Newton method leaves the positive definite matrices.
"""

import numpy as np
import torch
from torch import Tensor

from ionas.predictors.interface import Predict, standard_scale

STEPS, RATE, PENALTY = 80, 0.1, 0.2
SIGNAL, NOISE = 1.0, 0.05  # variances at the start
MOST = 1000  # inputs that the kernel is fitted to; the posterior knows all of them
CHUNK = 512  # inputs predicted at a time: their covariances fit the cache of a core
JITTER = 1e-4


class Kernel:
    """The kernel and the noise, by the logarithms of their parameters: s, v, then every l_j."""

    def __init__(self, logs: Tensor) -> None:
        self.signal, self.noise, self.lengths = logs[0].exp(), logs[1].exp(), logs[2:].exp()

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Covariances (n, m) of (n, D) and (m, D) standardised inputs."""
        a, b = a / self.lengths, b / self.lengths
        square = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
        distance = (5 * square.clamp_min(1e-12)).sqrt()
        return self.signal * (1 + distance + distance.square() / 3) * (-distance).exp()

    def factor(self, inputs: Tensor) -> Tensor:
        """Cholesky factor of the covariance of the targets at (n, D) inputs."""
        # By parts and in place: 10,000 inputs need 0.8 GB for each matrix of their size.
        covariance = torch.cat([self(part, inputs) for part in inputs.split(MOST)])
        covariance.diagonal().add_(self.noise + JITTER)
        return torch.linalg.cholesky(covariance)


def fit_gaussian_process(inputs: np.ndarray, targets: np.ndarray, seed: int) -> Predict:
    """Fit the kernel, of many inputs to MOST random ones, and condition on all of them."""
    rows = np.random.default_rng(seed).permutation(len(inputs))[:MOST]
    x = torch.from_numpy(standard_scale(inputs)(inputs)[rows]).double()
    y = torch.from_numpy((targets - targets.mean()) / (targets.std() or 1.0))[rows].double()
    return posterior_mean(inputs, targets, fit_kernel(x, y))


def fit_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Logarithms of the parameters, as `Kernel` has them, for (n, D) inputs and (n,) targets."""
    start = torch.tensor([SIGNAL, NOISE, *[x.shape[1] ** 0.5] * x.shape[1]]).double().log()
    logs = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logs], RATE)
    for _ in range(STEPS):
        factor = Kernel(logs).factor(x)
        explained = torch.linalg.solve_triangular(factor, y[:, None], upper=False)
        loss = explained.square().sum() / 2 + factor.diagonal().log().sum()
        loss = loss + PENALTY * (logs - start).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return logs.detach()


def posterior_mean(inputs: np.ndarray, targets: np.ndarray, logs: Tensor) -> Predict:
    """Condition on (n, D) inputs and (n,) targets, for logarithms of parameters as `Kernel` has.

    Predicts the expected targets of others in single precision, which is seven times as fast.
    """
    scaled, mean, deviation = standard_scale(inputs), targets.mean(), targets.std() or 1.0
    known = torch.from_numpy(scaled(inputs))
    standard = torch.from_numpy((targets - mean) / deviation).double()
    factor = Kernel(logs).factor(known.double())
    weights = torch.cholesky_solve(standard[:, None], factor)[:, 0].float()
    kernel, known = Kernel(logs.float()), known.float()

    def predict(others: np.ndarray) -> np.ndarray:
        # Written into one array: small results between large matrices would break up the heap.
        found = np.empty(len(others))
        for start in range(0, len(others), CHUNK):
            part = slice(start, start + CHUNK)
            found[part] = kernel(torch.from_numpy(scaled(others[part])), known) @ weights
        return found * deviation + mean

    return predict
