"""Run one function over many items, here or in worker processes, with the same results.

Every call runs on one torch thread, in this process too, so that the number of processes changes
no bit of a result.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm


def run(
    function: Callable[..., Any],
    items: Sequence[tuple[Any, ...]],
    jobs: int = 0,
    description: str = "",
    unit: str = "it",
) -> list[Any]:
    """Return `[function(*item) for item in items]`, computed by `jobs` processes.

    Parameters
    ----------
    function, items
        A picklable function and the argument tuples of its calls.
    jobs
        Processes; 0 takes one per core, 1 stays in this process.
    description, unit
        Text of the progress bar. The environment variable IONAS_PROGRESS redirects it: `off`
        silences it, any other value is a JSON file kept up to date with the calls done and in all.

    Raises
    ------
    ValueError
        If `jobs` is negative. An error of `function` is raised as it is.
    """
    if jobs < 0:
        raise ValueError(f"jobs is {jobs}; give 0 for one process per core, or a positive number")
    jobs = min(jobs or cpu_count(), max(len(items), 1))
    results: list[Any] = [None] * len(items)
    with progress(len(items), description, unit) as advance:
        for index, result in _completed(function, items, jobs):
            results[index] = result
            advance()
    return results


@contextmanager
def progress(total: int, description: str, unit: str = "it") -> Iterator[Callable[[], None]]:
    """Give a function to call after each of `total` steps; see `run` for where progress shows."""
    target = os.environ.get("IONAS_PROGRESS", "")
    done = 0

    def report() -> None:
        text = json.dumps({"description": description, "done": done, "total": total})
        temporary = Path(f"{target}.{os.getpid()}.tmp")
        temporary.write_text(text)
        temporary.replace(target)

    with tqdm(
        total=total, desc=description, unit=unit, disable=bool(target), file=sys.stderr
    ) as bar:

        def advance() -> None:
            nonlocal done
            done += 1
            bar.update()
            if target and target != "off":
                report()

        yield advance


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch to one thread, and give the others back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _completed(
    function: Callable[..., Any], items: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[tuple[int, Any]]:
    calls = ((function, index, item) for index, item in enumerate(items))
    if jobs == 1:
        yield from (_call(*call) for call in calls)
    else:
        pool = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs")
        yield from pool(delayed(_call)(*call) for call in calls)


def _call(function: Callable[..., Any], index: int, item: tuple[Any, ...]) -> tuple[int, Any]:
    with one_thread():
        return index, function(*item)
