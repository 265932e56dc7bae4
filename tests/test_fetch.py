"""Downloads from a server on this machine: resumed, checked, clear without a network."""

import hashlib
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10
from typer.testing import CliRunner

from ionas.benchmark import download as fetch
from ionas.benchmark.download import SOURCES, FetchError
from ionas.benchmark.tfrecord import PUBLISHED
from ionas.cli import app
from ionas.images import load_images

CONTENT = np.random.default_rng(0).bytes(3_000_000)
NAME = "nasbench_only108.tfrecord"
PARTIAL = f".{NAME}.part"


@dataclass
class Server:
    """What is served, how, and what was asked for."""

    address: str = ""
    content: bytes = CONTENT
    ranges: bool = True  # whether it knows the header Range
    stop_after: int = 0  # bytes after which it hangs up
    hold: threading.Event | None = None  # before which it sends half of what it should
    status: int = 0  # an error it answers with
    asked: list[str] = field(default_factory=list)
    sent: int = 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.asked.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-") or 0) if state.ranges else 0
            if state.status or start >= len(state.content):
                self.send_error(state.status or 416)
                return
            body = state.content[start:]
            self.send_response(206 if asked and state.ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.hold:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                state.hold.wait(60)
                return
            part = body[: state.stop_after or None]
            state.sent += len(part)
            self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{running.server_address[1]}/{NAME}"
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    source = fetch.Source(state.address, hashlib.sha256(CONTENT).hexdigest(), 3)
    monkeypatch.setitem(SOURCES, "nasbench101", source)
    yield state
    running.shutdown()
    running.server_close()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_published_files_are_meant() -> None:
    for name, file in (("nasbench101", NAME), ("nasbench101-full", "nasbench_full.tfrecord")):
        source = SOURCES[name]
        assert source.address.endswith(f"/{file}")
        assert PUBLISHED[source.sha256] == file
    assert SOURCES["cifar10"].address == CIFAR10.url


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        assert fetch.fetch("nasbench101", tmp_path / "new") == tmp_path / "new" / NAME
    assert (tmp_path / "new" / NAME).read_bytes() == CONTENT
    assert files(tmp_path / "new") == [NAME]
    assert server.asked == ["bytes=0-"]


def test_a_download_that_broke_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.stop_after = 1_234_567
    for _ in range(2):
        with pytest.raises(FetchError, match="goes on from where it stopped"):
            fetch.fetch("nasbench101", tmp_path)
    assert files(tmp_path) == [PARTIAL]
    server.stop_after = 0
    assert fetch.fetch("nasbench101", tmp_path).read_bytes() == CONTENT
    starts = [int(text.removeprefix("bytes=").removesuffix("-")) for text in server.asked]
    assert starts[0] == 0 < starts[1] < starts[2] < len(CONTENT)
    assert server.sent < len(CONTENT) + 2 * (1 << 20), "what was there is not fetched again"
    assert files(tmp_path) == [NAME]


def test_a_process_that_was_killed_left_what_it_had(server: Server, tmp_path: Path) -> None:
    server.hold = threading.Event()
    source = SOURCES["nasbench101"]
    code = (
        "from pathlib import Path; from ionas.benchmark import download as fetch\n"
        f"fetch.SOURCES['nasbench101'] = fetch.{source!r}\n"
        f"fetch.fetch('nasbench101', Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    partial = tmp_path / PARTIAL
    give_up = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < give_up, "nothing was downloaded"
        time.sleep(0.02)
    process.kill()
    process.wait()
    server.hold.set()
    server.hold = None
    had = partial.stat().st_size
    assert partial.read_bytes() == CONTENT[:had]
    assert fetch.fetch("nasbench101", tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={had - 1}-"


@pytest.mark.parametrize("have", [len(CONTENT), len(CONTENT) - 1, 1])
def test_a_partial_file_of_any_length_is_completed(
    have: int, server: Server, tmp_path: Path
) -> None:
    (tmp_path / PARTIAL).write_bytes(CONTENT[:have])
    assert fetch.fetch("nasbench101", tmp_path).read_bytes() == CONTENT
    assert server.sent == len(CONTENT) - have + 1


def test_a_server_that_cannot_resume_sends_everything(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / PARTIAL).write_bytes(CONTENT[:1000])
    assert fetch.fetch("nasbench101", tmp_path).read_bytes() == CONTENT


def test_an_error_of_the_server_costs_nothing(server: Server, tmp_path: Path) -> None:
    (tmp_path / PARTIAL).write_bytes(CONTENT[:1000])
    server.status = 503
    with pytest.raises(FetchError, match="503"):
        fetch.fetch("nasbench101", tmp_path)
    assert (tmp_path / PARTIAL).read_bytes() == CONTENT[:999]


def test_a_partial_file_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / PARTIAL).write_bytes(CONTENT + b"more")
    with pytest.raises(FetchError, match="416"):
        fetch.fetch("nasbench101", tmp_path)
    assert fetch.fetch("nasbench101", tmp_path).read_bytes() == CONTENT


def test_another_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(FetchError, match="does not match the known hash"):
        fetch.fetch("nasbench101", tmp_path)
    assert files(tmp_path) == []
    server.content = CONTENT
    assert fetch.fetch("nasbench101", tmp_path).read_bytes() == CONTENT


def test_a_file_of_that_name_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(FetchError, match="exists, but is a different file: remove or rename it"):
        fetch.fetch("nasbench101", tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"mine"
    assert server.asked == []


def test_without_a_network_it_says_what_to_do(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}"
    source = SOURCES["nasbench101"]._replace(address=address)
    monkeypatch.setitem(SOURCES, "nasbench101", source)
    done = CliRunner().invoke(app, ["data", "fetch", "nasbench101", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (2, "")
    for needed in (address, source.sha256, "3 MB", str(tmp_path / NAME), "Without a network"):
        assert needed in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / NAME).write_bytes(CONTENT)  # brought from elsewhere
    done = CliRunner().invoke(app, ["data", "fetch", "nasbench101", str(tmp_path)])
    assert done.exit_code == 0
    assert f"ionas data nasbench101 --from {tmp_path / NAME}" in done.stdout


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FetchError, match=r"(?i)exists|not a directory"):
        fetch.fetch("nasbench101", tmp_path / "file")


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no data 'cifar'; choose from nasbench101, nasbench101-f"):
        fetch.fetch("cifar", tmp_path)


# --- CIFAR-10 ----------------------------------------------------------------------------------


def archive_of_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A tiny archive in the layout of CIFAR-10, whose sums torchvision is made to expect."""
    rng = np.random.default_rng(0)
    base = folder / CIFAR10.base_folder
    base.mkdir()
    sums = {}
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"]
    for name in names:
        batch = {"data": rng.integers(0, 256, (4, 3072), np.uint8), "labels": [0, 1, 2, 3]}
        content = batch if "batch_" in name or name == "test_batch" else {}
        content |= {"label_names": [f"class {k}" for k in range(10)]}
        (base / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((base / name).read_bytes()).hexdigest()
    path = folder / CIFAR10.filename
    with tarfile.open(path, "w:gz") as archive:
        archive.add(base, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    return path.read_bytes()


def test_cifar10_is_fetched_and_unpacked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    server.content = archive_of_cifar10(tmp_path / "made", monkeypatch)
    address = server.address.replace(NAME, CIFAR10.filename)
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setitem(SOURCES, "cifar10", fetch.Source(address, digest, 1))
    for _ in range(2):
        done = CliRunner().invoke(app, ["data", "fetch", "cifar10", str(tmp_path / "c")])
        assert (done.exit_code, done.stderr) == (0, "")
    assert "pretraining.images=cifar10" in done.stdout
    assert len(server.asked) == 1
    images = load_images("cifar10", str(tmp_path / "c"), validation_size=5)
    assert [len(images.train), len(images.validation), len(images.test)] == [15, 5, 4]
    (tmp_path / "c" / CIFAR10.filename).unlink()
    assert fetch.fetch("cifar10", tmp_path / "c") == tmp_path / "c", "unpacked is enough"
    assert len(server.asked) == 1
