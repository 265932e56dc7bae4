"""Neighbors: cells that differ by one edge or one operation, whatever the order of vertices.

An edit adds an edge, takes one away or changes the operation of an inner vertex; what is then on no
path from input to output is pruned.
"""

from itertools import permutations

import numpy as np
from scipy.sparse import csr_array

from ionas.space import PADDING
from ionas.space.cells import CellSet, decode_cells

BLOCK = 20_000  # cells edited at a time
FEWEST = 10  # mean number of neighbors below which a second edit is allowed


def neighbors(cells: CellSet) -> tuple[csr_array, int]:
    """Neighbors of every cell among M different ones, and by how many edits they are found.

    Two cells are neighbors if one edit of one gives the other. If that leaves fewer than FEWEST on
    average, because most cells of the space are not among these, two are neighbors as well if an
    edit of each, of those that prune no vertex, gives the same cell. Returns a symmetric (M, M)
    bool matrix with a diagonal of zeros, and 1 or 2.
    """
    own, here = _keys(cells), np.arange(len(cells))
    found = [(here, own, np.ones(len(cells), bool))]
    for start in range(0, len(cells), BLOCK):
        rows, made = edits(cells[start : start + BLOCK])
        rows = rows + start
        found.append((rows, _keys(made), made.n_vertices == cells.n_vertices[rows]))
    row, key, unpruned = (np.concatenate(part) for part in zip(*found, strict=True))
    place = np.argsort(own)
    column = place[np.searchsorted(own, key, sorter=place).clip(max=len(own) - 1)]
    known = own[column] == key
    near = _links(row[known], column[known], len(cells))
    if near.nnz >= FEWEST * len(cells):
        return near, 1
    names, column = np.unique(key[unpruned], return_inverse=True)
    ones, shape = np.ones(len(column), bool), (len(cells), len(names))
    reached = csr_array((ones, (row[unpruned], column)), shape)
    row, column = (near + reached @ reached.T).nonzero()
    return _links(row, column, len(cells)), 2


def edits(cells: CellSet) -> tuple[np.ndarray, CellSet]:
    """Every cell that one edit makes of N cells: the (M,) rows that it was made from, the M cells.

    The same cell may be there several times.
    """
    paths, size, inner, made = (
        _paths(cells.adjacency),
        cells.operations.shape[1],
        len(cells.space.inner),
        [],
    )
    starts = (cells.operations != PADDING) & (cells.operations <= inner)  # all but the output
    for u, v in permutations(range(size), 2) if cells.space.wiring is None else ():
        # From u to v, also back, where it closes no circle; nothing leads to the input.
        rows = np.flatnonzero(starts[:, u] & (cells.operations[:, v] > 0) & ~paths[:, v, u])
        edges = cells.adjacency[rows]
        edges[:, u, v] ^= 1
        made.append((rows, *_in_order(edges, cells.operations[rows])))
    for w in range(1, size - 1):
        rows = np.flatnonzero(starts[:, w])
        for step in range(1, inner):
            operations = cells.operations[rows]
            operations[:, w] = (operations[:, w] - 1 + step) % inner + 1
            made.append((rows, cells.adjacency[rows], operations))
    rows, adjacency, operations = (np.concatenate(part) for part in zip(*made, strict=True))
    valid, found = decode_cells(adjacency, operations)
    return rows[valid], found


def _keys(cells: CellSet) -> np.ndarray:
    """A number for every cell, the same for isomorphic ones only, (N,) int64."""
    ordered = cells.canonical_order()
    u, v = np.triu_indices(ordered.operations.shape[1], 1)
    digits = np.hstack([ordered.adjacency[:, u, v], ordered.operations + 1]).astype(np.int64)
    widths = np.r_[np.ones(len(u), np.int64), np.full(ordered.operations.shape[1], 3)]
    return (digits << (np.cumsum(widths) - widths)).sum(1)


def _links(row: np.ndarray, column: np.ndarray, count: int) -> csr_array:
    """The symmetric (count, count) matrix that is true at different rows and columns."""
    apart = row != column
    ends = row[apart], column[apart]
    found = csr_array((np.ones(len(ends[0]), bool), ends), (count, count))
    return (found + found.T).tocsr()


def _paths(adjacency: np.ndarray) -> np.ndarray:
    """Whether a path leads from one vertex to another, (N, V, V) bool."""
    found = adjacency.astype(bool)
    for v in range(found.shape[1]):
        found |= found[:, :, v, None] & found[:, None, v]
    return found


def _in_order(adjacency: np.ndarray, operations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Graphs with their vertices in an order in which every edge leads forward, padding last."""
    before = _paths(adjacency).sum(1)
    order = np.where(operations == PADDING, operations.shape[1], before).argsort(1, kind="stable")
    moved = np.take_along_axis(adjacency, order[:, :, None], 1)
    moved = np.take_along_axis(moved, order[:, None], 2)
    return moved, np.take_along_axis(operations, order, 1)
