"""A small data set for the tests of the embedding models: real cells, made-up outputs."""

from dataclasses import replace
from typing import Any

import torch

from ionas.embedding.data import Data, Labeled
from ionas.parameters import EmbeddingTraining
from ionas.space.cells import cell_tensors, enumerate_cells

SMALL = EmbeddingTraining(
    epochs=2,
    original_epochs=2,
    batch_size=8,
    labeled_run=3,
    unlabeled_run=2,
    hidden=16,
    latent=4,
    layers=2,
    embedding=5,
    image_channels=4,
    image_steps=1,
    head_hidden=8,
    accuracy_hidden=8,
    validity_samples=50,
)


def small_data(vertices: int = 4) -> Data:
    """All cells of at most 4 vertices; 10 labeled networks on 6 images, 3 outputs each."""
    adjacency, operations = (tensor[:, :vertices] for tensor in cell_tensors(enumerate_cells(4)))
    adjacency = adjacency[:, :, :vertices]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(adjacency), generator=generator)
    pixels = torch.randn(10, 1, 8, 8, generator=generator)
    depth = adjacency.sum((1, 2)) / 10

    def labeled(networks: torch.Tensor, images: slice) -> Labeled:
        means = pixels[images].mean((1, 2, 3))
        outputs = depth[networks][:, None, None] + means[:, None] * torch.tensor([1.0, -1, 2])
        return Labeled(networks, pixels[images], outputs, depth[networks])

    return Data(
        adjacency,
        operations,
        train=order[:80],
        unlabeled=order[10:80],
        validation=order[80:],
        labeled=labeled(order[:10], slice(0, 6)),
        watched={
            "unseen_networks": labeled(order[80:85], slice(0, 6)),
            "unseen_images": labeled(order[:4], slice(6, 10)),
        },
    )


def data_of_both(data: Data) -> dict[str, Data]:
    """The same data for every model; to the Accuracy model, new images make no new set."""
    watched = {"unseen_networks": data.watched["unseen_networks"]}
    return {"io": data, "accuracy": replace(data, watched=watched)}


def changed(p: EmbeddingTraining, **values: Any) -> EmbeddingTraining:
    """The same parameters but for some, checked."""
    return EmbeddingTraining(**p.model_dump() | values)
