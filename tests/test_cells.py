"""Cells against networkx, plain Python and hand-drawn graphs."""

import hashlib
from collections import Counter
from itertools import permutations, product

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ionas.space.cells import (
    CONV1X1,
    CONV3X3,
    INNER,
    INPUT,
    MAXPOOL3X3,
    OPERATIONS,
    OUTPUT,
    Cell,
    CellSet,
    InvalidCell,
    cell_tensors,
    decode_cell,
    enumerate_cells,
    mutate,
    neighbors,
    random_cells,
    to_data,
)

CHAIN = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


def plain_hash(matrix, operations):
    """The published hash, written out vertex by vertex."""
    n = len(operations)
    inner = [CONV3X3, CONV1X1, MAXPOOL3X3]
    labels = [-1, *[inner.index(name) for name in operations[1:-1]], -2]

    def md5(text):
        return hashlib.md5(text.encode()).hexdigest()

    digests = [
        md5(str((sum(matrix[v]), sum(row[v] for row in matrix), labels[v]))) for v in range(n)
    ]
    for _ in range(n):
        digests = [
            md5(
                "".join(sorted(digests[u] for u in range(n) if matrix[u][v]))
                + "|"
                + "".join(sorted(digests[w] for w in range(n) if matrix[v][w]))
                + "|"
                + digests[v]
            )
            for v in range(n)
        ]
    return md5(str(sorted(digests)))


def graph(matrix, operations):
    result = nx.DiGraph()
    result.add_nodes_from((v, {"operation": name}) for v, name in enumerate(operations))
    result.add_edges_from(zip(*np.nonzero(np.asarray(matrix)), strict=True))
    return result


def isomorphic(one, other):
    match = nx.algorithms.isomorphism.categorical_node_match("operation", None)
    return nx.is_isomorphic(one, other, node_match=match)


@st.composite
def cells(draw, most=7):
    """Any valid cell: a random upper-triangular matrix with random operations, pruned."""
    n = draw(st.integers(2, most))
    matrix = np.zeros((n, n), int)
    pairs = list(zip(*np.triu_indices(n, 1), strict=True))
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=9, unique=True))
    for i, j in chosen:
        matrix[i, j] = 1
    names = [INPUT, *[draw(st.sampled_from(INNER)) for _ in range(n - 2)], OUTPUT]
    try:
        return Cell(matrix, names)
    except InvalidCell:
        return Cell(CHAIN, [INPUT, draw(st.sampled_from(INNER)), OUTPUT])


@pytest.mark.parametrize(
    ("matrix", "operations", "rule"),
    [
        ([[0, 1], [0, 0]], [OUTPUT, INPUT], "first operation is 'output'"),
        ([[0, 1], [0, 0]], [INPUT, CONV1X1], "last operation is 'conv1x1-bn-relu'"),
        (CHAIN, [INPUT, "conv5x5", OUTPUT], "vertex 1 has operation 'conv5x5'"),
        ([[0, 1], [1, 0]], [INPUT, OUTPUT], "not upper triangular"),
        ([[0, 2], [0, 0]], [INPUT, OUTPUT], "entries other than 0 and 1"),
        ([[0, 1, 0], [0, 0, 1]], [INPUT, OUTPUT], r"shape \(2, 3\)"),
        ([[0, "x"], [0, 0]], [INPUT, OUTPUT], "no matrix of numbers"),
        ([[0]], [INPUT], "at least two vertices"),
        ([[0, 0], [0, 0]], [INPUT, OUTPUT], "no path"),
        ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], [INPUT, CONV1X1, OUTPUT], "no path"),
        (np.eye(8, k=1), [INPUT, *[CONV1X1] * 6, OUTPUT], "8 vertices"),
        (np.triu(np.ones((5, 5)), 1), [INPUT, *[CONV1X1] * 3, OUTPUT], "10 edges"),
    ],
)
def test_every_rule_has_its_own_error(matrix, operations, rule):
    with pytest.raises(InvalidCell, match=rule):
        Cell(matrix, operations)


def test_pruning_by_hand():
    # 1 and 2 lead nowhere, 3 is fed by nothing; 5 is all that is left between input and output
    matrix = np.zeros((7, 7), int)
    for i, j in [(0, 1), (0, 5), (3, 5), (5, 6), (1, 2)]:
        matrix[i, j] = 1
    cell = Cell(matrix, [INPUT, CONV1X1, CONV1X1, CONV1X1, CONV1X1, MAXPOOL3X3, OUTPUT])
    assert cell.adjacency == ((0, 1, 0), (0, 0, 1), (0, 0, 0))
    assert cell.operations == (INPUT, MAXPOOL3X3, OUTPUT)
    assert (cell.n_vertices, cell.n_edges, cell.depth) == (3, 2, 2)


def test_counts_of_unique_cells():
    assert [len(enumerate_cells(n)) for n in range(2, 7)] == [1, 7, 91, 2532, 64542]
    with pytest.raises(ValueError, match="max_vertices is 8"):
        enumerate_cells(8)


@pytest.mark.slow
def test_whole_space():
    space = enumerate_cells(7)
    assert len(space) == 423_624
    assert space.valid().all()


def test_hash_is_the_published_one():
    for cell in enumerate_cells(4):
        assert cell.hash == plain_hash(cell.adjacency, cell.operations)
    sample = enumerate_cells(6)[np.arange(0, 64542, 999)]
    for cell, found in zip(sample, sample.hashes, strict=True):
        assert found == plain_hash(cell.adjacency, cell.operations)


def test_agrees_with_networkx_on_every_encoding_up_to_4_vertices():
    """Every valid encoding is isomorphic to exactly the one enumerated cell of its hash."""
    classes = {cell.hash: graph(cell.adjacency, cell.operations) for cell in enumerate_cells(4)}
    seen = 0
    for n in range(2, 5):
        pairs = list(zip(*np.triu_indices(n, 1), strict=True))
        for bits in product((0, 1), repeat=len(pairs)):
            matrix = np.zeros((n, n), int)
            matrix[tuple(np.array(pairs).T)] = bits
            for names in product(INNER, repeat=n - 2):
                try:
                    cell = Cell(matrix, [INPUT, *names, OUTPUT])
                except InvalidCell:
                    continue
                seen += 1
                drawn = graph(cell.adjacency, cell.operations)
                assert isomorphic(drawn, classes[cell.hash])
    assert seen > len(classes)


def test_agrees_with_networkx_up_to_5_vertices():
    """No two of the 2,532 cells are isomorphic: compared wherever simple counts agree."""
    groups: dict = {}
    for cell in enumerate_cells(5):
        drawn = graph(cell.adjacency, cell.operations)
        signature = tuple(
            sorted(
                (drawn.in_degree(v), drawn.out_degree(v), cell.operations[v]) for v in drawn.nodes
            )
        )
        groups.setdefault(signature, []).append(drawn)
    pairs = 0
    for members in groups.values():
        for k, one in enumerate(members):
            for other in members[:k]:
                pairs += 1
                assert not isomorphic(one, other)
    assert pairs > 100


def test_every_5_vertex_encoding_is_enumerated():
    """All encodings of 5 vertices, a few labelings each, against the enumerated hashes."""
    known = set(enumerate_cells(5).hashes.tolist())
    rng = np.random.default_rng(0)
    pairs = np.triu_indices(5, 1)
    found = set()
    for bits in product((0, 1), repeat=10):
        matrix = np.zeros((5, 5), int)
        matrix[pairs] = bits
        names = [INPUT, *rng.choice(INNER, 3), OUTPUT]
        try:
            found.add(Cell(matrix, names).hash)
        except InvalidCell:
            continue
    assert found <= known
    assert len(found) > 200


@settings(max_examples=60, deadline=None)
@given(cells(), st.randoms())
def test_hash_is_invariant_under_relabeling(cell, random):
    inner = list(range(1, cell.n_vertices - 1))
    random.shuffle(inner)
    order = [0, *inner, cell.n_vertices - 1]
    matrix = cell.matrix[np.ix_(order, order)]
    names = [cell.operations[v] for v in order]
    assert plain_hash(matrix.tolist(), names) == cell.hash
    if not np.tril(matrix).any():
        assert Cell(matrix, names).hash == cell.hash


def plain_published(cell):
    """All ways to write a cell, one by one, sorted as the published file counts."""
    n, ways = cell.n_vertices, []
    for inner in permutations(range(1, n - 1)):
        order = [0, *inner, n - 1]
        matrix = cell.matrix[np.ix_(order, order)].tolist()
        names = [cell.operations[v] for v in order]
        edges = [(u, v) for u in range(n) for v in range(n) if matrix[u][v]]
        if all(u < v for u, v in edges):
            number = sum(2 ** (u + v * (v - 1) // 2) for u, v in edges)
            ranks = [[CONV3X3, CONV1X1, MAXPOOL3X3].index(name) for name in names[1:-1]]
            ways.append((number, ranks, matrix, names))
    return min(ways)[2:]


@settings(max_examples=60, deadline=None)
@given(st.lists(cells(), min_size=1, max_size=4))
def test_published_order_of_vertices(some):
    published = CellSet.from_cells(some).published()
    for cell, written in zip(some, published, strict=True):
        matrix, names = plain_published(cell)
        assert (written.matrix.tolist(), list(written.operations)) == (matrix, names)
        assert written.hash == cell.hash
    assert published.is_published()
    assert CellSet.from_cells(some).is_published() == (list(published) == some)
    again = published.published()
    assert (again.adjacency == published.adjacency).all()
    assert (again.operations == published.operations).all()


def test_published_order_of_a_published_cell():
    """The first record of the NAS-Bench-101 file."""
    edges = [(0, 1), (0, 4), (0, 5), (1, 2), (2, 3), (2, 6), (3, 5), (4, 5), (5, 6)]
    matrix = np.zeros((7, 7), int)
    matrix[tuple(zip(*edges, strict=True))] = 1
    names = [INPUT, CONV3X3, MAXPOOL3X3, CONV3X3, CONV3X3, CONV1X1, OUTPUT]
    cell = Cell(matrix, names)
    assert cell.hash == "00005c142e6f48ac74fdcf73e3439874"
    order = [0, 4, 1, 2, 3, 5, 6]
    moved = Cell(matrix[np.ix_(order, order)], [names[v] for v in order])
    assert moved != cell
    assert CellSet.from_cells([moved]).published()[0] == cell


@settings(max_examples=30, deadline=None)
@given(cells(), cells())
def test_equal_hash_means_isomorphic(one, other):
    same = isomorphic(
        graph(one.adjacency, one.operations), graph(other.adjacency, other.operations)
    )
    assert same == (one.hash == other.hash)


@settings(max_examples=30, deadline=None)
@given(cells(), st.integers(0, 2**32))
def test_mutation_is_a_valid_neighbor(cell, seed):
    other = mutate(cell, np.random.default_rng(seed))
    assert other.hash != cell.hash
    assert Cell(other.adjacency, other.operations) == other
    assert other.hash in {found.hash for found in neighbors(cell)}


@settings(max_examples=15, deadline=None)
@given(cells(most=5))
def test_neighborhood_is_unique_and_symmetric_for_plain_edits(cell):
    found = [other.hash for other in neighbors(cell)]
    assert len(found) == len(set(found))
    for other in neighbors(cell)[:6]:
        if other.n_vertices == cell.n_vertices:
            assert cell.hash in {back.hash for back in neighbors(other)}


def test_neighbors_of_the_smallest_cell():
    smallest = Cell([[0, 1], [0, 0]], [INPUT, OUTPUT])
    bypass = [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    expected = {Cell(bypass, [INPUT, name, OUTPUT]).hash for name in INNER}
    assert {other.hash for other in neighbors(smallest)} == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(cells(), min_size=1, max_size=5))
def test_round_trips(some):
    collected = CellSet.from_cells(some)
    assert list(collected) == some
    assert [Cell.from_text(*cell.text()) for cell in some] == some
    again = CellSet.from_text(*collected.to_text())
    assert (again.adjacency == collected.adjacency).all()
    assert (again.operations == collected.operations).all()
    assert collected.valid().all()
    assert collected.hashes.tolist() == [cell.hash for cell in some]
    for cell, n, edges, depth in zip(
        some, collected.n_vertices, collected.n_edges, collected.depth, strict=True
    ):
        longest = nx.dag_longest_path_length(graph(cell.adjacency, cell.operations))
        assert (n, edges, depth) == (cell.n_vertices, cell.n_edges, longest)


@settings(max_examples=40, deadline=None)
@given(cells())
def test_tensors_decode_to_the_cell(cell):
    adjacency, one_hot = cell_tensors([cell])
    n = cell.n_vertices
    assert adjacency.shape == (1, 7, 7)
    assert one_hot.shape == (1, 7, 5)
    assert adjacency.dtype == one_hot.dtype == torch.float32
    assert one_hot.sum(2).tolist() == [[1.0] * n + [0.0] * (7 - n)]
    assert adjacency[0, n:].abs().sum() == adjacency[0, :, n:].abs().sum() == 0
    assert decode_cell(adjacency[0], one_hot[0].argmax(1)) == cell


def test_decoding_ends_at_the_first_output():
    codes = [0, 1, 4, 4, 0, 0, 0]
    matrix = np.zeros((7, 7))
    matrix[0, 1] = matrix[1, 2] = matrix[0, 3] = 1
    assert decode_cell(matrix, codes).operations == (INPUT, CONV1X1, OUTPUT)
    with pytest.raises(InvalidCell, match="no vertex is an output"):
        decode_cell(matrix, [0] * 7)


def test_graph_data():
    cell = Cell(CHAIN, [INPUT, CONV3X3, OUTPUT])
    data = to_data(cell)
    assert data.x.argmax(1).tolist() == [OPERATIONS.index(name) for name in cell.operations]
    assert data.edge_index.tolist() == [[0, 1], [1, 2]]
    assert data.is_directed()


def test_random_cells_are_uniform_over_unique_cells():
    space = enumerate_cells(3)
    drawn = random_cells(7000, np.random.default_rng(0), max_vertices=3)
    counts = Counter(drawn.hashes.tolist())
    assert set(counts) == set(space.hashes.tolist())
    # chi-square with 6 degrees of freedom: above 22.5 with probability 0.001
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 22.5


@pytest.mark.parametrize(
    ("adjacency", "operations", "message"),
    [
        (["0100"], ["input,conv9x9,output"], "row 0"),
        (["01000"], ["input,output"], "does not fit"),
        (["0010"], ["input,output"], "not upper triangular"),
        (
            ["010" + "000" + "000", "0100"],
            ["input,conv1x1-bn-relu,output", "input,output"],
            "row 0",
        ),
        (["0100", "001000000"], ["input,output", "input,conv1x1-bn-relu,output"], "lie on no path"),
        (["0100"], ["input,outputs"], "unknown operation"),
    ],
)
def test_malformed_texts_are_refused(adjacency, operations, message):
    with pytest.raises(InvalidCell, match=message):
        CellSet.from_text(adjacency, operations)


@pytest.mark.shared
def test_hashes_of_the_official_table(shared_data):
    columns = ["hash", "adjacency", "operations"]
    frame = pd.read_parquet(shared_data / "nasbench101.parquet", columns=columns)
    part = frame.sample(20_000, random_state=0)
    found = CellSet.from_text(part["adjacency"].tolist(), part["operations"].tolist())
    assert (found.hashes == part["hash"].to_numpy(str)).all()
