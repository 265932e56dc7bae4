"""arch2vec (Yan et al. 2020; paper, appendix B): a variational autoencoder of cells.

cell: operations X and edges A + A^T
  -> GIN layers: x <- MLP((1 + epsilon) x + (A + A^T) x), with batch normalisation and ReLU
  -> mu and log sigma, one row of the latent width per vertex
  -> Z = mu + sigma * noise, dropout
  -> operations: a dense layer;  edges: Z Z^T
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = ("sigmoid", "softmax")


class Arch2vec(nn.Module):
    """The autoencoder; defaults are the paper's, for NAS-Bench-101.

    A padded cell has V `vertices` and O `operations`; `hidden` is the width of the GIN layers,
    `latent` the width L of a row of Z, `dropout` that on Z in the decoder. The `activation` of the
    decoded operations is `sigmoid`, as the authors ran it, or `softmax`, as in Table 3.
    """

    identity: Tensor
    upper: Tensor

    def __init__(
        self,
        vertices: int = 7,
        operations: int = 5,
        hidden: int = 128,
        latent: int = 16,
        layers: int = 4,
        dropout: float = 0.3,
        activation: str = "sigmoid",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation of the operations is {activation!r}; choose {' or '.join(ACTIVATIONS)}"
            )
        self.vertices, self.latent, self.activation = vertices, latent, activation
        widths = [operations, *[hidden] * layers]
        self.perceptrons = nn.ModuleList(_perceptron(*pair) for pair in pairwise(widths))
        self.epsilon = nn.Parameter(torch.zeros(layers))
        self.mu_and_log_std = nn.Linear(widths[-1], 2 * latent)
        self.dropout = nn.Dropout(dropout)
        self.operations = nn.Linear(latent, operations)
        self.register_buffer("identity", torch.eye(vertices), persistent=False)
        self.register_buffer("upper", torch.ones(vertices, vertices).triu(1), persistent=False)

    @property
    def vae(self) -> "Arch2vec":
        """The autoencoder itself, as in the models that contain one."""
        return self

    def encode(self, adjacency: Tensor, operations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the latent matrix, both (B, V, L).

        `adjacency` is (B, V, V), upper triangular; `operations` the one-hot (B, V, O).
        """
        batch, vertices, _ = adjacency.shape
        both_ways = adjacency + adjacency.transpose(1, 2)
        weights = both_ways + (1 + self.epsilon).view(-1, 1, 1, 1) * self.identity
        x = operations
        for weight, perceptron in zip(weights, self.perceptrons, strict=True):
            x = torch.bmm(weight, x.view(batch, vertices, -1))
            x = perceptron(x.view(batch * vertices, -1))  # normalised over all B * V rows
        mu, log_std = self.mu_and_log_std(x).view(batch, vertices, -1).chunk(2, dim=2)
        return mu, log_std

    def sample(self, mu: Tensor, log_std: Tensor) -> Tensor:
        """Draw Z from torch's random state in training; return mu in evaluation, (B, V, L)."""
        if not self.training:
            return mu
        return torch.addcmul(mu, log_std.exp(), torch.randn_like(mu))  # mu + std * noise

    def logits(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of edges (B, V, V), symmetric, and of operations (B, V, O)."""
        z = self.dropout(z)
        return torch.bmm(z, z.transpose(1, 2)), self.operations(z)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of edges (B, V, V), symmetric, and of operations (B, V, O)."""
        edges, operations = self.logits(z)
        softmax = self.activation == "softmax"
        return edges.sigmoid(), operations.softmax(-1) if softmax else operations.sigmoid()

    def loss(
        self, z: Tensor, mu: Tensor, log_std: Tensor, adjacency: Tensor, operations: Tensor
    ) -> Tensor:
        """Reconstruction loss and KL term (Equation 3, as METHOD section 2 spells it out).

        The sum of the binary cross-entropy of operations, a mean over (B, V, O); that of edges, a
        mean over (B, V, V) to which only the upper triangle contributes; and `kl_term`. It is
        computed from logits, so it stays exact where a sigmoid would round to 0 or 1.
        """
        edges, named = self.logits(z)
        on_edges = F.binary_cross_entropy_with_logits(edges, adjacency, self.upper)
        if self.activation == "softmax":
            on_operations = F.binary_cross_entropy(named.softmax(-1), operations)
        else:
            on_operations = F.binary_cross_entropy_with_logits(named, operations)
        return on_operations + on_edges + kl_term(mu, log_std)


def kl_term(mu: Tensor, log_std: Tensor) -> Tensor:
    """Divergence from N(0, 1), (B, V, L) -> scalar: a mean divided once more by B * V."""
    rows = mu.shape[0] * mu.shape[1]
    total = (1 + 2 * log_std - mu.square() - (2 * log_std).exp()).sum()
    return -0.5 / rows**2 * total


def _perceptron(before: int, after: int) -> nn.Sequential:
    """Two dense layers with batch normalisation, which makes a bias superfluous."""
    return nn.Sequential(
        nn.Linear(before, after, bias=False),
        nn.BatchNorm1d(after),
        nn.ReLU(inplace=True),
        nn.Linear(after, after, bias=False),
        nn.BatchNorm1d(after),
        nn.ReLU(inplace=True),
    )
