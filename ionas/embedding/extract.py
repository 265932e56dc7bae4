"""Vectors of cells, read off trained models (paper, appendix G; METHOD section 8).

`mean` is the mean of mu over a cell's vertices; `flatten` is the dense layer on the flattened mu,
before its ReLU, which only the IO and Accuracy models have.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.metrics import encode, evaluating

EMBEDDINGS = (
    "io_mean",
    "io_flatten",
    "accuracy_mean",
    "accuracy_flatten",
    "arch2vec",
    "arch2vec_original",
)


def latent_matrix(model: nn.Module, adjacency: Tensor, operations: Tensor) -> np.ndarray:
    """Mu of every vertex side by side: (N, V, V) and (N, V, O) -> (N, V * L) float32."""
    return encode(model, adjacency, operations).flatten(1).cpu().numpy()


def extract(
    models: Mapping[str, nn.Module], adjacency: Tensor, operations: Tensor
) -> dict[str, np.ndarray]:
    """Embeddings of every cell by every model.

    Parameters
    ----------
    models
        Trained models by name (`io`, `accuracy`, `arch2vec`, `arch2vec_original`).
    adjacency, operations
        (N, V, V) and (N, V, O), on the device of the models.

    Returns
    -------
    dict
        Embedding name -> (N, L) float32, in the order of EMBEDDINGS.
    """
    found = {}
    for name, model in models.items():
        mu = encode(model, adjacency, operations)  # (N, V, L)
        if isinstance(model, Arch2vec):
            found[name] = mu.mean(1).cpu().numpy()
            continue
        found[f"{name}_mean"] = mu.mean(1).cpu().numpy()
        with evaluating(model):
            found[f"{name}_flatten"] = model.flatten(mu.flatten(1)).cpu().numpy()  # type: ignore[operator]
    return {name: found[name] for name in EMBEDDINGS if name in found}


def project(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Draw an embedding in the plane: its two first principal components.

    Parameters
    ----------
    values
        (N, L), L at least 2.

    Returns
    -------
    points
        (N, 2); the largest entry of each axis is positive, so that the same values give the same
        picture on any machine.
    share
        Of the variance that the two components hold.
    """
    centered = np.asarray(values, np.float64) - np.mean(values, 0, dtype=np.float64)
    _, lengths, axes = np.linalg.svd(centered, full_matrices=False)
    axes = axes[:2] * np.sign(axes[[0, 1], np.abs(axes[:2]).argmax(1)])[:, None]
    total = np.square(lengths).sum()
    return centered @ axes.T, float(np.square(lengths[:2]).sum() / total) if total else 1.0


def shown_on_map(accuracy: np.ndarray, most: int = 3000) -> np.ndarray:
    """Rows of the cells that a map shows: those with an accuracy, evenly thinned to `most`."""
    known = np.flatnonzero(np.isfinite(accuracy))
    return known[np.unique(np.linspace(0, len(known) - 1, min(most, len(known))).astype(int))]
