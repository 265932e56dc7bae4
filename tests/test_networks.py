"""Networks against counts made by hand, a slow reference and the official table."""

import numpy as np
import pandas as pd
import pytest
import torch

from ionas.networks import CellModule, Network, count_parameters, vertex_channels
from ionas.space import INPUT, OUTPUT
from ionas.space.cells import Cell, CellSet, enumerate_cells
from ionas.space.nasbench101 import CONV1X1, CONV3X3, MAXPOOL3X3


def conv(inputs: int, outputs: int, kernel: int) -> int:
    """Parameters of convolution and batch normalisation."""
    return inputs * outputs * kernel * kernel + 2 * outputs


STRAIGHT = Cell([[0, 1], [0, 0]], [INPUT, OUTPUT])
CHAIN = Cell([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [INPUT, CONV3X3, OUTPUT])
POOLED = Cell(
    [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], [INPUT, MAXPOOL3X3, CONV1X1, OUTPUT]
)
# 0 -> 1 -> {2, 3}, 2 -> 4, 3 -> 4: vertex 1 feeds two halves of the output
FORK = Cell(
    [[0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0] * 5],
    [INPUT, CONV1X1, CONV3X3, MAXPOOL3X3, OUTPUT],
)


@pytest.mark.parametrize(
    ("cell", "channels", "expected"),
    [
        (STRAIGHT, (8, 16), [8, 16]),
        (CHAIN, (8, 16), [8, 16, 16]),
        (POOLED, (8, 17), [8, 9, 8, 17]),
        (FORK, (8, 15), [8, 8, 8, 7, 15]),
    ],
)
def test_channels_by_hand(cell, channels, expected):
    assert vertex_channels(cell, *channels) == expected


def test_remainder_goes_to_the_first_vertices():
    matrix = np.zeros((5, 5), int)
    matrix[0, 1:4] = 1
    matrix[1:4, 4] = 1
    cell = Cell(matrix, [INPUT, CONV3X3, CONV3X3, CONV3X3, OUTPUT])
    assert vertex_channels(cell, 4, 8) == [4, 3, 3, 2, 8]


def test_too_few_channels_are_refused():
    with pytest.raises(ValueError, match="more channels"):
        Network(POOLED, channels=1)


@pytest.mark.parametrize(
    ("cell", "per_cell"),
    [
        (STRAIGHT, lambda i, o: conv(i, o, 1)),
        (CHAIN, lambda i, o: conv(i, o, 1) + conv(o, o, 3)),
        (POOLED, lambda i, o: 2 * conv(i, o // 2, 1) + conv(o // 2, o // 2, 1) + conv(i, o, 1)),
        (
            FORK,
            lambda i, o: conv(i, o // 2, 1) + conv(o // 2, o // 2, 1) + conv(o // 2, o // 2, 3),
        ),
    ],
)
def test_parameters_by_hand(cell, per_cell):
    network = Network(cell, in_channels=3, classes=10, channels=8, stacks=3, cells_per_stack=2)
    widths = [(8, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)]
    expected = conv(3, 8, 3) + sum(per_cell(i, o) for i, o in widths) + 32 * 10 + 10
    assert count_parameters(network) == expected


def test_forward_agrees_with_a_slow_reference():
    torch.manual_seed(0)
    module = CellModule(FORK, 4, 6).eval()
    x = torch.randn(2, 4, 5, 5)
    projection = module.projections["1"]
    conv1x1, conv3x3, pool = module.operations
    one = conv1x1(projection(x))
    two = conv3x3(one[:, :3])
    three = torch.nn.functional.max_pool2d(one[:, :3], 3, 1, 1)
    assert torch.equal(module(x), torch.cat([two, three], 1))
    assert pool(x).shape == x.shape


def test_input_to_output_edge_adds_the_projection():
    torch.manual_seed(0)
    module = CellModule(POOLED, 4, 6).eval()
    x = torch.randn(2, 4, 5, 5)
    parts = [module.operations[i](module.projections[str(i + 1)](x)) for i in range(2)]
    assert torch.equal(module(x), torch.cat(parts, 1) + module.projections["3"](x))


def test_every_small_cell_builds_and_has_features_of_the_stated_width():
    x = torch.randn(2, 1, 8, 8)
    for cell in enumerate_cells(4):
        network = Network(cell, in_channels=1, channels=4, cells_per_stack=1).eval()
        features = network.features(x)
        assert features.shape == (2, 16)
        assert torch.equal(network(x), network.classifier(features))


def test_initial_weights_have_the_published_spread():
    torch.manual_seed(0)
    network = Network(CHAIN, channels=64)
    weight = network.body[1].operations[0][0].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert network.classifier.bias.abs().sum() == 0
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.shared
def test_parameters_are_those_of_the_official_table(shared_data):
    """Channels are rounded in vertex order, so this needs the order of the published file."""
    frame = pd.read_parquet(
        shared_data / "nasbench101.parquet",
        columns=["adjacency", "operations", "trainable_parameters"],
    ).sample(120, random_state=0)
    cells = CellSet.from_text(frame["adjacency"].tolist(), frame["operations"].tolist())
    with torch.device("meta"):
        as_given = [count_parameters(Network(cell)) for cell in cells]
        published = [count_parameters(Network(cell)) for cell in cells.canonical_order()]
    assert published == frame["trainable_parameters"].tolist()
    assert as_given != published
