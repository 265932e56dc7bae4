"""Encodings of cells that nothing was trained for: each a function CellSet -> (N, D) float32.

The width D depends on the search space only, but for `adjacency_one_hot`. `paths` and `structure`
are the same for isomorphic cells; the two others depend on the order of the vertices.
"""

from itertools import chain, combinations

import numpy as np

from ionas.space.cells import CellSet, cell_tensors

CHUNK = 1 << 15  # cells encoded at a time, so that tables of their paths stay small


def adjacency_one_hot(cells: CellSet) -> np.ndarray:
    """Edges above the diagonal, then one-hot operations: the plain encoding of a cell.

    Cells are padded to the largest of them, V: D is V * (V - 1) / 2 + V * O.
    """
    size = int(cells.n_vertices.max())
    adjacency, operations = (tensor[:, :size].numpy() for tensor in cell_tensors(cells))
    rows, columns = np.triu_indices(size, 1)
    one_hot = operations.reshape(len(operations), -1)
    return np.hstack([adjacency[:, rows, columns], one_hot]).astype(np.float32)


def sequence(cells: CellSet) -> np.ndarray:
    """Tokens of each vertex after the first: its incoming edges, then its operation.

    As NAO and SemiNAS write a cell (Luo et al. 2018, 2020). Token 0 is padding, 1 no edge, 2 an
    edge, 3 + k the operation k of the space; D is (V - 1) * (V + 2) / 2.
    """
    present = cells.operations >= 0
    tokens = []
    for v in range(1, cells.operations.shape[1]):
        tokens += [cells.adjacency[:, u, v] + 1 for u in range(v)] + [cells.operations[:, v] + 3]
    vertex = [v for v in range(1, present.shape[1]) for _ in range(v + 1)]
    return (np.stack(tokens, 1) * present[:, vertex]).astype(np.float32)


def paths(cells: CellSet) -> np.ndarray:
    """Which sequences of operations occur on a path from input to output, 0 or 1.

    The path encoding of BANANAS (White et al. 2021). Sequences are ordered by length, then as
    numbers whose digits are the operations; the first is the path without an operation. D is 364
    for NAS-Bench-101; for NAS-Bench-201, with its five operations and at most three on a path, 156.
    """
    adjacency, operations = output_last(cells)
    kinds = len(cells.space.inner)
    members, exists = _all_paths(adjacency)
    wiring = cells.space.wiring
    longest = len(members[-1]) if wiring is None else int(_longest(wiring[None])[0, -1]) - 1
    first = np.cumsum([0, *(kinds**length for length in range(longest + 1))])
    result = np.zeros((len(cells), first[-1]), np.float32)
    for path, found in zip(members, exists.T, strict=True):
        rows, code = np.flatnonzero(found), 0
        for v in path:
            code = code * kinds + operations[rows, v].astype(int) - 1
        if len(rows):
            result[rows, first[len(path)] + code] = 1
    return result


def structure(cells: CellSet) -> np.ndarray:
    """Numbers that describe the graph of a cell, in the manner of GRAF (Kadlecová et al. 2024).

    For every set of operations: the shortest, the longest and the number of paths through only
    these; the least, most and mean number of them on a path; how often they occur; least, mean and
    most of their distances to input and output; their degrees. Further the edges by the operations
    at their ends, and how often an operation occurs times 1/k and 1/k^2, with k the vertices that
    feed the output: in NAS-Bench-101 a vertex has the k-th part of the channels of the cell. D is
    196 for NAS-Bench-101 and 816 for NAS-Bench-201.
    """
    starts = range(0, len(cells), CHUNK)
    return np.concatenate([_structure(cells[start : start + CHUNK]) for start in starts])


def output_last(cells: CellSet) -> tuple[np.ndarray, np.ndarray]:
    """Adjacency (N, V, V) and operations (N, V) with the output in the last row, padding before."""
    size, row = cells.operations.shape[1], np.arange(len(cells))
    order = np.tile(np.arange(size), (len(cells), 1))
    end = cells.n_vertices - 1
    order[row, end], order[row, -1] = size - 1, end
    places = row[:, None]
    adjacency = cells.adjacency[places[:, :, None], order[:, :, None], order[:, None, :]]
    return adjacency, cells.operations[places, order]


def _all_paths(adjacency: np.ndarray) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Inner vertices of the P = 2^(V-2) possible paths, and which exist in each cell, (N, P)."""
    size = adjacency.shape[1]
    inner = range(1, size - 1)
    members = list(chain.from_iterable(combinations(inner, k) for k in range(size - 1)))
    steps = [list(zip((0, *path), (*path, size - 1), strict=True)) for path in members]
    exists = [np.all([adjacency[:, u, v] for u, v in step], 0) for step in steps]
    return members, np.stack(exists, 1)


def _longest(adjacency: np.ndarray) -> np.ndarray:
    """Edges on the longest path from the first vertex to each, (N, V); 0 where there is none."""
    distance = np.zeros(adjacency.shape[:2], np.int64)
    for v in range(1, adjacency.shape[1]):
        distance[:, v] = ((distance + 1) * adjacency[:, :, v]).max(1)
    return distance


def _shortest(adjacency: np.ndarray) -> np.ndarray:
    """Edges on the shortest path from the first vertex to each, (N, V); V where there is none."""
    size = adjacency.shape[1]
    distance = np.full(adjacency.shape[:2], size)
    distance[:, 0] = 0
    for v in range(1, size):
        distance[:, v] = np.where(adjacency[:, :, v] > 0, distance + 1, size).min(1)
    return distance


def _structure(cells: CellSet) -> np.ndarray:
    adjacency, operations = output_last(cells)
    size, kinds = operations.shape[1], len(cells.space.inner)
    members, exists = _all_paths(adjacency)
    length = np.array([len(path) for path in members])
    on_path = np.array([[v in path for v in range(size)] for path in members], np.float32)
    edges, backward = adjacency.astype(np.float32), adjacency[:, ::-1, ::-1].transpose(0, 2, 1)
    feeding = edges[:, 1:-1, -1].sum(1)
    width = 1 / np.maximum(feeding, 1)
    distances = [
        f(a)[:, ::s] for f in (_shortest, _longest) for a, s in ((adjacency, 1), (backward, -1))
    ]
    degrees = [edges.sum(1), edges.sum(2)]
    columns = [feeding, width, edges[:, 0].sum(1), exists[:, 0], edges.sum((1, 2))]
    for chosen in chain.from_iterable(
        combinations(range(1, kinds + 1), k) for k in range(1, kinds + 1)
    ):
        of_set = np.isin(operations, chosen)
        many = of_set.astype(np.float32) @ on_path.T  # of the set on each path, (N, P)
        only = exists & (many == length) & (length > 0)
        columns += [
            np.where(only, length + 1, size).min(1),
            (only * (length + 1)).max(1),
            only.sum(1),
        ]
        columns += _spread(many, exists, size)
        times = of_set.sum(1)
        columns += [times, times * width, times * width**2]
        for values in distances:
            columns += _spread(values, of_set, size)
        for values in degrees:
            columns += _spread(values, of_set, size)[1:]
    ends = [operations == k for k in range(kinds + 2)]
    for before in ends[:-1]:
        reached = np.einsum("nu,nuv->nv", before.astype(np.float32), edges)
        columns += [(reached * after).sum(1) for after in ends[1:]]
    return np.stack(columns, 1).astype(np.float32)


def _spread(values: np.ndarray, mask: np.ndarray, most: int) -> list[np.ndarray]:
    """Least, mean and largest value in each row of those in the mask; `most`, 0 and 0 if none."""
    chosen = values * mask
    mean = chosen.sum(1) / np.maximum(mask.sum(1), 1)
    return [np.where(mask, values, most).min(1), mean, chosen.max(1)]
