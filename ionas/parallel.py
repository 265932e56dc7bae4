"""Run one function over many items, with the same results wherever the calls run.

Calls run in processes on this machine or, if the environment variable IONAS_BACKEND is `dask`, on
the workers of the Dask cluster at IONAS_SCHEDULER. `ionas run --backend dask --scheduler ADDRESS`
sets both. They are not parameters, because no result depends on where it is computed.

While a call runs, it has a process to itself and one torch thread, in this process as well, so that
the number of processes changes no bit of a result. If its process dies, the call is made again.
Large inputs are given as the path of a file that all workers see, not as arguments.
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

RETRIES = 3  # how often a process may die; Dask's default is the same
PATIENCE_S = 10  # seconds to wait for a scheduler

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

    The function and the items must be picklable. `jobs` is the number of processes here; 0 takes
    one per core, 1 makes the calls in this process. `description` and `unit` label the progress
    bar. The environment variable IONAS_PROGRESS redirects the progress: `off` silences it, any
    other value is a JSON file kept up to date with the calls done.

    Raises ValueError if `jobs` is negative, the backend is unknown or not installed, or a worker
    has other versions, and ConnectionError if the scheduler ends during the calls. An error of
    `function` is raised as it is.
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


def unseen(folder: Path, content: str) -> ValueError:
    """Make the error of a worker that does not see a folder; `content` says what it holds."""
    return ValueError(
        f"the worker on {platform.node()} does not see {folder}, the folder of the {content}; keep "
        "runs where all workers see them (IONAS_RUNS names the place)"
    )


def check() -> str:
    """Say where calls would run now; raises ValueError if they could not, as `completed` does."""
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
    """Use Dask's futures, since joblib's Dask backend does not notice a scheduler that ended."""
    from distributed import CancelledError, as_completed

    with _dask(scheduler) as client:
        calls = [(_versions(), function, index, item) for index, item in enumerate(items)]
        ready = as_completed([client.submit(_remote_call, *call, pure=False) for call in calls])
        try:
            for future in ready:  # each future is released, so that workers drop its result
                yield future.result()
        except CancelledError as error:
            raise ConnectionError(
                f"the Dask scheduler at {scheduler} is gone or dropped the calls; start it again, "
                "then go on with the same command"
            ) from error


@contextmanager
def _dask(scheduler: str) -> Iterator[Any]:
    """Connect to a Dask scheduler; raises ValueError if one of its workers is not fit."""
    from distributed import Client

    try:
        place = urlsplit(scheduler if "://" in scheduler else f"//{scheduler}")
        # Dask's client can hang while it closes if no scheduler answers, so look first.
        create_connection((place.hostname, place.port or 0), PATIENCE_S).close()
        client = Client(scheduler, timeout=PATIENCE_S)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"no scheduler answers at {scheduler} ({error}); start one with "
            "`dask scheduler` and give the address that it prints"
        ) from error
    with client:
        for fault in client.run(_fault, _versions(), on_error="return").values():
            if fault and not isinstance(fault, OSError):  # OSError: a worker that has just ended
                raise ValueError(fault)
        yield client


def _remote_call(versions: dict[str, str], *call: Any) -> tuple[int, Any]:
    """Make a call on a worker; one that joined after the check is checked here."""
    if fault := _fault(versions):
        raise ValueError(fault)
    return _call(*call)


def _fault(versions: dict[str, str], dask_worker: Any = None) -> str:
    """Say why this worker is not fit: other versions, or several calls in one process."""
    from distributed import get_worker

    worker, here = dask_worker or get_worker(), _versions()
    name = f"worker {worker.address} is not fit"
    if worker.state.nthreads > 1:  # a call needs the random numbers of its process for itself
        return f"{name}: it makes several calls at a time in one process; give it --nthreads 1"
    wrong = [f"{k} {here[k]}, not {wanted}" for k, wanted in versions.items() if here[k] != wanted]
    return f"{name}: it has {', '.join(wrong)}; start it again, as it is here" if wrong else ""


@cache
def _versions() -> dict[str, str]:
    """Versions that can change a result; cached, since a process keeps the code it has loaded."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    libraries = {name: version(name) for name in ("torch", "numpy", "pandas", "scikit-learn")}
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **libraries, "ionas code": code.hexdigest()[:12]}
