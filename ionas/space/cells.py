"""Cells: validity, identity, enumeration, sampling, tensors (METHOD sections 1 and 12).

A cell of NAS-Bench-101 is a directed acyclic graph of at most 7 vertices and 9 edges, input first,
output last, the inner vertices labeled with one of three operations (Ying et al. 2019). Vertices
that lie on no path from input to output do nothing and are pruned.

A cell of NAS-Bench-201 has an operation on each of the six edges between four nodes (Dong and Yang
2020). Here each of those edges is a vertex, as in arch2vec: all cells have the same 8 vertices and
10 edges, and differ in the operations alone.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise, permutations, product
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from torch_geometric.data import Data

INPUT = "input"
CONV1X1 = "conv1x1-bn-relu"
CONV3X3 = "conv3x3-bn-relu"
MAXPOOL3X3 = "maxpool3x3"
OUTPUT = "output"
OPERATIONS = (INPUT, CONV1X1, CONV3X3, MAXPOOL3X3, OUTPUT)  # order of the one-hot encoding
INNER = (CONV1X1, CONV3X3, MAXPOOL3X3)
MAX_VERTICES = 7
MAX_EDGES = 9
PADDING = -1


@dataclass(frozen=True)
class Space:
    """A search space: its name, the order of its one-hot encoding, the limits of its cells."""

    name: str
    operations: tuple[str, ...]
    vertices: int
    edges: int

    @property
    def inner(self) -> tuple[str, ...]:
        """Operations of the inner vertices."""
        return self.operations[1:-1]


NASBENCH101 = Space("NAS-Bench-101", OPERATIONS, MAX_VERTICES, MAX_EDGES)
NASBENCH201 = Space(
    "NAS-Bench-201",
    (INPUT, "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none", OUTPUT),
    vertices=8,
    edges=10,
)
# The architecture string: of each node its incoming edges, with operation and source.
ARCHITECTURE = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
WIRING = np.zeros((8, 8), np.uint8)  # of every NAS-Bench-201 cell
WIRING[[0, 0, 0, 1, 1, 2, 3, 4, 5, 6], [1, 2, 4, 3, 5, 6, 6, 7, 7, 7]] = 1
# Labels of the published graph hash, by position in OPERATIONS.
_HASH_LABELS = np.array([-1, 1, 0, 2, -2])
_HEX = np.frombuffer(bytes(range(256)).hex().encode(), np.uint16)  # two digits per byte


class InvalidCell(ValueError):
    """A graph that is no cell; the message names the rule that it breaks."""


@dataclass(frozen=True)
class Cell:
    """One cell, checked and pruned.

    Parameters
    ----------
    adjacency
        (n, n) matrix of 0 and 1, upper triangular; anything that NumPy can read.
    operations
        n names, `input` first and `output` last.

    Raises
    ------
    InvalidCell
        If the graph breaks a rule of the search space, before or after pruning.
    """

    adjacency: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        matrix, operations = _check(self.adjacency, self.operations)
        space = self.space
        if space is NASBENCH201 and not np.array_equal(matrix, WIRING):
            raise InvalidCell("all cells of NAS-Bench-201 have the same edges; these are others")
        keep = np.flatnonzero(_on_path(matrix))
        if not len(keep):
            raise InvalidCell("no path leads from the input to the output")
        matrix = matrix[np.ix_(keep, keep)]
        if len(keep) > space.vertices:
            raise InvalidCell(f"{len(keep)} vertices after pruning; at most {space.vertices}")
        if matrix.sum() > space.edges:
            raise InvalidCell(f"{matrix.sum()} edges after pruning; at most {space.edges}")
        object.__setattr__(self, "adjacency", tuple(map(tuple, matrix.tolist())))
        object.__setattr__(self, "operations", tuple(operations[v] for v in keep))

    @property
    def space(self) -> Space:
        """The search space, told by the names of the operations."""
        return _space_named(self.operations)

    @property
    def n_vertices(self) -> int:
        """Number of vertices, input and output included."""
        return len(self.operations)

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return sum(map(sum, self.adjacency))

    @property
    def matrix(self) -> np.ndarray:
        """Adjacency as (n, n) uint8."""
        return np.array(self.adjacency, np.uint8)

    @property
    def depth(self) -> int:
        """Edges on the longest path from input to output."""
        return int(CellSet.from_cells([self]).depth[0])

    @cached_property
    def hash(self) -> str:
        """Identity, 32 hex digits: see `CellSet.hashes`."""
        return str(CellSet.from_cells([self]).hashes[0])

    def text(self) -> tuple[str, str]:
        """Adjacency as n*n characters 0/1, row by row, and operations joined by commas."""
        return "".join(str(x) for row in self.adjacency for x in row), ",".join(self.operations)

    @classmethod
    def from_text(cls, adjacency: str, operations: str) -> "Cell":
        """Read what `text` writes; raises InvalidCell."""
        names = operations.split(",")
        n = len(names)
        if len(adjacency) != n * n or set(adjacency) - {"0", "1"}:
            raise InvalidCell(f"adjacency {adjacency!r} is not {n}*{n} characters 0 or 1")
        return cls(np.array(list(adjacency), np.uint8).reshape(n, n), names)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class CellSet:
    """Many cells as two arrays.

    Attributes
    ----------
    adjacency
        (N, V, V) uint8, upper triangular, smaller cells padded at the end. V is 7, or 8 in
        NAS-Bench-201.
    operations
        (N, V) int8, index into the operations of the space, -1 for padding.
    """

    adjacency: np.ndarray
    operations: np.ndarray

    @property
    def space(self) -> Space:
        """The search space, told by the number of rows."""
        return _space_of_size(self.operations.shape[1])

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
        """(N,) vertices of every cell."""
        return (self.operations != PADDING).sum(1)

    @property
    def n_edges(self) -> np.ndarray:
        """(N,) edges of every cell."""
        return self.adjacency.sum((1, 2), dtype=np.int64)

    @property
    def depth(self) -> np.ndarray:
        """(N,) edges on the longest path from input to output."""
        longest = np.zeros(self.operations.shape, np.int64)
        for v in range(1, self.operations.shape[1]):
            longest[:, v] = ((longest + 1) * self.adjacency[:, :, v]).max(1)
        return longest.max(1)

    @cached_property
    def hashes(self) -> np.ndarray:
        """(N,) identities, text of 32 hex digits.

        Of NAS-Bench-101 cells the public graph hash, equal for isomorphic cells; of NAS-Bench-201
        cells the MD5 of the architecture string.
        """
        if self.space is NASBENCH201:
            digests = [hashlib.md5(text.encode()).hexdigest() for text in self.architectures]
            return np.array(digests, "U32")
        result = np.empty(len(self), "U32")
        for n, rows in _by_size(self.n_vertices):
            result[rows] = _graph_hashes(
                self.adjacency[rows, :n, :n].astype(bool), _HASH_LABELS[self.operations[rows, :n]]
            )
        return result

    @property
    def architectures(self) -> list[str]:
        """Architecture strings of NAS-Bench-201 cells."""
        names = np.array(self.space.operations)[self.operations[:, 1:-1]]
        return [ARCHITECTURE.format(*row) for row in names]

    @classmethod
    def from_architectures(cls, texts: Sequence[str]) -> "CellSet":
        """Read architecture strings of NAS-Bench-201; raises InvalidCell naming a wrong one."""
        place = _architecture_places()
        for row, text in enumerate(texts):
            if text not in place:
                raise InvalidCell(
                    f"row {row}: {text!r} is no architecture of NAS-Bench-201, such as "
                    f"{ARCHITECTURE.format(*['nor_conv_3x3'] * 6)!r}"
                )
        return enumerate_nasbench201()[[place[text] for text in texts]]

    @classmethod
    def from_cells(cls, cells: Sequence[Cell]) -> "CellSet":
        """Collect single cells, all of one space."""
        space = cells[0].space if cells else NASBENCH101
        adjacency = np.zeros((len(cells), space.vertices, space.vertices), np.uint8)
        operations = np.full((len(cells), space.vertices), PADDING, np.int8)
        for row, cell in enumerate(cells):
            n = cell.n_vertices
            adjacency[row, :n, :n] = cell.adjacency
            operations[row, :n] = [space.operations.index(name) for name in cell.operations]
        return cls(adjacency, operations)

    @classmethod
    def from_text(cls, adjacency: Sequence[str], operations: Sequence[str]) -> "CellSet":
        """Read what `to_text` writes, fast; the rules of `Cell` are checked for all at once.

        Raises
        ------
        InvalidCell
            Naming the first row that is no pruned cell.
        """
        texts = list(dict.fromkeys(operations))
        place = {text: code for code, text in enumerate(texts)}
        codes = np.array([place[text] for text in operations], np.intp)
        named = [text.split(",") for text in texts]
        found = {name for names in named for name in names}
        space = _space_named(found)
        sizes = np.array([len(names) for names in named], np.intp)[codes]
        lengths = np.array([len(text) for text in adjacency], np.intp)
        if len(bad := np.flatnonzero((lengths != sizes**2) | (sizes > space.vertices))):
            raise InvalidCell(
                f"row {bad[0]}: adjacency {adjacency[bad[0]]!r} does not fit the operations "
                f"{operations[bad[0]]!r} (n*n characters for n operations, n at most "
                f"{space.vertices})"
            )
        if unknown := sorted(found.difference(space.operations)):
            raise InvalidCell(f"unknown operation {unknown[0]!r}; choose from {space.operations}")
        coded = [[space.operations.index(name) for name in names] for names in named]
        padded = np.array(
            [[*row, *[PADDING] * (space.vertices - len(row))] for row in coded], np.int8
        )
        result = cls(
            np.zeros((len(lengths), space.vertices, space.vertices), np.uint8),
            padded[codes].reshape(-1, space.vertices),
        )
        for n, rows in _by_size(sizes):
            joined = "".join(adjacency[int(row)] for row in rows).encode("ascii", "replace")
            bits = np.frombuffer(joined, np.uint8).reshape(-1, n, n) - ord("0")
            result.adjacency[rows, :n, :n] = bits
        if len(bad := np.flatnonzero(~result.valid())):
            row = bad[0]
            try:
                Cell.from_text(adjacency[row], operations[row])
            except InvalidCell as error:
                raise InvalidCell(f"row {row}: {error}") from error
            raise InvalidCell(f"row {row}: the cell has vertices that lie on no path; prune it")
        return result

    def published(self) -> "CellSet":
        """The same cells in the vertex order of the published file.

        In NAS-Bench-201 there is but one order. The file of NAS-Bench-101 was made by counting: of
        the isomorphic ways to write a cell it has the one whose edges, edge (u, v) being bit
        u + v (v - 1) / 2, make the smallest number; of several such ways the first by operations,
        in the order conv3x3, conv1x1, maxpool3x3 of each inner vertex in turn. What depends on the
        order of vertices is the same as with that file only then: the channels of a network, the
        latent matrix, validity.
        """
        if self.space is NASBENCH201:
            return self
        adjacency, operations = self.adjacency.copy(), self.operations.copy()
        for n, rows in _by_size(self.n_vertices):
            orders = np.array([(0, *inner, n - 1) for inner in permutations(range(1, n - 1))])
            places = orders.argsort(1)  # of every vertex in each order
            u, v = places[:, :, None], places[:, None, :]
            edges = np.where(u < v, 2.0 ** (u + v * (v - 1) // 2), 2.0**40)  # none may lead back
            labels = _HASH_LABELS[operations[rows, :n]] + 1.0
            labels[:, [0, -1]] = 0  # now 1 to 3, digits of a number below 4^n
            numbers = (
                adjacency[rows, :n, :n].reshape(len(rows), -1) @ edges.reshape(len(orders), -1).T
            )
            numbers = numbers * 4**n + labels @ (4.0 ** (n - 1 - places)).T
            best = orders[numbers.argmin(1)]
            moved = np.take_along_axis(adjacency[rows, :n, :n], best[:, :, None], 1)
            adjacency[rows, :n, :n] = np.take_along_axis(moved, best[:, None, :], 2)
            operations[rows, :n] = np.take_along_axis(operations[rows, :n], best, 1)
        return CellSet(adjacency, operations)

    def is_published(self) -> bool:
        """Whether all cells stand as in the published file."""
        other = self.published()
        return bool(
            (other.adjacency == self.adjacency).all()
            and (other.operations == self.operations).all()
        )

    def valid(self) -> np.ndarray:
        """(N,) whether every row is a cell as `Cell` makes it: within all rules, and pruned."""
        a, ops, n = self.adjacency, self.operations, self.n_vertices
        if self.space is NASBENCH201:
            inner = (ops[:, 1:-1] >= 1) & (ops[:, 1:-1] <= 5)
            ends = (ops[:, 0] == 0) & (ops[:, -1] == 6)
            return ends & inner.all(1) & (a == WIRING).all((1, 2))
        inside = np.arange(MAX_VERTICES) < n[:, None]  # (N, 7)
        last = np.arange(MAX_VERTICES) == n[:, None] - 1
        first = np.arange(MAX_VERTICES) == 0
        inner = inside & ~first & ~last
        return (
            (n >= 2)
            & (inside == (ops != PADDING)).all(1)
            & (a <= 1).all((1, 2))
            & (np.tril(a) == 0).all((1, 2))
            & (self.n_edges <= MAX_EDGES)
            & (ops[:, 0] == 0)
            & (np.where(last, ops, 4) == 4).all(1)
            & (np.where(inner, (ops >= 1) & (ops <= 3), True)).all(1)
            # Upper triangular: every vertex is on a path if only the ends lack an edge in or out.
            & (a.any(1) == (inside & ~first)).all(1)
            & (a.any(2) == (inside & ~last)).all(1)
        )

    def to_text(self) -> tuple[list[str], list[str]]:
        """Adjacency and operations of every cell, as `Cell.text` gives them."""
        adjacency = np.empty(len(self), object)
        for n, rows in _by_size(self.n_vertices):
            digits = self.adjacency[rows, :n, :n] + np.uint8(ord("0"))
            texts = np.ascontiguousarray(digits).reshape(len(rows), n * n)
            adjacency[rows] = texts.view(f"S{n * n}")[:, 0].astype(str)
        distinct, codes = np.unique(self.operations, axis=0, return_inverse=True)
        names = [
            ",".join(self.space.operations[k] for k in row if k != PADDING) for row in distinct
        ]
        return adjacency.tolist(), [names[code] for code in codes.ravel()]


def cell_tensors(cells: CellSet | Sequence[Cell]) -> "tuple[Tensor, Tensor]":
    """Encode cells for the models.

    Returns
    -------
    adjacency
        (N, V, V) float32, upper triangular, zero rows and columns at the end of smaller cells. V is
        7, or 8 for cells of NAS-Bench-201.
    operations
        (N, V, O) float32, one-hot in the order of the O = 5 or 7 operations of the space, zero rows
        for padding.
    """
    import torch  # slow, and reading a table needs none of it

    cells = cells if isinstance(cells, CellSet) else CellSet.from_cells(cells)
    one_hot = cells.operations[:, :, None] == np.arange(len(cells.space.operations))
    return (
        torch.from_numpy(cells.adjacency.astype(np.float32)),
        torch.from_numpy(one_hot.astype(np.float32)),
    )


def decode_cell(adjacency: Any, operations: Any) -> Cell:
    """Make a cell of what a decoder gives, by the rule of METHOD section 1.

    Parameters
    ----------
    adjacency
        (V, V) of 0 and 1, V at most 7, or 8 for NAS-Bench-201; only the upper triangle is read.
    operations
        (V,) indices into the operations of the space. A cell of NAS-Bench-101 ends at the first
        `output`.

    Raises
    ------
    InvalidCell
        If what is left after pruning is no cell.
    """
    space = _space_of_size(len(operations))
    names = [space.operations[int(k)] for k in operations]
    if OUTPUT not in names:
        raise InvalidCell("no vertex is an output")
    n = len(names) if space is NASBENCH201 else names.index(OUTPUT) + 1
    matrix = np.triu(np.asarray(adjacency, np.uint8), 1)[:n, :n]
    return Cell(matrix, names[:n])  # type: ignore[arg-type]


def to_data(cell: Cell) -> "Data":
    """The cell as a torch_geometric graph: x (n, O) one-hot float32, edge_index (2, E) int64."""
    from torch_geometric.data import Data

    adjacency, one_hot = cell_tensors([cell])
    n = cell.n_vertices
    return Data(x=one_hot[0, :n], edge_index=adjacency[0].nonzero().T.contiguous())


@cache
def enumerate_cells(max_vertices: int = MAX_VERTICES) -> CellSet:
    """Every unique cell of at most `max_vertices` vertices.

    Cells come by number of vertices; each is the first of its isomorphic encodings in the order of
    the upper triangle read row by row, then of the operations. There are 1, 7, 91, 2,532, 64,542
    and 423,624 for 2 to 7 vertices.

    Raises
    ------
    ValueError
        If `max_vertices` is not 2 to 7.
    """
    if not 2 <= max_vertices <= MAX_VERTICES:
        raise ValueError(f"max_vertices is {max_vertices}; cells have 2 to {MAX_VERTICES} vertices")
    sets = [_cells_of_size(n) for n in range(2, max_vertices + 1)]
    return CellSet(
        np.concatenate([cells.adjacency for cells in sets]),
        np.concatenate([cells.operations for cells in sets]),
    )


@cache
def enumerate_nasbench201() -> CellSet:
    """Every cell of NAS-Bench-201, 15,625, in the order of their operations."""
    inner = np.array(list(product(range(1, 6), repeat=6)), np.int8)
    operations = np.pad(inner, ((0, 0), (1, 1)))
    operations[:, -1] = 6
    return CellSet(np.tile(WIRING, (len(inner), 1, 1)), operations)


@cache
def _architecture_places() -> dict[str, int]:
    return {text: row for row, text in enumerate(enumerate_nasbench201().architectures)}


def random_cells(
    n: int,
    rng: np.random.Generator,
    max_vertices: int = MAX_VERTICES,
    space: Space = NASBENCH101,
) -> CellSet:
    """Draw `n` cells, uniform over the unique cells (not over their encodings), with repetition.

    `max_vertices` holds for NAS-Bench-101; all cells of NAS-Bench-201 have the same number.
    """
    cells = enumerate_nasbench201() if space is NASBENCH201 else enumerate_cells(max_vertices)
    return cells[rng.integers(len(cells), size=n)]


def mutate(cell: Cell, rng: np.random.Generator) -> Cell:
    """Return a random neighbor of the cell, uniform over `neighbors`."""
    found = neighbors(cell)
    return found[rng.integers(len(found))]


def neighbors(cell: Cell) -> list[Cell]:
    """Cells one edit away: one edge flipped, or one operation changed, then pruned.

    The edit is made in the cell as it is, or with one more unconnected vertex where there is room,
    so that cells can also grow: such a vertex is put in with one edge in and one edge out. In
    NAS-Bench-201 only operations can change. Unique by hash, the cell itself left out.
    """
    matrix, operations = cell.matrix, list(cell.operations)
    n = cell.n_vertices
    edits: list[tuple[np.ndarray, list[str]]] = []
    for i, j in np.argwhere(np.triu(np.ones((n, n)), 1)):
        flipped = matrix.copy()
        flipped[i, j] ^= 1
        edits.append((flipped, operations))
    for v, name in product(range(1, n - 1), cell.space.inner):
        edits.append((matrix, [*operations[:v], name, *operations[v + 1 :]]))
    if n < MAX_VERTICES:
        for v in range(1, n):  # the new vertex stands before the present v
            grown = np.insert(np.insert(matrix, v, 0, 0), v, 0, 1)
            for i, j, name in product(range(v), range(v + 1, n + 1), INNER):
                joined = grown.copy()
                joined[i, v] = joined[v, j] = 1
                edits.append((joined, [*operations[:v], name, *operations[v:]]))
    found: dict[str, Cell] = {}
    for edited, names in edits:
        try:
            other = Cell(edited, names)  # type: ignore[arg-type]
        except InvalidCell:
            continue
        found.setdefault(other.hash, other)
    found.pop(cell.hash, None)
    return list(found.values())


def _space_named(names: Iterable[str]) -> Space:
    return NASBENCH101 if set(NASBENCH201.inner).isdisjoint(names) else NASBENCH201


def _space_of_size(vertices: int) -> Space:
    return NASBENCH201 if vertices == NASBENCH201.vertices else NASBENCH101


def _check(adjacency: Any, operations: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    names = [str(name) for name in operations]
    try:
        matrix = np.asarray(adjacency)
        matrix = np.where(matrix.astype(float) == 0, 0, np.where(matrix.astype(float) == 1, 1, -1))
    except (TypeError, ValueError) as error:
        raise InvalidCell("the adjacency is no matrix of numbers") from error
    n = len(names)
    if matrix.shape != (n, n):
        raise InvalidCell(f"the adjacency has shape {matrix.shape}, but there are {n} operations")
    if n < 2:
        raise InvalidCell("a cell has at least two vertices, input and output")
    if (matrix < 0).any():
        raise InvalidCell("the adjacency has entries other than 0 and 1")
    if np.tril(matrix).any():
        raise InvalidCell("the adjacency is not upper triangular")
    if names[0] != INPUT:
        raise InvalidCell(f"the first operation is {names[0]!r}, not {INPUT!r}")
    if names[-1] != OUTPUT:
        raise InvalidCell(f"the last operation is {names[-1]!r}, not {OUTPUT!r}")
    inner = _space_named(names).inner
    for v, name in enumerate(names[1:-1], start=1):
        if name not in inner:
            raise InvalidCell(f"vertex {v} has operation {name!r}; choose one of {inner}")
    return matrix, names


def _on_path(matrix: np.ndarray) -> np.ndarray:
    """(n,) whether a vertex lies on a path from the first to the last."""
    n = len(matrix)
    forward, backward = np.eye(n, dtype=bool)[0], np.eye(n, dtype=bool)[-1]
    for v in range(n):  # upper triangular: one pass in order reaches everything
        forward[v] |= bool((forward & (matrix[:, v] > 0)).any())
    for v in reversed(range(n)):
        backward[v] |= bool((backward & (matrix[v] > 0)).any())
    both = forward & backward
    return both if both[0] and both[-1] else np.zeros(n, bool)


def _by_size(sizes: np.ndarray, most: int = 10_000) -> Iterator[tuple[int, np.ndarray]]:
    """Rows with the same number of vertices, at most `most` at once."""
    for n in np.unique(sizes):
        rows = np.flatnonzero(sizes == n)
        for start in range(0, len(rows), most):
            yield int(n), rows[start : start + most]


def _cells_of_size(n: int) -> CellSet:
    graphs = _unlabeled(n)  # (G, n, n)
    labelings = np.array(list(product([1, 2, 3], repeat=n - 2)), np.int8).reshape(
        3 ** (n - 2), n - 2
    )
    adjacency = np.zeros((len(graphs) * len(labelings), MAX_VERTICES, MAX_VERTICES), np.uint8)
    adjacency[:, :n, :n] = np.repeat(graphs, len(labelings), 0)
    operations = np.full((len(adjacency), MAX_VERTICES), PADDING, np.int8)
    operations[:, 0] = 0
    operations[:, 1 : n - 1] = np.tile(labelings, (len(graphs), 1))
    operations[:, n - 1] = 4
    encodings = CellSet(adjacency, operations)
    keys = _keys(adjacency[:, :n, :n], _HASH_LABELS[operations[:, :n]])
    return encodings[np.sort(np.unique(keys, return_index=True)[1])]


def _unlabeled(n: int) -> np.ndarray:
    """Unique graphs of n vertices that are all on a path, as (G, n, n) bool.

    Whatever the labels, cells of two graphs that differ here differ too, so only these need labels.
    """
    pairs = np.triu_indices(n, 1)
    patterns = np.arange(2 ** len(pairs[0]), dtype=np.int64)
    shifts = np.arange(len(pairs[0]))[::-1]
    patterns = patterns[np.bitwise_count(patterns) <= MAX_EDGES]
    graphs = np.zeros((len(patterns), n, n), bool)
    graphs[:, pairs[0], pairs[1]] = (patterns[:, None] >> shifts) & 1
    reached, used = graphs.sum(1)[:, 1:], graphs.sum(2)[:, :-1]
    connected = (reached > 0).all(1) & (used > 0).all(1)
    graphs = graphs[connected]
    labels = np.zeros((len(graphs), n), np.int64)
    labels[:, 0], labels[:, -1] = -1, -2
    return graphs[np.sort(np.unique(_keys(graphs, labels), return_index=True)[1])]


def _keys(adjacency: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """64-bit stand-ins for the published hash: (M, n, n) and (M, n) -> (M,) uint64.

    The same refinement with sums for sorted lists and a mixing function for MD5, so that arrays do
    all the work. Unequal graphs share a key once in about 10^19 pairs.
    """
    return np.concatenate(
        [
            _chunk_keys(adjacency[start : start + 100_000], labels[start : start + 100_000])
            for start in range(0, len(labels), 100_000)
        ]
    )


def _chunk_keys(adjacency: np.ndarray, labels: np.ndarray) -> np.ndarray:
    edges = adjacency.astype(np.uint64)
    degrees = adjacency.sum(2) * 64 + adjacency.sum(1) * 8 + labels + 2
    colors = _mix(degrees.astype(np.uint64))  # (M, n)
    for _ in range(labels.shape[1]):
        incoming = np.einsum("muv,mu->mv", edges, _mix(colors ^ np.uint64(0x5BF03635)))
        outgoing = np.einsum("mvu,mu->mv", edges, _mix(colors ^ np.uint64(0xA54FF53A)))
        colors = _mix(_mix(_mix(incoming) + outgoing) + colors)
    return _mix(_mix(colors).sum(1))


def _graph_hashes(adjacency: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The published hash of graphs of one size: (M, n, n) bool and (M, n) int -> (M,) text.

    All messages of a round are laid into one text. The vertices of each graph are kept in the order
    of their digests, so that the neighbors of a vertex come sorted.
    """
    count, n = labels.shape
    start = np.stack([adjacency.sum(2), adjacency.sum(1), labels], 2).reshape(-1, 3)
    distinct, inverse = np.unique(start, axis=0, return_inverse=True)
    raw = _md5(str(tuple(row)).encode() for row in distinct.tolist())[inverse.ravel()]
    graph = np.arange(count)[:, None]
    self = np.broadcast_to(np.eye(n, dtype=bool), adjacency.shape)
    for _ in range(n):
        raw, order = _ordered(raw, count)
        adjacency = adjacency[graph[:, :, None], order[:, :, None], order[:, None, :]]
        tokens = np.concatenate([adjacency.transpose(0, 2, 1), adjacency, self], 2)  # (M, n, 3n)
        row, slot = np.nonzero(tokens.reshape(count * n, -1))
        source = row // n * n + slot % n
        begin = 32 * np.arange(len(row)) + 2 * row + slot // n
        text = np.full(32 * len(row) + 2 * count * n, ord("|"), np.uint8)
        # Any 32 bytes of the text as one value.
        places = np.ndarray(len(text) - 31, "V32", text, strides=(1,))
        places[begin] = _HEX[raw].view("V32")[source, 0]
        end = (begin[slot >= 2 * n] + 32).tolist()
        joined = text.tobytes()
        raw = _md5(joined[a:b] for a, b in pairwise([0, *end]))
    digests = _HEX[_ordered(raw, count)[0]].view("S32").astype("U32").reshape(count, n)
    raw = _md5(str(row).encode() for row in digests.tolist())
    return _HEX[raw].view("S32")[:, 0].astype("U32")


def _ordered(raw: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Digests (M*n, 16) sorted within each graph, and the vertex (M, n) that each belongs to."""
    # The first 8 bytes decide: two digests of one graph share them once in 10^18 graphs.
    keys = np.ascontiguousarray(raw[:, :8]).view(">u8").astype(np.uint64).reshape(count, -1)
    order = keys.argsort(1, kind="stable")
    rows = np.arange(count)[:, None] * order.shape[1] + order
    return raw[rows.ravel()], order


def _md5(messages: Iterable[bytes]) -> np.ndarray:
    """MD5 digests, (number of messages, 16) uint8."""
    digests = b"".join([hashlib.md5(message).digest() for message in messages])
    return np.frombuffer(digests, np.uint8).reshape(-1, 16)


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit numbers one to one (the finisher of SplitMix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
