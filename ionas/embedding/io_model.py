"""The IO model (paper, Figure 1): arch2vec that also predicts the outputs of a network on an image.

- Image: conv 3x3, batch norm, ReLU; then twice (conv 3x3, batch norm, ReLU, conv 3x3 of stride 2 to
  double width, batch norm, ReLU); then the mean over pixels.
- Cell: arch2vec; Z, flattened; dense, ReLU.
- Both, concatenated: dense; then twice (ReLU, dropout, dense) to the outputs.
"""

import torch
from torch import Tensor, nn

from ionas.embedding.arch2vec import Arch2vec


class IOModel(nn.Module):
    """An arch2vec with a second output for labeled networks.

    Parameters
    ----------
    vae
        The shared autoencoder, V vertices and latent width L.
    in_channels
        Colour channels of the images.
    channels, steps
        First width of the image tower (paper: 128) and how often it doubles (2).
    embedding
        Width of the flatten embedding (16).
    hidden, dropout
        Width of the head (512), dropout in it (0.5).
    outputs
        Output features per pair of network and image (10).
    """

    def __init__(
        self,
        vae: Arch2vec,
        in_channels: int = 3,
        channels: int = 128,
        steps: int = 2,
        embedding: int = 16,
        hidden: int = 512,
        dropout: float = 0.5,
        outputs: int = 10,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.tower = nn.Sequential(
            *_convolution(in_channels, channels, 1),
            *(
                layer
                for step in range(steps)
                for width in [channels * 2**step]
                for layer in _convolution(width, width, 1) + _convolution(width, 2 * width, 2)
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.flatten = nn.Linear(vae.vertices * vae.latent, embedding)
        self.head = nn.Sequential(
            nn.Linear(channels * 2**steps + embedding, hidden),
            *_head_step(hidden, hidden, dropout),
            *_head_step(hidden, outputs, dropout),
        )

    def image_features(self, pixels: Tensor) -> Tensor:
        """Pooled features of images: (B, C, H, W) -> (B, channels * 2^steps)."""
        return self.tower(pixels)

    def predict(self, z: Tensor, features: Tensor) -> Tensor:
        """Outputs of pairs: Z (B, V, L) and features (B, F) of the images -> (B, outputs)."""
        embedding = self.flatten(z.flatten(1)).relu()
        return self.head(torch.cat([features, embedding], 1))


def _convolution(before: int, after: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride=stride, padding=1),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]


def _head_step(before: int, after: int, dropout: float) -> list[nn.Module]:
    return [nn.ReLU(), nn.Dropout(dropout), nn.Linear(before, after)]
