"""From a cell to the PyTorch network that its benchmark builds of it.

A stem convolution, then stacks of equal cells; before every stack but the first the image is halved
and the channels double; the mean over pixels gives the features, one dense layer the logits. So
NAS-Bench-101 (Ying et al. 2019; METHOD 6) and NAS-Bench-201 (Dong and Yang 2020), which differ in
the cell, in how the image is halved, and in the order of convolution, normalisation and ReLU.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ionas.space.cells import CONV1X1, CONV3X3, MAXPOOL3X3, NASBENCH201, Cell

CPU_BATCH = 64  # images whose values fit the cache of a core, where nothing is trained


class Network(nn.Module):
    """The network of one cell.

    Parameters
    ----------
    cell
        The cell that every position repeats.
    in_channels, classes
        Colour channels of the images and number of classes.
    channels
        Channels of the stem and of the first stack (paper: 128; NAS-Bench-201: 16).
    stacks, cells_per_stack
        Stacks, and cells in each (paper: 3 and 3; NAS-Bench-201: 3 and 5).
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
        layers = _layers_201 if cell.space is NASBENCH201 else _layers_101
        self.body = nn.Sequential(*layers(cell, in_channels, channels, stacks, cells_per_stack))
        self.classifier = nn.Linear(channels * 2 ** (stacks - 1), classes)
        if cell.space is not NASBENCH201:  # which leaves the weights as PyTorch draws them
            self.apply(_initialise)

    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features before the dense layer: (B, C, H, W) -> (B, channels * 2^(stacks-1))."""
        return self.body(pixels).mean((2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits: (B, C, H, W) -> (B, classes)."""
        return self.classifier(self.features(pixels))


class CellModule(nn.Module):
    """One cell of NAS-Bench-101: vertex inputs are added, those of the output concatenated."""

    def __init__(self, cell: Cell, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.widths = vertex_channels(cell, in_channels, out_channels)
        output = cell.n_vertices - 1
        self.sources = [
            [u for u in range(1, v) if cell.adjacency[u][v]] for v in range(cell.n_vertices)
        ]
        self.projections = nn.ModuleDict(
            {
                str(v): conv_bn_relu(in_channels, self.widths[v], 1)
                for v in range(1, output + 1)
                if cell.adjacency[0][v]
            }
        )
        self.operations = nn.ModuleList(
            _operation(cell.operations[v], self.widths[v]) for v in range(1, output)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, H, W)
        projected = {int(v): layer(x) for v, layer in self.projections.items()}
        values = [x]
        for v, operation in enumerate(self.operations, start=1):
            inputs = [values[u][:, : self.widths[v]] for u in self.sources[v]]
            values.append(operation(_add([*inputs, projected[v]] if v in projected else inputs)))
        output = len(values)
        joined = [values[u] for u in self.sources[output]]
        if not joined:
            return projected[output]
        concatenated = torch.cat(joined, 1) if len(joined) > 1 else joined[0]
        return concatenated + projected[output] if output in projected else concatenated


class SumCell(nn.Module):
    """One cell of NAS-Bench-201: every vertex, and the output, adds what it is given."""

    def __init__(self, cell: Cell, channels: int) -> None:
        super().__init__()
        self.sources = [
            [u for u in range(v) if cell.adjacency[u][v]] for v in range(cell.n_vertices)
        ]
        self.operations = nn.ModuleList(
            _operation_201(name, channels) for name in cell.operations[1:-1]
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        values = [x]
        for sources, operation in zip(self.sources[1:-1], self.operations, strict=True):
            values.append(operation(_add([values[u] for u in sources])))
        return _add([values[u] for u in self.sources[-1]])


class ResidualBlock(nn.Module):
    """Between two stacks of NAS-Bench-201: halves the image and doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            relu_conv_bn(channels, 2 * channels, 3, stride=2),
            relu_conv_bn(2 * channels, 2 * channels, 3),
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
    """Channels of every vertex of a cell.

    The output's channels are divided among the inner vertices that feed it, the remainder one each
    to the first ones; every other inner vertex takes the maximum of those it feeds.

    Raises
    ------
    ValueError
        If there are fewer output channels than vertices that share them.
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


def count_parameters(network: nn.Module) -> int:
    """Trainable parameters of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Convolution without bias at full resolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def relu_conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1
) -> nn.Sequential:
    """ReLU, convolution without bias, batch normalisation."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _layers_101(
    cell: Cell, in_channels: int, channels: int, stacks: int, cells_per_stack: int
) -> Iterator[nn.Module]:
    yield conv_bn_relu(in_channels, channels, 3)
    width = channels
    for stack in range(stacks):
        if stack:
            yield nn.MaxPool2d(2)
        for position in range(cells_per_stack):
            doubled = 2 * width if stack and not position else width
            yield CellModule(cell, width, doubled)
            width = doubled


def _layers_201(
    cell: Cell, in_channels: int, channels: int, stacks: int, cells_per_stack: int
) -> Iterator[nn.Module]:
    yield nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    yield nn.BatchNorm2d(channels)
    width = channels
    for stack in range(stacks):
        if stack:
            yield ResidualBlock(width)
            width *= 2
        for _ in range(cells_per_stack):
            yield SumCell(cell, width)
    yield nn.BatchNorm2d(width)
    yield nn.ReLU()


def _operation_201(name: str, channels: int) -> nn.Module:
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    if name in ("none", "skip_connect"):
        return Zero() if name == "none" else nn.Identity()
    return relu_conv_bn(channels, channels, {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name])


def _operation(name: str, channels: int) -> nn.Module:
    if name == MAXPOOL3X3:
        return nn.MaxPool2d(3, stride=1, padding=1)
    return conv_bn_relu(channels, channels, {CONV1X1: 1, CONV3X3: 3}[name])


def _add(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
