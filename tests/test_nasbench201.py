"""NAS-Bench-201: its cells against the four nodes they come from, networks, tables, the study."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from embedding_data import small_data
from hypothesis import given, settings
from hypothesis import strategies as st

from ionas.benchmark.table import InvalidTable, Table, cell_properties, check_table, uses
from ionas.book import run as runner
from ionas.book.folders import RunFolder
from ionas.book.parameters import STAGES
from ionas.embedding import metrics as evaluation
from ionas.embedding import training
from ionas.networks import Network, count_parameters
from ionas.space.cells import (
    CONV3X3,
    INPUT,
    NASBENCH201,
    OUTPUT,
    Cell,
    CellSet,
    InvalidCell,
    cell_tensors,
    decode_cell,
    enumerate_nasbench201,
    mutate,
    neighbors,
    random_cells,
    to_data,
)
from ionas.tasks.reinforce import charged, default_baseline, default_budget, random_search

EDGES = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]  # of the four nodes, as in the string
MIXED = "|nor_conv_1x1~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
ZERO = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
STUDY = [
    *("search_space.dataset=cifar10valid", "reinforce.cost=evaluations"),
    *("search_space.labeled_train=10", "search_space.labeled_validation=4"),
    "pretraining.train_networks=8",
]


def one(text: str) -> Cell:
    return CellSet.from_architectures([text])[0]


def parsed(text: str) -> dict[tuple[int, int], str]:
    """Operation of every edge of the four nodes, read off the string."""
    found = {}
    for target, node in enumerate(text.split("+"), start=1):
        for edge in node.strip("|").split("|"):
            name, source = edge.split("~")
            found[int(source), target] = name
    return found


def test_the_whole_space():
    cells = enumerate_nasbench201()
    assert len(cells) == len(set(cells.architectures)) == len(set(cells.hashes)) == 15625
    assert cells.valid().all()
    assert cells.space is NASBENCH201
    assert set(cells.n_edges) == {10}


def test_a_cell_is_the_line_graph_of_its_four_nodes():
    cell = one(MIXED)
    assert dict(zip(EDGES, cell.operations[1:-1], strict=True)) == parsed(MIXED)
    expected = {(0, 1 + k) for k, (source, _) in enumerate(EDGES) if source == 0}
    expected |= {(1 + k, 7) for k, (_, target) in enumerate(EDGES) if target == 3}
    expected |= {
        (1 + k, 1 + m)
        for k, (_, target) in enumerate(EDGES)
        for m, (source, _) in enumerate(EDGES)
        if target == source
    }
    assert {(int(i), int(j)) for i, j in np.argwhere(cell.matrix)} == expected
    assert cell.hash == hashlib.md5(MIXED.encode()).hexdigest()


@settings(deadline=None)
@given(st.integers(0, 15624))
def test_every_form_of_a_cell_reads_back(index):
    cells = enumerate_nasbench201()[[index]]
    (cell,) = cells
    assert Cell.from_text(*cell.text()) == cell
    for again in (
        CellSet.from_architectures(cells.architectures),
        CellSet.from_text(*cells.to_text()),
        CellSet.from_cells([cell]),
    ):
        assert again.hashes.tolist() == cells.hashes.tolist() == [cell.hash]
        assert list(again) == [cell]


def test_other_graphs_are_refused():
    cell = one(MIXED)
    matrix = cell.matrix
    matrix[0, 3] = 1
    with pytest.raises(InvalidCell, match="same edges"):
        Cell(matrix, cell.operations)
    names = [*cell.operations[:3], CONV3X3, *cell.operations[4:]]
    with pytest.raises(InvalidCell, match="vertex 3 has operation 'conv3x3-bn-relu'; choose one"):
        Cell(cell.adjacency, names)
    with pytest.raises(InvalidCell, match="row 1: 'none~0' is no architecture"):
        CellSet.from_architectures([MIXED, "none~0"])
    chain = Cell([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [INPUT, CONV3X3, OUTPUT])
    with pytest.raises(InvalidCell, match="unknown operation 'conv3x3-bn-relu'"):
        CellSet.from_text(*zip(cell.text(), chain.text(), strict=True))


def test_neighbors_differ_in_one_operation():
    cell = one(MIXED)
    found = neighbors(cell)
    assert len({other.hash for other in found}) == len(found) == 24
    for other in found:
        assert sum(a != b for a, b in zip(cell.operations, other.operations, strict=True)) == 1
    rng = np.random.default_rng(0)
    assert {mutate(cell, rng).hash for _ in range(150)} == {other.hash for other in found}


def test_random_cells_come_from_the_whole_space():
    cells = random_cells(5000, np.random.default_rng(0), space=NASBENCH201)
    assert cells.valid().all()
    assert len(set(cells.hashes)) == pytest.approx(15625 * (1 - np.exp(-5000 / 15625)), rel=0.02)
    shares = np.stack([(cells.operations[:, 1:-1] == k).mean(0) for k in range(1, 6)])
    assert shares == pytest.approx(np.full((5, 6), 0.2), abs=0.03)


def test_tensors():
    cells = enumerate_nasbench201()[[0, 7777]]
    adjacency, operations = cell_tensors(cells)
    assert adjacency.shape == (2, 8, 8)
    assert operations.shape == (2, 8, 7)
    assert (operations.argmax(2).numpy() == cells.operations).all()
    assert (adjacency.numpy() == cells.adjacency).all()
    data = to_data(cells[1])
    assert data.x.shape == (8, 7)
    assert data.edge_index.shape == (2, 10)


def test_validity_against_one_by_one():
    rng = np.random.default_rng(0)
    cells = random_cells(400, rng, space=NASBENCH201)
    adjacency, operations = cells.adjacency.copy(), cells.operations.copy()
    flips = np.triu(rng.random(adjacency.shape) < 0.02, 1)
    adjacency[flips] ^= 1
    adjacency += np.tril(np.ones_like(adjacency))  # not read
    changed = rng.random(operations.shape) < 0.04
    operations[changed] = rng.integers(0, 7, changed.sum())
    operations[0] = 6
    operations[0, 0] = 0  # input, then outputs: no cell of NAS-Bench-101 either
    valid, decoded = evaluation.decode_cells(adjacency, operations)
    expected, found = [], []
    for matrix, codes in zip(adjacency, operations, strict=True):
        try:
            found.append(decode_cell(matrix, codes))
            expected.append(True)
        except InvalidCell:
            expected.append(False)
    assert valid.tolist() == expected
    assert list(decoded) == found
    assert 100 < valid.sum() < 300


def test_a_trained_model_draws_valid_cells():
    """Eight vertices and seven operations all the way, and edges that are always the same."""
    cells = random_cells(600, np.random.default_rng(0), space=NASBENCH201)
    adjacency, operations = cell_tensors(cells)
    labeled = small_data().labeled
    data = training.Data(
        adjacency=adjacency,
        operations=operations,
        train=torch.arange(540),
        unlabeled=torch.arange(500, 540),
        validation=torch.arange(540, 600),
        labeled=evaluation.Labeled(
            torch.arange(len(labeled.networks)), labeled.pixels, labeled.outputs, labeled.accuracy
        ),
        watched={},
    )
    quick = training.Settings(
        hidden=32, learning_rate=5e-3, decoder_dropout=0, original_epochs=40, validity_samples=200
    )
    trained = training.train("arch2vec_original", 1, data, quick)
    last = evaluation.last_epochs(trained.history).set_index("metric")["value"]
    assert last["operation_accuracy"] == last["operation_accuracy_real"] > 0.6
    assert last["adjacency_accuracy"] > 0.99
    assert last["validity"] > 0.2


def nodes(network: torch.nn.Module, text: str, x: torch.Tensor) -> torch.Tensor:
    """The first cell of a network, computed node by node from its string."""
    layers = dict(zip(EDGES, network.body[2].operations, strict=True))
    values = {0: x}
    for target in (1, 2, 3):
        values[target] = torch.zeros_like(x)
        for (source, to), name in parsed(text).items():
            if to != target or name == "none":
                continue
            value = values[source]
            if name == "avg_pool_3x3":
                ones = torch.ones(x.shape[1], 1, 3, 3)
                total = torch.conv2d(value, ones, padding=1, groups=x.shape[1])
                count = torch.conv2d(torch.ones_like(value), ones, padding=1, groups=x.shape[1])
                value = total / count
            elif name != "skip_connect":
                _, convolution, norm = layers[source, to]
                value = norm(convolution(value.clamp(min=0)))
                assert convolution.kernel_size == (int(name[-1]),) * 2
            values[target] = values[target] + value
    return values[3]


@pytest.mark.parametrize(
    "text",
    [MIXED, ZERO, "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|avg_pool_3x3~1|none~2|"],
)
def test_a_cell_computes_what_its_nodes_do(text):
    torch.manual_seed(0)
    network = Network(one(text), channels=4, cells_per_stack=1).eval()
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(network.body[2](x), nodes(network, text, x))


def expected_parameters(operations, channels=16, cells=5) -> int:
    """Stem, cells, two residual blocks, last normalisation and dense layer, counted by hand."""
    widths = [channels, 2 * channels, 4 * channels]
    total = 27 * channels + 2 * channels
    for kernel in (int(name[-1]) for name in operations if name.startswith("nor_conv")):
        total += cells * sum(kernel**2 * width**2 + 2 * width for width in widths)
    for width in widths[:2]:
        total += (9 * 2 + 9 * 4 + 2) * width**2 + 2 * 2 * 2 * width
    return total + 2 * widths[2] + 10 * widths[2] + 10


@pytest.mark.parametrize("text", [MIXED, ZERO])
def test_parameters_by_hand(text):
    cell = one(text)
    network = Network(cell, channels=16, cells_per_stack=5)
    assert count_parameters(network) == expected_parameters(cell.operations)


@pytest.mark.parametrize("size", [8, 7])
def test_features_and_logits(size):
    network = Network(one(MIXED), in_channels=1, classes=3, channels=4, cells_per_stack=1).eval()
    x = torch.randn(5, 1, size, size)
    features = network.features(x)
    assert features.shape == (5, 16)
    assert torch.equal(network(x), network.classifier(features))
    blocks = [type(layer).__name__ for layer in network.body]
    assert blocks == [
        *("Conv2d", "BatchNorm2d", "SumCell", "ResidualBlock", "SumCell", "ResidualBlock"),
        *("SumCell", "BatchNorm2d", "ReLU"),
    ]
    assert network.body[:6](x).shape[2:] == (2, 2)


@pytest.mark.shared
def test_parameters_agree_with_the_official_table(shared_data):
    """All cells by the count that is compared with real networks on a sample.

    204 of the 15,625 rows hold a mean over two or three trainings that did not all have the cell's
    own convolutions: they are off by a third, a half or two thirds of one.
    """
    frame = pd.read_parquet(shared_data / "nasbench201.parquet")
    cells = CellSet.from_architectures(frame["architecture"])
    counted = np.array([expected_parameters(cell.operations) for cell in cells])
    sample = np.random.default_rng(0).choice(len(cells), 60, replace=False)
    for row in sample:
        with torch.device("meta"):
            network = Network(cells[row], channels=16, cells_per_stack=5)
        assert count_parameters(network) == counted[row]
    off = counted - frame["trainable_parameters"].to_numpy()
    convolutions = [5 * (kernel * 5376 + 224) for kernel in (1, 9)]
    parts = {round(n * part / 6) for n in convolutions for part in (2, 3, 4)}
    assert set(np.abs(off[off != 0])) <= parts
    assert (off != 0).sum() == 204


def table_file(folder: Path, **columns) -> Path:
    cells = enumerate_nasbench201()[::600]
    n = len(cells)
    frame = pd.DataFrame(
        {
            "architecture": cells.architectures,
            "trainable_parameters": np.arange(n) + 1000,
            "cifar10_test_accuracy": np.linspace(0.1, 0.9, n),
            "cifar10valid_validation_accuracy": np.linspace(0.2, 0.8, n),
            "cifar10valid_test_accuracy": np.linspace(0.3, 0.7, n),
        }
        | columns
    )
    frame.to_parquet(folder / "nb201.parquet", index=False)
    return folder / "nb201.parquet"


def test_a_table_of_architectures(tmp_path):
    path = table_file(tmp_path)
    table = Table.read(path, "cifar10valid")
    assert table.cells.hashes.tolist() == enumerate_nasbench201()[::600].hashes.tolist()
    assert table.values("test_accuracy")[-1] == 0.7
    assert table.values("validation_accuracy")[0] == 0.2
    assert table.values("cifar10_test_accuracy")[-1] == 0.9
    assert table.name == "nb201 cifar10valid"
    assert Table.read(path, "cifar10").values("test_accuracy")[-1] == 0.9
    assert "validation_accuracy" not in Table.read(path, "cifar10").frame
    assert uses(table)["search"] == 0
    assert list(cell_properties(table)) == [
        *("trainable parameters", "3x3 convolutions", "1x1 convolutions", "3x3 poolings"),
        *("skip connections", "edges left out"),
    ]
    table.write(tmp_path / "written.parquet")
    back = Table.read(tmp_path / "written.parquet")
    assert list(back.cells) == list(table.cells)
    pd.testing.assert_frame_equal(back.frame, table.frame)
    other = Table.read(tmp_path / "written.parquet", "cifar10")
    assert other.values("test_accuracy")[-1] == 0.9
    assert "validation_accuracy" not in other.frame
    pd.read_parquet(path).to_csv(tmp_path / "nb201.csv", index=False)
    assert list(Table.read(tmp_path / "nb201.csv", "cifar10").cells) == list(table.cells)


def test_a_wrong_table_is_refused(tmp_path):
    path = table_file(tmp_path)
    for look in (check_table, Table.read):
        with pytest.raises(InvalidTable, match=r"several data sets; choose one of cifar10, cifar1"):
            look(str(path))
        with pytest.raises(InvalidTable, match=r"no accuracies of 'cifar'; choose one of cifar10"):
            look(str(path), "cifar")
    architectures = pd.read_parquet(path)["architecture"].tolist()
    plain = pd.DataFrame({"architecture": architectures, "test_accuracy": 0.5})
    plain.assign(operations="of another table").to_csv(tmp_path / "more.csv", index=False)
    assert Table.read(tmp_path / "more.csv").cells.architectures == architectures
    plain.to_parquet(tmp_path / "plain.parquet")
    assert (Table.read(tmp_path / "plain.parquet").values("test_accuracy") == 0.5).all()
    with pytest.raises(InvalidTable, match="no accuracies of 'mnist'; name none"):
        check_table(str(tmp_path / "plain.parquet"), "mnist")
    with pytest.raises(InvalidTable, match="same cell"):
        Table.read(
            table_file(tmp_path, architecture=architectures[:-1] + architectures[:1]), "cifar10"
        )
    with pytest.raises(InvalidTable, match=r"row 26: '\|x~0\|' is no architecture"):
        Table.read(table_file(tmp_path, architecture=[*architectures[:-1], "|x~0|"]), "cifar10")
    with pytest.raises(InvalidTable, match="architecture of row 26 is None; it must be text"):
        Table.read(table_file(tmp_path, architecture=[*architectures[:-1], None]), "cifar10")
    percent = np.linspace(10, 90, len(architectures))
    with pytest.raises(InvalidTable, match="fractions, not percent"):
        Table.read(table_file(tmp_path, cifar10_test_accuracy=percent), "cifar10")


def test_a_search_that_counts_trainings(tmp_path):
    table = Table.read(table_file(tmp_path), "cifar10valid")
    with pytest.raises(ValueError, match="cost=evaluations counts trainings"):
        charged(table)
    counting = charged(table, "evaluations")
    assert counting.time_unit == "evaluations"
    assert default_budget(counting, 12) == 12
    assert default_baseline(counting) == 0.8
    paths = random_search(counting, runs=3, budget=5)
    assert paths.groupby("run")["time"].apply(list).tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]] * 3
    with pytest.raises(ValueError, match="no cell of the table 'nb201 cifar10' has both"):
        charged(Table.read(table_file(tmp_path), "cifar10"), "evaluations")


@pytest.mark.parametrize(
    ("chosen", "only", "message"),
    [
        ([], [], "several data sets; choose one of cifar10, cifar10valid"),
        (["search_space.dataset=cifar10"], [], "no validation_accuracy, which 06 needs; leave"),
        (["search_space.dataset=cifar10valid"], [], "--set reinforce.cost=evaluations, or leave"),
        (
            ["search_space.dataset=cifar10valid"],
            ["01", "06"],
            "or leave notebook 06 out: --only 01$",
        ),
    ],
)
def test_what_a_table_lacks_is_said_before_anything_runs(
    tmp_path, monkeypatch, chosen, only, message
):
    monkeypatch.setenv("IONAS_RUNS", str(tmp_path / "runs"))
    texts = [f"search_space.table={table_file(tmp_path)}", *chosen]
    with pytest.raises(ValueError, match=message) as caught:
        runner.run("tiny", texts, only)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.shared
def test_the_whole_study(tmp_path, monkeypatch, shared_data):
    """All notebooks on 200 cells of the real table, at tiny scale."""
    monkeypatch.setenv("IONAS_RUNS", str(tmp_path / "runs"))
    frame = pd.read_parquet(shared_data / "nasbench201.parquet")
    frame.sample(200, random_state=0).to_parquet(tmp_path / "nb201.parquet", index=False)
    texts = [f"search_space.table={tmp_path / 'nb201.parquet'}", *STUDY]
    folder = RunFolder(runner.run("tiny", texts, name="nb201"))
    assert all(folder.manifest(name) for name in STAGES)
    history = pd.read_parquet(folder.stage("embedding_training") / "history.parquet")
    assert set(history["metric"]) >= {"validity", "adjacency_accuracy", "labels_train"}
    curves = pd.read_parquet(folder.stage("reinforce") / "trajectories.parquet")
    assert set(curves["time"]) == set(range(1, 21))
