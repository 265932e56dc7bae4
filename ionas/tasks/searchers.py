"""Search methods: random, evolution, local search, and three that are guided by a Gaussian process.

A method is a generator. It yields cells to be queried, and before it goes on their validation
accuracies are in `seen`, cell -> accuracy, in the order of the queries. `search` makes the queries,
keeps to the budget, and gives every method of a run the same first cells.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import ndtr

POPULATION, TOURNAMENT = 30, 10  # as naszilla has them on NAS-Bench-101 (White et al. 2021)
STEPS = 20  # of a mutation that meets only cells which were queried before
LENGTHS, NOISES = (0.5, 1.0, 2.0, 4.0, 8.0), (0.05, 0.1, 0.2)  # of the process, tried one by one
TAIL = 1.5  # distances from the median to the ninth decile, below which targets are cut
CANDIDATES = 32_000  # cells that a process predicts at a time
MUTATED, MUTANTS = 10, 100  # best cells whose neighbors BANANAS considers, and how many of them

Seen = dict[int, float]
Rng = np.random.Generator
Acquire = Callable[[np.ndarray, np.ndarray, float, Rng], np.ndarray]
Method = Callable[[Seen, "Task", Rng], Iterator[np.ndarray]]


class Task(NamedTuple):
    """What a method may know of the M cells that can be queried, beside their accuracies."""

    starts: np.ndarray  # (M + 1,); the neighbors of cell i are ends[starts[i] : starts[i + 1]]
    ends: np.ndarray
    inputs: np.ndarray  # (M, D) of the process, as `scaled` gives them
    initial: int  # random cells that a run, or a restart of local search, begins with
    batch: int  # queries between two fits of the process

    def near(self, cell: int) -> list[int]:
        """Neighbors of a cell, ascending."""
        return self.ends[self.starts[cell] : self.starts[cell + 1]].tolist()

    def unseen(self, seen: Seen) -> np.ndarray:
        """Cells that were not queried, ascending."""
        return np.delete(np.arange(len(self.inputs)), list(seen))

    def near_best(self, seen: Seen) -> list[int]:
        """Neighbors of the MUTATED best cells that were not queried, ascending."""
        best = sorted(seen, key=seen.__getitem__, reverse=True)[:MUTATED]
        return sorted({cell for parent in best for cell in self.near(parent)} - set(seen))


def search(
    method: Method, accuracy: np.ndarray, task: Task, budget: int, seed: int, run: int
) -> np.ndarray:
    """Query `budget` different cells, all M where there are fewer; the cells, in their order.

    Run r of every method draws from a generator seeded by (seed, r), and begins with the same
    `task.initial` random cells. Takes the (M,) validation accuracies, which a method sees only of
    the cells that it has queried. Raises ValueError if a method queries a cell twice.
    """
    rng, budget = np.random.default_rng([seed, run]), min(budget, len(accuracy))
    seen: Seen = {}
    cells = rng.permutation(len(accuracy))[: task.initial]
    proposals = method(seen, task, rng)
    while True:
        for cell in cells[: budget - len(seen)].tolist():
            if cell in seen:
                raise ValueError(f"cell {cell} was queried before")
            seen[cell] = float(accuracy[cell])
        if len(seen) == budget:
            return np.fromiter(seen, np.int64)
        cells = next(proposals)


def random_search(seen: Seen, task: Task, rng: Rng) -> Iterator[np.ndarray]:
    """Query all cells in random order."""
    yield rng.permutation(task.unseen(seen))


def evolution(seen: Seen, task: Task, rng: Rng) -> Iterator[np.ndarray]:
    """Regularised evolution (Real et al. 2019): mutate the best of a sample; the oldest dies."""
    population = deque(seen, max(POPULATION, task.initial))
    while True:
        sample = [population[i] for i in rng.integers(len(population), size=TOURNAMENT)]
        child = mutate(max(sample, key=seen.__getitem__), seen, task, rng)
        yield np.array([child])
        population.append(child)


def mutate(cell: int, seen: Seen, task: Task, rng: Rng) -> int:
    """Step at random from neighbor to neighbor, up to an unseen one; else any unseen cell."""
    for _ in range(STEPS):
        if not (around := task.near(cell)):
            break
        cell = around[rng.integers(len(around))]
        if cell not in seen:
            return cell
    return int(rng.choice(task.unseen(seen)))


def local_search(seen: Seen, task: Task, rng: Rng) -> Iterator[np.ndarray]:
    """Query all neighbors and move to the best; where none is better, restart (White et al. 2021b).

    It starts at the best of `task.initial` random cells.
    """
    start = list(seen)
    while True:
        better = max(start, key=seen.__getitem__)
        best: int | None = None
        while better != best:
            best, around = better, task.near(better)
            yield rng.permutation([cell for cell in around if cell not in seen]).astype(int)
            better = max([best, *around], key=seen.__getitem__)
        start = rng.permutation(task.unseen(seen))[: task.initial].tolist()
        yield np.array(start)


def bananas(seen: Seen, task: Task, rng: Rng) -> Iterator[np.ndarray]:
    """BANANAS (White et al. 2021a), with a Gaussian process in place of its ensemble.

    Candidates are neighbors of the best cells; of these, Thompson sampling chooses a batch.
    """
    while True:
        candidates = rng.permutation(task.near_best(seen))[:MUTANTS].astype(int)
        if len(candidates) < task.batch:
            others = np.setdiff1d(task.unseen(seen), candidates)
            candidates = np.r_[candidates, rng.permutation(others)[:MUTANTS]]
        yield proposed(seen, task, candidates, thompson, rng)


def model_based(
    seen: Seen, task: Task, rng: Rng, acquire: Acquire | None = None
) -> Iterator[np.ndarray]:
    """Query the unseen cells that an acquisition function wants most: see `proposed`.

    Of more than CANDIDATES, random ones and neighbors of the best are considered.
    """
    while True:
        cells = task.unseen(seen)
        if len(cells) > CANDIDATES:
            drawn = rng.choice(cells, CANDIDATES, replace=False)
            cells = np.union1d(drawn, task.near_best(seen)).astype(int)
        yield proposed(seen, task, cells, acquire, rng)


# The acquisition functions: how much a query of each candidate is wanted, given the mean and the
# standard deviation of its target, and the largest expected target of the queried cells.


def thompson(mean: np.ndarray, deviation: np.ndarray, best: float, rng: Rng) -> np.ndarray:
    """One draw from the posterior of each candidate, independent of the others."""
    return mean + deviation * rng.standard_normal(len(mean))


def expected_improvement(
    mean: np.ndarray, deviation: np.ndarray, best: float, _: Rng
) -> np.ndarray:
    """Expectation of what the target is above the best, 0 where it is below."""
    z = (mean - best) / deviation
    return deviation * (z * ndtr(z) + np.exp(-z * z / 2) / np.sqrt(2 * np.pi))


def proposed(
    seen: Seen, task: Task, candidates: np.ndarray, acquire: Acquire | None, rng: Rng
) -> np.ndarray:
    """The `task.batch` candidates wanted most, best first: by the mean if there is no `acquire`."""
    known = task.inputs[list(seen)]
    process = Process(known, targets(np.array(list(seen.values()))))
    wanted, deviation = process(task.inputs[candidates], acquire is not None)
    if acquire:
        wanted = acquire(wanted, deviation, float(process(known)[0].max()), rng)
    return candidates[np.argsort(-wanted, kind="stable")[: task.batch]]


class Process:
    """Gaussian process with a Matern 5/2 kernel of one length scale, given (n,) targets.

    Of LENGTHS and NOISES, the variance of the noise as a share of the signal's, it has those of the
    largest marginal likelihood; the variance of the signal has its best value for each. That is as
    robust with ten cells as with hundreds, and a hundred times as fast as a scale per feature.
    """

    def __init__(self, inputs: np.ndarray, y: np.ndarray) -> None:
        self._inputs, self._center = inputs, y.mean()
        best = -np.inf
        for length in LENGTHS:
            kernel = matern(inputs, inputs, length, float)
            for noise in NOISES:
                factor = cholesky(kernel + noise * np.eye(len(y)), lower=True, check_finite=False)
                weights = cho_solve((factor, True), y - self._center, check_finite=False)
                signal = max(float((y - self._center) @ weights) / len(y), 1e-12)
                fit = -len(y) / 2 * np.log(signal) - np.log(np.diag(factor)).sum()
                if fit > best:
                    best, self.length, self.noise, self.signal = fit, length, noise, signal
                    self._factor, self._weights = factor, weights

    def __call__(self, inputs: np.ndarray, spread: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Expected targets of (m, D) inputs and, if asked for, their deviations without noise."""
        kernel = matern(self._inputs, inputs, self.length, np.float32)
        mean = self._center + self._weights.astype(np.float32) @ kernel
        if not spread:
            return mean, np.full_like(mean, np.nan)
        factor = self._factor.astype(np.float32)
        known = solve_triangular(factor, kernel, lower=True, check_finite=False, overwrite_b=True)
        left = 1 - np.einsum("nm,nm->m", known, known)
        return mean, np.sqrt(self.signal * left.clip(1e-9))


def matern(a: np.ndarray, b: np.ndarray, length: float, precision: Any) -> np.ndarray:
    """Matern 5/2 kernel of (n, D) and (m, D) inputs, (n, m)."""
    square = a @ (-2 * b.T)
    square += (a * a).sum(1)[:, None]
    square += (b * b).sum(1)
    distance = np.sqrt(5 / length**2 * square.clip(0).astype(precision))
    decay = np.exp(-distance)
    distance += distance * distance / 3 + 1
    return np.multiply(distance, decay, out=decay)


def scaled(inputs: np.ndarray, columns: bool = False) -> np.ndarray:
    """Inputs (M, D) on a scale where two lie a squared distance of 2 apart on average, float32.

    With `columns` every column that varies gets the same variance first.
    """
    moved = inputs - inputs.mean(0, dtype=float)
    moved = moved[:, moved.std(0) > 1e-9]
    if columns:
        moved /= moved.std(0)
    moved /= np.sqrt(moved.var(0).sum() or 1.0)
    return moved.astype(np.float32)


def targets(accuracy: np.ndarray) -> np.ndarray:
    """What a process learns: minus the logarithm of the error, standardised, without a low tail.

    Differences among good cells count more, and cells whose training failed are no outliers.
    """
    values = -np.log(np.maximum(1 - accuracy, 1e-6))
    middle, high = np.quantile(values, [0.5, 0.9])
    values = np.maximum(values, middle - TAIL * (high - middle))
    return (values - values.mean()) / (values.std() or 1.0)


def believed(
    cells: np.ndarray, accuracy: np.ndarray, inputs: np.ndarray, initial: int, batch: int
) -> np.ndarray:
    """Incumbents that a process chooses, after each of (Q,) queries of one run.

    One validation accuracy is noisy, and the best of many is one whose noise was lucky. Here the
    incumbent is the queried cell with the largest mean of its target and of the expectation of a
    process fitted to all queried cells, fitted again after each batch; before, it is the best. The
    two have equal weights, which was chosen after comparing variants on NAS-Bench-101.
    """
    found = np.array([cells[accuracy[cells[:n]].argmax()] for n in range(1, len(cells) + 1)])
    for count in [*range(initial + batch, len(cells), batch), len(cells)]:
        y, known = targets(accuracy[cells[:count]]), inputs[cells[:count]]
        found[count - 1 :] = cells[np.argmax(y + Process(known, y)(known)[0])]
    return found


METHODS: dict[str, Method] = {
    "random": random_search,
    "evolution": evolution,
    "local": local_search,
    "bananas": bananas,
    "guided": model_based,
    "bo": partial(model_based, acquire=expected_improvement),
}
