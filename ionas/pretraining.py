"""Train the network of a cell on images, and many of them in parallel (appendix C, Table 1)."""

import hashlib
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ionas import parallel
from ionas.images import Images, ImageSet, augment, load_images, read_images, write_images
from ionas.networks import (
    CPU_BATCH,
    CellTable,
    Network,
    about_of,
    build,
    count_parameters,
    describe,
    to_bytes,
)
from ionas.parameters import Pretraining
from ionas.parts import read as read_part
from ionas.parts import write as write_part
from ionas.space.cells import Cell

# The parameters by which a network is built and trained; paper: Table 1.
RECIPE = (
    *("channels", "stacks", "cells_per_stack", "epochs", "batch_size"),
    *("learning_rate", "momentum", "weight_decay", "clip", "augment"),
)
PARTS = ("train", "validation", "test")


class Trained(NamedTuple):
    """A network in evaluation mode, its metrics, and the seconds of its training.

    The metrics are `train_accuracy`, `validation_accuracy`, `test_accuracy` (0 to 1),
    `trainable_parameters`, and `losses`, the mean train loss of every epoch. Seconds are processor
    time of this thread on a CPU, and wall time on other devices.
    """

    network: Network
    metrics: dict[str, Any]
    seconds: float


def train_network(
    cell: Cell, images: ImageSet, p: Pretraining, seed: int = 0, device: str = "cpu"
) -> Trained:
    """Train the network of one cell: SGD with momentum, cosine schedule stepped per epoch.

    The same `seed` gives the same bits on the same machine and thread count; `p.seed` is not used.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(cell, p, images.channels, len(images.classes)).to(device)
    generator = torch.Generator().manual_seed(seed)
    train = images.train.to(device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=p.learning_rate,
        momentum=p.momentum,
        weight_decay=p.weight_decay,
        foreach=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, p.epochs)
    clock = time.thread_time if torch.device(device).type == "cpu" else time.perf_counter
    start = clock()
    losses = []
    for _ in range(p.epochs):
        losses.append(_epoch(network, optimizer, train, images.black, p, generator))
        schedule.step()
    metrics: dict[str, Any] = {"losses": torch.stack(losses).tolist()}  # waits for the device
    seconds = clock() - start
    network.eval()
    accuracies = {f"{k}_accuracy": accuracy(network, getattr(images, k), device) for k in PARTS}
    metrics = {**accuracies, "trainable_parameters": count_parameters(network), **metrics}
    return Trained(network, metrics, seconds)


def _epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    train: Images,
    black: Tensor,
    p: Pretraining,
    generator: torch.Generator,
) -> Tensor:
    network.train()
    total = torch.zeros((), device=train.labels.device)
    order = torch.randperm(len(train), generator=generator)
    for batch in order.split(p.batch_size):
        index = batch.to(train.labels.device)
        pixels = train.pixels[index]
        if p.augment:
            pixels = augment(pixels, generator, black)
        loss = nn.functional.cross_entropy(network(pixels), train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), p.clip)
        optimizer.step()
        total += loss.detach() * len(index)
    return total / len(train)


@torch.inference_mode()
def accuracy(network: nn.Module, images: Images, device: str = "cpu") -> float:
    """Share of images whose class has the largest logit."""
    size = CPU_BATCH if torch.device(device).type == "cpu" else 512
    logits = torch.cat([network(batch.to(device)).cpu() for batch in images.pixels.split(size)])
    return (logits.argmax(1) == images.labels.cpu()).sum().item() / len(images)


def train_networks(
    table: CellTable,
    split: pd.DataFrame,
    images: Path | None,
    p: Pretraining,
    parts: Path,
    known: pd.DataFrame | None = None,
    jobs: int = 0,
    device: str = "cpu",
) -> pd.DataFrame:
    """Train the networks of labeled cells of a `table`, several at a time.

    As soon as a network is trained, it is kept with its metrics in the folder `parts`, which all
    workers must see, under the hash of its cell. A network that is there already, of the same cell,
    parameters and images, is not trained again: a killed call loses at most the networks that were
    being trained, and a call for more networks trains those that are missing. Nor is a network that
    is `known`, in the result of an earlier call.

    `split` is the result of `ionas.benchmark.split.split_cells`; `images` is a folder or ZIP file
    (None: digits). Returns a row per network: that of `labeled_rows`; `trained_from`, the hash of
    its cell, parameters and images; and the metrics of `Trained`.
    Raises ValueError if too few cells are labeled, the images cannot be used, or a worker does not
    see the folder.
    """
    rows = labeled_rows(split, p)
    parts.mkdir(parents=True, exist_ok=True)
    shared = parts.resolve() / "images.tmp"
    shared.unlink(missing_ok=True)  # of a killed call, whose workers may still read it
    digest = write_images(load(images, p), shared)
    cells = table.cells[rows["index"].to_numpy()]
    rows["trained_from"] = [_digest(_trained_from(cell, digest, p)) for cell in cells]
    metrics = {}
    if known is not None:
        metrics = known.set_index("trained_from").iloc[:, 3:].to_dict("index")
    missing = ~rows["trained_from"].isin(metrics).to_numpy()
    items = [(cell, shared, digest, p, device) for cell in cells[missing]]
    try:
        found = parallel.run(_train_part, items, jobs, "training networks", "network")
    finally:
        shared.unlink(missing_ok=True)
        _read_images.cache_clear()
    metrics |= dict(zip(rows["trained_from"][missing], found, strict=True))
    return rows.join(pd.DataFrame([metrics[key] for key in rows["trained_from"]]))


def _trained_from(cell: Cell, images: str, p: Pretraining) -> dict[str, Any]:
    parameters = p.model_dump(include={*RECIPE, "seed"})
    return {"cell": describe(cell), "parameters": parameters, "images": images}


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _train_part(
    cell: Cell, images: Path, digest: str, p: Pretraining, device: str
) -> dict[str, Any]:
    """Metrics of a network, which is trained and kept beside the images unless it is there."""
    folder = images.parent
    if not images.is_file():
        raise parallel.unseen(folder, "networks")
    key = _trained_from(cell, digest, p)
    kept = read_part(folder, cell.hash)
    if kept and key.items() <= (about := about_of(kept)).items():
        return about["metrics"]
    data = _read_images(images, digest)
    # The seed of a network is the same whatever other networks are trained beside it.
    seed = int(np.random.SeedSequence([p.seed, int(cell.hash, 16)]).generate_state(1)[0])
    network, metrics, seconds = train_network(cell, data, p, seed, device)
    about = {**key, "in_channels": data.channels, "classes": len(data.classes), "metrics": metrics}
    write_part(folder, f"{cell.hash}.seconds", json.dumps(seconds).encode())
    write_part(folder, cell.hash, to_bytes(network, about))
    return metrics


@lru_cache(maxsize=1)
def _read_images(path: Path, digest: str) -> ImageSet:
    return read_images(path)


def times(networks: pd.DataFrame, folder: Path, known: pd.DataFrame | None = None) -> pd.DataFrame:
    """Read how long each training took: `hash`, `seconds` (see `Trained`; NaN if it is lost).

    Those of networks that are not in the folder are taken from the `known` result.
    """
    found = [json.loads(read_part(folder, f"{k}.seconds") or b"NaN") for k in networks["hash"]]
    times = pd.DataFrame({"hash": networks["hash"], "seconds": found})
    if known is not None:
        earlier = times["hash"].map(known.set_index("hash")["seconds"])
        times["seconds"] = times["seconds"].fillna(earlier)
    return times


def load(images: Path | None, p: Pretraining) -> ImageSet:
    """Load the images that the parameters name from a folder or ZIP file (None: digits)."""
    return load_images(p.images, images or "", p.validation_images, p.train_images, p.augment)


def image_facts(images: Path | None, p: Pretraining) -> dict[str, Any]:
    """Names of `classes`; images in `train`, `validation` and `test`, and `kept` of the last."""
    data = load(images, p)
    sizes = {part: len(getattr(data, part)) for part in PARTS}
    return {"classes": list(data.classes), **sizes, "kept": p.test_images or len(data.test)}


def image_examples(images: Path | None, p: Pretraining) -> dict[str, Tensor]:
    """`pixels` and `labels` of the first train image of every class."""
    train = load(images, p).train
    first = [int((train.labels == label).nonzero()[0, 0]) for label in train.labels.unique()]
    return {"pixels": train.pixels[first], "labels": train.labels[first]}


def io_images(images: Path | None, p: Pretraining) -> dict[str, Tensor]:
    """Choose the images of the IO dataset: the validation images, and random ones of the test part.

    Returns pixels (N, C, H, W) and labels (N,) of both, in the order of the data set. Raises
    ValueError if there are fewer test images than wanted.
    """
    data = load(images, p)
    if p.test_images > len(data.test):
        raise ValueError(f"test_images is {p.test_images}, but there are only {len(data.test)}")
    order = np.random.default_rng(p.seed).permutation(len(data.test))
    test = data.test[torch.from_numpy(np.sort(order[: p.test_images or None]))]
    return {
        "validation_pixels": data.validation.pixels,
        "test_pixels": test.pixels,
        "validation_labels": data.validation.labels,
        "test_labels": test.labels,
    }


def labeled_rows(split: pd.DataFrame, p: Pretraining) -> pd.DataFrame:
    """Rows (index, hash, labeled) of the labeled cells of a split: train, then validation.

    The cells of a part are in the order in which they were drawn, so that a larger number of
    networks contains a smaller one. Raises ValueError if fewer are labeled than wanted.
    """
    parts = []
    for part, wanted in (("train", p.train_networks), ("validation", p.validation_networks)):
        rows = split[split["labeled"] == part]
        if wanted > len(rows):
            raise ValueError(
                f"{part}_networks is {wanted}, but only {len(rows)} cells of the {part} part are "
                f"labeled; ask for fewer or raise search_space.labeled_{part}"
            )
        parts.append(rows.sort_values("rank")[: wanted or None])
    return pd.concat(parts, ignore_index=True)[["index", "hash", "labeled"]]


def summary(networks: pd.DataFrame) -> pd.DataFrame:
    """Describe each `accuracy` by part of the split: `count`, `mean`, `std`, `min`, `max`."""
    accuracies = [f"{part}_accuracy" for part in PARTS]
    described = networks.groupby("labeled", sort=False)[accuracies].describe()
    columns = ["count", "mean", "std", "min", "max"]
    table = described.stack(level=0, future_stack=True)[columns].round(4)
    return table.astype({"count": int}).rename_axis(["labeled", "accuracy"]).reset_index()


def beside_table(networks: pd.DataFrame, table: CellTable) -> pd.DataFrame:
    """Compare the test accuracy of each network `here` with that in the `table` (NaN: unknown)."""
    known = table.values("test_accuracy")[networks["index"]]
    columns = {"labeled": networks["labeled"], "here": networks["test_accuracy"], "table": known}
    return pd.DataFrame(columns).reset_index(drop=True)
