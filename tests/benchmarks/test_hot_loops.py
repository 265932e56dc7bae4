"""The hot loops of the study, in processor time on one thread.

Outside of `make test`: `python -m pytest tests/benchmarks` runs them in a minute or two. To compare
two revisions, add `--benchmark-save=NAME` to the first run and `--benchmark-compare` to the second.
"""

import os
import time

os.environ["IONAS_PROGRESS"] = "off"

import numpy as np
import pandas as pd
import pytest
import torch

CELLS = 423_624  # of NAS-Bench-101
pytestmark = pytest.mark.benchmark(timer=time.process_time)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def some_cells(count):
    """Cells of NAS-Bench-101, drawn without repetition."""
    from ionas.space.cells import enumerate_cells

    return enumerate_cells()[np.random.default_rng(0).choice(CELLS, count, replace=False)]


def some_table(count):
    """A table of so many cells, with values made up."""
    from ionas.benchmark.table import Table

    rng = np.random.default_rng(0)
    columns = {name: rng.random(count) for name in ("validation_accuracy", "test_accuracy")}
    values = pd.DataFrame({**columns, "training_time": np.full(count, 1000.0)})
    return Table(some_cells(count), values, {"name": "made up"})


def batches(count, size=32):
    """Batches of cells as tensors, without end."""
    from ionas.space.cells import cell_tensors

    tensors = cell_tensors(some_cells(count))
    while True:
        yield from zip(*(tensor.split(size) for tensor in tensors), strict=True)


def test_enumeration_of_all_cells(benchmark):
    from ionas.space.cells import enumerate_cells

    everything = getattr(enumerate_cells, "__wrapped__", enumerate_cells)  # without its cache
    cells = benchmark.pedantic(everything, rounds=2)
    assert len(cells) == CELLS


def test_graph_hashes_of_20_000_cells(benchmark):
    from ionas.space.cells import CellSet

    cells = some_cells(20_000)
    texts = cells.to_text()
    benchmark.pedantic(
        lambda fresh: fresh.hashes, setup=lambda: ((CellSet.from_text(*texts),), {}), rounds=5
    )


def test_reading_a_table_of_20_000_cells(benchmark, tmp_path):
    from ionas.benchmark.table import load_table

    path = tmp_path / "table.parquet"
    some_table(20_000).write(path)
    table = benchmark.pedantic(load_table, (str(path),), rounds=5, warmup_rounds=1)
    assert len(table) == 20_000


def test_a_step_of_arch2vec(benchmark):
    """A batch of 32 cells at the paper's widths, with gradient and Adam."""
    from ionas.embedding.arch2vec import Arch2vec

    model = Arch2vec()
    adam = torch.optim.Adam(model.parameters(), fused=True)
    source = batches(3200)

    def step():
        adjacency, operations = next(source)
        mu, log_std = model.encode(adjacency, operations)
        z = model.sample(mu, log_std)
        adam.zero_grad()
        model.loss(z, mu, log_std, adjacency, operations).backward()
        adam.step()

    benchmark.pedantic(step, rounds=20, iterations=10, warmup_rounds=2)


def test_a_training_step_of_a_network(benchmark):
    """The network of one cell, 8 channels, a batch of 128 images of 8 x 8 pixels."""
    from ionas.networks import Network

    network = Network(some_cells(1)[0], 1, 10, channels=8, stacks=3, cells_per_stack=1)
    sgd = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    pixels, labels = torch.randn(128, 1, 8, 8), torch.randint(10, (128,))

    def step():
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(network(pixels), labels).backward()
        sgd.step()

    benchmark.pedantic(step, rounds=20, iterations=5, warmup_rounds=2)


def test_embeddings_of_4096_cells(benchmark):
    from ionas.embedding.arch2vec import Arch2vec
    from ionas.embedding.extract import extract

    model, cells = Arch2vec(), next(batches(4096, 4096))
    benchmark.pedantic(lambda: extract("arch2vec", model, *cells), rounds=10, warmup_rounds=1)


def test_validity_of_10_000_cells(benchmark):
    from ionas.embedding.metrics import validity

    cells = some_cells(10_000)
    found = benchmark.pedantic(
        validity, (cells.adjacency, cells.operations), rounds=5, warmup_rounds=1
    )
    assert found["validity"] == 1


def test_48_steps_of_100_searches_over_30_001_cells(benchmark):
    """Three episodes of REINFORCE: sampling, nearest cells, updates of the policies."""
    from ionas.tasks.clock import with_cost
    from ionas.tasks.reinforce import reinforce

    table = with_cost(some_table(30_001))
    points = np.random.default_rng(1).normal(size=(len(table), 16)).astype(np.float32)
    benchmark.pedantic(
        lambda: reinforce(points, table, runs=100, budget=48_000.0, baseline=0.95), rounds=3
    )


def test_a_forest_on_2500_cells(benchmark):
    """The paper's forest, fitted on 2,500 cells; 40,000 are predicted."""
    from ionas.tasks.regressors import predict_forest

    points = np.random.default_rng(1).normal(size=(42_500, 16)).astype(np.float32)
    truth = points.sum(1) + np.random.default_rng(2).normal(size=len(points))
    benchmark.pedantic(
        lambda: predict_forest(points[:2500], truth[:2500], points[2500:], 0, 200, 4), rounds=2
    )
