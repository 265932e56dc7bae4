"""What is measured of the embedding models: reconstruction, validity, uniqueness, labeled losses.

All metrics but the drawn ones are computed in evaluation mode, where Z is mu.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ionas.embedding.accuracy_model import AccuracyModel
from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.io_model import IOModel
from ionas.space.cells import (
    MAX_EDGES,
    MAX_VERTICES,
    NASBENCH201,
    OPERATIONS,
    OUTPUT,
    PADDING,
    CellSet,
)

EVALUATION_BATCH = 512  # activations of a layer fit the cache: a third faster than 4096
THRESHOLD = 0.5  # above it an edge is drawn


@dataclass(frozen=True)
class Labeled:
    """Labeled networks on images.

    Attributes
    ----------
    networks
        (n,) int64, rows of the networks in the cell tensors.
    pixels
        (I, C, H, W) float32 images.
    outputs
        (n, I, k) float32 targets of the IO model.
    accuracy
        (n,) float32 targets of the Accuracy model: mean test accuracy.
    """

    networks: Tensor
    pixels: Tensor
    outputs: Tensor
    accuracy: Tensor

    def __post_init__(self) -> None:
        if self.outputs.shape[:2] != (len(self.networks), len(self.pixels)) or len(
            self.accuracy
        ) != len(self.networks):
            raise ValueError(
                f"outputs of shape {tuple(self.outputs.shape)} and {len(self.accuracy)} accuracies "
                f"do not fit {len(self.networks)} networks and {len(self.pixels)} images"
            )

    def __len__(self) -> int:
        return len(self.networks) * len(self.pixels)

    def to(self, device: str) -> "Labeled":
        """Copy to a device, images with their channels last: convolutions are faster on them."""
        return Labeled(
            self.networks.to(device),
            self.pixels.to(device, memory_format=torch.channels_last),
            self.outputs.to(device),
            self.accuracy.to(device),
        )


def vae_of(model: nn.Module) -> Arch2vec:
    """The autoencoder of a model, which for arch2vec is the model."""
    vae = model if isinstance(model, Arch2vec) else model.vae
    assert isinstance(vae, Arch2vec)
    return vae


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and back afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def encode(model: nn.Module, adjacency: Tensor, operations: Tensor) -> Tensor:
    """Mu of cells: (N, V, V) and (N, V, O) -> (N, V, L), in evaluation mode."""
    vae = vae_of(model)
    with evaluating(model):
        blocks = zip(
            adjacency.split(EVALUATION_BATCH), operations.split(EVALUATION_BATCH), strict=True
        )
        return torch.cat([vae.encode(*block)[0] for block in blocks])


def reconstruction(model: nn.Module, adjacency: Tensor, operations: Tensor) -> dict[str, float]:
    """How well cells are decoded from their mu (paper, Table 4).

    Returns
    -------
    dict
        `operation_accuracy`: share of the V positions of a cell whose largest operation is right;
        a padded position counts, and its target reads as `input` (METHOD section 2).
        `operation_accuracy_real`: the same over real vertices.
        `adjacency_accuracy`: share of entries above the diagonal that are right at 0.5.
        `edges_mean`, `non_edges_mean`: mean predicted value there; NaN where there are none.
    """
    mu = encode(model, adjacency, operations)
    totals = torch.zeros(8, dtype=torch.float64)
    upper = torch.triu_indices(adjacency.shape[1], adjacency.shape[1], 1, device=adjacency.device)
    for z, edges, one_hot in zip(
        mu.split(EVALUATION_BATCH),
        adjacency.split(EVALUATION_BATCH),
        operations.split(EVALUATION_BATCH),
        strict=True,
    ):
        with evaluating(model):
            predicted, named = vae_of(model).decode(z)
        right = named.argmax(2) == one_hot.argmax(2)  # (B, V)
        real = one_hot.sum(2) > 0
        predicted, edges = predicted[:, *upper], edges[:, *upper]  # (B, V (V - 1) / 2)
        agree = (predicted > THRESHOLD) == (edges > THRESHOLD)
        sums = [right, right & real, real, agree, predicted * edges, edges, predicted * (1 - edges)]
        totals += torch.tensor(
            [*torch.stack([part.sum() for part in sums]).tolist(), edges.numel()]
        )
    right_all, right_real, n_real, n_agree, on_edges, n_edges, off_edges, n_entries = (
        totals.tolist()
    )
    return {
        "operation_accuracy": right_all / (mu.shape[0] * mu.shape[1]),
        "operation_accuracy_real": right_real / n_real,
        "adjacency_accuracy": n_agree / n_entries,
        "edges_mean": _ratio(on_edges, n_edges),
        "non_edges_mean": _ratio(off_edges, n_entries - n_edges),
    }


def draw(
    model: nn.Module, mean: Tensor, std: Tensor, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Decode random latent matrices: N(0, 1) times the deviation plus the mean of the mus.

    Parameters
    ----------
    mean, std
        (V, L), over the mus of the training cells.
    samples, seed
        Number of draws S and their seed.

    Returns
    -------
    adjacency
        (S, V, V) uint8, upper triangular, edges above 0.5.
    operations
        (S, V) int8, index into the operations of the space.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, *mean.shape, generator=generator)
    edges, named = [], []
    with evaluating(model):
        for block in noise.split(EVALUATION_BATCH):
            adjacency, operations = vae_of(model).decode(block.to(mean.device) * std + mean)
            edges.append((adjacency > THRESHOLD).triu(1).to(torch.uint8).cpu())
            named.append(operations.argmax(2).to(torch.int8).cpu())
    return torch.cat(edges).numpy(), torch.cat(named).numpy()


def decode_cells(adjacency: np.ndarray, operations: np.ndarray) -> tuple[np.ndarray, CellSet]:
    """What `cells.decode_cell` does, for all drawings at once.

    Parameters
    ----------
    adjacency, operations
        (S, V, V) of 0 and 1, and (S, V) indices into the operations of the space, V at most 7, or
        8 for NAS-Bench-201.

    Returns
    -------
    valid
        (S,) bool, whether the drawing is a cell.
    cells
        The valid ones, pruned, in order.
    """
    vertices = operations.shape[1]
    if vertices == NASBENCH201.vertices:
        drawn = CellSet(np.triu(adjacency, 1), operations)
        return drawn.valid(), drawn[drawn.valid()]
    is_output = operations == OPERATIONS.index(OUTPUT)
    last = is_output.argmax(1)  # the cell ends at the first output
    position = np.arange(vertices)
    inside = position <= last[:, None]  # (S, V)
    inner = inside & (position > 0) & (position < last[:, None])
    named = (operations > 0) & (operations < OPERATIONS.index(OUTPUT))
    edges = np.triu(adjacency != 0, 1) & inside[:, :, None] & inside[:, None, :]
    keep = _on_paths(edges, last)
    edges &= keep[:, :, None] & keep[:, None, :]
    valid = (
        is_output.any(1)
        & (operations[:, 0] == 0)
        & (last > 0)
        & (named | ~inner).all(1)
        & keep[:, 0]
        & (edges.sum((1, 2)) <= MAX_EDGES)
    )
    keep, edges, operations = keep[valid], edges[valid], operations[valid]
    order = np.argsort(~keep, 1, kind="stable")  # kept vertices first
    row = np.arange(len(order))[:, None]
    packed = np.zeros((len(order), MAX_VERTICES, MAX_VERTICES), np.uint8)
    packed[:, :vertices, :vertices] = edges[row[:, :, None], order[:, :, None], order[:, None, :]]
    codes = np.full((len(order), MAX_VERTICES), PADDING, np.int8)
    codes[:, :vertices] = np.where(keep[row, order], operations[row, order], PADDING)
    return valid, CellSet(packed, codes)


def whole_cells(adjacency: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Which drawings the authors call valid: those whose last position is the output.

    Their check takes all V positions for the cell, prunes what is on no path from the first to the
    last, and looks at the rest (METHOD section 1). A cell of fewer vertices than V, whose output
    stands earlier and is followed by padding, never passes.

    Parameters
    ----------
    adjacency, operations
        As in `decode_cells`.

    Returns
    -------
    (S,) bool
    """
    vertices = operations.shape[1]
    if vertices == NASBENCH201.vertices:
        return CellSet(np.triu(adjacency, 1), operations).valid()
    output = OPERATIONS.index(OUTPUT)
    edges = np.triu(adjacency != 0, 1)
    keep = _on_paths(edges, np.full(len(edges), vertices - 1))
    edges &= keep[:, :, None] & keep[:, None, :]
    named = (operations > 0) & (operations < output)
    return (
        keep[:, 0]
        & (operations[:, 0] == 0)
        & (operations[:, -1] == output)
        & (named | ~keep)[:, 1:-1].all(1)
        & (edges.sum((1, 2)) <= MAX_EDGES)
    )


def validity(adjacency: np.ndarray, operations: np.ndarray) -> dict[str, float]:
    """Shares of drawings (as `draw` gives them) that are cells and that differ from each other.

    Returns
    -------
    dict
        `validity`: share of drawings that are cells, of any number of vertices.
        `uniqueness`: share of distinct cells among those, by their graph hash.
        `validity_whole`: share of drawings that are cells as a whole, as the authors count.
        `uniqueness_whole`: share of distinct graphs among those, by the hash of the drawing before
        pruning, as the authors count.
        The uniquenesses are NaN if no drawing is valid.
    """
    valid, cells = decode_cells(adjacency, operations)
    whole = whole_cells(adjacency, operations)
    drawings = CellSet(np.triu(adjacency[whole], 1), operations[whole])
    return {
        "validity": len(cells) / len(valid),
        "uniqueness": _ratio(len(np.unique(cells.hashes)), len(cells)),
        "validity_whole": float(whole.mean()),
        "uniqueness_whole": _ratio(len(np.unique(drawings.hashes)), len(drawings)),
    }


def _on_paths(edges: np.ndarray, last: np.ndarray) -> np.ndarray:
    """(S, V) whether a vertex is on a path from the first vertex to the (S,) last ones."""
    count, vertices = edges.shape[:2]
    forward = np.arange(vertices) == np.zeros((count, 1))
    backward = np.arange(vertices) == last[:, None]
    for v in range(vertices):
        forward[:, v] |= (forward & edges[:, :, v]).any(1)
    for v in reversed(range(vertices)):
        backward[:, v] |= (backward & edges[:, v]).any(1)
    return forward & backward


def labeled_loss(
    model: nn.Module, adjacency: Tensor, operations: Tensor, labeled: Labeled
) -> float:
    """Mean squared error of an IO or Accuracy model on labeled networks, in evaluation mode.

    `adjacency` (N, V, V) and `operations` (N, V, O) hold all cells, on the device of the rest.
    Features of an image are computed once, and so is the mu of a network.
    """
    z = encode(model, adjacency[labeled.networks], operations[labeled.networks])
    with evaluating(model):
        if isinstance(model, AccuracyModel):
            return float((model.predict(z) - labeled.accuracy).square().mean())
        assert isinstance(model, IOModel)
        features = torch.cat(
            [model.image_features(block) for block in labeled.pixels.split(EVALUATION_BATCH // 8)]
        )
        images = len(features)
        sums = []
        step = max(1, EVALUATION_BATCH // images)
        for block, outputs in zip(z.split(step), labeled.outputs.split(step), strict=True):
            predicted = model.predict(
                block.repeat_interleave(images, 0), features.repeat(len(block), 1)
            )
            sums.append((predicted - outputs.flatten(0, 1)).square().sum())
    return sum(torch.stack(sums).tolist()) / labeled.outputs.numel()


def baseline(targets: Tensor) -> float:
    """MSE of the mean target of a set (Figure 10): (n, I, k) outputs or (n,) accuracies."""
    rows = targets.reshape(-1, targets.shape[-1] if targets.dim() > 1 else 1).double().cpu()
    return float((rows - rows.mean(0)).square().mean())


def labeled_losses(
    models: Mapping[int, nn.Module],
    adjacency: Tensor,
    operations: Tensor,
    tests: Mapping[str, Labeled],
) -> pd.DataFrame:
    """Table 5: losses of IO models by seed on labeled test sets.

    Returns
    -------
    DataFrame
        `set`, `seed`, `loss`, `baseline`.
    """
    return pd.DataFrame(
        [
            (name, seed, labeled_loss(model, adjacency, operations, labeled), base)
            for name, labeled in tests.items()
            for base in [baseline(labeled.outputs)]
            for seed, model in models.items()
        ],
        columns=["set", "seed", "loss", "baseline"],
    )


def last_epochs(history: pd.DataFrame) -> pd.DataFrame:
    """Rows of a history (columns `model`, `epoch`) of the last epoch of each model."""
    return history[history["epoch"] == history.groupby("model")["epoch"].transform("max")]


def over_seeds(table: pd.DataFrame, by: list[str], value: str = "value") -> pd.DataFrame:
    """Mean over seeds with its 95 % interval by Student's t, since seeds are few.

    Its half-width is 12.7 standard errors for two seeds, 4.30 for three, 1.96 for many.

    Returns
    -------
    DataFrame
        The columns `by`, and `mean`, `std`, `low`, `high`, `seeds`. With one seed `std`, `low` and
        `high` are NaN.
    """
    from scipy.stats import t

    groups = table.groupby(by, sort=False)[value]
    result = groups.agg(mean="mean", std="std", seeds="count").reset_index()
    factor = t.ppf(0.975, (result["seeds"] - 1).clip(lower=1))
    half = factor * result["std"] / np.sqrt(result["seeds"])
    return result.assign(low=result["mean"] - half, high=result["mean"] + half)


def unseen_trend(curves: pd.DataFrame, baseline: float) -> dict[str, float]:
    """How the losses of the IO model on unseen images and on unseen networks went (Fig. 10).

    Parameters
    ----------
    curves
        Of the IO model: `metric`, `epoch` and `mean`, as from `over_seeds`.
    baseline
        Of the unseen networks.

    Returns
    -------
    dict
        `images`, `networks`: last loss over the first, less 1; `beyond`: last loss on networks over
        the baseline, less 1.
    """
    losses = {
        name: curves[curves["metric"] == f"labels_unseen_{name}"].sort_values("epoch")["mean"]
        for name in ("images", "networks")
    }
    change = {name: loss.iloc[-1] / loss.iloc[0] - 1 for name, loss in losses.items()}
    return {**change, "beyond": losses["networks"].iloc[-1] / baseline - 1}


def gaps(
    metrics: pd.DataFrame, models: Sequence[str], names: Sequence[str], least: float = 0.01
) -> pd.DataFrame:
    """Largest differences between models in some metrics (Table 4).

    Parameters
    ----------
    metrics
        `model`, `metric`, `mean`, `high`, as from `over_seeds`.
    least
        What no difference matters below.

    Returns
    -------
    DataFrame
        By metric: `gap`, the largest difference of two means; `apart`, whether it is above `least`
        and above the widest interval of these models, so far as one is known.
    """
    chosen = metrics[metrics["model"].isin(models)]
    groups = chosen.assign(width=2 * (chosen["high"] - chosen["mean"])).groupby("metric")
    gap = groups["mean"].max() - groups["mean"].min()
    apart = gap > groups["width"].max().clip(lower=least).fillna(least)
    return pd.DataFrame({"gap": gap, "apart": apart}).loc[list(names)]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
