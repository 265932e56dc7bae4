"""NAS-Bench-101: hash, canonical order and enumeration of its cells (METHOD 1).

A cell is a directed acyclic graph of at most 7 vertices and 9 edges, input first, output last, the
inner vertices labeled with one of three operations (Ying et al. 2019).
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import permutations, product

import numpy as np

from ionas.space import INPUT, OUTPUT, PADDING, Space

CONV1X1 = "conv1x1-bn-relu"
CONV3X3 = "conv3x3-bn-relu"
MAXPOOL3X3 = "maxpool3x3"
MAX_VERTICES = 7
MAX_EDGES = 9
OPERATIONS = (INPUT, CONV1X1, CONV3X3, MAXPOOL3X3, OUTPUT)
LABELS = dict(zip(OPERATIONS, (-1, 1, 0, 2, -2), strict=True))  # numbers in the public hash


def graph_hash(adjacency: Sequence[Sequence[int]], operations: Sequence[str]) -> str:
    """Compute the public hash of one pruned cell, 32 hex digits (METHOD 1).

    Every vertex gets a digest of its degrees and the label of its operation. Then, as many times as
    there are vertices, it gets a digest of the sorted digests of its in-neighbors, those of its
    out-neighbors, and its own. The hash is the digest of the sorted digests of all vertices, so it
    does not depend on their order.
    """
    vertices, labels = range(len(operations)), [LABELS[name] for name in operations]
    targets = [[w for w in vertices if adjacency[v][w]] for v in vertices]
    sources = [[u for u in vertices if adjacency[u][v]] for v in vertices]
    digests = [_md5((len(targets[v]), len(sources[v]), labels[v])) for v in vertices]
    for _ in vertices:
        digests = [
            _md5(f"{_sorted(digests, sources[v])}|{_sorted(digests, targets[v])}|{digests[v]}")
            for v in vertices
        ]
    return _md5(sorted(digests))


def _sorted(digests: Sequence[str], vertices: Iterable[int]) -> str:
    return "".join(sorted([digests[v] for v in vertices]))


def _md5(value: object) -> str:
    return hashlib.md5(str(value).encode()).hexdigest()


def graph_hashes(adjacency: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Compute `graph_hash` of N cells: (N, V, V) and (N, V) -> (N,) texts."""
    cells = zip(adjacency, operations.tolist(), strict=True)
    hashes = [
        graph_hash(edges.tolist(), [OPERATIONS[k] for k in row if k != PADDING])
        for edges, row in cells
    ]
    return np.array(hashes, "U32")


def canonical_order(adjacency: np.ndarray, operations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put the vertices of cells into the order of the published file.

    Of the isomorphic ways to write a cell, that file has the one whose edges make the smallest
    number, where edge (u, v) is bit u + v (v - 1) / 2; of several such ways it has the first by
    operations, in the order conv3x3, conv1x1, maxpool3x3 of each inner vertex in turn. The channels
    of a network, the latent matrix and the validity depend on the order of the vertices.
    """
    adjacency, operations = adjacency.copy(), operations.copy()
    sizes = (operations != PADDING).sum(1)
    for n in np.unique(sizes):
        for rows in _blocks(np.flatnonzero(sizes == n)):
            orders, numbers = _numbers(adjacency[rows, :n, :n], operations[rows, :n])
            best = orders[numbers.argmin(1)]
            moved = np.take_along_axis(adjacency[rows, :n, :n], best[:, :, None], 1)
            adjacency[rows, :n, :n] = np.take_along_axis(moved, best[:, None, :], 2)
            operations[rows, :n] = np.take_along_axis(operations[rows, :n], best, 1)
    return adjacency, operations


def _numbers(adjacency: np.ndarray, operations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every order of the vertices of M cells, (P, n), and the number of a cell in it, (M, P).

    Two cells are isomorphic if and only if their smallest numbers are equal.
    """
    n = operations.shape[1]
    orders = np.array([(0, *inner, n - 1) for inner in permutations(range(1, n - 1))])
    places = orders.argsort(1)  # of every vertex in each order
    u, v = places[:, :, None], places[:, None, :]
    bits = np.where(u < v, 2.0 ** (u + v * (v - 1) // 2), 2.0**40)  # no edge may lead back
    labels = np.array([LABELS[name] + 1.0 for name in OPERATIONS])[operations]
    labels[:, [0, -1]] = 0  # the others are 1 to 3, digits of a number below 4^n
    numbers = adjacency.reshape(len(adjacency), -1) @ bits.reshape(len(orders), -1).T
    return orders, numbers * 4**n + labels @ (4.0 ** (n - 1 - places)).T


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    """Rows in blocks that are small enough for `_numbers`."""
    return np.split(rows, range(10_000, len(rows), 10_000))


def cells_of_size(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Every unique cell of n vertices, as `cells.enumerate_cells` orders them, padded."""
    pairs = np.triu_indices(n, 1)
    patterns = np.arange(2 ** len(pairs[0]), dtype=np.int64)
    patterns = patterns[np.bitwise_count(patterns) <= MAX_EDGES]
    graphs = np.zeros((len(patterns), n, n), np.uint8)
    graphs[:, pairs[0], pairs[1]] = (patterns[:, None] >> np.arange(len(pairs[0]))[::-1]) & 1
    # Upper triangular: every vertex is on a path if only the ends lack an edge in or out.
    entered, left = graphs.max(1)[:, 1:], graphs.max(2)[:, :-1]
    graphs = graphs[entered.all(1) & left.all(1)]
    # Cells of two graphs differ whatever their operations: only one of isomorphic graphs is needed.
    same = np.full((len(graphs), n), 2, np.int8)
    graphs = graphs[_first_of_isomorphic(graphs, same)]
    inner = np.array(list(product([1, 2, 3], repeat=n - 2)), np.int8).reshape(3 ** (n - 2), n - 2)
    adjacency = np.zeros((len(graphs) * len(inner), MAX_VERTICES, MAX_VERTICES), np.uint8)
    adjacency[:, :n, :n] = np.repeat(graphs, len(inner), 0)
    operations = np.full((len(adjacency), MAX_VERTICES), PADDING, np.int8)
    operations[:, 0] = 0
    operations[:, 1 : n - 1] = np.tile(inner, (len(graphs), 1))
    operations[:, n - 1] = 4
    first = _first_of_isomorphic(adjacency[:, :n, :n], operations[:, :n])
    return adjacency[first], operations[first]


def _first_of_isomorphic(adjacency: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Rows, ascending, of the first of every set of isomorphic graphs."""
    blocks = _blocks(np.arange(len(operations)))
    keys = [_numbers(adjacency[rows], operations[rows])[1].min(1) for rows in blocks]
    return np.sort(np.unique(np.concatenate(keys), return_index=True)[1])


NASBENCH101 = Space(
    "NAS-Bench-101", OPERATIONS, MAX_VERTICES, MAX_EDGES, graph_hashes, canonical_order
)
