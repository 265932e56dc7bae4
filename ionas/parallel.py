"""Run one function over many items, with the same results wherever its calls run.

That is in processes here or, if IONAS_BACKEND is `dask`, on the workers of the cluster at
IONAS_SCHEDULER. These are environment variables, set by `ionas run --backend dask --scheduler
ADDRESS`, because where something is computed is no input of it.

Every call has a process to itself meanwhile and runs on one torch thread, in this process too, so
that the number of processes changes no bit of a result. If that process dies, the call runs again.
What is large is given as the path of a file that all workers see, not as an argument.
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from socket import create_connection
from typing import Any
from urllib.parse import urlsplit

from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

RETRIES = 3  # as often may a process die; Dask's own number is the same
PATIENCE_S = 10

Items = Sequence[tuple[Any, ...]]


def run(
    function: Callable[..., Any],
    items: Items,
    jobs: int = 0,
    description: str = "",
    unit: str = "it",
) -> list[Any]:
    """Return `[function(*item) for item in items]`; see `completed`."""
    results = dict(completed(function, items, jobs, description, unit))
    return [results[index] for index in range(len(items))]


def completed(
    function: Callable[..., Any],
    items: Items,
    jobs: int = 0,
    description: str = "",
    unit: str = "it",
) -> Iterator[tuple[int, Any]]:
    """Yield (position, `function(*item)`) for every item, in the order in which they are ready.

    The function and the items must be picklable. `jobs` is the number of processes; 0 takes one per
    core, 1 stays in this process; workers elsewhere are as many as there are. `description` and
    `unit` are texts of the progress bar. The environment variable IONAS_PROGRESS redirects it:
    `off` silences it, any other value is a JSON file kept up to date with the calls done.

    Raises
    ------
    ValueError
        If `jobs` is negative, the backend is unknown or not there, or a worker is not fit. An error
        of `function` is raised as it is.
    ConnectionError
        If the scheduler ends meanwhile.
    """
    if jobs < 0:
        raise ValueError(f"jobs is {jobs}; give 0 for one process per core, or a positive number")
    if scheduler := _scheduler():
        results = _on_dask(scheduler, function, items)
    else:
        results = _in_processes(function, items, min(jobs or cpu_count(), max(len(items), 1)))
    target = os.environ.get("IONAS_PROGRESS", "")
    shown = {"total": len(items), "desc": description, "unit": unit, "file": sys.stderr}
    with tqdm(disable=bool(target), **shown) as bar:
        for done, result in enumerate(results, start=1):
            yield result
            bar.update()
            if target not in ("", "off"):
                report = {"description": description, "done": done, "total": len(items)}
                temporary = Path(f"{target}.{os.getpid()}.tmp")
                temporary.write_text(json.dumps(report))
                temporary.replace(target)


def check() -> str:
    """Say where calls would run now; a ValueError if they could not, see `completed`."""
    if not (scheduler := _scheduler()):
        return "calls run in processes here"
    with _dask(scheduler) as client:
        return f"calls run on dask at {scheduler}, {len(client.nthreads())} at a time now"


def _scheduler() -> str:
    """Address of the Dask scheduler; "" if calls run here."""
    backend = os.environ.get("IONAS_BACKEND") or "processes"
    scheduler = os.environ.get("IONAS_SCHEDULER", "")
    if backend not in ("processes", "dask"):
        raise ValueError(f"there is no backend {backend!r}; choose processes or dask")
    if backend == "processes" and scheduler:
        raise ValueError(f"scheduler {scheduler} needs a backend, too: dask")
    if backend == "dask" and find_spec("distributed") is None:
        raise ValueError("Dask is not installed; add it with: pip install 'ionas[dask]'")
    if backend == "dask" and not scheduler:
        raise ValueError("backend 'dask' needs the address of its scheduler: --scheduler ADDRESS")
    return scheduler


def _in_processes(
    function: Callable[..., Any], items: Items, jobs: int
) -> Iterator[tuple[int, Any]]:
    waiting = {index: (function, index, item) for index, item in enumerate(items)}
    if jobs == 1:
        yield from (_call(*call) for call in waiting.values())
        return
    for deaths in range(RETRIES + 1):
        pool = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs")
        try:
            for index, result in pool(delayed(_call)(*call) for call in list(waiting.values())):
                del waiting[index]
                yield index, result
            return
        except TerminatedWorkerError:
            if deaths == RETRIES:
                raise


def _call(function: Callable[..., Any], index: int, item: tuple[Any, ...]) -> tuple[int, Any]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return index, function(*item)
    finally:
        torch.set_num_threads(threads)


def _on_dask(
    scheduler: str, function: Callable[..., Any], items: Items
) -> Iterator[tuple[int, Any]]:
    """By Dask's own futures: joblib's backend takes a scheduler that ended for a result."""
    from distributed import CancelledError, as_completed

    with _dask(scheduler) as client:
        calls = [(_versions(), function, index, item) for index, item in enumerate(items)]
        ready = as_completed([client.submit(_remote_call, *call, pure=False) for call in calls])
        try:
            for future in ready:  # which lets go of it, or the workers would keep its result
                yield future.result()
        except CancelledError as error:
            raise ConnectionError(
                f"the Dask scheduler at {scheduler} is gone or dropped the calls; start it again, "
                "then go on with the same command"
            ) from error


@contextmanager
def _dask(scheduler: str) -> Iterator[Any]:
    """Connect to a Dask scheduler whose present workers are fit."""
    from distributed import Client

    try:
        place = urlsplit(scheduler if "://" in scheduler else f"//{scheduler}")
        # Where nobody answers, Dask's client can hang in its own clean-up: look first.
        create_connection((place.hostname, place.port or 0), PATIENCE_S).close()
        client = Client(scheduler, timeout=PATIENCE_S)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"nobody answers at the scheduler's address {scheduler} ({error}); start one with "
            "`dask scheduler` and give the address that it prints"
        ) from error
    with client:
        for fault in client.run(_fault, _versions(), on_error="return").values():
            if fault and not isinstance(fault, OSError):  # which a worker that just ended gives
                raise ValueError(fault)
        yield client


def _remote_call(versions: dict[str, str], *call: Any) -> tuple[int, Any]:
    """Make a call on a worker, if it is fit; it may have come after the others were asked."""
    if fault := _fault(versions):
        raise ValueError(fault)
    return _call(*call)


def _fault(versions: dict[str, str], dask_worker: Any = None) -> str:
    """Say why results of this worker could differ from those of one with other versions."""
    from distributed import get_worker

    worker, here = dask_worker or get_worker(), _versions()
    name = f"worker {worker.address} is not fit"
    if worker.state.nthreads > 1:  # but a call owns the random numbers of its process
        return f"{name}: it makes several calls at a time in one process; give it --nthreads 1"
    wrong = [f"{k} {here[k]}, not {wanted}" for k, wanted in versions.items() if here[k] != wanted]
    return f"{name}: it has {', '.join(wrong)}; start it again, as it is here" if wrong else ""


@cache
def _versions() -> dict[str, str]:
    """What computes; cached, because a process goes on with the code that it has loaded."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    libraries = {name: version(name) for name in ("torch", "numpy", "pandas", "scikit-learn")}
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **libraries, "ionas code": code.hexdigest()[:12]}
