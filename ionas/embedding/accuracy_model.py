"""The Accuracy model (paper, appendix E): arch2vec that also predicts a network's test accuracy.

cell -> arch2vec -> Z, flattened -> dense, ReLU -> dense, ReLU -> dense, sigmoid -> accuracy
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.data import Labeled


class AccuracyModel(nn.Module):
    """An arch2vec with a second output for labeled networks, by a head without dropout."""

    def __init__(self, vae: Arch2vec, embedding: int = 16, hidden: int = 512) -> None:
        super().__init__()
        self.vae = vae
        self.flatten = nn.Linear(vae.vertices * vae.latent, embedding)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(embedding, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid()
        )

    def predict(self, z: Tensor) -> Tensor:
        """Test accuracy, between 0 and 1: Z (B, V, L) -> (B,)."""
        return self.head(self.flatten(z.flatten(1))).squeeze(1)

    def label_loss(self, z: Tensor, labeled: Labeled, networks: Tensor, images: Tensor) -> Tensor:
        """Mean squared error on a batch of pairs; the images are not used."""
        return F.mse_loss(self.predict(z), labeled.accuracy[networks])
