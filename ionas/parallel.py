"""Run one function over many items, with the same results wherever its calls run.

That is in processes here or, if IONAS_BACKEND is `dask` or `ray`, on the workers of the cluster at
IONAS_SCHEDULER. These are environment variables, set by `ionas run --backend NAME --scheduler
ADDRESS`, because where something is computed is no input of it.

Every call has a process to itself meanwhile and runs on one torch thread, in this process too, so
that the number of processes changes no bit of a result. If that process dies, the call runs again.
"""

import hashlib
import json
import os
import pickle
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from socket import create_connection
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import joblib
import torch
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

BACKENDS = {"processes": "joblib", "dask": "distributed", "ray": "ray"}  # and their libraries
RETRIES = 3  # as often may a process die; Dask's own number is the same
PATIENCE_S = 10
SMALL = 100_000  # bytes

_process = Lock()


def run(
    function: Callable[..., Any],
    items: Sequence[tuple[Any, ...]],
    jobs: int = 0,
    description: str = "",
    unit: str = "it",
    kept: Path | None = None,
) -> list[Any]:
    """Return `[function(*item) for item in items]`; see `completed`.

    With a folder `kept`, results are written there as they come, and a call whose result is there
    already is not made again: so a call of `run` that was stopped goes on where it was. A result
    is found by function and arguments, which must then be plain values and arrays.
    """
    if kept is None:
        paths: list[Path] = []
    else:
        kept.mkdir(parents=True, exist_ok=True)
        paths = [kept / f"{key}.pickle" for key in _keys(function, items)]
    results = {
        index: pickle.loads(path.read_bytes()) for index, path in enumerate(paths) if path.is_file()
    }
    missing = [index for index in range(len(items)) if index not in results]
    calls = [items[index] for index in missing]
    for position, result in completed(function, calls, jobs, description, unit):
        results[missing[position]] = result
        if paths:
            write(paths[missing[position]], pickle.dumps(result))
    return [results[index] for index in range(len(items))]


def completed(
    function: Callable[..., Any],
    items: Sequence[tuple[Any, ...]],
    jobs: int = 0,
    description: str = "",
    unit: str = "it",
) -> Iterator[tuple[int, Any]]:
    """Yield (position, `function(*item)`) for every item, in the order in which they are ready.

    Parameters
    ----------
    function, items
        A picklable function and the argument tuples of its calls.
    jobs
        Processes; 0 takes one per core, 1 stays in this process. Workers elsewhere are as many as
        there are.
    description, unit
        Text of the progress bar. The environment variable IONAS_PROGRESS redirects it: `off`
        silences it, any other value is a JSON file kept up to date with the calls done and in all.

    Raises
    ------
    ValueError
        If `jobs` is negative, the backend is unknown or its library missing, nobody answers at the
        scheduler's address, or a worker there is not fit. An error of `function` is raised as it
        is.
    """
    if jobs < 0:
        raise ValueError(f"jobs is {jobs}; give 0 for one process per core, or a positive number")
    backend, scheduler = _backend()
    if backend == "processes":
        results = _in_processes(function, items, min(jobs or cpu_count(), max(len(items), 1)))
    else:
        elsewhere = _on_dask if backend == "dask" else _on_ray
        results = elsewhere(scheduler, *_pack(function, items))
    with progress(len(items), description, unit) as advance:
        for index, result in results:
            yield index, result
            advance()


def check() -> str:
    """Say where calls would run now.

    Raises
    ------
    ValueError
        If they could not; see `completed`.
    """
    backend, scheduler = _backend()
    if backend == "processes":
        return "calls run in processes here"
    if backend == "dask":
        with _dask(scheduler) as client:
            workers = len(client.nthreads())
    else:
        with _ray(scheduler) as ray:
            workers = int(ray.cluster_resources().get("CPU", 0))
    return f"calls run on {backend} at {scheduler}, {workers} at a time now"


@contextmanager
def progress(total: int, description: str, unit: str = "it") -> Iterator[Callable[[], None]]:
    """Give a function to call after each of `total` steps; see `completed` for where it shows."""
    target = os.environ.get("IONAS_PROGRESS", "")
    done = 0

    def report() -> None:
        text = json.dumps({"description": description, "done": done, "total": total})
        write(Path(target), text.encode())

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


def write(path: Path, content: bytes) -> None:
    """Write a file such that it is complete or absent, at whatever point the process is killed."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch to one thread, and give the others back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _keys(function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[str]:
    """Hashes of calls by what they compute; an argument that several share is hashed once."""
    once = {id(value): value for item in items for value in item}
    hashes = {key: joblib.hash(value) for key, value in once.items()}
    name = f"{function.__module__}.{function.__qualname__}"
    return [joblib.hash([name, *(hashes[id(value)] for value in item)]) for item in items]


def _backend() -> tuple[str, str]:
    backend = os.environ.get("IONAS_BACKEND") or "processes"
    scheduler = os.environ.get("IONAS_SCHEDULER", "")
    if backend not in BACKENDS:
        near = get_close_matches(backend, BACKENDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(BACKENDS)}"
        raise ValueError(f"there is no backend {backend!r}; {hint}")
    if backend == "processes":
        if scheduler:
            raise ValueError(f"scheduler {scheduler} needs a backend, too: dask or ray")
        return backend, scheduler
    if find_spec(BACKENDS[backend]) is None:
        raise ValueError(
            f"backend {backend!r} needs the library {BACKENDS[backend]}, which is not installed; "
            f"install it with: pip install 'ionas[{backend}]'"
        )
    if not scheduler:
        raise ValueError(
            f"backend {backend!r} needs the address of its scheduler: give --scheduler ADDRESS, or "
            "set IONAS_SCHEDULER"
        )
    return backend, scheduler


def _in_processes(
    function: Callable[..., Any], items: Sequence[tuple[Any, ...]], jobs: int
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


def _on_dask(
    scheduler: str, calls: list[tuple[bytes, list[int]]], shared: dict[int, bytes]
) -> Iterator[tuple[int, Any]]:
    """By futures, since joblib's Dask backend loses shared arguments with the worker that has them.

    As results of tasks they are made again. Futures that are no longer needed are let go, or their
    results would stay in the memory of the workers.
    """
    import dask
    from distributed import CancelledError, as_completed

    quiet = {"distributed.admin.large-graph-warning-threshold": "1 TB"}
    with _dask(scheduler) as client, dask.config.set(quiet):
        versions = _versions()
        sent = {key: client.submit(bytes, value, pure=False) for key, value in shared.items()}
        ready = as_completed(
            [
                client.submit(_remote, versions, call, *(sent[key] for key in keys), pure=False)
                for call, keys in calls
            ]
        )
        try:
            for future in ready:
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

    with _answer(scheduler, "dask scheduler"):
        client = Client(scheduler, timeout=PATIENCE_S)
    with client:
        for worker, threads in client.nthreads().items():
            if threads > 1:
                raise ValueError(
                    f"worker {worker} makes {threads} calls at a time in one process, but a call "
                    "needs a process to itself; start workers with --nthreads 1, and several on a "
                    "machine with --nworkers"
                )
        faults = client.run(_fault, _versions(), on_error="return")
        for worker, fault in faults.items():
            if fault and not isinstance(fault, OSError):  # which a worker that just ended gives
                raise ValueError(f"worker {worker} is not fit: {fault}")
        yield client


def _on_ray(
    scheduler: str, calls: list[tuple[bytes, list[int]]], shared: dict[int, bytes]
) -> Iterator[tuple[int, Any]]:
    with _ray(scheduler) as ray:
        sent = {key: ray.put(value) for key, value in shared.items()}
        versions = ray.put(_versions())
        remote = ray.remote(max_retries=RETRIES)(_remote)
        waiting = [
            remote.remote(versions, call, *(sent[key] for key in keys)) for call, keys in calls
        ]
        while waiting:
            (ready,), waiting = ray.wait(waiting)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            yield result


@contextmanager
def _ray(scheduler: str) -> Iterator[Any]:
    """Connect to a Ray cluster."""
    import ray

    with _answer(scheduler, "ray start --head"):
        ray.init(scheduler, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _answer(scheduler: str, command: str) -> Iterator[None]:
    """Connect within; Ray alone would try for minutes where nobody listens."""
    try:
        place = urlsplit(scheduler if "://" in scheduler else f"//{scheduler}")
        if place.port is None:
            raise ValueError("it has no port")
        create_connection((place.hostname, place.port), PATIENCE_S).close()
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"nobody answers at the scheduler's address {scheduler} ({error}); start one with "
            f"`{command}` and give the address that it prints"
        ) from error


def _pack(
    function: Callable[..., Any], items: Sequence[tuple[Any, ...]]
) -> tuple[list[tuple[bytes, list[int]]], dict[int, bytes]]:
    """Pickle calls and, apart from them and only once, the large arguments that several share.

    Returns the calls, each with the keys of what it shares, and what is shared by key.
    """
    uses = Counter(id(value) for item in items for value in item)
    once = {id(value): value for item in items for value in item if uses[id(value)] > 1}
    pickled = {key: pickle.dumps(value) for key, value in once.items()}
    shared = {key: value for key, value in pickled.items() if len(value) > SMALL}
    calls = []
    for index, item in enumerate(items):
        places = [place for place, value in enumerate(item) if id(value) in shared]
        own = [None if place in places else value for place, value in enumerate(item)]
        keys = [id(item[place]) for place in places]
        calls.append((pickle.dumps((function, index, own, places)), keys))
    return calls, shared


def _remote(versions: dict[str, str], call: bytes, *shared: bytes) -> tuple[int, Any]:
    if fault := _fault(versions):
        raise ValueError(f"worker on {platform.node()} is not fit: {fault}")
    if not _process.acquire(blocking=False):
        raise ValueError(
            f"two calls met in one process on {platform.node()}; give workers there one thread each"
        )
    try:
        function, index, arguments, places = pickle.loads(call)
        for place, value in zip(places, shared, strict=True):
            arguments[place] = pickle.loads(value)
        return _call(function, index, tuple(arguments))
    finally:
        _process.release()


def _fault(versions: dict[str, str]) -> str:
    """Say why results of this process could differ from those of one with other versions."""
    here = _versions()
    different = [
        f"{name} {here[name]}, not {wanted}"
        for name, wanted in versions.items()
        if here[name] != wanted
    ]
    return f"it has {', '.join(different)}; start it again, as it is here" if different else ""


@cache
def _versions() -> dict[str, str]:
    """What computes; cached, because a process goes on with the code that it has loaded."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    libraries = {name: version(name) for name in ("torch", "numpy", "pandas", "scikit-learn")}
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **libraries, "ionas code": code.hexdigest()[:12]}


def _call(function: Callable[..., Any], index: int, item: tuple[Any, ...]) -> tuple[int, Any]:
    with one_thread():
        return index, function(*item)
