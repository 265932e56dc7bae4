"""Cells: their rules, pruning, text and tensors (METHOD 1 and 12).

A cell is a directed acyclic graph, input first, output last, with operations on its inner vertices.
Vertices on no path from input to output have no effect and are pruned. `Cell` is one cell, checked
with a message for every rule; `CellSet` holds many of them as two arrays.
"""

import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ionas.space import INPUT, OUTPUT, PADDING, InvalidCell, Space, nasbench201
from ionas.space.nasbench101 import MAX_VERTICES, NASBENCH101, cells_of_size
from ionas.space.nasbench201 import NASBENCH201

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Cell:
    """One cell, checked and pruned.

    It is given by an (n, n) matrix of 0 and 1, upper triangular, in any form that NumPy can read,
    and n names, `input` first and `output` last. Raises InvalidCell if the graph breaks a rule of
    the search space, before or after pruning.
    """

    adjacency: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [str(name) for name in self.operations]
        n, space = len(names), _space_of_names(names)
        try:
            matrix = np.asarray(self.adjacency).astype(float)
        except (TypeError, ValueError) as error:
            raise InvalidCell("the adjacency is not a matrix of numbers") from error
        if matrix.shape != (n, n):
            raise InvalidCell(f"the adjacency has shape {matrix.shape} for {n} operations")
        if n < 2:
            raise InvalidCell("a cell has at least two vertices, input and output")
        if not np.isin(matrix, (0, 1)).all():
            raise InvalidCell("the adjacency has entries other than 0 and 1")
        if np.tril(matrix).any():
            raise InvalidCell("the adjacency is not upper triangular")
        if (names[0], names[-1]) != (INPUT, OUTPUT):
            ends = f"{reprlib.repr(names[0])}, the last operation is {reprlib.repr(names[-1])}"
            raise InvalidCell(f"the first operation is {ends}; they must be input and output")
        if unknown := [name for name in names[1:-1] if name not in space.inner]:
            choice = ", ".join(space.inner)
            raise InvalidCell(f"unknown operation {reprlib.repr(unknown[0])}; choose from {choice}")
        if space.wiring is not None and not np.array_equal(matrix, space.wiring):
            raise InvalidCell(f"all cells of {space.name} have the same edges; these differ")
        keep = np.flatnonzero(_on_paths(matrix[None] > 0, np.array([n - 1])))
        if not len(keep):
            raise InvalidCell("no path leads from the input to the output")
        matrix = matrix[np.ix_(keep, keep)].astype(int)
        if len(keep) > space.vertices:
            raise InvalidCell(f"{len(keep)} vertices after pruning; at most {space.vertices}")
        if matrix.sum() > space.edges:
            raise InvalidCell(f"{matrix.sum()} edges after pruning; at most {space.edges}")
        object.__setattr__(self, "adjacency", tuple(map(tuple, matrix.tolist())))
        object.__setattr__(self, "operations", tuple(names[v] for v in keep))

    @property
    def space(self) -> Space:
        """The search space, recognised by the names of the operations."""
        return _space_of_names(self.operations)

    @property
    def n_vertices(self) -> int:
        """Number of vertices, input and output included."""
        return len(self.operations)

    @property
    def matrix(self) -> np.ndarray:
        """Adjacency as (n, n) uint8."""
        return np.array(self.adjacency, np.uint8)

    @cached_property
    def hash(self) -> str:
        """Hash that identifies the cell, 32 hex digits; see `CellSet.hashes`."""
        return str(CellSet.from_cells([self]).hashes[0])

    @classmethod
    def from_text(cls, adjacency: str, operations: str) -> "Cell":
        """Read adjacency as n*n characters 0/1, row by row, and operations joined by commas."""
        names = _names(operations)
        n = len(names)
        if len(adjacency) != n * n or set(adjacency) - {"0", "1"}:
            given = reprlib.repr(adjacency)
            raise InvalidCell(f"adjacency {given} does not fit: {n}*{n} characters 0 or 1")
        return cls(np.array(list(adjacency), np.uint8).reshape(n, n), names)  # type: ignore[arg-type]


@dataclass(eq=False)
class CellSet:
    """N cells as two arrays, smaller ones padded at the end; V is 7, or 8 in NAS-Bench-201.

    `adjacency` (N, V, V) uint8 is upper triangular; `operations` (N, V) int8 holds indices into the
    operations of the space, -1 for padding.
    """

    adjacency: np.ndarray
    operations: np.ndarray

    @property
    def space(self) -> Space:
        """The search space, recognised by the number of rows."""
        return _space_of_width(self.operations.shape[1])

    def __len__(self) -> int:
        return len(self.operations)

    @overload
    def __getitem__(self, index: int | np.integer) -> Cell: ...
    @overload
    def __getitem__(self, index: np.ndarray | slice | Sequence[int]) -> "CellSet": ...
    def __getitem__(self, index: Any) -> "Cell | CellSet":
        if isinstance(index, int | np.integer):
            names = [self.space.operations[k] for k in self.operations[index] if k != PADDING]
            n = len(names)
            return Cell(self.adjacency[index, :n, :n], names)  # type: ignore[arg-type]
        return CellSet(self.adjacency[index], self.operations[index])

    def __iter__(self) -> Iterator[Cell]:
        return (self[index] for index in range(len(self)))

    @property
    def n_vertices(self) -> np.ndarray:
        """Number of vertices of every cell, (N,)."""
        return (self.operations != PADDING).sum(1)

    @property
    def depth(self) -> np.ndarray:
        """Number of edges on the longest path from input to output, (N,)."""
        longest = np.zeros(self.operations.shape, np.int64)
        for v in range(1, self.operations.shape[1]):
            longest[:, v] = ((longest + 1) * self.adjacency[:, :, v]).max(1)
        return longest.max(1)

    @cached_property
    def hashes(self) -> np.ndarray:
        """Hashes that identify the cells, (N,) texts of 32 hex digits.

        NAS-Bench-101 cells have the public graph hash, which is equal for isomorphic cells;
        NAS-Bench-201 cells have the MD5 of the architecture string.
        """
        return self.space.hashes(self.adjacency, self.operations)

    def canonical_order(self) -> "CellSet":
        """The same cells with their vertices in the order of the published file."""
        return CellSet(*self.space.canonical_order(self.adjacency, self.operations))

    def valid(self) -> np.ndarray:
        """Whether every row obeys the rules of `Cell` and is pruned, (N,) bool."""
        valid, cells = decode_cells(self.adjacency, self.operations)
        same = (cells.adjacency == self.adjacency[valid]).all((1, 2))
        valid[valid] = same & (cells.operations == self.operations[valid]).all(1)
        return valid

    @classmethod
    def from_cells(cls, cells: Sequence[Cell]) -> "CellSet":
        """Collect single cells, all of one space."""
        space = cells[0].space if cells else NASBENCH101
        result = _padding(space, len(cells))
        for row, cell in enumerate(cells):
            n = cell.n_vertices
            result.adjacency[row, :n, :n] = cell.adjacency
            result.operations[row, :n] = [space.operations.index(name) for name in cell.operations]
        return result

    @property
    def architectures(self) -> list[str]:
        """Architecture strings of NAS-Bench-201 cells."""
        return nasbench201.architectures(self.operations)

    @classmethod
    def from_architectures(cls, texts: Sequence[str]) -> "CellSet":
        """Read architecture strings of NAS-Bench-201; InvalidCell names the first wrong one."""
        return _with_wiring(nasbench201.read_architectures(texts))

    @classmethod
    def from_text(cls, adjacency: Sequence[str], operations: Sequence[str]) -> "CellSet":
        """Read many cells as `Cell.from_text` reads one; they must be pruned.

        Raises InvalidCell naming the first row that is not a pruned cell.
        """
        names = {text: _names(text) for text in set(operations)}
        space = _space_of_names({name for row in names.values() for name in row})
        place = {name: code for code, name in enumerate(space.operations)}
        codes = {text: [place.get(name, -2) for name in row] for text, row in names.items()}
        result = _padding(space, len(operations))  # a row that does not fit stays empty: invalid
        for row, (digits, text) in enumerate(zip(adjacency, operations, strict=True)):
            n = len(codes[text])
            if n <= space.vertices and len(digits) == n * n:
                bits = np.frombuffer(digits.encode("ascii", "replace"), np.uint8) - ord("0")
                result.adjacency[row, :n, :n] = bits.reshape(n, n)
                result.operations[row, :n] = codes[text]  # -2, an unknown name, is invalid
        if len(bad := np.flatnonzero(~result.valid())):
            first = int(bad[0])
            problem = "the cell has vertices that lie on no path; prune it"
            try:
                if Cell.from_text(adjacency[first], operations[first]).space is not space:
                    problem = f"the cell is not one of {space.name}, as others are"
            except InvalidCell as error:
                problem = str(error)
            raise InvalidCell(f"row {first}: {problem}")
        return result

    def to_text(self) -> tuple[list[str], list[str]]:
        """Adjacency and operations of every cell, as `from_text` reads them."""
        names, sizes = self.space.operations, self.n_vertices.tolist()
        digits = self.adjacency + np.uint8(ord("0"))
        adjacency = [d[:n, :n].tobytes().decode() for d, n in zip(digits, sizes, strict=True)]
        rows = zip(self.operations.tolist(), sizes, strict=True)
        return adjacency, [",".join([names[k] for k in row[:n]]) for row, n in rows]


def cell_tensors(cells: CellSet | Sequence[Cell]) -> "tuple[Tensor, Tensor]":
    """Encode cells for the models.

    Returns adjacency (N, V, V) and operations (N, V, O), both float32 and padded as in `CellSet`;
    operations are one-hot in the order of the O = 5 or 7 of the space, zero rows for padding.
    """
    import torch  # slow to import, and not needed to read a table

    cells = cells if isinstance(cells, CellSet) else CellSet.from_cells(cells)
    one_hot = cells.operations[:, :, None] == np.arange(len(cells.space.operations))
    return (
        torch.from_numpy(cells.adjacency.astype(np.float32)),
        torch.from_numpy(one_hot.astype(np.float32)),
    )


def decode_cells(adjacency: np.ndarray, operations: np.ndarray) -> tuple[np.ndarray, CellSet]:
    """Read decoded graphs as cells: each ends at its first `output` (METHOD 1).

    `adjacency` (S, V, V) has entries 0 and 1, with V at most 7, or 8 for NAS-Bench-201; only the
    upper triangle is read. `operations` (S, V) are indices into those of the space. Returns (S,)
    bool, whether a graph is a cell after pruning, and the pruned cells.
    """
    space = _space_of_width(operations.shape[1])
    last = (operations == len(space.operations) - 1).argmax(1)
    kept, edges, valid = _pruned(adjacency, operations, last, unpruned_count=True)
    kept, edges, operations = kept[valid], edges[valid], operations[valid]
    order = np.argsort(~kept, 1, kind="stable")  # kept vertices first
    row, n = np.arange(len(order))[:, None], order.shape[1]
    result = _padding(space, len(order))
    result.adjacency[:, :n, :n] = edges[row[:, :, None], order[:, :, None], order[:, None, :]]
    result.operations[:, :n] = np.where(kept[row, order], operations[row, order], PADDING)
    return valid, result


def valid_as_in_paper(adjacency: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Which decoded graphs the authors call valid: (S,) bool, for graphs as in `decode_cells`.

    Their check takes all V positions as the cell, prunes the vertices on no path from the first to
    the last, and checks the rest (METHOD 1). A cell of fewer vertices than V, whose output is
    followed by padding, never passes.
    """
    last = np.full(len(operations), operations.shape[1] - 1)
    return _pruned(adjacency, operations, last, unpruned_count=False)[2]


def _pruned(
    adjacency: np.ndarray, operations: np.ndarray, last: np.ndarray, unpruned_count: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prune graphs that end at the (S,) last vertices: kept vertices (S, V), edges, (S,) validity.

    If unpruned vertices count, they must have an inner operation as well.
    """
    position = np.arange(operations.shape[1])
    space, end = _space_of_width(len(position)), last[:, None]
    inside = position <= end
    edges = np.triu(adjacency != 0, 1) & inside[:, :, None] & inside[:, None, :]
    kept = _on_paths(edges, last)
    edges &= kept[:, :, None] & kept[:, None, :]
    inner = (inside if unpruned_count else kept) & (position > 0) & (position < end)
    named = (operations > 0) & (operations < len(space.operations) - 1)
    valid = (
        kept[:, 0]
        & (operations[:, 0] == 0)
        & (np.take_along_axis(operations, end, 1)[:, 0] == len(space.operations) - 1)
        & (edges.sum((1, 2)) <= space.edges)
        & (named | ~inner).all(1)
    )
    if space.wiring is not None:
        valid &= (edges == space.wiring).all((1, 2))
    return kept, edges, valid


def _on_paths(edges: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Whether a vertex is on a path from the first vertex to the (S,) last ones, (S, V)."""
    count, vertices = edges.shape[:2]
    forward = np.arange(vertices) == np.zeros((count, 1))
    backward = np.arange(vertices) == last[:, None]
    for v in range(vertices):  # upper triangular: one pass in order reaches everything
        forward[:, v] |= (forward & edges[:, :, v]).any(1)
    for v in reversed(range(vertices)):
        backward[:, v] |= (backward & edges[:, v]).any(1)
    return forward & backward


@cache
def enumerate_cells(max_vertices: int = MAX_VERTICES) -> CellSet:
    """Enumerate the unique NAS-Bench-101 cells of at most `max_vertices` vertices, 2 to 7.

    Cells are ordered by number of vertices; each is the first of its isomorphic encodings in the
    order of the upper triangle read row by row, then of the operations. There are 1, 7, 91, 2,532,
    64,542 and 423,624 for 2 to 7 vertices. Raises ValueError for other numbers of vertices.
    """
    if not 2 <= max_vertices <= MAX_VERTICES:
        raise ValueError(f"max_vertices is {max_vertices}; cells have 2 to {MAX_VERTICES} vertices")
    sizes = [cells_of_size(n) for n in range(2, max_vertices + 1)]
    cells = CellSet(*map(np.concatenate, zip(*sizes, strict=True)))
    for array in (cells.adjacency, cells.operations):
        array.setflags(write=False)  # all callers share them
    return cells


def _with_wiring(operations: np.ndarray) -> CellSet:
    return CellSet(np.tile(nasbench201.WIRING, (len(operations), 1, 1)), operations)


def _padding(space: Space, count: int) -> CellSet:
    """Empty rows for cells."""
    adjacency = np.zeros((count, space.vertices, space.vertices), np.uint8)
    return CellSet(adjacency, np.full((count, space.vertices), PADDING, np.int8))


def _space_of_names(names: Iterable[str]) -> Space:
    return NASBENCH101 if set(NASBENCH201.inner).isdisjoint(names) else NASBENCH201


def _space_of_width(vertices: int) -> Space:
    return NASBENCH201 if vertices == NASBENCH201.vertices else NASBENCH101


def _names(operations: str) -> list[str]:
    return [name.strip() for name in operations.split(",")]
