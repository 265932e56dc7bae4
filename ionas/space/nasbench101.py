"""NAS-Bench-101: the hash of its cells, the order of their vertices, all of them (METHOD 1).

A cell is a directed acyclic graph of at most 7 vertices and 9 edges, input first, output last, the
inner vertices labeled with one of three operations (Ying et al. 2019).
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise, permutations, product

import numpy as np

from ionas.space import INPUT, OUTPUT, PADDING, Space, rows_by_size

CONV1X1 = "conv1x1-bn-relu"
CONV3X3 = "conv3x3-bn-relu"
MAXPOOL3X3 = "maxpool3x3"
MAX_VERTICES = 7
MAX_EDGES = 9
_HASH_LABELS = np.array([-1, 1, 0, 2, -2])  # of input, conv1x1, conv3x3, maxpool3x3, output
_HEX = np.frombuffer(bytes(range(256)).hex().encode(), np.uint16)  # two digits per byte


def graph_hash(adjacency: Sequence[Sequence[int]], operations: Sequence[str]) -> str:
    """Compute the public hash of one pruned cell, as plainly as it is defined (METHOD 1).

    Every vertex gets a digest of its degrees and its operation; then, as often as there are
    vertices, a digest of the sorted digests of its in-neighbors, of its out-neighbors, and its
    own. The hash is that of the sorted digests, so it does not depend on the order of vertices.
    `graph_hashes` gives the same 32 hex digits for many cells at once.
    """
    inner = (CONV3X3, CONV1X1, MAXPOOL3X3)
    labels = [-1, *[inner.index(name) for name in operations[1:-1]], -2]
    n = len(labels)
    sources = [[u for u in range(n) if adjacency[u][v]] for v in range(n)]
    targets = [[w for w in range(n) if adjacency[v][w]] for v in range(n)]
    digests = [_md5_of((len(targets[v]), len(sources[v]), labels[v])) for v in range(n)]
    for _ in range(n):
        joined = ["".join(sorted(digests[u] for u in near)) for near in (*sources, *targets)]
        digests = [_md5_of(f"{joined[v]}|{joined[n + v]}|{digests[v]}") for v in range(n)]
    return _md5_of(sorted(digests))


def _md5_of(value: object) -> str:
    return hashlib.md5(str(value).encode()).hexdigest()


def graph_hashes(adjacency: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Compute `graph_hash` of many cells: (N, V, V) and (N, V) -> (N,) texts."""
    hashes = np.empty(len(operations), "U32")
    for n, rows in rows_by_size((operations != PADDING).sum(1)):
        edges, labels = adjacency[rows, :n, :n].astype(bool), _HASH_LABELS[operations[rows, :n]]
        hashes[rows] = _hashes_of_one_size(edges, labels)
    return hashes


def _hashes_of_one_size(edges: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(M, n, n) bool and (M, n) int -> (M,) text.

    All messages of a round are laid into one text. The vertices of each graph are kept in the order
    of their digests, so that the neighbors of a vertex come sorted.
    """
    count, n = labels.shape
    start = np.stack([edges.sum(2), edges.sum(1), labels], 2).reshape(-1, 3)
    distinct, inverse = np.unique(start, axis=0, return_inverse=True)
    digests = _md5(str(tuple(row)).encode() for row in distinct.tolist())[inverse.ravel()]
    graph = np.arange(count)[:, None]
    self = np.broadcast_to(np.eye(n, dtype=bool), edges.shape)
    for _ in range(n):
        digests, order = _sorted_in_graphs(digests, count)
        edges = edges[graph[:, :, None], order[:, :, None], order[:, None, :]]
        # Row by row what a message is made of: sources, targets, the vertex itself.
        parts = np.concatenate([edges.transpose(0, 2, 1), edges, self], 2)  # (M, n, 3n)
        row, slot = np.nonzero(parts.reshape(count * n, -1))
        begin = 32 * np.arange(len(row)) + 2 * row + slot // n  # two | in a message before
        text = np.full(32 * len(row) + 2 * count * n, ord("|"), np.uint8)
        windows = np.ndarray(len(text) - 31, "V32", text, strides=(1,))  # any 32 bytes as a value
        windows[begin] = _HEX[digests].view("V32")[row // n * n + slot % n, 0]
        end = (begin[slot >= 2 * n] + 32).tolist()
        joined = text.tobytes()
        digests = _md5(joined[a:b] for a, b in pairwise([0, *end]))
    texts = _HEX[_sorted_in_graphs(digests, count)[0]].view("S32").astype("U32").reshape(count, n)
    digests = _md5(str(row).encode() for row in texts.tolist())
    return _HEX[digests].view("S32")[:, 0].astype("U32")


def _sorted_in_graphs(digests: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Digests (M*n, 16) sorted within each graph, and the vertex (M, n) that each belongs to."""
    # The first 8 bytes decide: two digests of one graph share them once in 10^18 graphs.
    keys = np.ascontiguousarray(digests[:, :8]).view(">u8").astype(np.uint64).reshape(count, -1)
    order = keys.argsort(1, kind="stable")
    rows = np.arange(count)[:, None] * order.shape[1] + order
    return digests[rows.ravel()], order


def _md5(messages: Iterable[bytes]) -> np.ndarray:
    """MD5 digests, (number of messages, 16) uint8."""
    digests = b"".join([hashlib.md5(message).digest() for message in messages])
    return np.frombuffer(digests, np.uint8).reshape(-1, 16)


def canonical_order(adjacency: np.ndarray, operations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put the vertices of cells into the order of the published file.

    That file was made by counting: of the isomorphic ways to write a cell it has the one whose
    edges, edge (u, v) being bit u + v (v - 1) / 2, make the smallest number; of several such ways
    the first by operations, in the order conv3x3, conv1x1, maxpool3x3 of each inner vertex in turn.
    What depends on the order of vertices is the same as with that file only then: the channels of a
    network, the latent matrix, validity.
    """
    adjacency, operations = adjacency.copy(), operations.copy()
    for n, rows in rows_by_size((operations != PADDING).sum(1)):
        orders, numbers = _numbers(adjacency[rows, :n, :n], operations[rows, :n])
        best = orders[numbers.argmin(1)]
        moved = np.take_along_axis(adjacency[rows, :n, :n], best[:, :, None], 1)
        adjacency[rows, :n, :n] = np.take_along_axis(moved, best[:, None, :], 2)
        operations[rows, :n] = np.take_along_axis(operations[rows, :n], best, 1)
    return adjacency, operations


def _numbers(adjacency: np.ndarray, operations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every order of the vertices of M cells, (P, n), and the number of a cell in it, (M, P).

    The smallest number of a cell tells it from every cell that is not isomorphic to it.
    """
    n = operations.shape[1]
    orders = np.array([(0, *inner, n - 1) for inner in permutations(range(1, n - 1))])
    places = orders.argsort(1)  # of every vertex in each order
    u, v = places[:, :, None], places[:, None, :]
    bits = np.where(u < v, 2.0 ** (u + v * (v - 1) // 2), 2.0**40)  # no edge may lead back
    labels = _HASH_LABELS[operations] + 1.0
    labels[:, [0, -1]] = 0  # the others are 1 to 3, digits of a number below 4^n
    numbers = adjacency.reshape(len(adjacency), -1) @ bits.reshape(len(orders), -1).T
    return orders, numbers * 4**n + labels @ (4.0 ** (n - 1 - places)).T


def all_cells(max_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Every unique cell, as `cells.enumerate_cells` says: adjacency and operations."""
    sizes = [_cells_of_size(n) for n in range(2, max_vertices + 1)]
    adjacency, operations = zip(*sizes, strict=True)
    return np.concatenate(adjacency), np.concatenate(operations)


def _cells_of_size(n: int) -> tuple[np.ndarray, np.ndarray]:
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
    blocks = [slice(start, start + 10_000) for start in range(0, len(operations), 10_000)]
    keys = [_numbers(adjacency[block], operations[block])[1].min(1) for block in blocks]
    return np.sort(np.unique(np.concatenate(keys), return_index=True)[1])


OPERATIONS = (INPUT, CONV1X1, CONV3X3, MAXPOOL3X3, OUTPUT)
NASBENCH101 = Space(
    "NAS-Bench-101", OPERATIONS, MAX_VERTICES, MAX_EDGES, graph_hashes, canonical_order
)
