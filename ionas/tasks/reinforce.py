"""Search the embedding space by REINFORCE, and at random (appendix G; METHOD section 9).

All runs of a search advance in lock-step: their policies are stacked along a leading dimension, so
that one batched product serves a hundred runs. No run depends on which others are beside it.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ionas import parallel
from ionas.benchmark.table import Clock, Table, best, regret_curves

BLOCK = 4096  # points whose distances to a hundred samples fit the cache
LEAST_ROWS = 8  # a product of fewer rows may be rounded otherwise


class Policies(NamedTuple):
    """The policies of R runs: an LSTM cell D -> H, then a dense layer H -> D."""

    input: Tensor  # (R, D, 4H)
    hidden: Tensor  # (R, H, 4H)
    bias: Tensor  # (R, 4H), both biases of the LSTM cell added
    output: Tensor  # (R, H, D)
    output_bias: Tensor  # (R, D)


class _Step(NamedTuple):
    """What the way back through one step of every policy needs."""

    x: Tensor  # (R, D)
    hidden: Tensor  # (R, H), before the step, and so is the cell
    cell: Tensor
    gates: tuple[Tensor, ...]  # i, f, g, o after their activations, (R, H) each
    tanh: Tensor  # (R, H), of the new cell
    output: Tensor  # (R, H), the new hidden state


@torch.no_grad()
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
        As `ionas.benchmark.table.Clock.trajectories`.

    Raises
    ------
    ValueError
        If the embedding does not fit the table, or the table holds nothing to search.
    """
    _check(embedding, table)
    budget, baseline = budget or default_budget(table), baseline or default_baseline(table)
    clock = Clock(table, runs)
    known = np.flatnonzero(clock.known)
    points = torch.as_tensor(embedding[known], dtype=torch.float32, device=device)  # (N, D)
    blocks = [block.T.contiguous() for block in points.split(BLOCK)]
    # Half the squared norm of every point, infinite once a run has visited it.
    offsets = (points.square().sum(1) / 2).repeat(max(runs, LEAST_ROWS), 1)
    generators = [_generator(seed, run) for run in range(runs)]
    drawn = [_initial_policy(points.shape[1], hidden, g) for g in generators]
    policies = Policies(
        *(
            # Weights (out, in) become (in, out): a row times that reads memory in order.
            torch.stack(part).to(device).transpose(1, -1).contiguous()
            for part in zip(*drawn, strict=True)
        )
    )
    # The two biases of an LSTM cell have one gradient, so their sum moves by two equal steps.
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
        noise = torch.stack(
            [torch.randn(episode, points.shape[1], generator=g) for g in generators]
        )
        noise = noise.to(device)  # (R, episode, D)
        state = (torch.zeros(runs, hidden, device=device),) * 2
        steps, to_means = [], []
        for number in range(episode):
            mean, step, cell = _act(policies, points[here], state)
            state = (step.output, cell)
            here = _nearest(mean + noise[:, number], blocks, offsets).cpu()
            accuracy = clock.query(known[here], active)
            offsets[row[active], here[active]] = math.inf
            left -= active
            # -log p is (sample - mean)^2 / 2 and a constant, a mean over D dimensions.
            gain = torch.as_tensor(accuracy - baseline, dtype=torch.float32, device=device)
            to_means.append(-noise[:, number] * gain[:, None] / (episode * points.shape[1]))
            steps.append(step)
            active = active & (clock.elapsed < budget) & (left > 0)
            if not active.any():
                return clock.trajectories()
        for parameter, gradient in zip(
            policies, _gradients(policies, steps, to_means), strict=True
        ):
            parameter.grad = gradient
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
        seeds = ", ".join(map(str, trainings(stored)))
        raise ValueError(f"no training has seed {training_seed}; there are: {seeds}")
    return dict(sorted(found.items()))


def trainings(stored: Iterable[str]) -> list[int]:
    """Seeds of the trainings of embeddings stored as `NAME_seedS`, ascending."""
    return sorted({int(name.rpartition("_seed")[2]) for name in stored})


def judged(finals: dict[int, pd.DataFrame], reference: str = "arch2vec_original") -> pd.DataFrame:
    """How the final regrets of every training compare with the reference of the same training.

    Parameters
    ----------
    finals
        `final_regret` by the seed of the training.

    Returns
    -------
    DataFrame
        A row per search and a column per training: `better`, `worse`, or `same` where the two 95 %
        intervals overlap; `unknown` where a regret is.
    """
    words = {}
    for seed, final in finals.items():
        names = [name for name in final.index if name != reference]
        found = dict.fromkeys(names, "unknown")
        for word, test in (("same", alike), ("worse", above), ("better", below)):
            found |= dict.fromkeys(test(final, names, reference), word)
        words[seed] = found
    return pd.DataFrame(words)


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


def below(final: pd.DataFrame, names: list[str], reference: str) -> list[str]:
    """Those rows of `final_regret` that lie below the reference, without overlap: better."""
    return [n for n in names if final.loc[n, "high"] < final.loc[reference, "low"]]


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
) -> tuple[Tensor, _Step, Tensor]:
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
    return mean, _Step(x, hidden, cell, gates, tanh, output), new


def _gradients(policies: Policies, steps: list[_Step], to_means: list[Tensor]) -> Policies:
    """Back through an episode of every policy, from the gradients at its means, (R, D) each.

    Written out so that weights have one product over all steps: recorded step by step, each step
    would write, and add up, a gradient as large as all weights.
    """
    to_sums = []
    to_hidden = to_cell = torch.zeros_like(steps[0].hidden)
    for step, to_mean in zip(reversed(steps), reversed(to_means), strict=True):
        i, f, g, o = step.gates
        to_output = to_hidden + torch.bmm(to_mean[:, None], policies.output.mT)[:, 0]
        to_cell = to_cell + to_output * o * (1 - step.tanh.square())
        parts = (
            to_cell * g * i * (1 - i),
            to_cell * step.cell * f * (1 - f),
            to_cell * i * (1 - g.square()),
            to_output * step.tanh * o * (1 - o),
        )
        to_sums.append(torch.cat(parts, 1))  # (R, 4H)
        to_cell = to_cell * f
        to_hidden = torch.bmm(to_sums[-1][:, None], policies.hidden.mT)[:, 0]
    of_sums, of_means = torch.stack(to_sums[::-1], 1), torch.stack(to_means, 1)  # (R, T, ...)
    inputs, hidden, outputs = (
        torch.stack([getattr(step, name) for step in steps], 2)
        for name in ("x", "hidden", "output")
    )  # (R, ..., T)
    return Policies(
        torch.bmm(inputs, of_sums),
        torch.bmm(hidden, of_sums),
        of_sums.sum(1),
        torch.bmm(outputs, of_means),
        of_means.sum(1),
    )


def _nearest(samples: Tensor, blocks: list[Tensor], offsets: Tensor) -> Tensor:
    """The nearest point to each sample: (R, D), blocks (D, n) of N points, (R, N) -> (R,).

    What is least is half the squared distance but for the sample's own square: offset - s . p. The
    distances of a block are never written to memory: they stay in the cache until their least is
    found.
    """
    rows, runs = torch.arange(len(offsets)), len(samples)
    samples = nn.functional.pad(samples, (0, 0, 0, len(offsets) - runs))
    found, least, start = [], [], 0
    for block in blocks:
        scores = torch.addmm(
            offsets[:, start : start + block.shape[1]], samples, block, alpha=-1
        )  # (R, n)
        if scores.device.type == "cpu":
            index = torch.from_numpy(scores.numpy().argmin(1))  # ten times as fast as torch's
        else:
            index = scores.argmin(1)
        found.append(index + start)
        least.append(scores[rows, index])
        start += block.shape[1]
    return torch.stack(found)[torch.stack(least).argmin(0), rows][:runs]


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
