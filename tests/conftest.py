"""What several test files share: threads held to one, and one tiny run of the whole study."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
os.environ |= dict.fromkeys(THREADS, "1")  # before anything imports numpy or torch

import filelock  # noqa: E402
import pytest  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tiny study first, then what needs none, which one process does while another makes it.

    Files that use the study come in reverse order, so that the longest of them is not the last.
    """
    using = {item.path for item in items if "tiny_run" in getattr(item, "fixturenames", ())}
    first, names = "test_notebooks", sorted({item.path.stem for item in items}, reverse=True)
    items.sort(
        key=lambda i: (i.path.stem != first, i.path in using and 1 + names.index(i.path.stem))
    )


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of the profile `tiny`; tests only read it.

    `make test` has made it already and gives its place by IONAS_TEST_RUNS.
    """
    given = os.environ.get("IONAS_TEST_RUNS")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    runs = Path(given) if given else shared / "runs"
    from ionas.book.run import run

    with filelock.FileLock(shared / "runs.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("IONAS_RUNS", str(runs))
        return run("tiny")


@pytest.fixture
def tiny_copy(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny run to change, in the folder that IONAS_RUNS then names."""
    copy = tmp_path / "runs" / "tiny"
    shutil.copytree(tiny_run, copy, ignore=shutil.ignore_patterns("by_hand", ".lock"))
    monkeypatch.setenv("IONAS_RUNS", str(copy.parent))
    return copy


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the paper-scale data that may stand beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "nasbench101.parquet").exists():
        pytest.skip("the paper-scale data do not stand beside the project (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(names)})")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield started
        started.close()


@pytest.fixture
def double() -> Iterator[None]:
    """Float64: biases before a normalisation have a gradient of rounding errors only."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
