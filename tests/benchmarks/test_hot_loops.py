"""The hot loops, timed by pytest-benchmark, with what they compute and move.

Outside of `make test`; run with `python -m pytest tests/benchmarks`. `ionas bench` compares the
same loops with their goals and floors. An operation is one addition or multiplication of floating
point numbers, which have 4 bytes.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from ionas import bench
from ionas.benchmark.table import Table
from ionas.embedding import metrics as evaluation
from ionas.parallel import one_thread
from ionas.space.cells import enumerate_cells
from ionas.tasks import prediction
from ionas.tasks import reinforce as search


@pytest.fixture(autouse=True, scope="module")
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def subject():
    return bench.Subject()


@pytest.fixture(scope="module")
def points(subject):
    """Embeddings of 50,000 cells."""
    chosen = np.random.default_rng(0).choice(bench.CELLS, 50_000, replace=False)
    parts = (tensor[chosen] for tensor in subject.tensors)
    return evaluation.encode(subject.model, *parts).mean(1).numpy()


def test_arch2vec_step(benchmark, subject):
    """A batch of 32 cells is R = 224 rows.

    Dense layers, forward: 2 R (5 x 128 + 7 x 128 x 128 + 2 x 128 x 16 + 16 x 5) = 53.5 million
    operations; backward as many for weights and for inputs, but for the inputs of the first layer:
    160 million in all. A core with 90 Gflop/s needs 1.8 ms.
    Aggregation: 4 + 3 products of 32 matrices 7 x 7 and 7 x 128, 2.4 million operations.
    Normalisation and ReLU: 8 times 28,672 numbers, each read 9 and written 4 times, in the cache:
    12 MB.
    Adam: 122,617 parameters, 4 numbers read and 3 written for each: 3.4 MB.
    Data: 84 bytes per cell.
    """
    trainer, batches = bench._trainer(*subject.tensors)
    benchmark.pedantic(lambda: trainer._step(*next(batches)), rounds=300, warmup_rounds=20)


def test_encoding(benchmark, subject):
    """Mu of 4,096 cells: 2 x 7 (5 x 128 + 7 x 128 x 128 + 128 x 16) = 1.64 million operations a
    cell, 696 billion for all 423,624: 7.7 s of a core with 90 Gflop/s. 84 numbers are read and 112
    written per cell; the activations of 512 cells, 1.8 MB per layer, stay in the cache.
    """
    adjacency, operations = (tensor[:4096] for tensor in subject.tensors)
    benchmark.pedantic(
        lambda: evaluation.encode(subject.model, adjacency, operations), rounds=20, warmup_rounds=2
    )


def test_validity(benchmark):
    """10,000 drawings of 49 bytes of edges and 7 of operations, in some 20 passes. Then 7 rounds of
    colours for each valid one: sorting 2 x 7 x 7 ranks, and MD5 once for all vertices that share a
    digest.
    """
    cells = enumerate_cells()[np.random.default_rng(0).choice(bench.CELLS, 10_000, replace=False)]
    benchmark.pedantic(
        lambda: evaluation.validity(cells.adjacency, cells.operations), rounds=5, warmup_rounds=1
    )


@pytest.mark.parametrize("count", [bench.SEARCHED, bench.CELLS])
def test_nearest_unvisited(benchmark, count):
    """R = 100 runs, N points of D = 16: 2 R N D operations, 0.1 billion for 30,001 points and 1.4
    billion for 423,624. Read are 4 R N bytes, half the squared norms with infinity where a run has
    been: 12 MB or 169 MB. Distances to 4,096 points at a time stay in the cache and are read once
    more for the least.
    """
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(count, 16, generator=generator)
    samples = torch.randn(100, 16, generator=generator)
    offsets = (places.square().sum(1) / 2).repeat(100, 1)
    blocks = [block.T.contiguous() for block in places.split(search.BLOCK)]
    benchmark.pedantic(
        lambda: search._nearest(samples, blocks, offsets), rounds=20, warmup_rounds=2
    )


def test_policies(benchmark):
    """Two episodes of 16 steps of 100 policies, on a few cells. Each has W = 75,776 weights: 2 W
    operations forward and 4 W backward per step. 30 MB of weights are read forward and again
    backward, per step; once an episode 30 MB of gradients are written and Adam moves 212 MB.
    """
    cells = enumerate_cells(4)
    rng = np.random.default_rng(0)
    columns = {name: rng.random(len(cells)) for name in ("validation_accuracy", "test_accuracy")}
    table = Table(cells, pd.DataFrame({**columns, "training_time": np.ones(len(cells))}))
    places = rng.normal(size=(len(cells), 16)).astype(np.float32)
    benchmark.pedantic(
        lambda: search.reinforce(places, table, 100, 32.0, baseline=0.95), rounds=5, warmup_rounds=1
    )


@pytest.mark.parametrize("size", bench.SIZES)
def test_forest(benchmark, points, size):
    """200 trees on n cells, each level of a tree sorting about n numbers for 4 of 16 inputs; then
    every predicted cell goes down 200 trees of depth 20 to 33: up to 2.5 billion comparisons for
    413,000 cells, each a jump that the processor guesses, to a node of 64 bytes in the cache. Cells
    in the order of leaves let it guess right. Here 40,000 cells are predicted.
    """
    outputs = points.sum(1) + np.random.default_rng(1).normal(size=len(points))
    benchmark.pedantic(
        lambda: prediction.predict_forest(points[:size], outputs[:size], points[10_000:], 0),
        rounds=1,
    )


def test_enumeration(benchmark):
    """2^21 patterns of edges, 8 bytes each, of which 695,860 have at most 9 edges; then as many
    rounds of colours as vertices, 8 bytes for each vertex, over the 451,000 labelings of 2,494
    graphs.
    """
    benchmark.pedantic(lambda: enumerate_cells.__wrapped__(), rounds=2)
