"""Metrics of the embedding models: reconstruction, validity, uniqueness, losses on labels.

All are computed in evaluation mode, where Z is mu unless it is drawn at random.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ionas.embedding.accuracy_model import AccuracyModel
from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.data import Labeled
from ionas.embedding.io_model import IOModel
from ionas.space.cells import CellSet, decode_cells, valid_as_in_paper

Model = Arch2vec | IOModel | AccuracyModel

EVALUATION_BATCH = 512  # activations of a layer fit the cache, a third faster than 4096
THRESHOLD = 0.5  # probability above which there is an edge


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and back afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def encode(model: Model, adjacency: Tensor, operations: Tensor) -> Tensor:
    """Compute mu of cells in evaluation mode: (N, V, V) and (N, V, O) -> (N, V, L)."""
    with evaluating(model):
        return torch.cat([model.vae.encode(*block)[0] for block in _blocks(adjacency, operations)])


def reconstruction(model: Model, adjacency: Tensor, operations: Tensor) -> dict[str, float]:
    """Measure how well cells are decoded from their mu (paper, Table 4).

    Returns `operation_accuracy`, the share of the V positions of a cell whose largest operation is
    right, where a padded position counts and its target is `input` (METHOD section 2);
    `operation_accuracy_real`, the same over real vertices; `adjacency_accuracy`, the share of
    entries above the diagonal that are right at 0.5; `edges_mean` and `non_edges_mean`, the mean
    predicted value where there is an edge and where there is none, NaN without such entries.
    """
    totals = torch.zeros(7, dtype=torch.float64)
    cells, vertices, _ = operations.shape
    upper = torch.triu_indices(vertices, vertices, 1, device=adjacency.device)
    with evaluating(model):
        for block in _blocks(adjacency, operations):
            predicted, named = model.vae.decode(model.vae.encode(*block)[0])
            right = named.argmax(2) == block[1].argmax(2)  # (B, V)
            real = block[1].sum(2) > 0
            predicted, edges = (part[:, *upper] for part in (predicted, block[0]))
            agree = (predicted > THRESHOLD) == (edges > THRESHOLD)  # (B, V (V - 1) / 2)
            on, off = predicted * edges, predicted * (1 - edges)
            sums = [part.sum() for part in (right, right & real, real, agree, on, edges, off)]
            totals += torch.stack(sums).cpu()
    n_right, n_right_real, n_real, n_agree, on_edges, n_edges, off_edges = totals.tolist()
    entries = cells * upper.shape[1]
    return {
        "operation_accuracy": n_right / (cells * vertices),
        "operation_accuracy_real": n_right_real / n_real,
        "adjacency_accuracy": n_agree / entries,
        "edges_mean": _ratio(on_edges, n_edges),
        "non_edges_mean": _ratio(off_edges, entries - n_edges),
    }


def draw(
    model: Model, mean: Tensor, std: Tensor, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Decode random latent matrices with the `mean` and standard deviation of mu, (V, L) each.

    Returns adjacency (samples, V, V) uint8, upper triangular, and operations (samples, V) int8,
    indices into the operations of the space.
    """
    noise = torch.randn(samples, *mean.shape, generator=torch.Generator().manual_seed(seed))
    edges, named = [], []
    with evaluating(model):
        for (block,) in _blocks(noise):
            adjacency, operations = model.vae.decode(block.to(mean.device) * std + mean)
            edges.append((adjacency > THRESHOLD).triu(1).to(torch.uint8).cpu())
            named.append(operations.argmax(2).to(torch.int8).cpu())
    return torch.cat(edges).numpy(), torch.cat(named).numpy()


def validity(adjacency: np.ndarray, operations: np.ndarray) -> dict[str, float]:
    """Shares of decoded graphs, as `draw` returns them, that are valid and that are distinct.

    Returns `validity`, the share of graphs that are cells, of any number of vertices; `uniqueness`,
    the share of distinct cells among those, by their graph hash; `validity_as_in_paper`, the share
    that the authors count as cells (`valid_as_in_paper`); `uniqueness_as_in_paper`, the share of
    distinct graphs among those, by the hash of the graph before pruning, as the authors count. A
    uniqueness is NaN if no graph is valid.
    """
    valid, cells = decode_cells(adjacency, operations)
    whole = valid_as_in_paper(adjacency, operations)
    unpruned = CellSet(np.triu(adjacency[whole], 1), operations[whole])
    return {
        "validity": len(cells) / len(valid),
        "uniqueness": _ratio(len(np.unique(cells.hashes)), len(cells)),
        "validity_as_in_paper": float(whole.mean()),
        "uniqueness_as_in_paper": _ratio(len(np.unique(unpruned.hashes)), len(unpruned)),
    }


def labeled_loss(model: Model, adjacency: Tensor, operations: Tensor, labeled: Labeled) -> float:
    """Mean squared error of an IO or Accuracy model on labeled networks, in evaluation mode.

    `adjacency` (N, V, V) and `operations` (N, V, O) hold all cells, on the device of the model. The
    features of each image and the mu of each network are computed once.
    """
    z = encode(model, adjacency[labeled.networks], operations[labeled.networks])
    with evaluating(model):
        if isinstance(model, AccuracyModel):
            return float((model.predict(z) - labeled.accuracy).square().mean())
        assert isinstance(model, IOModel)
        pixels = labeled.pixels.split(EVALUATION_BATCH // 8)
        features = torch.cat([model.tower(block) for block in pixels])
        images, sums = len(features), []
        step = max(1, EVALUATION_BATCH // images)
        for block, outputs in zip(z.split(step), labeled.outputs.split(step), strict=True):
            predicted = model.predict(
                block.repeat_interleave(images, 0), features.repeat(len(block), 1)
            )
            sums.append((predicted - outputs.flatten(0, 1)).square().sum())
    return sum(torch.stack(sums).tolist()) / labeled.outputs.numel()


def last_epochs(history: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of a history, with `model` and `epoch`, of the last epoch of each model."""
    return history[history["epoch"] == history.groupby("model")["epoch"].transform("max")]


def labeled_curves(history: pd.DataFrame, model: str) -> pd.DataFrame:
    """Losses on labels by epoch (Figs 10 and 11): `set`, `seed`, `epoch`, `loss` of one model."""
    found = history[history["metric"].str.startswith("labels_") & (history["model"] == model)]
    found = found[found["metric"] != "labels_running"]
    found = found.assign(set=found["metric"].str.removeprefix("labels_"))
    return found[["set", "seed", "epoch", "value"]].rename(columns={"value": "loss"})


def simple_answers(sets: pd.DataFrame) -> pd.DataFrame:
    """Mean squared errors of predictions that need no model, by set.

    `sets` is the result of `io_dataset.set_table`; its sets get the names that a history has. A
    model whose loss is below `network_blind` (for each image the mean over the train networks) has
    learned something of the networks; below `image_blind`, something of the images.
    """
    named = sets.assign(set=sets["set"].str.replace(" ", "_")).set_index("set")
    return named[["baseline", "network_blind", "image_blind"]]


def courses(curves: pd.DataFrame) -> pd.DataFrame:
    """Summarise the course of the losses of `labeled_curves` on unseen data.

    Returns a row for each `set` and `seed`: `loss` after the last epoch; `lowest` over epochs;
    `change`, last over first, less 1; `rises`, the number of the `steps` from epoch to epoch in
    which the loss went up.
    """
    rows = []
    unseen = curves[curves["set"] != "train"].sort_values("epoch")
    for (name, seed), losses in unseen.groupby(["set", "seed"])["loss"]:
        first, last, rises = losses.iloc[0], losses.iloc[-1], (np.diff(losses) > 0).sum()
        rows.append((name, seed, last, losses.min(), last / first - 1, rises, len(losses) - 1))
    columns = ["set", "seed", "loss", "lowest", "change", "rises", "steps"]
    return pd.DataFrame(rows, columns=columns)


def gaps_to_reference(final: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Metrics of the IO and Accuracy models minus those of arch2vec of the same seed (Table 4).

    `final` is the result of `last_epochs`; the columns are `model`, `seed`, `metric`, `gap`.
    """
    wide = final[final["metric"].isin(names)].pivot(
        index=["seed", "metric"], columns="model", values="value"
    )
    gaps = wide[["io", "accuracy"]].sub(wide["arch2vec"], axis=0).stack().rename("gap")
    return gaps.reset_index()[["model", "seed", "metric", "gap"]]


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(EVALUATION_BATCH) for tensor in tensors), strict=True)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
