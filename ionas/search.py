"""Search the embedding space by REINFORCE, and at random (appendix G; METHOD section 9).

All runs of a search advance in lock-step: their policies are stacked along a leading dimension, so
that one batched product serves a hundred runs. No run depends on which others are beside it.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ionas import parallel
from ionas.table import Clock, Table, best, regret_curves


class Policies(NamedTuple):
    """The policies of R runs: an LSTM cell D -> H, then a dense layer H -> D."""

    input: Tensor  # (R, 4H, D)
    hidden: Tensor  # (R, 4H, H)
    bias: Tensor  # (R, 4H), both biases of the LSTM cell added
    output: Tensor  # (R, D, H)
    output_bias: Tensor  # (R, D)


def reinforce(
    embedding: np.ndarray,
    table: Table,
    runs: int = 100,
    budget: float = 0.0,
    seed: int = 0,
    baseline: float = 0.0,
    episode: int = 16,
    hidden: int = 128,
    learning_rate: float = 1e-2,
    device: str = "cpu",
) -> pd.DataFrame:
    """Search with a recurrent policy that points at the next cell in the embedding space.

    From the embedding of its present cell each policy gives the mean of a normal distribution with
    identity covariance; the next cell is the nearest one to a sample that the run has not visited
    yet, by Euclidean distance. Every `episode` steps the policy is updated by Adam on the mean of
    `-log p(sample) * (validation accuracy - baseline)`, log p averaged over dimensions, and the
    hidden state starts anew. The first cell is random and costs nothing.

    Parameters
    ----------
    embedding
        (N, D), a row for each cell of the table.
    table
        Cells without validation accuracy or training time are never visited.
    budget
        Simulated time after which a run stops, in the table's unit; see `default_budget`.
    baseline
        Subtracted from the reward (paper: 0.95); 0 takes `default_baseline`.
    seed
        Run r draws from its own generator, seeded by (seed, r).

    Returns
    -------
    DataFrame
        As `ionas.table.Clock.trajectories`.

    Raises
    ------
    ValueError
        If the embedding does not fit the table, or the table holds nothing to search.
    """
    _check(embedding, table)
    budget, baseline = budget or default_budget(table), baseline or default_baseline(table)
    points = torch.as_tensor(embedding, dtype=torch.float32, device=device)
    half_norms = points.square().sum(1) / 2  # (N,)
    clock = Clock(table, runs)
    generators = [_generator(seed, run) for run in range(runs)]
    policies = Policies(
        *(
            torch.stack(draw).to(device).requires_grad_()
            for draw in zip(
                *(_initial_policy(points.shape[1], hidden, g) for g in generators), strict=True
            )
        )
    )
    optimizer = torch.optim.Adam(policies, lr=learning_rate, foreach=True)
    known = torch.from_numpy(np.flatnonzero(clock.known))
    visited = torch.from_numpy(~clock.known).to(device).repeat(runs, 1)  # (R, N)
    here = torch.tensor([known[torch.randint(len(known), (1,), generator=g)] for g in generators])
    row = torch.arange(runs)
    visited[row, here] = True
    left = np.full(runs, len(known) - 1)
    active = left > 0
    while active.any():
        noise = torch.stack(
            [torch.randn(episode, points.shape[1], generator=g) for g in generators]
        )
        noise = noise.to(device)  # (R, episode, D)
        state = (torch.zeros(runs, hidden, device=device),) * 2
        losses = []
        for step in range(episode):
            mean, state = _act(policies, points[here], state)  # (R, D)
            sample = mean.detach() + noise[:, step]
            score = (
                half_norms - sample @ points.T
            )  # (R, N): half the squared distance, but for |s|^2
            here = score.masked_fill_(visited, math.inf).argmin(1).cpu()
            accuracy = clock.query(here.numpy(), active)
            visited[row, here] |= torch.from_numpy(active).to(device)
            left -= active
            log_p = -0.5 * ((sample - mean).square() + math.log(2 * math.pi)).mean(1)  # (R,)
            gain = torch.as_tensor(accuracy - baseline, dtype=torch.float32, device=device)
            losses.append(-log_p * gain)
            active = active & (clock.elapsed < budget) & (left > 0)
            if not active.any():
                return clock.trajectories()
        optimizer.zero_grad()
        torch.stack(losses).mean(0).sum().backward()
        optimizer.step()
    return clock.trajectories()


def random_search(
    table: Table, runs: int = 100, budget: float = 0.0, seed: int = 0
) -> pd.DataFrame:
    """Visit cells in random order, none twice: the floor that a search must beat.

    Parameters and result are those of `reinforce`.
    """
    _check(np.zeros((len(table), 1)), table)
    budget = budget or default_budget(table)
    clock = Clock(table, runs)
    known = np.flatnonzero(clock.known)
    orders = np.stack(
        [np.random.default_rng([seed, run]).permutation(known) for run in range(runs)]
    )
    for cells in orders.T:
        active = clock.elapsed < budget
        if not active.any():
            break
        clock.query(cells, active)
    return clock.trajectories()


def compare(
    embeddings: dict[str, np.ndarray],
    table: Table,
    runs: int = 100,
    budget: float = 0.0,
    seed: int = 0,
    jobs: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """Run `reinforce` in every embedding and `random_search` beside them, side by side.

    `settings` go to `reinforce`. Returns the trajectories with a first column `embedding`, random
    search under the name `random`.
    """
    items: list[tuple[Any, ...]] = [
        (reinforce, settings, points, table, runs, budget, seed) for points in embeddings.values()
    ]
    items.append((random_search, {}, table, runs, budget, seed))
    found = parallel.run(_call, items, jobs, "searches", "search")
    for name, frame in zip([*embeddings, "random"], found, strict=True):
        frame.insert(0, "embedding", name)
    return pd.concat(found, ignore_index=True)


def curves(
    trajectories: pd.DataFrame,
    table: Table,
    budget: float,
    shifts: dict[str, float] | None = None,
    points: int = 120,
    seed: int = 0,
) -> pd.DataFrame:
    """Regret curves of all searches of `compare` over the same times: see `table.regret_curves`.

    `shifts` is time added to the searches it names; the column `embedding` tells them apart.
    """
    grid = np.linspace(0, budget, points + 1)[1:]
    parts = []
    for name, rows in trajectories.groupby("embedding", sort=False):
        shift = (shifts or {}).get(str(name), 0.0)
        curve = regret_curves(rows, table, grid, shift, seed=seed)
        curve.insert(0, "embedding", name)
        parts.append(curve)
    return pd.concat(parts, ignore_index=True)


def of_training(stored: dict[str, np.ndarray], training_seed: int) -> dict[str, np.ndarray]:
    """Embeddings of one training among those stored as `NAME_seedS`; latent matrices left out.

    Raises
    ------
    ValueError
        If there is no training with this seed.
    """
    ending = f"_seed{training_seed}"
    found = {
        name.removesuffix(ending): points
        for name, points in stored.items()
        if name.endswith(ending) and not name.startswith("latent")
    }
    if not found:
        seeds = sorted({name.rpartition("_seed")[2] for name in stored})
        raise ValueError(f"no training has seed {training_seed}; there are: {', '.join(seeds)}")
    return dict(sorted(found.items()))


def final_regret(curves: pd.DataFrame, metric: str = "test") -> pd.DataFrame:
    """Regret at the end of the budget: a row per search with mean, low and high."""
    rows = curves[(curves["metric"] == metric) & (curves["time"] == curves["time"].max())]
    return rows.set_index("embedding")[["mean", "low", "high"]]


def alike(final: pd.DataFrame, names: list[str], reference: str) -> list[str]:
    """Those rows of `final_regret` whose 95 % interval overlaps that of the reference."""
    low, high = final.loc[reference, "low"], final.loc[reference, "high"]
    return [n for n in names if final.loc[n, "low"] <= high and low <= final.loc[n, "high"]]


def above(final: pd.DataFrame, names: list[str], reference: str) -> list[str]:
    """Those rows of `final_regret` that lie above the reference, without overlap: worse."""
    return [n for n in names if final.loc[n, "low"] > final.loc[reference, "high"]]


def effort(trajectories: pd.DataFrame) -> pd.DataFrame:
    """A row per search: evaluations per run, different cells over all runs, best incumbent."""
    groups = trajectories.groupby("embedding", sort=False)
    return pd.DataFrame(
        {
            "evaluations per run": (groups.size() / groups["run"].nunique()).round(1),
            "different cells": groups["cell"].nunique(),
            "best incumbent (test accuracy)": groups["incumbent_test"].max().round(4),
        }
    )


def charged(table: Table, cost: str = "time") -> Table:
    """The table with what a search pays for a cell as its training time.

    `cost` is `time`, the training time itself, or `evaluations`: every training counts 1, which
    needs no times.

    Raises
    ------
    ValueError
        If the table holds nothing to search at that cost.
    """
    if cost == "evaluations":
        about = table.about | {"time_unit": "evaluations"}
        table = Table(table.cells, table.frame.assign(training_time=1.0), about)
    _check_known(table)
    return table


def default_budget(table: Table, evaluations: int = 300) -> float:
    """Simulated time of `evaluations` trainings of an average cell, in the table's unit."""
    return evaluations * float(np.nanmean(table.values("training_time")))


def default_baseline(table: Table) -> float:
    """The best validation accuracy, rounded down to two digits.

    On NAS-Bench-101 (0.9505) that is the 0.95 of the paper, so a table with other accuracies gets
    what stands in the same relation to it.
    """
    return math.floor(100 * best(table)["validation_accuracy"]) / 100


def _act(
    policies: Policies, x: Tensor, state: tuple[Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One step of every policy: (R, D) and two (R, H) -> means (R, D) and the new state."""
    gates = torch.einsum("rgd,rd->rg", policies.input, x) + policies.bias
    gates = gates + torch.einsum("rgh,rh->rg", policies.hidden, state[0])
    i, f, g, o = gates.chunk(4, 1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    output = o.sigmoid() * cell.tanh()
    mean = torch.einsum("rdh,rh->rd", policies.output, output) + policies.output_bias
    return mean, (output, cell)


def _initial_policy(width: int, hidden: int, generator: torch.Generator) -> Policies:
    """Initial weights as `torch.nn.LSTMCell` and `torch.nn.Linear` draw them, of one run."""
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


def _call(function: Any, settings: dict[str, Any], *arguments: Any) -> pd.DataFrame:
    return function(*arguments, **settings)


def _generator(seed: int, run: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, run]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def _check(embedding: np.ndarray, table: Table) -> None:
    if len(embedding) != len(table):
        raise ValueError(
            f"the embedding has {len(embedding)} rows, but the table {len(table)} cells; embed "
            "every cell of this table, in its order"
        )
    if not np.isfinite(embedding).all():
        raise ValueError("the embedding holds numbers that are not finite; train its model again")
    _check_known(table)


def _check_known(table: Table) -> None:
    if not table.known("validation_accuracy", "training_time").any():
        raise ValueError(
            f"no cell of the table {table.name!r} has both a validation accuracy and a training "
            "time, which a search needs; without times, reinforce.cost=evaluations counts trainings"
        )
