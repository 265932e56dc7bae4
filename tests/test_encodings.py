"""Encodings by hand, against paths enumerated by NetworkX, and under other orders of vertices."""

from itertools import combinations, product

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench201_cells import enumerate_nasbench201

from ionas.space import encodings
from ionas.space.cells import Cell, CellSet, decode_cells, enumerate_cells
from ionas.space.nasbench201 import NASBENCH201

CHAIN = Cell.from_text("010001000", "input,conv3x3-bn-relu,output")
EVERY = (encodings.adjacency_one_hot, encodings.sequence, encodings.paths, encodings.structure)


def random_cells(count: int, seed: int) -> CellSet:
    """Pruned cells, most of them of six or seven vertices."""
    rng = np.random.default_rng(seed)
    graphs = np.triu(rng.random((60 * count, 7, 7)) < 0.4, 1)
    operations = rng.integers(1, 4, (60 * count, 7))
    operations[:, 0], operations[:, -1] = 0, 4
    cells = decode_cells(graphs, operations)[1]
    assert len(cells) >= count
    return cells[:count]


SOME = CellSet.from_cells([*enumerate_cells(5)[::40], *random_cells(60, 0)])


def paths_of(cell: Cell) -> list[list[int]]:
    graph = nx.DiGraph(list(zip(*np.nonzero(cell.matrix), strict=True)))
    return list(nx.all_simple_paths(graph, 0, cell.n_vertices - 1))


def reordered(cell: Cell, seed: int) -> Cell:
    """The same cell with its inner vertices in another order along the edges."""
    rng, graph = np.random.default_rng(seed), nx.DiGraph()
    graph.add_edges_from(zip(*np.nonzero(cell.matrix), strict=True))
    key = dict(enumerate(rng.permutation(cell.n_vertices)))
    order = list(nx.lexicographical_topological_sort(graph, key.get))
    return Cell(cell.matrix[np.ix_(order, order)], [cell.operations[v] for v in order])


def structure_by_loops(cell: Cell) -> list[float]:
    """What `structure` says of a cell of NAS-Bench-101, path by path and vertex by vertex."""
    inner, n = cell.space.inner, cell.n_vertices
    graph = nx.DiGraph(list(zip(*map(list, np.nonzero(cell.matrix)), strict=True)))
    inside = [[cell.operations[v] for v in path[1:-1]] for path in paths_of(cell)]
    feeding = [u for u in range(1, n - 1) if cell.adjacency[u][n - 1]]
    k = max(len(feeding), 1)
    found = [len(feeding), 1 / k, graph.out_degree(0), [] in inside, graph.number_of_edges()]

    def spread(values: list[float]) -> list[float]:
        return [min(values), sum(values) / len(values), max(values)] if values else [7, 0, 0]

    def along(u: int, v: int) -> list[int]:
        return [len(path) - 1 for path in nx.all_simple_paths(graph, u, v)]

    sets = [chosen for size in (1, 2, 3) for chosen in combinations(inner, size)]
    for chosen in sets:
        only = [len(path) + 1 for path in inside if path and set(path) <= set(chosen)]
        found += [min(only, default=7), max(only, default=0), len(only)]
        found += spread([sum(name in chosen for name in path) for path in inside])
        vertices = [v for v in range(n) if cell.operations[v] in chosen]
        found += [len(vertices), len(vertices) / k, len(vertices) / k**2]
        for pick, ends in product((min, max), ((True, False))):
            found += spread([pick(along(0, v) if ends else along(v, n - 1)) for v in vertices])
        for degree in (graph.in_degree, graph.out_degree):
            found += spread([degree(v) for v in vertices])[1:]
    for before, after in product(cell.space.operations[:-1], cell.space.operations[1:]):
        pairs = [(cell.operations[u], cell.operations[v]) for u, v in graph.edges]
        found.append(pairs.count((before, after)))
    return [float(value) for value in found]


def test_a_chain_by_hand():
    cells = CellSet.from_cells([CHAIN])
    tokens = [2, 3 + 2, 1, 2, 3 + 4]  # edge, 3x3 convolution; no edge, edge, output
    assert encodings.sequence(cells).tolist() == [tokens + [0] * 22]
    assert np.flatnonzero(encodings.paths(cells)[0]).tolist() == [2]  # none, 1x1, 3x3
    assert len(encodings.paths(cells)[0]) == sum(3**k for k in range(6))


def test_paths_are_those_that_networkx_finds():
    inner = SOME.space.inner
    sequences = [p for length in range(6) for p in product(inner, repeat=length)]
    for cell, row in zip(SOME, encodings.paths(SOME), strict=True):
        wanted = {tuple(cell.operations[v] for v in path[1:-1]) for path in paths_of(cell)}
        assert {sequences[k] for k in np.flatnonzero(row)} == wanted


def test_structure_is_what_loops_over_paths_find():
    found = encodings.structure(SOME)
    assert found.shape[1] == 196
    for cell, row in zip(SOME, found, strict=True):
        np.testing.assert_allclose(row, structure_by_loops(cell), rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(SOME) - 1), st.integers(0, 99))
def test_the_order_of_vertices_changes_neither_paths_nor_structure(row, seed):
    cell = SOME[row]
    both = CellSet.from_cells([cell, reordered(cell, seed)])
    assert both.hashes[0] == both.hashes[1]
    for encode in (encodings.paths, encodings.structure):
        one, other = encode(both)
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_structure_tells_most_cells_apart():
    cells = enumerate_cells(5)
    assert len(np.unique(encodings.structure(cells), axis=0)) > 0.95 * len(cells)


def test_a_sequence_can_be_read_back():
    for cell, row in zip(SOME, encodings.sequence(SOME).astype(int), strict=True):
        tokens, adjacency, names = iter(row), np.zeros((7, 7), int), ["input"]
        for v in range(1, 7):
            edges = [next(tokens) for _ in range(v)]
            if (operation := next(tokens)) > 0:
                adjacency[:v, v] = np.array(edges) - 1
                names.append(SOME.space.operations[operation - 3])
        n = len(names)
        assert Cell(adjacency[:n, :n], names) == cell


@pytest.mark.parametrize("encode", EVERY, ids=lambda encode: encode.__name__)
@pytest.mark.parametrize("cells", [SOME, enumerate_nasbench201()[::199]], ids=["101", "201"])
def test_every_encoding_is_a_finite_matrix_that_parts_of_the_cells_agree_with(
    encode, cells, monkeypatch
):
    whole = encode(cells)
    assert whole.dtype == np.float32
    assert len(whole) == len(cells)
    assert np.isfinite(whole).all()
    monkeypatch.setattr(encodings, "CHUNK", 17)
    assert np.array_equal(encode(cells), whole)
    if encode is not encodings.adjacency_one_hot:  # which has the width of the largest cell
        assert np.array_equal(encode(cells[3:9]), whole[3:9])


def test_paths_of_nasbench201_by_hand():
    cells = CellSet.from_architectures(
        ["|nor_conv_3x3~0|+|none~0|none~1|+|avg_pool_3x3~0|skip_connect~1|none~2|"]
    )
    conv, pool, skip, none = (
        NASBENCH201.inner.index(name)
        for name in ("nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none")
    )
    two, three = 1 + 5, 1 + 5 + 25
    wanted = {1 + pool, two + 5 * conv + skip, two + 5 * none + none}
    wanted |= {three + 25 * conv + 5 * none + none}
    found = encodings.paths(cells)
    assert set(np.flatnonzero(found[0])) == wanted
    assert found.shape == (1, 1 + 5 + 25 + 125)


def test_the_output_is_moved_to_the_last_row():
    adjacency, operations = encodings.output_last(CellSet.from_cells([CHAIN]))
    assert operations.tolist() == [[0, 2, -1, -1, -1, -1, 4]]
    assert np.argwhere(adjacency[0]).tolist() == [[0, 1], [1, 6]]
