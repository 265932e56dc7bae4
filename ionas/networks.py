"""From a cell to the PyTorch network that its benchmark builds of it.

A network is a stem convolution, then stacks of equal cells. Before every stack but the first the
image is halved and the channels double. The mean over pixels gives the features, and one dense
layer the logits. NAS-Bench-101 (Ying et al. 2019; METHOD 6) and NAS-Bench-201 (Dong and Yang 2020)
differ in the cell, in how the image is halved, and in the order of convolution, normalisation and
ReLU.
"""

import json
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ionas import parts
from ionas.parameters import Pretraining
from ionas.space.cells import Cell, CellSet
from ionas.space.nasbench101 import CONV1X1, CONV3X3, MAXPOOL3X3
from ionas.space.nasbench201 import NASBENCH201

CPU_BATCH = 64  # images in a batch of evaluation: their values fit the cache of a core
KERNELS = {CONV1X1: 1, CONV3X3: 3, "nor_conv_1x1": 1, "nor_conv_3x3": 3}


class CellTable(Protocol):
    """The part of `ionas.benchmark.table.Table` that is used: N cells, (N,) values of a column."""

    @property
    def cells(self) -> CellSet: ...

    def values(self, name: str) -> np.ndarray: ...


class Network(nn.Module):
    """The network of a cell, for images of `in_channels` colours in a number of `classes`.

    The stem and the first stack have `channels` (paper: 128; NAS-Bench-201: 16). There are `stacks`
    of `cells_per_stack` each (paper: 3 and 3; NAS-Bench-201: 3 and 5).
    """

    def __init__(
        self,
        cell: Cell,
        in_channels: int = 3,
        classes: int = 10,
        channels: int = 128,
        stacks: int = 3,
        cells_per_stack: int = 3,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.body = nn.Sequential(*_layers(cell, in_channels, channels, stacks, cells_per_stack))
        self.classifier = nn.Linear(channels * 2 ** (stacks - 1), classes)
        if cell.space is not NASBENCH201:  # NAS-Bench-201 keeps the initial weights of PyTorch
            self.apply(_initialise)

    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features before the dense layer: (B, C, H, W) -> (B, channels * 2^(stacks-1))."""
        return self.body(pixels).mean((2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits: (B, C, H, W) -> (B, classes)."""
        return self.classifier(self.features(pixels))


def _layers(
    cell: Cell, in_channels: int, channels: int, stacks: int, cells_per_stack: int
) -> Iterator[nn.Module]:
    residual = cell.space is NASBENCH201
    stem = conv_block(in_channels, channels, 3)
    yield from list(stem)[:2] if residual else [stem]
    width = channels
    for stack in range(stacks):
        before, width = width, channels * 2**stack
        if stack:
            yield ResidualBlock(before) if residual else nn.MaxPool2d(2)
        for position in range(cells_per_stack):
            yield CellModule(cell, width if position else before, width)
    if residual:
        yield from (nn.BatchNorm2d(width), nn.ReLU())


class CellModule(nn.Module):
    """One cell: every vertex adds its inputs and applies its operation.

    In NAS-Bench-101 the input of the cell is projected to each vertex that it feeds, other values
    are cut to the vertex's channels, and the output concatenates its inputs. In NAS-Bench-201 all
    vertices have the same channels.
    """

    def __init__(self, cell: Cell, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.summed = cell.space is NASBENCH201
        inputs = [np.flatnonzero(column).tolist() for column in cell.matrix.T]  # of every vertex
        self.sources = [[u for u in given if u or self.summed] for given in inputs]
        self.widths = (
            [out_channels] * len(inputs)
            if self.summed
            else vertex_channels(cell, in_channels, out_channels)
        )
        self.projections = nn.ModuleDict(
            {
                str(v): conv_block(in_channels, self.widths[v], 1)
                for v, given in enumerate(inputs)
                if 0 in given and not self.summed
            }
        )
        self.operations = nn.ModuleList(
            _operation(*vertex)
            for vertex in zip(cell.operations[1:-1], self.widths[1:-1], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, H, W)
        projected = {int(v): [layer(x)] for v, layer in self.projections.items()}
        values = [x]
        for v, operation in enumerate(self.operations, start=1):
            given = [values[u][:, : self.widths[v]] for u in self.sources[v]]
            values.append(operation(reduce(add, given + projected.get(v, []))))
        output = len(values)
        joined = [values[u] for u in self.sources[output]]
        if len(joined) > 1 and not self.summed:
            joined = [torch.cat(joined, 1)]
        return reduce(add, joined + projected.get(output, []))


class ResidualBlock(nn.Module):
    """Between two stacks of NAS-Bench-201: halves the image and doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            conv_block(channels, 2 * channels, 3, stride=2, relu_first=True),
            conv_block(2 * channels, 2 * channels, 3, relu_first=True),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(channels, 2 * channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        return self.shortcut(x) + self.block(x)


class Zero(nn.Module):
    """The operation `none`."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def vertex_channels(cell: Cell, in_channels: int, out_channels: int) -> list[int]:
    """Divide the channels of a cell among its vertices (METHOD 6).

    The output's channels are divided among the inner vertices that feed it, the remainder going one
    each to the first ones; every other inner vertex takes the maximum of those it feeds. Raises
    ValueError if more vertices feed the output than it has channels.
    """
    output = cell.n_vertices - 1
    feeding = [v for v in range(1, output) if cell.adjacency[v][output]]
    if len(feeding) > out_channels:
        raise ValueError(
            f"{out_channels} channels cannot be divided among the {len(feeding)} vertices that "
            "feed the output; give the network more channels"
        )
    widths = [in_channels, *[0] * (output - 1), out_channels]
    for position, v in enumerate(feeding):
        share, remainder = divmod(out_channels, len(feeding))
        widths[v] = share + (position < remainder)
    for v in reversed(range(1, output)):
        if not widths[v]:
            widths[v] = max(widths[w] for w in range(v + 1, output) if cell.adjacency[v][w])
    return widths


def conv_block(
    inputs: int, outputs: int, kernel: int, stride: int = 1, relu_first: bool = False
) -> nn.Sequential:
    """Convolution without bias and batch normalisation, with ReLU before or after them."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    layers = (convolution, nn.BatchNorm2d(outputs))
    if relu_first:
        return nn.Sequential(nn.ReLU(), *layers)
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def _operation(name: str, channels: int) -> nn.Module:
    if name in KERNELS:
        relu_first = name.startswith("nor_")
        return conv_block(channels, channels, KERNELS[name], relu_first=relu_first)
    return {
        MAXPOOL3X3: nn.MaxPool2d(3, stride=1, padding=1),
        "avg_pool_3x3": nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        "none": Zero(),
        "skip_connect": nn.Identity(),
    }[name]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


def count_parameters(network: nn.Module) -> int:
    """Trainable parameters of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def build(cell: Cell, p: Pretraining, in_channels: int, classes: int) -> Network:
    """Build the untrained network of a cell, from torch's present random state.

    Its weights, and so all values that pass through it, are channels-last in memory, which saves a
    third of the time on a CPU.
    """
    network = Network(cell, in_channels, classes, p.channels, p.stacks, p.cells_per_stack)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def to_bytes(network: nn.Module, about: Mapping[str, Any]) -> bytes:
    """Write a safetensors file: the weights, and `about` in its metadata."""
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    return save(state, {"ionas": json.dumps(about)})


def about_of(content: bytes) -> dict[str, Any]:
    """Read the `about` that `to_bytes` wrote."""
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    return json.loads(json.loads(header)["__metadata__"]["ionas"])


def load_network(folder: Path, cell: Cell) -> Network:
    """Load the network of a cell that `ionas.pretraining.train_networks` kept, to evaluate it.

    Raises ValueError if it is missing or damaged, or if its cell has its vertices in another order.
    """
    content = parts.read(folder, cell.hash)
    if content is None:
        raise ValueError(
            f"{folder / cell.hash} is missing or was damaged; run notebook 02 again with --force"
        )
    about = about_of(content)
    if about["cell"] != describe(cell):
        raise ValueError(
            f"{folder / cell.hash} is of {about['cell']}, not of {describe(cell)}, whose vertices "
            "are in another order; run notebook 02 again"
        )
    p = Pretraining(**about["parameters"])
    network = build(cell, p, about["in_channels"], about["classes"])
    network.load_state_dict(load(content))
    return network.eval()


def describe(cell: Cell) -> str:
    """Write a cell as text, its vertices in their order."""
    return f"{cell.adjacency} {cell.operations}"
