"""NAS-Bench-201: its cells against the four nodes they come from, networks, tables, the study."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench201_cells import enumerate_nasbench201

from ionas.benchmark.summaries import cell_properties
from ionas.benchmark.table import InvalidTable, Table, check_table, uses
from ionas.networks import Network, count_parameters
from ionas.parameters import Reinforce
from ionas.space import INPUT, OUTPUT, InvalidCell
from ionas.space.cells import Cell, CellSet, cell_tensors
from ionas.space.nasbench101 import CONV3X3
from ionas.space.nasbench201 import NASBENCH201
from ionas.tasks.clock import with_cost
from ionas.tasks.reinforce import random_search, setting

EDGES = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]  # of the four nodes, as in the string
MIXED = "|nor_conv_1x1~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
ZERO = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
STUDY = [
    *("search_space.dataset=cifar10valid", "reinforce.cost=evaluations"),
    "search_methods.cost=evaluations",
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
    assert set(cells.adjacency.sum((1, 2))) == {10}


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
    (text,) = zip(*cells.to_text(), strict=True)
    assert Cell.from_text(*text) == cell
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
    with pytest.raises(InvalidCell, match="unknown operation 'conv3x3-bn-relu'; choose from nor"):
        Cell(cell.adjacency, names)
    with pytest.raises(InvalidCell, match="row 1: 'none~0' is not an architecture"):
        CellSet.from_architectures([MIXED, "none~0"])
    texts = CellSet.from_cells([cell]).to_text()
    chain = ["010001000"], [f"{INPUT},{CONV3X3},{OUTPUT}"]
    with pytest.raises(InvalidCell, match="row 1: the cell is not one of NAS-Bench-201"):
        CellSet.from_text(*[a + b for a, b in zip(texts, chain, strict=True)])


def test_tensors():
    cells = enumerate_nasbench201()[[0, 7777]]
    adjacency, operations = cell_tensors(cells)
    assert adjacency.shape == (2, 8, 8)
    assert operations.shape == (2, 8, 7)
    assert (operations.argmax(2).numpy() == cells.operations).all()
    assert (adjacency.numpy() == cells.adjacency).all()


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
        *("Conv2d", "BatchNorm2d", "CellModule", "ResidualBlock", "CellModule", "ResidualBlock"),
        *("CellModule", "BatchNorm2d", "ReLU"),
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
    pd.read_parquet(path).to_csv(tmp_path / "nb201.csv", index=False)
    assert list(Table.read(tmp_path / "nb201.csv", "cifar10").cells) == list(table.cells)


def test_the_data_set_is_named_never_guessed(tmp_path):
    path = table_file(tmp_path)
    for look in (check_table, Table.read):
        with pytest.raises(InvalidTable, match=r"choose one of cifar10, cifar10valid \(parameter"):
            look(str(path))
        with pytest.raises(InvalidTable, match=r"no accuracies of 'cifar'; choose one of cifar10"):
            look(str(path), "cifar")
    known = check_table(str(path), "cifar10valid").count()
    assert known[known > 0].to_dict() == {"validation_accuracy": 27, "test_accuracy": 27}
    architectures = pd.read_parquet(path)["architecture"].tolist()
    plain = pd.DataFrame({"architecture": architectures, "test_accuracy": 0.5})
    plain.to_parquet(tmp_path / "plain.parquet")
    assert (Table.read(tmp_path / "plain.parquet").values("test_accuracy") == 0.5).all()
    with pytest.raises(InvalidTable, match="no accuracies of 'mnist'; name none"):
        check_table(str(tmp_path / "plain.parquet"), "mnist")


@pytest.mark.parametrize("other", ["adjacency", "operations"])
def test_architectures_need_neither_adjacency_nor_operations(tmp_path, other):
    path = table_file(tmp_path, test_accuracy=0.5, **{other: "of another table"})
    assert Table.read(path).cells.architectures == pd.read_parquet(path)["architecture"].tolist()


@pytest.mark.parametrize("wrong", ["|x~0|", "none~0", "|none~0|+|none~0|none~1|+|none~0|none~1|"])
def test_a_wrong_architecture_is_named(tmp_path, wrong):
    texts = enumerate_nasbench201()[::600].architectures
    with pytest.raises(InvalidTable, match=r"row 26: '\|?.*' is not an architecture"):
        Table.read(table_file(tmp_path, architecture=[*texts[:-1], wrong]), "cifar10")
    with pytest.raises(InvalidTable, match="rows 0 and 26 are the same cell"):
        Table.read(table_file(tmp_path, architecture=[*texts[:-1], texts[0]]), "cifar10")
    with pytest.raises(InvalidTable, match=r"of row 26 is (None|nan); it must be text"):
        Table.read(table_file(tmp_path, architecture=[*texts[:-1], None]), "cifar10")


def test_a_search_that_counts_trainings(tmp_path):
    table = Table.read(table_file(tmp_path), "cifar10valid")
    with pytest.raises(ValueError, match="cost=evaluations counts trainings"):
        with_cost(table)
    counting = with_cost(table, "evaluations")
    labeled = pd.DataFrame({"index": [0], "labeled": ["train"]})
    given = setting(table, labeled, labeled, Reinforce(cost="evaluations"))
    assert (given["budget"], given["baseline"], given["time_unit"]) == (300, 0.8, "evaluations")
    paths = random_search(counting, runs=3, budget=5)
    assert paths.groupby("run")["time"].apply(list).tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]] * 3
    with pytest.raises(ValueError, match="no cell of the table 'nb201 cifar10' has both"):
        with_cost(Table.read(table_file(tmp_path), "cifar10"), "evaluations")


@pytest.mark.slow
@pytest.mark.shared
def test_the_study(tmp_path, monkeypatch, shared_data):
    """The notebooks that ask what a cell is, on 200 cells of the real table, at tiny scale."""
    from ionas.book import run as runner
    from ionas.book.configure import STAGES
    from ionas.book.folders import RunFolder

    monkeypatch.setenv("IONAS_RUNS", str(tmp_path / "runs"))
    frame = pd.read_parquet(shared_data / "nasbench201.parquet")
    frame.sample(200, random_state=0).to_parquet(tmp_path / "nb201.parquet", index=False)
    texts = [f"search_space.table={tmp_path / 'nb201.parquet'}", *STUDY]
    names = [name for name in STAGES if STAGES[name].number not in ("04", "07", "10")]
    folder = RunFolder(runner.run("tiny", texts, name="nb201", only=names))
    assert all(folder.manifest(name) for name in names)
    history = pd.read_parquet(folder.stage("embedding_training") / "history.parquet")
    assert set(history["metric"]) >= {"validity", "adjacency_accuracy", "labels_train"}
    curves = pd.read_parquet(folder.stage("reinforce") / "walks.parquet")
    assert set(curves["time"]) <= set(range(1, 21))
