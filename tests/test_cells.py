"""Cells against networkx, plain Python and hand-drawn graphs."""

from itertools import permutations, product

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nasbench201_cells import enumerate_nasbench201

from ionas.space import INPUT, OUTPUT, InvalidCell
from ionas.space.cells import (
    Cell,
    CellSet,
    cell_tensors,
    decode_cells,
    enumerate_cells,
    valid_as_in_paper,
)
from ionas.space.nasbench101 import CONV1X1, CONV3X3, MAXPOOL3X3, NASBENCH101, graph_hash
from ionas.space.nasbench201 import NASBENCH201

INNER = NASBENCH101.inner

CHAIN = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
# The first record of the NAS-Bench-101 file.
FIRST = Cell.from_text(
    "0100110001000000010010000010000001000000010000000",
    ",".join([INPUT, CONV3X3, MAXPOOL3X3, CONV3X3, CONV3X3, CONV1X1, OUTPUT]),
)


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
        (CHAIN, [INPUT, "conv5x5", OUTPUT], "unknown operation 'conv5x5'; choose from conv1x1"),
        ([[0, 1], [1, 0]], [INPUT, OUTPUT], "not upper triangular"),
        ([[0, 2], [0, 0]], [INPUT, OUTPUT], "entries other than 0 and 1"),
        ([[0, 1, 0], [0, 0, 1]], [INPUT, OUTPUT], r"shape \(2, 3\)"),
        ([[0, "x"], [0, 0]], [INPUT, OUTPUT], "not a matrix of numbers"),
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
    assert cell.n_vertices == 3


def test_counts_of_unique_cells():
    assert [len(enumerate_cells(n)) for n in range(2, 7)] == [1, 7, 91, 2532, 64542]
    with pytest.raises(ValueError, match="max_vertices is 8"):
        enumerate_cells(8)


@pytest.mark.slow
def test_whole_space():
    space = enumerate_cells(7)
    assert len(space) == 423_624
    assert space.valid().all()


def test_hashes_of_many_cells_are_those_of_each():
    for cells in (enumerate_cells(4), enumerate_cells(6)[np.arange(0, 64542, 999)]):
        for cell, found in zip(cells, cells.hashes, strict=True):
            assert found == cell.hash == graph_hash(cell.adjacency, cell.operations)


def test_hash_of_the_first_published_record():
    assert FIRST.hash == "00005c142e6f48ac74fdcf73e3439874"
    assert graph_hash(FIRST.adjacency, FIRST.operations) == FIRST.hash


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
    assert graph_hash(matrix.tolist(), names) == cell.hash
    if not np.tril(matrix).any():
        assert Cell(matrix, names).hash == cell.hash


def plain_canonical(cell):
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
def test_canonical_order_of_vertices(some):
    ordered = CellSet.from_cells(some).canonical_order()
    for cell, written in zip(some, ordered, strict=True):
        matrix, names = plain_canonical(cell)
        assert (written.matrix.tolist(), list(written.operations)) == (matrix, names)
        assert written.hash == cell.hash
    again = ordered.canonical_order()
    assert (again.adjacency == ordered.adjacency).all()
    assert (again.operations == ordered.operations).all()


def test_canonical_order_of_the_first_published_record():
    order = [0, 4, 1, 2, 3, 5, 6]
    moved = Cell(FIRST.matrix[np.ix_(order, order)], [FIRST.operations[v] for v in order])
    assert moved != FIRST
    assert CellSet.from_cells([moved]).canonical_order()[0] == FIRST


@settings(max_examples=30, deadline=None)
@given(cells(), cells())
def test_equal_hash_means_isomorphic(one, other):
    same = isomorphic(
        graph(one.adjacency, one.operations), graph(other.adjacency, other.operations)
    )
    assert same == (one.hash == other.hash)


@settings(max_examples=40, deadline=None)
@given(st.lists(cells(), min_size=1, max_size=5))
def test_round_trips(some):
    collected = CellSet.from_cells(some)
    assert list(collected) == some
    texts = zip(*collected.to_text(), strict=True)
    assert [Cell.from_text(*text) for text in texts] == some
    again = CellSet.from_text(*collected.to_text())
    assert (again.adjacency == collected.adjacency).all()
    assert (again.operations == collected.operations).all()
    assert collected.valid().all()
    assert collected.hashes.tolist() == [cell.hash for cell in some]
    for cell, n, depth in zip(some, collected.n_vertices, collected.depth, strict=True):
        longest = nx.dag_longest_path_length(graph(cell.adjacency, cell.operations))
        assert (n, depth) == (cell.n_vertices, longest)


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
    valid, decoded = decode_cells(adjacency.numpy(), one_hot.argmax(2).numpy())
    assert valid.all()
    assert list(decoded) == [cell]


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
        (
            ["0100", "0100"],
            ["input,output", "input,outputs"],
            "row 1: .*is 'outputs'",
        ),
        (["0" * 10**6], ["input,output"], r"row 0: adjacency '0+[.]+0+' does not fit: 2\*2"),
        (["0100"], ["input," * 10**5 + "output"], "row 0: .*does not fit"),
    ],
)
def test_malformed_texts_are_refused(adjacency, operations, message):
    with pytest.raises(InvalidCell, match=message) as caught:
        CellSet.from_text(adjacency, operations)
    assert len(str(caught.value)) < 300


def test_spaces_around_operations_do_not_matter():
    chain = Cell(CHAIN, [INPUT, CONV3X3, OUTPUT])
    texts = "010001000", f"input, {CONV3X3} ,output "
    assert Cell.from_text(*texts) == CellSet.from_text(*[[text] for text in texts])[0] == chain


# --- decoded graphs ----------------------------------------------------------------------------


def one_by_one(adjacency, operations):
    """What `decode_cells` computes, one graph at a time: cut at the first output, then `Cell`."""
    space = NASBENCH201 if operations.shape[1] == 8 else NASBENCH101
    found, valid = [], []
    for matrix, codes in zip(np.triu(adjacency, 1), operations, strict=True):
        names = [space.operations[k] for k in codes]
        n = names.index(OUTPUT) + 1 if OUTPUT in names else 0
        try:
            cell = Cell(matrix[:n, :n], names[:n])
        except InvalidCell:
            cell = None
        valid.append(cell is not None and cell.space is space)
        found += [cell] * valid[-1]
    return valid, found


def paper_one_by_one(adjacency, operations):
    """The authors' check in plain Python: prune between first and last position, then look."""
    found = []
    for matrix, codes in zip(adjacency, operations, strict=True):
        edges = nx.DiGraph(zip(*np.triu(matrix, 1).nonzero(), strict=True))
        first, last = 0, len(codes) - 1
        edges.add_nodes_from((first, last))
        kept = nx.descendants(edges, first) & nx.ancestors(edges, last) | {first, last}
        found.append(
            nx.has_path(edges, first, last)
            and edges.subgraph(kept).number_of_edges() <= 9
            and codes[first] == 0
            and codes[last] == 4
            and all(codes[v] in (1, 2, 3) for v in kept - {first, last})
        )
    return found


def decoded_as_one_by_one(adjacency, operations):
    valid, cells = decode_cells(adjacency, operations)
    expected, found = one_by_one(adjacency, operations)
    assert valid.tolist() == expected
    assert list(cells) == found
    assert cells.valid().all()
    return sum(expected)


def disturbed(cells, width, kinds, rng):
    """Cells cut to a width, with some edges flipped, operations changed and padding filled."""
    adjacency = cells.adjacency[:, :width, :width].copy()
    operations = cells.operations[:, :width].copy()
    flips = rng.random(adjacency.shape) < 0.03
    adjacency[flips] ^= 1
    changed = (operations < 0) | (rng.random(operations.shape) < 0.04)
    operations[changed] = rng.integers(0, kinds, changed.sum())
    return adjacency, operations


@pytest.mark.parametrize(("size", "width"), [(5, 5), (5, 7), (6, 7)])
def test_decoded_graphs_against_one_by_one(size, width):
    rng = np.random.default_rng(0)
    space = enumerate_cells(size)
    graphs = disturbed(space[rng.integers(len(space), size=300)], width, 5, rng)
    assert 30 < decoded_as_one_by_one(*graphs) < 280
    assert valid_as_in_paper(*graphs).tolist() == paper_one_by_one(*graphs)


def test_decoded_graphs_of_nasbench201_against_one_by_one():
    rng = np.random.default_rng(0)
    space = enumerate_nasbench201()
    adjacency, operations = disturbed(space[rng.integers(len(space), size=400)], 8, 7, rng)
    adjacency[::2] = space.adjacency[0] + np.tril(np.ones((8, 8), np.uint8))  # not read
    operations[0] = [0, *[6] * 7]
    assert 50 < decoded_as_one_by_one(adjacency, operations) < 350
    valid, _ = decode_cells(adjacency, operations)
    assert (valid_as_in_paper(adjacency, operations) == valid).all()


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.uint8, (6, 7, 7), elements=st.integers(0, 1)),
    arrays(np.int8, (6, 7), elements=st.integers(0, 4)),
    st.booleans(),
)
def test_any_decoded_graphs(adjacency, operations, named):
    if named:
        operations[:, 0], operations[:, 6] = 0, 4
        operations[:, 1:6] = operations[:, 1:6].clip(1, 3)
    decoded_as_one_by_one(adjacency, operations)
    assert valid_as_in_paper(adjacency, operations).tolist() == paper_one_by_one(
        adjacency, operations
    )


def test_decoding_ends_at_the_first_output():
    matrix = np.zeros((7, 7), np.uint8)
    matrix[0, 1] = matrix[1, 2] = matrix[0, 3] = 1
    codes = np.array([[0, 1, 4, 4, 0, 0, 0], [0] * 7])
    valid, cells = decode_cells(np.stack([matrix, matrix]), codes)
    assert valid.tolist() == [True, False]
    assert list(cells) == [Cell(CHAIN, [INPUT, CONV1X1, OUTPUT])]


def test_a_smaller_cell_is_none_of_the_paper():
    """Input, convolution and output, then padding that reads as input; and the other way round."""
    adjacency = np.zeros((2, 4, 4), np.uint8)
    adjacency[:, 0, 1] = adjacency[:, 1, 2] = 1
    adjacency[1, 1, 3] = 1
    operations = np.array([[0, 1, 4, 0], [0, 1, 0, 4]], np.int8)
    assert decode_cells(adjacency, operations)[0].tolist() == [True, False]
    # the second has a vertex with a wrong operation, which is on no path to the last
    assert valid_as_in_paper(adjacency, operations).tolist() == [False, True]


def test_rows_that_are_no_pruned_cells_are_not_valid():
    shared = enumerate_cells(4)[-5:]
    with pytest.raises(ValueError, match="read-only"):
        shared.adjacency[0, 2, 1] = 1
    cells = CellSet(shared.adjacency.copy(), shared.operations.copy())
    assert cells.valid().all()
    for place, value in (((0, 2, 1), 1), ((1, 5, 6), 1), ((2, 0, 1), 2)):
        cells.adjacency[place] = value
    cells.operations[3, 1] = 4
    assert cells.valid().tolist() == [False] * 4 + [True]


@pytest.mark.shared
def test_hashes_of_the_official_table(shared_data):
    columns = ["hash", "adjacency", "operations"]
    frame = pd.read_parquet(shared_data / "nasbench101.parquet", columns=columns)
    part = frame.sample(20_000, random_state=0)
    found = CellSet.from_text(part["adjacency"].tolist(), part["operations"].tolist())
    assert (found.hashes == part["hash"].to_numpy(str)).all()
