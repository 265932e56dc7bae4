"""The IO model (paper, Figure 1): arch2vec that also predicts the outputs of a network on an image.

- Image: conv 3x3, batch norm, ReLU; then twice (conv 3x3, batch norm, ReLU, conv 3x3 of stride 2 to
  double width, batch norm, ReLU); then the mean over pixels. No convolution has a bias.
- Cell: arch2vec; Z, flattened; dense, ReLU.
- Both, concatenated: dense; then twice (ReLU, dropout, dense) to the outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.data import Labeled


class IOModel(nn.Module):
    """An arch2vec with a second output for labeled networks.

    Widths: `channels` of the image tower at first, doubled `steps` times; `embedding` of the
    flatten embedding; `hidden` of the head, whose dropout is `dropout`. Defaults are the paper's.
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
        layers = _convolution(in_channels, channels, 1)
        for step in range(steps):
            width = channels * 2**step
            layers += _convolution(width, width, 1) + _convolution(width, 2 * width, 2)
        self.tower = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.flatten = nn.Linear(vae.vertices * vae.latent, embedding)
        self.head = nn.Sequential(
            nn.Linear(channels * 2**steps + embedding, hidden),
            *_head_step(hidden, hidden, dropout),
            *_head_step(hidden, outputs, dropout),
        )

    def predict(self, z: Tensor, features: Tensor) -> Tensor:
        """Outputs of pairs: Z (B, V, L) and the tower's features of the images -> (B, outputs)."""
        embedding = self.flatten(z.flatten(1)).relu()
        return self.head(torch.cat([features, embedding], 1))

    def label_loss(self, z: Tensor, labeled: Labeled, networks: Tensor, images: Tensor) -> Tensor:
        """Mean squared error on a batch of pairs, positions of networks and images."""
        predicted = self.predict(z, self.tower(labeled.pixels[images]))
        return F.mse_loss(predicted, labeled.outputs[networks, images])


def _convolution(before: int, after: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]


def _head_step(before: int, after: int, dropout: float) -> list[nn.Module]:
    return [nn.ReLU(), nn.Dropout(dropout), nn.Linear(before, after)]
