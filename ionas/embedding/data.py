"""The data that an embedding model is trained on, and their order (paper, appendix F; METHOD 4).

Labeled networks come in pairs with images, unlabeled ones are cells alone. An epoch alternates runs
of labeled batches and runs of unlabeled ones. Functions with the arguments `*study` take those of
`gather`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from ionas.benchmark.table import Table
from ionas.parameters import EmbeddingTraining
from ionas.space.cells import CellSet, cell_tensors

DATA_OF = {  # model -> the model of `gather` on whose data it is trained
    "io": "io",
    "accuracy": "accuracy",
    "arch2vec": "accuracy",
    "arch2vec_original": "io",
    "arch2vec_original_eval": "io",
}
PAPER_LABELED = (19000, 300)  # labeled batches in an epoch, and in a run
PAPER_UNLABELED = (11896, 206)
PARTS = ("train", "validation")
CELLS = ("adjacency", "operations")
ROWS = ("train", "unlabeled", "validation")


@dataclass(frozen=True)
class Labeled:
    """Targets of n labeled networks on I images."""

    networks: Tensor  # (n,) int64, rows in the cell tensors
    pixels: Tensor  # (I, C, H, W) float32
    outputs: Tensor  # (n, I, k) float32, targets of the IO model
    accuracy: Tensor  # (n,) float32, targets of the Accuracy model: mean test accuracy

    def __post_init__(self) -> None:
        n, images = len(self.networks), len(self.pixels)
        if self.outputs.shape[:2] != (n, images) or len(self.accuracy) != n:
            raise ValueError(
                f"outputs of shape {tuple(self.outputs.shape)} and {len(self.accuracy)} accuracies "
                f"do not fit {n} networks and {images} images"
            )

    def __len__(self) -> int:
        return len(self.networks) * len(self.pixels)

    def to(self, device: str) -> "Labeled":
        """Copy to a device, the images channels-last, on which convolutions are faster."""
        moved = {name: value.to(device) for name, value in vars(self).items()}
        pixels = self.pixels.to(device, memory_format=torch.channels_last)
        return Labeled(**moved | {"pixels": pixels})


@dataclass(frozen=True)
class Data:
    """The data of a training: N cells, and the rows of each part."""

    adjacency: Tensor  # (N, V, V), the result of `tensors_of`
    operations: Tensor  # (N, V, O)
    train: Tensor  # the train part with its labeled cells, for the original arch2vec
    unlabeled: Tensor  # the same without the labeled cells
    validation: Tensor  # the validation part without its labeled cells, to measure reconstruction
    labeled: Labeled  # of the images, the Accuracy model uses only their number
    watched: dict[str, Labeled]  # further sets, on which losses are measured after each epoch

    def __post_init__(self) -> None:
        for name in ROWS:
            if not len(getattr(self, name)):
                raise ValueError(
                    f"there are no {name} cells to train with; label fewer cells, or take a larger "
                    "table"
                )
        if torch.isin(self.unlabeled, self.labeled.networks).any():
            raise ValueError("the unlabeled cells contain labeled ones; remove those")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes that a model must fit: vertices V, operations O, colour channels, outputs k."""
        _, vertices, operations = self.operations.shape
        return vertices, operations, self.labeled.pixels.shape[1], self.labeled.outputs.shape[2]

    def to(self, device: str) -> "Data":
        """Copy to a device."""
        moved = {name: getattr(self, name).to(device) for name in CELLS + ROWS}
        watched = {name: labeled.to(device) for name, labeled in self.watched.items()}
        return Data(**moved, labeled=self.labeled.to(device), watched=watched)


def tensors_of(cells: CellSet) -> tuple[Tensor, Tensor]:
    """Encode cells by `cell_tensors`, padded only to the largest of them."""
    adjacency, operations = cell_tensors(cells)
    largest = int(cells.n_vertices.max())
    parts = adjacency[:, :largest, :largest], operations[:, :largest]
    adjacency, operations = (part.clone(memory_format=torch.contiguous_format) for part in parts)
    return adjacency, operations


def gather(
    table: Table,
    split: pd.DataFrame,
    networks: pd.DataFrame,
    targets: Mapping[str, np.ndarray],
    images: Mapping[str, np.ndarray],
    splits: Mapping[str, list[int]],
) -> tuple[dict[str, Data], dict[str, Labeled]]:
    """Gather the data of the IO and of the Accuracy model, and the test sets (Tables 2 and 5).

    The IO model learns from the networks that were trained, the Accuracy model from all labeled
    cells, once for every image; each takes all other train cells as unlabeled. DATA_OF tells which
    of these data the other models are trained on.

    `split` has for each cell of the table its `part`, train or validation, and `labeled`, the same
    or empty; `networks` for each trained network the `index` of its cell and `labeled`. `targets`
    are float32 (networks, images, k), named PART_SEEN by the part of the networks and of the
    images, which are the first of SEEN_pixels in `images`; SEEN is validation or test. `splits` has
    positions among the train networks for the sets on test images, `validation_networks` and
    `test_networks`.

    Raises ValueError if a labeled cell has no accuracy, a part is empty, or shapes do not fit.
    """
    accuracy = table.values("test_accuracy")
    trained = {part: networks["index"][networks["labeled"] == part].to_numpy() for part in PARTS}
    rows = {part: np.flatnonzero(split["labeled"] == part) for part in PARTS}
    for row in (*rows["train"], *rows["validation"]):
        if np.isnan(accuracy[row]):
            raise ValueError(
                f"the table has no test accuracy of the labeled cell {table.cells[row].hash} "
                f"(row {row}); label only cells whose accuracy is known"
            )

    def labeled(index: np.ndarray, seen: str, outputs: np.ndarray) -> Labeled:
        pixels = images[f"{seen}_pixels"][: outputs.shape[1]]
        known = accuracy[index].astype(np.float32)
        return Labeled(*map(torch.tensor, (index, pixels, outputs, known)))

    def on_images(part: str, seen: str, chosen: str = "") -> Labeled:
        positions = np.array(splits[chosen], int) if chosen else slice(None)
        return labeled(trained[part][positions], seen, targets[f"{part}_{seen}"][positions])

    def all_labeled(part: str) -> Labeled:
        shape = len(rows[part]), targets["train_validation"].shape[1], 0
        return labeled(rows[part], "validation", np.empty(shape, np.float32))

    def without(part: str, taken: np.ndarray) -> Tensor:
        return torch.tensor(np.setdiff1d(np.flatnonzero(split["part"] == part), taken))

    adjacency, operations = tensors_of(table.cells)
    io = Data(
        adjacency=adjacency,
        operations=operations,
        train=without("train", np.array([], int)),
        unlabeled=without("train", trained["train"]),
        validation=without("validation", rows["validation"]),
        labeled=on_images("train", "validation"),
        watched={
            "unseen_networks": on_images("validation", "validation"),
            "unseen_images": on_images("train", "test", "validation_networks"),
        },
    )
    of_accuracy = replace(
        io,
        unlabeled=without("train", rows["train"]),
        labeled=all_labeled("train"),
        watched={"unseen_networks": all_labeled("validation")},
    )
    return {"io": io, "accuracy": of_accuracy}, {
        "unseen networks, unseen images": on_images("validation", "test"),
        "seen networks, unseen images": on_images("train", "test", "test_networks"),
    }


def pack(data: Data) -> bytes:
    """Write the data as the content of a safetensors file."""
    tensors = {name: getattr(data, name) for name in ROWS}
    tensors |= {name: getattr(data, name).byte() for name in CELLS}
    for kind, labeled in {"labeled": data.labeled, **data.watched}.items():
        tensors |= {f"{kind}.{name}": value for name, value in vars(labeled).items()}
    return safetensors.numpy.save({key: t.contiguous().numpy() for key, t in tensors.items()})


def unpack(content: bytes) -> Data:
    """Read what `pack` wrote.

    Tensors are copied into memory that torch aligns: the alignment, which in a file is arbitrary,
    decides which instructions a kernel uses, and so how it rounds.
    """
    tensors = {key: t.clone() for key, t in safetensors.torch.load(content).items()}
    sets: dict[str, dict[str, Tensor]] = {}
    for key in sorted(key for key in tensors if "." in key):  # files have no fixed order
        kind, name = key.split(".")
        sets.setdefault(kind, {})[name] = tensors.pop(key)
    watched = {kind: Labeled(**values) for kind, values in sets.items()}
    cells = {name: tensors.pop(name).float() for name in CELLS}
    return Data(**cells, **tensors, labeled=watched.pop("labeled"), watched=watched)


def labeled_sets(*study: Any) -> pd.DataFrame:
    """Describe the labeled sets of the IO and of the Accuracy model.

    Returns `model`, `set`, `networks`, `images`, `pairs`, and `baseline`, the mean squared error of
    the set's own mean target. Sets are `train`, those watched, and the IO model's test sets.
    """
    data, tests = gather(*study)
    rows = []
    for model, seen in data.items():
        sets = {"train": seen.labeled, **seen.watched}
        if model == "io":
            sets |= {f"test: {name}": labeled for name, labeled in tests.items()}
        for name, labeled in sets.items():
            values = labeled.accuracy[:, None] if model == "accuracy" else labeled.outputs
            sizes = (len(labeled.networks), len(labeled.pixels), len(labeled))
            error = values.flatten(0, -2).double().var(0, correction=0).mean().item()
            rows.append((model, name, *sizes, error))
    columns = ["model", "set", "networks", "images", "pairs", "baseline"]
    return pd.DataFrame(rows, columns=columns)


def schedule(*study: Any, p: EmbeddingTraining) -> pd.DataFrame:
    """Count the batches of the IO and of the Accuracy model in an epoch and in a run, by kind."""
    rows: list[tuple[str, str, int, int]] = []
    for model, data in gather(*study)[0].items():
        labeled, unlabeled = (-(-len(k) // p.batch_size) for k in (data.labeled, data.unlabeled))
        runs = run_lengths(labeled, unlabeled, p)
        rows.append((model, "labeled", labeled, runs[0]))
        rows.append((model, "unlabeled", unlabeled, runs[1]))
    return pd.DataFrame(rows, columns=["model", "kind", "batches in an epoch", "batches in a run"])


def run_lengths(labeled: int, unlabeled: int, p: EmbeddingTraining) -> tuple[int, int]:
    """Batches in a labeled and in an unlabeled run, given the numbers in an epoch.

    In the paper these are 300 of 19,000 and, by `floor(0.33 * U / L)` in the authors' code, 206 of
    11,896; parameters of 0 take the same proportions, and at least 1.
    """
    return (
        p.labeled_run or max(1, round(labeled * PAPER_LABELED[1] / PAPER_LABELED[0])),
        p.unlabeled_run or max(1, round(unlabeled * PAPER_UNLABELED[1] / PAPER_UNLABELED[0])),
    )


def alternate(
    labeled: Tensor, unlabeled: Tensor, labeled_run: int, unlabeled_run: int
) -> Iterator[tuple[bool, Tensor]]:
    """Yield the runs of an epoch in turns, with whether they are labeled.

    When one kind is used up, the rest of the other follows.
    """
    for runs in zip_longest(labeled.split(labeled_run), unlabeled.split(unlabeled_run)):
        for is_labeled, run in zip((True, False), runs, strict=True):
            if run is not None and len(run):
                yield is_labeled, run


class Batch(NamedTuple):
    """At most `batch_size` cells; if they are labeled, also their positions in `Data.labeled`."""

    adjacency: Tensor  # (B, V, V)
    operations: Tensor  # (B, V, O)
    rows: Tensor  # (B,) of the cells
    networks: Tensor | None = None  # (B,)
    images: Tensor | None = None  # (B,)


def batches(name: str, data: Data, p: EmbeddingTraining, seed: int) -> Iterator[Batch]:
    """Yield the batches of one epoch of a model, in an order that the seed determines.

    They are of all pairs of a labeled network and an image, and of all unlabeled cells; for the
    original arch2vec, of all train cells.
    """
    generator = torch.Generator().manual_seed(seed)
    device, size = data.adjacency.device, p.batch_size

    def shuffled(count: int) -> Tensor:
        return torch.randperm(count, generator=generator).to(device)

    original = name.startswith("arch2vec_original")
    pairs = shuffled(0 if original else len(data.labeled))
    cells = data.train if original else data.unlabeled
    cells = cells[shuffled(len(cells))]
    lengths = run_lengths(-(-len(pairs) // size), -(-len(cells) // size), p)
    images = len(data.labeled.pixels)
    for is_labeled, run in alternate(pairs, cells, *(length * size for length in lengths)):
        for block in run.split(size):
            places = (block // images, block % images) if is_labeled else ()
            rows = data.labeled.networks[places[0]] if places else block
            yield Batch(data.adjacency[rows], data.operations[rows], rows, *places)
