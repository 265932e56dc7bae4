"""arch2vec (Yan et al. 2020; paper, appendix B): a variational autoencoder of cells.

cell: operations X and edges A + A^T
  -> GIN layers, each with a two-layer perceptron, batch normalisation, ReLU
  -> mu and log sigma, one row of the latent width per vertex
  -> Z = mu + sigma * noise, dropout
  -> operations: a dense layer;  edges: Z Z^T
"""

import warnings
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

with warnings.catch_warnings():  # in a kernel its progress bars miss widgets that nobody needs
    warnings.simplefilter("ignore")
    from torch_geometric.nn import DenseGINConv

ACTIVATIONS = ("sigmoid", "softmax")


class Arch2vec(nn.Module):
    """The autoencoder.

    Parameters
    ----------
    vertices, operations
        V rows of a padded cell (NAS-Bench-101: 7) and O columns of the one-hot (5).
    hidden, latent, layers
        Width of the GIN layers, width L of a latent row, number of GIN layers.
    dropout
        On Z in the decoder.
    activation
        Of the decoded operations: `sigmoid` as the authors ran it, or `softmax` as in Table 3.
    """

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
        self.convolutions = nn.ModuleList(
            DenseGINConv(_perceptron(vertices, before, after), train_eps=True)
            for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(layers))
        self.mu = nn.Linear(widths[-1], latent)
        self.log_std = nn.Linear(widths[-1], latent)
        self.dropout = nn.Dropout(dropout)
        self.operations = nn.Linear(latent, operations)

    def encode(self, adjacency: Tensor, operations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the latent matrix, both (B, V, L).

        `adjacency` is (B, V, V), upper triangular; `operations` the one-hot (B, V, O).
        """
        both_ways = adjacency + adjacency.transpose(1, 2)
        x = operations
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(x, both_ways)  # (B, V, hidden)
            x = F.relu(norm(x.flatten(0, 1))).view(x.shape)  # statistics over B * V rows
        return self.mu(x), self.log_std(x)

    def sample(self, mu: Tensor, log_std: Tensor) -> Tensor:
        """Z from torch's random state in training, mu in evaluation; (B, V, L)."""
        return mu + log_std.exp() * torch.randn_like(mu) if self.training else mu

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of edges (B, V, V), symmetric, and of operations (B, V, O)."""
        z = self.dropout(z)
        logits = self.operations(z)
        operations = logits.softmax(-1) if self.activation == "softmax" else logits.sigmoid()
        return torch.bmm(z, z.transpose(1, 2)).sigmoid(), operations


def loss(
    decoded: tuple[Tensor, Tensor],
    adjacency: Tensor,
    operations: Tensor,
    mu: Tensor,
    log_std: Tensor,
) -> Tensor:
    """Reconstruction loss and KL term (Equation 3, as METHOD section 2 spells it out).

    Binary cross-entropy of operations, its mean over (B, V, O); of edges over the upper triangle,
    where the rest counts in the mean over (B, V, V) but adds nothing; and `kl_term`.
    """
    edges, predicted = decoded
    reconstruction = F.binary_cross_entropy(predicted, operations) + F.binary_cross_entropy(
        edges.triu(1), adjacency
    )
    return reconstruction + kl_term(mu, log_std)


def kl_term(mu: Tensor, log_std: Tensor) -> Tensor:
    """Divergence from N(0, 1), (B, V, L) -> scalar: divided by B * V once more than a mean is."""
    divergence = (1 + 2 * log_std - mu.square() - (2 * log_std).exp()).sum(2)  # (B, V)
    return -0.5 / divergence.numel() * divergence.mean()


def _perceptron(vertices: int, before: int, after: int) -> nn.Sequential:
    """Two-layer perceptron on (B, V, before), normalised over all B * V rows."""
    return nn.Sequential(
        nn.Flatten(0, 1),
        nn.Linear(before, after),
        nn.BatchNorm1d(after),
        nn.ReLU(),
        nn.Linear(after, after),
        nn.Unflatten(0, (-1, vertices)),
    )
