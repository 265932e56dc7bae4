"""Train the network of a cell on images, and many of them in parallel (appendix C, Table 1)."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ionas import parallel
from ionas.images import Images, ImageSet, augment
from ionas.networks import CPU_BATCH, Network, count_parameters
from ionas.space.cells import Cell, CellSet


@dataclass(frozen=True)
class Recipe:
    """How a network is built and trained; the defaults are those of the digits benchmark.

    Paper (Table 1): 128 channels, 3 stacks of 3 cells, 12 epochs, batch size 128, learning rate
    0.025, momentum 0.9, weight decay 1e-4, gradient norm 5, augmentation.
    """

    channels: int = 8
    stacks: int = 3
    cells_per_stack: int = 1
    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float = 5.0
    augment: bool = False


@dataclass(frozen=True)
class Trained:
    """A trained network and what was measured of it.

    Attributes
    ----------
    network
        In evaluation mode.
    metrics
        `train_accuracy`, `validation_accuracy`, `test_accuracy` (0 to 1), `trainable_parameters`,
        and `losses`, the mean train loss of every epoch.
    seconds
        Time of the training alone: CPU seconds of its thread on a CPU, wall seconds elsewhere.
    """

    network: Network
    metrics: dict[str, float | int | list[float]]
    seconds: float


def build(cell: Cell, recipe: Recipe, in_channels: int, classes: int) -> Network:
    """Build the untrained network of a cell, from torch's present random state.

    Its weights lie channels-last in memory, and so do all values that pass through it: the same
    network in two thirds of the time on a CPU.
    """
    network = Network(
        cell, in_channels, classes, recipe.channels, recipe.stacks, recipe.cells_per_stack
    )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train_network(
    cell: Cell, images: ImageSet, recipe: Recipe, seed: int = 0, device: str = "cpu"
) -> Trained:
    """Train the network of one cell: SGD with momentum, cosine schedule stepped per epoch.

    The same seed gives the same bits on the same machine and thread count.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(cell, recipe, images.channels, len(images.classes)).to(device)
    generator = torch.Generator().manual_seed(seed)
    train = images.train.to(device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        foreach=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
    clock = time.thread_time if torch.device(device).type == "cpu" else time.perf_counter
    start = clock()
    losses = []
    for _ in range(recipe.epochs):
        losses.append(_epoch(network, optimizer, train, images.black, recipe, generator))
        schedule.step()
    loss_values = torch.stack(losses).tolist()  # waits for the device
    seconds = clock() - start
    network.eval()
    parts = {"train": train, "validation": images.validation, "test": images.test}
    metrics: dict[str, float | int | list[float]] = {
        f"{name}_accuracy": accuracy(network, part, device) for name, part in parts.items()
    }
    metrics |= {"trainable_parameters": count_parameters(network), "losses": loss_values}
    return Trained(network, metrics, seconds)


def accuracy(network: nn.Module, images: Images, device: str = "cpu") -> float:
    """Share of images whose class has the largest logit."""
    right = predict(network, images, device).argmax(1) == images.labels.cpu()
    return right.sum().item() / len(images)


@torch.inference_mode()
def predict(network: nn.Module, images: Images, device: str = "cpu") -> Tensor:
    """Logits of all images, (N, classes) on the CPU."""
    size = CPU_BATCH if torch.device(device).type == "cpu" else 512
    return torch.cat([network(batch.to(device)).cpu() for batch in images.pixels.split(size)])


def train_networks(
    cells: CellSet,
    images: ImageSet,
    recipe: Recipe,
    folder: Path,
    seed: int = 0,
    jobs: int = 0,
    device: str = "cpu",
    published: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train one network per cell, side by side, each saved in `folder/networks`.

    Networks whose file is there already are not trained again, so a killed call goes on where it
    was and loses at most the networks in the making. Only this process writes files; workers
    elsewhere need not see the folder.

    Parameters
    ----------
    published
        From `published_networks`: networks that are not trained again.

    Returns
    -------
    metrics
        One row per cell: `hash`, the metrics of `Trained`, and whether it was `published`.
    timings
        One row per network trained here: `hash`, `seconds`. Apart, because no two runs measure the
        same.

    Raises
    ------
    ValueError
        If a file in the folder is damaged or belongs to another recipe or seed.
    """
    for name in ("networks", "timings"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    key = json.dumps({"recipe": asdict(recipe), "seed": seed, "images": images.name})
    known = {} if published is None else published.set_index("hash").to_dict("index")
    here = [cell for cell in cells if cell.hash not in known]
    missing = []
    for cell in here:
        if _paths(folder, cell)[0].exists():
            _read(folder, cell, key)  # so that a wrong file is named before anything is trained
        else:
            missing.append(cell)
    items = [(cell, images, recipe, network_seed(cell, seed), device, key) for cell in missing]
    results = parallel.completed(_train_for_file, items, jobs, "training networks", "network")
    for index, (network, seconds) in results:
        path, timing = _paths(folder, missing[index])
        parallel.write(timing, json.dumps({"seconds": seconds}).encode())
        parallel.write(path, network)
    trained = {cell.hash: _read(folder, cell, key) for cell in here}
    metrics = [
        {"hash": cell.hash, **known[cell.hash], "published": True}
        if cell.hash in known
        else {"hash": cell.hash, **trained[cell.hash][0], "published": False}
        for cell in cells
    ]
    timings = [{"hash": name, **times} for name, (_, times) in trained.items()]
    return pd.DataFrame(metrics), pd.DataFrame(timings, columns=["hash", "seconds"])


def published_networks(
    publication: Path, cells: CellSet, recipe: Recipe, seed: int, images: Path, target: Path
) -> pd.DataFrame:
    """Take from a publication the networks of some cells: their metrics, and their IO targets.

    Parameters
    ----------
    publication
        Folder of a published run, with its stages `pretraining` and `io_dataset`.
    cells
        The cells wanted.
    recipe, seed
        By which they would be trained here.
    images
        The file of `image_tensors` here; the publication's must have been the same.
    target
        Folder for `networks.parquet` and `targets.safetensors` of the publication, which
        `ionas.io_dataset.with_published` reads.

    Returns
    -------
    DataFrame
        One row per network found: `hash` and the metrics of `Trained`.

    Raises
    ------
    ValueError
        If none of them or all are published, or a published network is not what would be trained
        here: by another recipe or seed, on other images, or of a cell with its vertices in another
        order, as its number of parameters shows.
    """
    folder = publication / "pretraining"
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    there = json.loads((folder / "recipe.json").read_text("utf-8"))
    there |= {"seed": manifest["parameters"]["seed"]}
    for name, wanted in (asdict(recipe) | {"seed": seed}).items():
        if there[name] != wanted:
            raise ValueError(f"{publication} has networks of {name} {there[name]}, not {wanted}")
    with images.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest()
    if manifest["outputs"]["images.safetensors"]["sha256"] != same:
        raise ValueError(f"{publication} was made with other images than those here")
    networks = pd.read_parquet(folder / "networks.parquet").set_index("hash")
    found = [cell for cell in cells if cell.hash in networks.index]
    if len(found) in (0, len(cells)):
        raise ValueError(
            f"{publication} has {'all' if found else 'none'} of the {len(cells)} networks wanted; "
            f"{'go on from it with --from' if found else 'leave pretraining.published out'}"
        )
    sizes = networks["trainable_parameters"]
    for cell in found:
        network = build(cell, recipe, there["in_channels"], len(there["classes"]))
        if (size := count_parameters(network)) != sizes[cell.hash]:
            raise ValueError(
                f"the network of cell {cell.hash} has {size} parameters, and {sizes[cell.hash]} in "
                f"{publication}: its vertices stand in another order there; leave "
                "pretraining.published out"
            )
    target.mkdir(exist_ok=True)
    for path in (folder / "networks.parquet", publication / "io_dataset" / "targets.safetensors"):
        shutil.copyfile(path, target / path.name)
    columns = [name for name in networks if name not in ("index", "labeled", "published")]
    return networks.loc[[cell.hash for cell in found], columns].reset_index()


def load_network(path: Path, cell: Cell, recipe: Recipe, in_channels: int, classes: int) -> Network:
    """Load a network that `train_networks` saved, in evaluation mode.

    Raises
    ------
    ValueError
        If the file is damaged or is of another cell, recipe or data set.
    """
    network = build(cell, recipe, in_channels, classes)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} is not the network of cell {cell.hash} under this recipe ({error}); "
            "remove it and run notebook 02 again"
        ) from error
    return network.eval()


def load_networks(
    folder: Path, cells: Iterable[Cell], about: Mapping[str, Any]
) -> Iterator[Network]:
    """Load saved networks one at a time, so that only one is in memory.

    Parameters
    ----------
    folder
        Where the files `HASH.safetensors` are.
    cells
        The cells of the networks wanted.
    about
        Fields of the `Recipe`, `in_channels`, and `classes`, the names of the classes.

    Raises
    ------
    ValueError
        As `load_network`.
    """
    recipe = Recipe(**{name: about[name] for name in Recipe.__dataclass_fields__})
    for cell in cells:
        path = folder / f"{cell.hash}.safetensors"
        yield load_network(path, cell, recipe, about["in_channels"], len(about["classes"]))


def image_tensors(validation: Images, test: Images) -> dict[str, Tensor]:
    """Images for the IO dataset by the names that later notebooks read: pixels, then labels."""
    return {
        "validation_pixels": validation.pixels,
        "test_pixels": test.pixels,
        "validation_labels": validation.labels,
        "test_labels": test.labels,
    }


def labeled_rows(split: pd.DataFrame, train: int = 0, validation: int = 0) -> pd.DataFrame:
    """Rows (index, hash, labeled) of the labeled cells of a split: train, then validation.

    In each part in the order in which they were drawn, so that more networks begin with the same
    ones as fewer.

    Parameters
    ----------
    split
        As `ionas.benchmark.split.split_cells` makes it.
    train, validation
        How many cells of each part, those of the first ranks; 0 takes all.

    Raises
    ------
    ValueError
        If fewer cells are labeled than are wanted.
    """
    parts = []
    for part, wanted in (("train", train), ("validation", validation)):
        rows = split[split["labeled"] == part]
        if wanted > len(rows):
            raise ValueError(
                f"{part}_networks is {wanted}, but only {len(rows)} cells of the {part} part are "
                f"labeled; ask for fewer or raise search_space.labeled_{part}"
            )
        parts.append(rows.sort_values("rank")[: wanted or None])
    return pd.concat(parts, ignore_index=True)[["index", "hash", "labeled"]]


def summary(networks: pd.DataFrame) -> pd.DataFrame:
    """Number of networks and mean, spread and range of their accuracies, by part of the split."""
    accuracies = ["train_accuracy", "validation_accuracy", "test_accuracy"]
    described = networks.groupby("labeled", sort=False)[accuracies].describe()
    columns = ["count", "mean", "std", "min", "max"]
    table = described.stack(level=0, future_stack=True)[columns].round(4)
    return table.astype({"count": int})


def agreement(networks: pd.DataFrame, accuracy: np.ndarray) -> dict[str, float]:
    """Compare the test accuracies reached here with the (N,) ones a table holds for all its cells.

    Returns `count`, Pearson's r as `pearson`, and the mean absolute `difference`, over the networks
    whose cell has an accuracy in the table; NaN where fewer than two have one.
    """
    known = accuracy[networks["index"]]
    here = networks["test_accuracy"].to_numpy()[np.isfinite(known)]
    known = known[np.isfinite(known)]
    varied = len(here) > 1 and min(np.ptp(here), np.ptp(known)) > 0
    return {
        "count": len(here),
        "pearson": float(np.corrcoef(here, known)[0, 1]) if varied else float("nan"),
        "difference": float(np.abs(here - known).mean()) if len(here) else float("nan"),
    }


def network_seed(cell: Cell, seed: int) -> int:
    """Seed of one cell's network, the same whatever other networks are trained beside it."""
    return int(np.random.SeedSequence([seed, int(cell.hash, 16)]).generate_state(1)[0])


def _epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    train: Images,
    black: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
) -> Tensor:
    network.train()
    total = torch.zeros((), device=train.labels.device)
    order = torch.randperm(len(train), generator=generator)
    for batch in order.split(recipe.batch_size):
        index = batch.to(train.labels.device)
        pixels = train.pixels[index]
        if recipe.augment:
            pixels = augment(pixels, generator, black)
        loss = nn.functional.cross_entropy(network(pixels), train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimizer.step()
        total += loss.detach() * len(index)
    return total / len(train)


def _train_for_file(
    cell: Cell, images: ImageSet, recipe: Recipe, seed: int, device: str, key: str
) -> tuple[bytes, float]:
    """Contents of the file of a network, and the seconds of its training."""
    trained = train_network(cell, images, recipe, seed, device)
    state = {
        name: tensor.cpu().contiguous() for name, tensor in trained.network.state_dict().items()
    }
    about = {"ionas": json.dumps({"key": key, "metrics": trained.metrics})}
    return save(state, about), trained.seconds


def _paths(folder: Path, cell: Cell) -> tuple[Path, Path]:
    return (
        folder / "networks" / f"{cell.hash}.safetensors",
        folder / "timings" / f"{cell.hash}.json",
    )


def _read(folder: Path, cell: Cell, key: str) -> tuple[dict, dict]:
    """Metrics and times of a saved network."""
    path, timing = _paths(folder, cell)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["ionas"])
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and run again") from error
    if about["key"] != key:
        raise ValueError(f"{path} was trained with {about['key']}, not with {key}; remove it")
    return about["metrics"], json.loads(timing.read_text())
