"""Embeddings of cells by trained models (paper, appendix G; METHOD section 8).

`mean` is the mean of mu over a cell's vertices; `flatten` is the dense layer on the flattened mu,
before its ReLU, which only the IO and Accuracy models have.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from ionas.benchmark.summaries import hexagon_medians, neighbor_correlation
from ionas.benchmark.table import Table
from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.data import tensors_of
from ionas.embedding.metrics import Model, encode, evaluating
from ionas.embedding.training import MODELS, load
from ionas.parameters import EmbeddingTraining

EMBEDDINGS = (
    "io_mean",
    "io_flatten",
    "accuracy_mean",
    "accuracy_flatten",
    "arch2vec",
    "arch2vec_original",
    "arch2vec_original_eval",
)


def extract(
    name: str, model: Model, adjacency: Tensor, operations: Tensor
) -> dict[str, np.ndarray]:
    """Embeddings of cells (N, V, V) and (N, V, O) by one model: name -> (N, L) float32.

    Of `arch2vec_original` also the `latent` matrix, mu of every vertex side by side: (N, V * L).
    """
    mu = encode(model, adjacency, operations)  # (N, V, L)
    if isinstance(model, Arch2vec):
        found = {name: mu.mean(1)}
    else:
        with evaluating(model):
            found = {f"{name}_mean": mu.mean(1), f"{name}_flatten": model.flatten(mu.flatten(1))}
    if name == "arch2vec_original":
        found["latent"] = mu.flatten(1)
    return {key: values.numpy() for key, values in found.items()}


def extract_all(
    table: Table, trained: Mapping[str, np.ndarray], p: EmbeddingTraining
) -> dict[str, np.ndarray]:
    """Embed every cell of a table by all models that `train_all` trained.

    Returns the results of `extract` under the names `EMBEDDING_seedS` and `latent_seedS`.
    """
    cells = tensors_of(table.cells)
    return {
        f"{key}_seed{seed}": values
        for seed in p.seeds
        for name in MODELS
        for key, values in extract(name, load(trained, name, seed, p), *cells).items()
    }


def maps(
    table: Table, embeddings: Mapping[str, np.ndarray], seed: int, most: int = 3000
) -> pd.DataFrame:
    """Map cells to the plane of each embedding's first two principal components, by hexagons.

    The embeddings are those of the training with the given seed; at most `most` cells with a test
    accuracy are taken, evenly spaced. Returns `embedding` and the columns of `hexagon_medians`;
    `neighbors`, the result of `neighbor_correlation`; `variance`, the plane's share of it.
    """
    from sklearn.decomposition import PCA

    accuracy = table.values("test_accuracy")
    known = np.flatnonzero(np.isfinite(accuracy))
    rows = known[np.unique(np.linspace(0, len(known) - 1, min(most, len(known))).astype(int))]
    frames = []
    for name in EMBEDDINGS:
        values = embeddings[f"{name}_seed{seed}"][rows].astype(np.float64)
        pca = PCA(2, svd_solver="full")
        frame = hexagon_medians(pca.fit_transform(values), accuracy[rows])
        frames.append(
            frame.assign(
                embedding=name,
                neighbors=neighbor_correlation(values, accuracy[rows]),
                variance=pca.explained_variance_ratio_.sum(),
            )
        )
    return pd.concat(frames, ignore_index=True)
