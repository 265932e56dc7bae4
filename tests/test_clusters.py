"""Calls on Dask and Ray workers, one of which is killed, with the results of serial calls."""

import json
import math
import operator
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from embedding_data import SMALL, of_all, small_data

from ionas import parallel
from ionas.embedding.training import _history, train_all
from ionas.images import load_images
from ionas.pretraining import Recipe, train_networks
from ionas.space.cells import enumerate_cells

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def wait_for(condition, seconds=120):
    """Wait until a condition holds, and return what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def contents(folder):
    """Contents of all files below a folder but those that hold times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "timings"
    }


class Cluster:
    """A Dask scheduler and its workers, as the book says to start them, on this machine alone."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.processes = []
        self.scheduler = self.start("scheduler", "--port", "0")
        self.address = wait_for(lambda: self.file.exists() and self.read())["address"]

    def read(self):
        try:
            return json.loads(self.file.read_text())
        except json.JSONDecodeError:  # half written
            return None

    def start(self, kind, *arguments):
        name = f"{kind}{len(self.processes)}"
        command = [sys.executable, "-m", "dask", kind, "--scheduler-file", str(self.file)]
        command += ["--host", HOST, "--no-dashboard", *arguments]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=ENVIRONMENT, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def worker(self):
        return self.start(
            "worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder)
        )

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    distributed = pytest.importorskip(
        "distributed", reason="Dask is not installed: pip install 'ionas[dask]'"
    )
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for _ in range(2):
            cluster.worker()
        with distributed.Client(cluster.address) as client:
            client.wait_for_workers(2, timeout=120)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def ray_address():
    """A Ray cluster of two workers on this machine alone, owned by a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # or it would write a token to the home folder
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'ionas[ray]'")
        code = (
            "import ray, sys; ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, "
            f"_node_ip_address='{HOST}'); "
            "print(ray.get_runtime_context().gcs_address, flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield process.stdout.readline().strip()
            process.stdin.close()


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    monkeypatch.delenv("IONAS_BACKEND", raising=False)
    monkeypatch.delenv("IONAS_SCHEDULER", raising=False)


def choose(monkeypatch, backend, scheduler=""):
    monkeypatch.setenv("IONAS_BACKEND", backend)
    monkeypatch.setenv("IONAS_SCHEDULER", scheduler)


@pytest.fixture
def on_dask(cluster, monkeypatch):
    choose(monkeypatch, "dask", cluster.address)
    return cluster


@pytest.mark.parametrize(
    ("backend", "scheduler", "message"),
    [
        ("dsk", "", "no backend 'dsk'; did you mean 'dask'"),
        ("slurm", "", "no backend 'slurm'; there are: processes, dask, ray"),
        ("processes", "tcp://127.0.0.1:1", "needs a backend, too"),
    ],
)
def test_a_wrong_choice_is_refused(monkeypatch, backend, scheduler, message):
    choose(monkeypatch, backend, scheduler)
    for call in (parallel.check, lambda: parallel.run(math.sqrt, [(4,)])):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_missing_library_is_named_with_the_mend(monkeypatch, backend):
    choose(monkeypatch, backend, "127.0.0.1:1")
    monkeypatch.setitem(sys.modules, parallel.BACKENDS[backend], None)
    with pytest.raises(ValueError, match=rf"not installed; .*ionas\[{backend}\]"):
        parallel.check()


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_an_address_where_nobody_answers_is_refused(monkeypatch, backend):
    pytest.importorskip(parallel.BACKENDS[backend], reason=f"{backend} is not installed")
    monkeypatch.setattr(parallel, "PATIENCE_S", 1)
    choose(monkeypatch, backend)
    with pytest.raises(ValueError, match="needs the address of its scheduler"):
        parallel.check()
    with socket.socket() as free:
        free.bind((HOST, 0))
        closed = f"{HOST}:{free.getsockname()[1]}"
    for address in (closed, "tcp://127.0.0.1", "127.0.0.1:port"):
        choose(monkeypatch, backend, address)
        with pytest.raises(ValueError, match=f"nobody answers .*{address} "):
            parallel.check()


def test_the_command_refuses_before_anything_runs(tmp_path):
    command = [sys.executable, "-c", "from ionas.cli import app; app()", "run", "--profile", "tiny"]
    for arguments in (["--backend", "dsk"], ["--backend", "dask"], ["--scheduler", "127.0.0.1:1"]):
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            env=ENVIRONMENT | {"IONAS_RUNS": str(tmp_path)},
        )
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())


def _square_or_die(value, mark):
    """Kill the process at the value 3, if the mark is not there."""
    if value == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return value * value


def _die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_loses_no_call(tmp_path):
    items = [(value, tmp_path / "mark") for value in range(7)]
    assert parallel.run(_square_or_die, items, jobs=2) == [value * value for value in range(7)]
    assert (tmp_path / "mark").exists()


def test_a_call_that_always_kills_its_process_ends(monkeypatch):
    monkeypatch.setattr(parallel, "RETRIES", 0)
    with pytest.raises(parallel.TerminatedWorkerError):
        parallel.run(_die, [(1,), (2,)], jobs=2)


def test_large_shared_arguments_are_packed_once():
    large, small = np.arange(100_000), np.arange(3)
    calls, shared = parallel._pack(operator.add, [(large, 1), (2, large), (small, small)])
    assert len(shared) == 1
    assert [len(keys) for _, keys in calls] == [1, 1, 0]
    assert max(len(call) for call, _ in calls) < 1000
    found = [
        parallel._remote(parallel._versions(), call, *(shared[key] for key in keys))
        for call, keys in calls
    ]
    assert [index for index, _ in found] == [0, 1, 2]
    expected = [large + 1, large + 2, small + small]
    assert all(np.array_equal(a, b) for (_, a), b in zip(found, expected, strict=True))


def test_a_worker_with_other_versions_or_company_refuses():
    (call,), _ = parallel._pack(math.sqrt, [(4,)])[0], None
    versions = parallel._versions()
    assert parallel._remote(versions, call[0]) == (0, 2)
    with pytest.raises(ValueError, match=r"it has torch .*, not 1\.0; start it again"):
        parallel._remote(versions | {"torch": "1.0"}, call[0])
    with parallel._process, pytest.raises(ValueError, match="one thread each"):
        parallel._remote(versions, call[0])
    assert parallel._remote(versions, call[0]) == (0, 2)


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"does not see .*IONAS_RUNS"):
        _history("io", 1, small_data(), SMALL, tmp_path / "none", "cpu")


def test_a_killed_dask_worker_loses_no_network(on_dask, tmp_path, monkeypatch):
    """SIGKILL in the midst of a training: every network once, and the bytes of a serial run."""
    from distributed import Client

    images, cells = load_images("digits", train_size=400), enumerate_cells(4)[:8]
    recipe = Recipe(channels=8, epochs=4, batch_size=32)
    report, folder = tmp_path / "progress.json", tmp_path / "dask"
    monkeypatch.setenv("IONAS_PROGRESS", str(report))
    with Client(on_dask.address) as client, ThreadPoolExecutor(1) as thread:
        client.wait_for_workers(2)
        victim, pid = next(iter(client.run(os.getpid).items()))
        training = thread.submit(train_networks, cells, images, recipe, folder, seed=1)
        wait_for(lambda: training.done() or list(folder.glob("networks/*.safetensors")))
        making = wait_for(lambda: client.processing()[victim])
        os.kill(pid, signal.SIGKILL)
        metrics, timings = training.result()
        story = client.story(*making, on_error="ignore")
        moves = {(key, *states) for _, key, *states, _, _, _ in story if len(states) == 2}
        assert {(key, "processing", "released") for key in making} & moves  # lost, made again
        on_dask.worker()
    assert json.loads(report.read_text()) == {
        "description": "training networks", "done": 8, "total": 8,
    }  # fmt: skip
    serial, _ = serially(monkeypatch, train_networks, cells, images, recipe, tmp_path / "serial", 1)
    assert list(metrics.hash) == list(timings.hash) == list(cells.hashes)
    assert metrics.equals(serial)
    assert contents(folder) == contents(tmp_path / "serial")
    assert len(contents(folder)) == len(cells)


def serially(monkeypatch, function, *arguments):
    """Call a function that ends with the number of jobs in this process."""
    monkeypatch.delenv("IONAS_BACKEND")
    monkeypatch.delenv("IONAS_SCHEDULER")
    return function(*arguments, jobs=1)


def test_embeddings_trained_on_dask_have_the_same_bytes(on_dask, tmp_path, monkeypatch):
    names = [("accuracy", 1), ("arch2vec", 2)]
    first = train_all(names, of_all(small_data()), SMALL, tmp_path / "dask")
    second = serially(
        monkeypatch, train_all, names, of_all(small_data()), SMALL, tmp_path / "serial"
    )
    assert first.equals(second)
    assert contents(tmp_path / "dask") == contents(tmp_path / "serial")
    assert len(contents(tmp_path / "dask")) == 2  # and no file that is only for workers


def test_errors_and_large_arguments_on_dask(on_dask):
    large = np.arange(100_000)
    items = [(large, value) for value in range(5)]
    assert parallel.run(operator.getitem, items) == list(range(5))
    with pytest.raises(IndexError):
        parallel.run(operator.getitem, [*items, (large, -100_001)])
    assert parallel.run(math.sqrt, []) == []


def test_dask_workers_of_other_code_are_refused(on_dask, monkeypatch):
    monkeypatch.setattr(parallel, "_versions", lambda: {"ionas code": "other"})
    with pytest.raises(ValueError, match=r"is not fit: it has ionas code .*, not other"):
        parallel.check()


def test_dask_workers_of_many_threads_are_refused(on_dask, monkeypatch):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        1, threads_per_worker=2, processes=False, protocol="tcp", host=HOST, dashboard_address=":0"
    ) as threads:
        choose(monkeypatch, "dask", threads.scheduler_address)
        with pytest.raises(ValueError, match=r"makes 2 calls at a time .*--nthreads 1"):
            parallel.check()


def test_the_same_notebook_on_dask(on_dask, tiny_run, tmp_path):
    """The command, from end to end."""
    command = [sys.executable, "-c", "from ionas.cli import app; app()", "run", "--profile", "tiny"]
    command += ["--only", "search_space", "--only", "pretraining"]
    command += ["--backend", "dask", "--scheduler", on_dask.address]
    done = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT | {"IONAS_RUNS": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert f"calls run on dask at {on_dask.address}" in done.stdout
    networks = contents(tiny_run / "pretraining" / "networks")
    assert networks
    assert contents(tmp_path / "tiny" / "pretraining" / "networks") == networks
    manifest = json.loads((tmp_path / "tiny" / "pretraining" / "manifest.json").read_text())
    assert manifest["backend"] == "dask"


def test_a_scheduler_that_is_gone_is_named(on_dask):
    """The last test with the cluster: it ends the scheduler."""
    with ThreadPoolExecutor(1) as thread:
        calls = thread.submit(parallel.run, time.sleep, [(1,)] * 20)
        time.sleep(2)
        on_dask.scheduler.kill()
        with pytest.raises(
            ConnectionError, match="start it again, then go on with the same command"
        ):
            calls.result()


def test_ray_gives_the_same_networks_though_a_worker_is_killed(ray_address, tmp_path, monkeypatch):
    choose(monkeypatch, "ray", ray_address)
    assert "2 at a time" in parallel.check()
    items = [(value, tmp_path / "mark") for value in range(7)]
    assert parallel.run(_square_or_die, items) == [value * value for value in range(7)]
    assert (tmp_path / "mark").exists()
    with pytest.raises(KeyError):
        parallel.run(operator.getitem, [({}, 1)])
    arguments = (enumerate_cells(3)[:3], load_images("digits", train_size=200))
    recipe = Recipe(channels=4, epochs=1)
    first, _ = train_networks(*arguments, recipe, tmp_path / "ray", 1)
    second, _ = serially(monkeypatch, train_networks, *arguments, recipe, tmp_path / "serial", 1)
    assert first.equals(second)
    assert contents(tmp_path / "ray") == contents(tmp_path / "serial")
