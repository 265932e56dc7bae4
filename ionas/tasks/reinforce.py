"""Search the embedding space by REINFORCE, and at random (appendix G; METHOD section 9).

All runs of a search advance in step: their policies are stacked along a leading dimension, so that
one batched product serves a hundred runs. No run depends on the others.

`torch.vmap` has no rule for `torch.nn.LSTMCell`, so the cell and its gradient are written out; a
test compares them with torch's own.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ionas.benchmark.table import Table
from ionas.parameters import Reinforce
from ionas.parts import Call, complete
from ionas.tasks.clock import (
    COLUMNS,
    Clock,
    can_be_queried,
    improvements,
    training_cost,
    with_cost,
)
from ionas.tasks.embeddings import check_embeddings, split_names

RANDOM = "random"
EVALUATIONS = 300  # queries of average cost that the default budget pays for
LEAST_ROWS = 8  # products of fewer rows may be rounded differently


class Policies(NamedTuple):
    """The policies of R runs: an LSTM cell D -> H, then a dense layer H -> D."""

    input: Tensor  # (R, D, 4H)
    hidden: Tensor  # (R, H, 4H)
    bias: Tensor  # (R, 4H), both biases of the LSTM cell added
    output: Tensor  # (R, H, D)
    output_bias: Tensor  # (R, D)


class Step(NamedTuple):
    """One step of every policy, saved for the backward pass."""

    x: Tensor  # (R, D)
    hidden: Tensor  # (R, H), before the step, and so is the cell
    cell: Tensor
    gates: tuple[Tensor, ...]  # i, f, g, o after their activations, (R, H) each
    tanh: Tensor  # (R, H), of the new cell
    output: Tensor  # (R, H), the new hidden state


@torch.no_grad()
def reinforce(
    embedding: np.ndarray,
    measured: pd.DataFrame,
    budget: float,
    baseline: float,
    runs: int = 100,
    seed: int = 0,
    episode: int = 16,
    hidden: int = 128,
    learning_rate: float = 1e-2,
) -> pd.DataFrame:
    """Search with a recurrent policy that points at the next cell in the embedding space.

    From the embedding of its present cell each policy computes the mean of a normal distribution
    with identity covariance. A sample is drawn, and the next cell is the one nearest to it, by
    Euclidean distance, that the run has not visited yet. Every `episode` steps the policy is
    updated by Adam on the mean of `-log p(sample) * (validation accuracy - baseline)`, with log p
    summed over the D dimensions, and the hidden state is reset. The first cell is random and costs
    nothing.

    Takes (N, D) embeddings, N rows from `clock.with_cost` (cells that cannot be queried are never
    visited), the simulated time after which a run stops, and the baseline subtracted from the
    reward (paper: 0.95). Run r draws from its own generator, seeded by (seed, r). Returns the
    result of `Clock.trajectories`.
    """
    check_embeddings({"": embedding}, len(measured))
    clock = Clock(measured, runs)
    known = np.flatnonzero(can_be_queried(measured))
    points = torch.as_tensor(embedding[known], dtype=torch.float32)  # (N, D)
    columns = points.T.contiguous()
    # Half the squared norm of every point, infinite once a run has visited it.
    offsets = (points.square().sum(1) / 2).repeat(max(runs, LEAST_ROWS), 1)
    scores = torch.empty_like(offsets)
    generators = [_generator(seed, run) for run in range(runs)]
    drawn = [initial_policy(points.shape[1], hidden, g) for g in generators]
    # Weights (out, in) become (in, out), so that products read memory in order.
    policies = Policies(
        *(torch.stack(part).transpose(1, -1).contiguous() for part in zip(*drawn, strict=True))
    )
    # The two biases of an LSTM cell have equal gradients, so their sum moves by two equal steps.
    groups: list[dict[str, Any]] = [
        {"params": [part for part in policies if part is not policies.bias]},
        {"params": [policies.bias], "lr": 2 * learning_rate},
    ]
    optimizer = torch.optim.Adam(groups, lr=learning_rate, fused=True)
    here = torch.stack([torch.randint(len(known), (), generator=g) for g in generators])
    row = torch.arange(runs)
    offsets[row, here] = math.inf
    left = np.full(runs, len(known) - 1)
    active = left > 0
    while active.any():
        noise = torch.stack(  # (R, episode, D)
            [torch.randn(episode, points.shape[1], generator=g) for g in generators]
        )
        state = (torch.zeros(runs, hidden),) * 2
        steps, grad_means = [], []
        for number in range(episode):
            mean, step, cell = forward(policies, points[here], state)
            state = (step.output, cell)
            here = nearest(mean + noise[:, number], columns, offsets, scores)
            accuracy = clock.query(known[here.numpy()], active)
            offsets[row[active], here[active]] = math.inf
            left -= active
            # -log p is the sum of (sample - mean)^2 / 2 and a constant.
            gain = torch.as_tensor(accuracy - baseline, dtype=torch.float32)
            grad_means.append(-noise[:, number] * gain[:, None] / episode)
            steps.append(step)
            active = active & (clock.elapsed < budget) & (left > 0)
            if not active.any():
                return clock.trajectories()
        found = backward(policies, steps, grad_means)
        for parameter, gradient in zip(policies, found, strict=True):
            parameter.grad = gradient
        optimizer.step()
    return clock.trajectories()


def random_search(
    measured: pd.DataFrame, budget: float, runs: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Visit cells in random order, none twice: the baseline that a search must beat.

    Arguments and result are those of `reinforce`.
    """
    clock = Clock(measured, runs)
    known = np.flatnonzero(can_be_queried(measured))
    orders = [np.random.default_rng([seed, run]).permutation(known) for run in range(runs)]
    for cells in np.stack(orders).T:
        active = clock.elapsed < budget
        if not active.any():
            break
        clock.query(cells, active)
    return clock.trajectories()


def setting(
    table: Table, split: pd.DataFrame, networks: pd.DataFrame, p: Reinforce
) -> dict[str, Any]:
    """Settle what the searches of `search_all` have in common.

    Takes labeled cells of notebook 01 and trained networks of notebook 02: `index`, `labeled`.
    Returns the number of `cells`; `searchable`, that of cells that can be queried; `time_unit`;
    `budget`; `baseline`, the best validation accuracy cut to two digits, which on NAS-Bench-101
    (0.9505) is the paper's 0.95; `label_cost`, by model: the time of its labeled train networks,
    times `p.label_cost`.
    """
    measured = with_cost(table, p.cost)
    labeled = {"io": networks, "accuracy": split}
    trained = {name: c.loc[c["labeled"] == "train", "index"] for name, c in labeled.items()}
    best = float(measured["validation_accuracy"].max())
    return {
        "cells": len(table),
        "searchable": int(can_be_queried(measured).sum()),
        "time_unit": "evaluations" if p.cost == "evaluations" else table.time_unit,
        "budget": p.budget or EVALUATIONS * float(measured["cost"].mean()),
        "baseline": p.baseline or math.floor(100 * best) / 100,
        "label_cost": {
            name: p.label_cost * training_cost(measured, cells.to_numpy())
            for name, cells in trained.items()
        },
    }


def search_all(
    table: Table,
    embeddings: Mapping[str, np.ndarray],
    setting: Mapping[str, Any],
    p: Reinforce,
    *,
    parts: Path,
    jobs: int = 0,
) -> pd.DataFrame:
    """Run `reinforce` in every embedding of every training, and `random_search` for comparison.

    Takes `NAME_seedS` -> (N, D), of which full latent matrices are left out, and the result of
    `setting`. Finished searches are kept in the folder `parts`. Returns `embedding`,
    `training_seed` (missing for `random`), and the columns of `clock.improvements`, about ten rows
    per run. Raises ValueError if an embedding does not fit the table or is not finite.
    """
    measured = with_cost(table, p.cost)
    names = split_names(embeddings).query("embedding != 'latent'")
    arrays = {name: embeddings[name] for name in names.index}
    check_embeddings(arrays, len(measured))
    given = {"budget": setting["budget"], "runs": p.runs, "seed": p.seed}
    policy = given | p.model_dump(include={"episode", "hidden", "learning_rate"})
    policy["baseline"] = setting["baseline"]
    calls: list[Call] = [((policy,), ("measured", name)) for name in names.index]
    calls.append(((given,), ("measured",)))
    arrays["measured"] = measured.to_numpy()
    found = complete(_search, calls, arrays, parts, jobs, "searches", "search")
    labels = [*names[["embedding", "training_seed"]].itertuples(index=False), (RANDOM, pd.NA)]
    tables = []
    for (name, training), rows in zip(labels, found, strict=True):
        walk = pd.DataFrame(rows)
        walk.insert(0, "embedding", name)
        walk.insert(1, "training_seed", pd.array([training] * len(walk), dtype="Int64"))
        tables.append(walk)
    return pd.concat(tables, ignore_index=True)


def forward(
    policies: Policies, x: Tensor, state: tuple[Tensor, Tensor]
) -> tuple[Tensor, Step, Tensor]:
    """One step of every policy: (R, D) and two (R, H) -> means (R, D), and the new cell (R, H)."""
    hidden, cell = state
    sums = torch.baddbmm(policies.bias[:, None], x[:, None], policies.input)
    sums = sums.baddbmm_(hidden[:, None], policies.hidden)[:, 0]
    i, f, g, o = sums.chunk(4, 1)
    gates = (i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid())
    new = gates[1] * cell + gates[0] * gates[2]
    tanh = new.tanh()
    output = gates[3] * tanh
    mean = torch.baddbmm(policies.output_bias[:, None], output[:, None], policies.output)[:, 0]
    return mean, Step(x, hidden, cell, gates, tanh, output), new


def backward(policies: Policies, steps: list[Step], grad_means: list[Tensor]) -> Policies:
    """Gradients of all weights, from those with respect to the means of an episode, (R, D) each.

    The gradient of a weight is one product over all steps; a product per step would write and add
    up an array as large as the weights each time.
    """
    grad_sums = []  # before the activations of the gates, last step first
    grad_hidden = grad_cell = torch.zeros_like(steps[0].hidden)
    for step, grad_mean in zip(reversed(steps), reversed(grad_means), strict=True):
        i, f, g, o = step.gates
        grad_output = grad_hidden + torch.bmm(grad_mean[:, None], policies.output.mT)[:, 0]
        grad_cell = grad_cell + grad_output * o * (1 - step.tanh.square())
        grad_gates = (
            grad_cell * g * i * (1 - i),
            grad_cell * step.cell * f * (1 - f),
            grad_cell * i * (1 - g.square()),
            grad_output * step.tanh * o * (1 - o),
        )
        grad_sums.append(torch.cat(grad_gates, 1))  # (R, 4H)
        grad_cell = grad_cell * f
        grad_hidden = torch.bmm(grad_sums[-1][:, None], policies.hidden.mT)[:, 0]
    sums, means = torch.stack(grad_sums[::-1], 1), torch.stack(grad_means, 1)  # (R, T, ...)
    x, hidden, output = (
        torch.stack([getattr(step, name) for step in steps], 2)  # (R, ..., T)
        for name in ("x", "hidden", "output")
    )
    return Policies(
        torch.bmm(x, sums),
        torch.bmm(hidden, sums),
        sums.sum(1),
        torch.bmm(output, means),
        means.sum(1),
    )


def nearest(samples: Tensor, points: Tensor, offsets: Tensor, scores: Tensor) -> Tensor:
    """Find the nearest of N points to each sample: (R, D), (D, N) and (R, N) -> (R,) indices.

    `offsets` are half the squared norms of the points, infinite where a point is not to be found.
    Half the squared distance less the part that is the same for all points is offset - s . p; it is
    written to `scores`, (R, N), whose memory is used again.
    """
    runs = len(samples)
    samples = nn.functional.pad(samples, (0, 0, 0, len(offsets) - runs))
    torch.addmm(offsets, samples, points, alpha=-1, out=scores)
    return torch.from_numpy(scores.numpy().argmin(1))[:runs]  # ten times as fast as torch's argmin


def initial_policy(width: int, hidden: int, generator: torch.Generator) -> Policies:
    """Draw the initial weights of one run as `torch.nn.LSTMCell` and `torch.nn.Linear` do.

    Weights have shape (out, in).
    """
    bound = hidden**-0.5

    def uniform(*shape: int) -> Tensor:
        return nn.init.uniform_(torch.empty(shape), -bound, bound, generator=generator)

    return Policies(
        uniform(4 * hidden, width),
        uniform(4 * hidden, hidden),
        uniform(4 * hidden) + uniform(4 * hidden),
        uniform(width, hidden),
        uniform(width),
    )


def _generator(seed: int, run: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, run]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def _search(
    settings: dict[str, Any], measured: np.ndarray, embedding: np.ndarray | None = None
) -> dict[str, list]:
    """One search of `search_all`; without an embedding it is random."""
    frame = pd.DataFrame(measured, columns=COLUMNS)
    if embedding is None:
        walks = random_search(frame, **settings)
    else:
        walks = reinforce(embedding, frame, **settings)
    return improvements(walks).to_dict("list")
