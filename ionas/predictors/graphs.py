"""Graph networks on cells: that of BONAS, and one with gates by operation as in GATES.

Cells are tensors: the one-hot operations (B, V, O) with zero rows for padding and the output vertex
in the last row, and the adjacency (B, V, V) with a 1 at [u, v] for an edge from u to v.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from ionas.predictors.interface import Graphs, Predict, standard_scale
from ionas.predictors.training import Loss, fit_network
from ionas.space.cells import CellSet
from ionas.space.encodings import output_last

WIDTH, LAYERS, DROPOUT = 64, 4, 0.05


class GatedLayer(nn.Module):
    """One step of messages along and against the edges.

    Vertex v, of operation o_v and state h_v, adds to its state relu(W h_v + g(o_v) * sum of U h_u
    over its predecessors u + g'(o_v) * sum of U' h_w over its successors w), where the gates
    g(o) = sigmoid(G o + b) are those of the receiving vertex.
    """

    def __init__(self, operations: int) -> None:
        super().__init__()
        self.own = nn.Linear(WIDTH, WIDTH)
        self.messages = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.gates = nn.Linear(operations, 2 * WIDTH)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, states: Tensor, operations: Tensor, adjacency: Tensor) -> Tensor:
        along, against = self.messages(states).chunk(2, -1)
        received = torch.cat([adjacency.mT @ along, adjacency @ against], -1)
        along, against = (received * self.gates(operations).sigmoid()).chunk(2, -1)
        return states + self.dropout((self.own(states) + along + against).relu())


class Gated(nn.Module):
    """Gated layers, then a perceptron on the sum, the largest and the output's state -> (B,)."""

    def __init__(self, operations: int, features: int) -> None:
        super().__init__()
        self.embed = nn.Linear(operations + 2, WIDTH)
        self.layers = nn.ModuleList(GatedLayer(operations) for _ in range(LAYERS))
        self.head = nn.Sequential(
            nn.Linear(3 * WIDTH + features, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, 1),
        )  # fmt: skip

    def forward(self, operations: Tensor, adjacency: Tensor, features: Tensor) -> Tensor:
        degrees = torch.stack([adjacency.sum(1), adjacency.sum(2)], -1)
        present = operations.sum(-1, keepdim=True)
        states = self.embed(torch.cat([operations, degrees], -1)) * present
        for layer in self.layers:
            states = layer(states, operations, adjacency) * present
        largest = states.masked_fill(present == 0, -torch.inf).amax(1)
        return self.head(torch.cat([states.sum(1), largest, states[:, -1], features], 1))[:, 0]


class GlobalVertex(nn.Module):
    """Graph convolutions whose extra vertex, joined to all others, is read -> (B,).

    BONAS (Shi et al. 2020): every layer is relu(D^-1 (A + I) H W) with the edges from a vertex to
    those that feed it.
    """

    def __init__(self, operations: int) -> None:
        super().__init__()
        widths = [operations + 1, *[WIDTH] * LAYERS]
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, operations: Tensor, adjacency: Tensor, _: Tensor) -> Tensor:
        present = operations.sum(-1)
        states = nn.functional.pad(operations, (0, 1, 0, 1))  # a last vertex of its own kind
        states[:, -1, -1] = 1
        joined = nn.functional.pad(adjacency.mT, (0, 1, 0, 1))
        joined[:, -1, :-1] = present
        joined = joined + torch.eye(joined.shape[1])
        joined = joined / joined.sum(-1, keepdim=True)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            states = norm((joined @ layer(states)).mT).mT.relu()
        return self.head(states[:, -1])[:, 0]


def graph_tensors(cells: CellSet) -> tuple[Tensor, Tensor]:
    """One-hot operations (N, V, O) and adjacency (N, V, V) as the networks of this module read."""
    adjacency, operations = output_last(cells)
    one_hot = operations[:, :, None] == np.arange(len(cells.space.operations))
    return torch.from_numpy(one_hot).float(), torch.from_numpy(adjacency).float()


def fit_gcn(inputs: Graphs, targets: np.ndarray, seed: int, loss: Loss = "squared") -> Predict:
    """Fit the network of BONAS; features are not read."""
    operations = len(inputs.cells.space.operations)

    def tensors(given: Graphs) -> list[Tensor]:
        return [*graph_tensors(given.cells), torch.zeros(len(given), 0)]

    return fit_network(lambda: GlobalVertex(operations), tensors, inputs, targets, seed, loss)


def fit_gated(inputs: Graphs, targets: np.ndarray, seed: int, loss: Loss = "squared") -> Predict:
    """Fit the gated network, beside standardised features where the inputs have them."""
    operations, scaled = len(inputs.cells.space.operations), None
    if inputs.features is not None:
        scaled = standard_scale(inputs.features)

    def tensors(given: Graphs) -> list[Tensor]:
        features = np.zeros((len(given), 0), np.float32)
        if scaled is not None and given.features is not None:
            features = scaled(given.features)
        return [*graph_tensors(given.cells), torch.from_numpy(features)]

    width = 0 if inputs.features is None else inputs.features.shape[1]
    return fit_network(lambda: Gated(operations, width), tensors, inputs, targets, seed, loss)
