"""Calls on Dask workers, one of which is killed, with the results of serial calls."""

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
from embedding_data import SMALL, changed, data_of_both, small_data
from test_pretraining import kept, study

from ionas import parallel
from ionas.embedding.training import _trained, train_data
from ionas.parameters import Pretraining
from ionas.pretraining import train_networks
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
        ("dsk", "", "no backend 'dsk'; choose processes or dask"),
        ("processes", "tcp://127.0.0.1:1", "needs a backend, too"),
    ],
)
def test_a_wrong_choice_is_refused(monkeypatch, backend, scheduler, message):
    choose(monkeypatch, backend, scheduler)
    for call in (parallel.check, lambda: parallel.run(math.sqrt, [(4,)])):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_missing_library_is_named_with_the_mend(monkeypatch):
    choose(monkeypatch, "dask", "127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"not installed; .*ionas\[dask\]"):
        parallel.check()


def test_an_address_where_nobody_answers_is_refused(monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr(parallel, "PATIENCE_S", 1)
    choose(monkeypatch, "dask")
    with pytest.raises(ValueError, match="needs the address of its scheduler"):
        parallel.check()
    with socket.socket() as free:
        free.bind((HOST, 0))
        closed = f"{HOST}:{free.getsockname()[1]}"
    for address in (closed, "tcp://127.0.0.1", "127.0.0.1:port", "no://127.0.0.1:1"):
        choose(monkeypatch, "dask", address)
        with pytest.raises(ValueError, match=f"no scheduler answers .*{address} "):
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


def _inner(value):
    return parallel.run(math.sqrt, [(value,)], jobs=1)


def test_calls_within_calls(tmp_path):
    assert parallel.run(_inner, [(4,), (9,)], jobs=1) == [[2], [3]]


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"does not see .*IONAS_RUNS"):
        _trained("io", 1, SMALL, tmp_path / "none", "cpu")


def test_a_killed_dask_worker_loses_no_network(on_dask, tmp_path, monkeypatch):
    """SIGKILL in the midst of a training: finished networks stay, and all are as in serial."""
    from distributed import Client

    arguments = (*study(enumerate_cells(4)[:8], 6), None,
        Pretraining(train_images=400, epochs=4, batch_size=32))  # fmt: skip
    report, folder = tmp_path / "progress.json", tmp_path / "dask"
    monkeypatch.setenv("IONAS_PROGRESS", str(report))
    with Client(on_dask.address) as client, ThreadPoolExecutor(1) as thread:
        client.wait_for_workers(2)
        victim, pid = next(iter(client.run(os.getpid).items()))
        training = thread.submit(train_networks, *arguments, folder)
        wait_for(lambda: training.done() or list(folder.glob("*.sha256")))
        making = wait_for(lambda: client.processing()[victim])
        finished = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9a-f]*")}
        os.kill(pid, signal.SIGKILL)
        networks = training.result()
        story = client.story(*making, on_error="ignore")
        moves = {(key, *states) for _, key, *states, _, _, _ in story if len(states) == 2}
        assert {(key, "processing", "released") for key in making} & moves  # lost, made again
        on_dask.worker()
    for path, time_ns in finished.items():
        if not path.suffix and path.with_name(f"{path.name}.sha256") in finished:
            assert path.stat().st_mtime_ns == time_ns
    assert json.loads(report.read_text()) == {
        "description": "training networks", "done": 8, "total": 8,
    }  # fmt: skip
    serial = serially(monkeypatch, train_networks, *arguments, tmp_path / "serial")
    assert networks.equals(serial)
    assert kept(folder) == kept(tmp_path / "serial")
    assert len(kept(folder)) == 8


def serially(monkeypatch, function, *arguments):
    """Call a function that ends with the number of jobs in this process."""
    monkeypatch.delenv("IONAS_BACKEND")
    monkeypatch.delenv("IONAS_SCHEDULER")
    return function(*arguments, jobs=1)


def test_embeddings_trained_on_dask_have_the_same_bytes(on_dask, tmp_path, monkeypatch):
    p = changed(SMALL, seeds=[1], epochs=1, original_epochs=1)
    both = data_of_both(small_data())
    first = train_data(both, p, tmp_path / "dask", 0, "cpu")
    monkeypatch.delenv("IONAS_BACKEND")
    monkeypatch.delenv("IONAS_SCHEDULER")
    second = train_data(both, p, tmp_path / "serial", 1, "cpu")
    assert first.keys() == second.keys()
    for key, values in first.items():
        assert np.array_equal(values, second[key])


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


def test_a_worker_that_comes_later_is_asked_too(on_dask, monkeypatch):
    monkeypatch.setattr(parallel, "_fault", lambda versions: "")
    monkeypatch.setattr(parallel, "_versions", lambda: {"ionas code": "other"})
    with pytest.raises(ValueError, match=r"worker .* is not fit: it has ionas code"):
        parallel.run(math.sqrt, [(4,)])


def test_dask_workers_of_many_threads_are_refused(on_dask, monkeypatch):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        1, threads_per_worker=2, processes=False, protocol="tcp", host=HOST, dashboard_address=":0"
    ) as threads:
        choose(monkeypatch, "dask", threads.scheduler_address)
        with pytest.raises(ValueError, match=r"makes several calls at a time .*--nthreads 1"):
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
    networks = kept(tiny_run / "pretraining" / "networks")
    assert networks
    assert kept(tmp_path / "tiny" / "pretraining" / "networks") == networks
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
