"""Training of the embedding models, on labeled and unlabeled batches in turns (appendix F).

Every random choice of an epoch comes from the seed and the number of the epoch, so a training that
goes on from the checkpoint of any epoch ends with the same bytes as one that was never stopped.
"""

import json
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ionas import parallel
from ionas.embedding import arch2vec_gradient
from ionas.embedding import metrics as evaluation
from ionas.embedding.accuracy_model import AccuracyModel
from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.io_model import IOModel
from ionas.embedding.metrics import Labeled, vae_of
from ionas.space.cells import CellSet, cell_tensors

MOMENTS_STEPS = 128  # steps of which the moments of mu are taken at once
PARTS = ("train", "validation")
LABELED_MODELS = ("io", "accuracy")
MODELS = (*LABELED_MODELS, "arch2vec", "arch2vec_original")
PAPER_LABELED = (19000, 300)  # labeled batches in an epoch, and in a run
PAPER_UNLABELED = (11896, 206)


@dataclass(frozen=True)
class Settings:
    """Widths of the models and how they are trained; the defaults are the paper's.

    Attributes
    ----------
    epochs, original_epochs
        Passes over the data, and those of `arch2vec_original`.
    batch_size, learning_rate, clip
        Of Adam; `clip` is the largest gradient norm.
    labeled_run, unlabeled_run
        Labeled batches before each run of unlabeled ones, and the length of that; 0 takes as large
        a part of the epoch as the paper (see `run_lengths`).
    labeled_weight
        Of the loss on labels, beside arch2vec's.
    hidden, latent, layers, decoder_dropout, activation
        Of arch2vec.
    embedding
        Width of the flatten embedding.
    image_channels, image_steps, head_hidden, head_dropout
        Of the IO model.
    mixed_precision
        Whether its convolutions run in bfloat16, which a GPU has fast units for.
    accuracy_hidden
        Of the Accuracy model.
    validity_samples
        Cells drawn after each epoch.
    """

    epochs: int = 10
    original_epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 1e-3
    clip: float = 5.0
    labeled_run: int = 300
    unlabeled_run: int = 206
    labeled_weight: float = 1.0
    hidden: int = 128
    latent: int = 16
    layers: int = 4
    decoder_dropout: float = 0.3
    activation: str = "sigmoid"
    embedding: int = 16
    image_channels: int = 128
    image_steps: int = 2
    head_hidden: int = 512
    head_dropout: float = 0.5
    mixed_precision: bool = False
    accuracy_hidden: int = 512
    validity_samples: int = 10000


@dataclass(frozen=True)
class Data:
    """What a training sees.

    Attributes
    ----------
    adjacency, operations
        (N, V, V) and (N, V, O), all cells (`cells.cell_tensors`, cut to the largest cell).
    train
        Rows of the train part, labeled ones included; `arch2vec_original` learns from these.
    unlabeled
        The same without the labeled ones.
    validation
        Rows of the validation part, on which reconstruction is measured.
    labeled
        What the IO or the Accuracy model learns from; the latter takes of the images only how many
        times an epoch shows it each network.
    watched
        More labeled sets by name, on which losses are measured after each epoch.
    """

    adjacency: Tensor
    operations: Tensor
    train: Tensor
    unlabeled: Tensor
    validation: Tensor
    labeled: Labeled
    watched: dict[str, Labeled]

    def __post_init__(self) -> None:
        for name in ("train", "unlabeled", "validation"):
            if not len(getattr(self, name)):
                raise ValueError(f"there are no {name} cells to train with")
        if torch.isin(self.unlabeled, self.labeled.networks).any():
            raise ValueError("the unlabeled cells hold labeled ones; take those out")

    def to(self, device: str) -> "Data":
        """Copy to a device."""
        return Data(
            adjacency=self.adjacency.to(device),
            operations=self.operations.to(device),
            train=self.train.to(device),
            unlabeled=self.unlabeled.to(device),
            validation=self.validation.to(device),
            labeled=self.labeled.to(device),
            watched={name: labeled.to(device) for name, labeled in self.watched.items()},
        )


@dataclass(frozen=True)
class Training:
    """A trained model.

    Attributes
    ----------
    model
        In evaluation mode.
    history
        model, seed, epoch (from 1), metric, value.
    latent_mean, latent_std
        (V, L), over the mus that the last epoch met.
    seconds
        Wall time of every epoch's training, evaluation left out.
    """

    model: nn.Module
    history: pd.DataFrame
    latent_mean: Tensor
    latent_std: Tensor
    seconds: list[float]


def gather(
    cells: CellSet,
    accuracy: np.ndarray,
    split: pd.DataFrame,
    networks: pd.DataFrame,
    outputs: dict[str, Tensor],
    images: dict[str, Tensor],
    splits: dict[str, list[int]],
) -> tuple[dict[str, Data], dict[str, Labeled]]:
    """Put together what each model sees, and the two labeled test sets (Tables 2 and 5).

    The IO model learns from the networks that were trained, the Accuracy model from all labeled
    cells, once for every image; each takes all other train cells as unlabeled. The reference
    arch2vec sees the batches of the Accuracy model, as many as the paper's IO model has.

    Parameters
    ----------
    cells, accuracy
        N cells and their (N,) mean test accuracies.
    split
        N rows in the order of the cells: `part` is train or validation, `labeled` the same or
        empty.
    networks
        Trained networks, the train ones first: `index` of the cell, `labeled` train or validation.
    outputs
        `train_validation`, `train_test`, `validation_validation`, `validation_test`: targets
        (networks, images, k), named by the part of the networks and of the images.
    images
        `validation_pixels` and `test_pixels`, whose first images are those of the outputs.
    splits
        `validation_networks`, `test_networks`: positions among the train networks for the sets on
        test images.

    Returns
    -------
    data
        By the name of the model. `unseen_networks` is watched, and `unseen_images` by the IO model.
    tests
        `unseen networks, unseen images` and `seen networks, unseen images`.

    Raises
    ------
    ValueError
        If a labeled cell has no accuracy, or shapes do not fit.
    """
    trained = {
        part: networks.loc[networks["labeled"] == part, "index"].to_numpy() for part in PARTS
    }
    rows = {part: np.flatnonzero(split["labeled"] == part) for part in PARTS}
    lacking = [row for row in np.concatenate(list(rows.values())) if np.isnan(accuracy[row])]
    if lacking:
        raise ValueError(
            f"the table knows no test accuracy of the labeled cell {cells.hashes[lacking[0]]} "
            f"(row {lacking[0]}); label only cells whose accuracy is known"
        )

    def labeled(part: str, seen: str, chosen: list[int] | None = None) -> Labeled:
        values = outputs[f"{part}_{seen}"]
        positions = torch.arange(len(values)) if chosen is None else torch.tensor(chosen)
        index = torch.tensor(trained[part])[positions]
        return Labeled(
            networks=index,
            pixels=images[f"{seen}_pixels"][: values.shape[1]],
            outputs=values[positions],
            accuracy=torch.tensor(accuracy).float()[index],
        )

    adjacency, operations = cell_tensors(cells)
    largest = int(cells.n_vertices.max())
    train = np.flatnonzero(split["part"] == "train")
    of_io = Data(
        adjacency=adjacency[:, :largest, :largest].contiguous(),
        operations=operations[:, :largest].contiguous(),
        train=torch.from_numpy(train),
        unlabeled=torch.from_numpy(np.setdiff1d(train, trained["train"])),
        validation=torch.from_numpy(np.flatnonzero(split["part"] == "validation")),
        labeled=labeled("train", "validation"),
        watched={
            "unseen_networks": labeled("validation", "validation"),
            "unseen_images": labeled("train", "test", splits["validation_networks"]),
        },
    )

    def known(part: str) -> Labeled:
        pixels = of_io.labeled.pixels
        return Labeled(
            networks=torch.tensor(rows[part]),
            pixels=pixels,
            outputs=torch.empty(len(rows[part]), len(pixels), 0),
            accuracy=torch.tensor(accuracy).float()[rows[part]],
        )

    of_accuracy = replace(
        of_io,
        unlabeled=torch.from_numpy(np.setdiff1d(train, rows["train"])),
        labeled=known("train"),
        watched={"unseen_networks": known("validation")},
    )
    of_all = ("accuracy", "arch2vec")
    return {name: of_accuracy if name in of_all else of_io for name in MODELS}, {
        "unseen networks, unseen images": labeled("validation", "test"),
        "seen networks, unseen images": labeled("train", "test", splits["test_networks"]),
    }


def labeled_sets(data: Mapping[str, Data], tests: Mapping[str, Labeled]) -> pd.DataFrame:
    """Labeled sets of the IO and of the Accuracy model, as `gather` gives them.

    Returns
    -------
    DataFrame
        model, set (`train`, then those watched, then the IO model's tests), networks, images,
        pairs, baseline (see `evaluation.baseline`).
    """
    rows = []
    for model in LABELED_MODELS:
        sets = {"train": data[model].labeled, **data[model].watched}
        if model == "io":
            sets |= {f"test: {name}": labeled for name, labeled in tests.items()}
        for name, labeled in sets.items():
            targets = labeled.accuracy if model == "accuracy" else labeled.outputs
            sizes = (len(labeled.networks), len(labeled.pixels), len(labeled))
            rows.append((model, name, *sizes, evaluation.baseline(targets)))
    columns = ["model", "set", "networks", "images", "pairs", "baseline"]
    return pd.DataFrame(rows, columns=columns)


def schedule(data: Mapping[str, Data], settings: Settings) -> pd.DataFrame:
    """Batches of the IO and of the Accuracy model: model, kind, in an epoch, in a run."""
    rows: list[tuple[str, str, int, int]] = []
    for model in LABELED_MODELS:
        labeled, unlabeled = (
            -(-len(part) // settings.batch_size)
            for part in (data[model].labeled, data[model].unlabeled)
        )
        lengths = run_lengths(labeled, unlabeled, settings)
        rows.append((model, "labeled", labeled, lengths[0]))
        rows.append((model, "unlabeled", unlabeled, lengths[1]))
    return pd.DataFrame(rows, columns=["model", "kind", "batches in an epoch", "batches in a run"])


def run_lengths(labeled: int, unlabeled: int, settings: Settings) -> tuple[int, int]:
    """Batches in a labeled and in an unlabeled run, given those in an epoch.

    The paper has 300 of 19,000 and, by `floor(0.33 * U / L)` in the authors' code, 206 of 11,896;
    settings of 0 take the same proportions, at least 1.
    """
    return (
        settings.labeled_run or max(1, round(labeled * PAPER_LABELED[1] / PAPER_LABELED[0])),
        settings.unlabeled_run
        or max(1, round(unlabeled * PAPER_UNLABELED[1] / PAPER_UNLABELED[0])),
    )


def batch_order(
    labeled: int, unlabeled: int, labeled_run: int, unlabeled_run: int
) -> list[tuple[bool, int]]:
    """Order of the batches of an epoch: whether labeled, and which of its kind.

    Labeled and unlabeled runs alternate; when one kind is used up, the other runs to its end.
    """
    order: list[tuple[bool, int]] = []
    first, second = 0, 0
    while first < labeled or second < unlabeled:
        order += [(True, k) for k in range(first, min(first + labeled_run, labeled))]
        order += [(False, k) for k in range(second, min(second + unlabeled_run, unlabeled))]
        first, second = first + labeled_run, second + unlabeled_run
    return order


def build(name: str, data: Data, settings: Settings, seed: int) -> nn.Module:
    """Build an untrained model. All models of one seed begin with the same autoencoder."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose one of {', '.join(MODELS)}")
    s = settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = Arch2vec(
            data.operations.shape[1],
            data.operations.shape[2],
            s.hidden,
            s.latent,
            s.layers,
            s.decoder_dropout,
            s.activation,
        )
        if name == "io":
            return IOModel(
                vae,
                data.labeled.pixels.shape[1],
                s.image_channels,
                s.image_steps,
                s.embedding,
                s.head_hidden,
                s.head_dropout,
                data.labeled.outputs.shape[2],
            )
        return AccuracyModel(vae, s.embedding, s.accuracy_hidden) if name == "accuracy" else vae


def train(
    name: str,
    seed: int,
    data: Data,
    settings: Settings,
    folder: Path | None = None,
    device: str = "cpu",
) -> Training:
    """Train one model.

    Parameters
    ----------
    name
        `io` or `accuracy`: labeled and unlabeled batches, each kind with an Adam of its own.
        `arch2vec`: the reference, trained on the cells of such batches, without labels.
        `arch2vec_original`: on the whole train part, as arch2vec's own paper does.
    folder
        Where to keep `checkpoints/NAME_seedS.safetensors`, replaced after each epoch, and
        `timings/NAME_seedS.json`. A training found there goes on.

    Raises
    ------
    ValueError
        If the checkpoint is damaged, of other settings, or of more epochs than asked for.
    """
    data = data.to(device)
    model = build(name, data, settings, seed).to(device)
    trainer = _Trainer(name, seed, model, data, settings)
    paths = _paths(folder, name, seed) if folder else None
    if paths and paths[0].exists():
        trainer.restore(*paths)
    epochs = settings.original_epochs if name == "arch2vec_original" else settings.epochs
    if trainer.epoch > epochs:
        raise ValueError(
            f"{paths and paths[0]} has {trainer.epoch} epochs, more than the {epochs} asked for; "
            "remove it and train again"
        )
    while trainer.epoch < epochs:
        trainer.train_epoch()
        trainer.measure()
        if paths:
            trainer.save(*paths)
    model.eval()
    history = pd.DataFrame(trainer.history, columns=["epoch", "metric", "value"])
    history.insert(0, "model", name)
    history.insert(1, "seed", seed)
    return Training(model, history, trainer.latent_mean, trainer.latent_std, trainer.seconds)


def train_all(
    runs: Sequence[tuple[str, int]],
    data: Mapping[str, Data],
    settings: Settings,
    folder: Path,
    jobs: int = 0,
    device: str = "cpu",
) -> pd.DataFrame:
    """Train several models, pairs of name and seed, each on its data; return their history.

    The trained models are in `folder`, see `train` and `load`. Workers elsewhere keep their
    checkpoints there, too, so that a training whose worker dies goes on from its last epoch.

    Raises
    ------
    ValueError
        If a worker does not see the folder, or as `train` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(prefix=".", suffix=".tmp", dir=folder.resolve()) as mark:
        items = [(name, seed, data[name], settings, Path(mark.name), device) for name, seed in runs]
        histories = parallel.run(_history, items, jobs, "training embeddings", "model")
    return pd.concat(histories, ignore_index=True)


def load(name: str, seed: int, data: Data, settings: Settings, folder: Path) -> nn.Module:
    """Load a model that `train` left in a folder, on the CPU and in evaluation mode.

    Raises
    ------
    ValueError
        If there is none, or it is damaged or of other settings.
    """
    model = build(name, data, settings, seed)
    checkpoint = _read(_paths(folder, name, seed)[0], _key(name, seed, data, settings))[0]
    model.load_state_dict(_part(checkpoint, "model"))
    return model.eval()


def seconds_of(runs: Iterable[tuple[str, int]], folder: Path) -> pd.DataFrame:
    """Measured training time: model, seed, seconds (wall time of all epochs)."""
    rows = []
    for name, seed in runs:
        spent = json.loads(_paths(folder, name, seed)[1].read_text())["seconds"]
        rows.append((name, seed, sum(spent)))
    return pd.DataFrame(rows, columns=["model", "seed", "seconds"])


class _Trainer:
    """A model in training: parameters as two flat vectors, so that Adam takes few steps.

    The autoencoder's vector has an Adam for unlabeled batches and shares one with the head's for
    labeled batches. Cells are one tensor of bytes, read by one index per step.
    """

    def __init__(
        self, name: str, seed: int, model: nn.Module, data: Data, settings: Settings
    ) -> None:
        self.name, self.seed, self.model, self.data, self.settings = (
            name,
            seed,
            model,
            data,
            settings,
        )
        self.vae = vae_of(model)
        shared = list(self.vae.parameters())
        known = {id(parameter) for parameter in shared}
        head = [parameter for parameter in model.parameters() if id(parameter) not in known]
        self.flat = [_flatten(part) for part in (shared, head) if part]
        self.plan = arch2vec_gradient.plan(self.vae)
        self.unlabeled = _adam(self.flat[:1])
        self.labeled = _adam(self.flat) if head else None
        self.cells = torch.cat([data.adjacency.flatten(1), data.operations.flatten(1)], 1).byte()
        self.epoch = 0
        self.history: list[tuple[int, str, float]] = []
        self.seconds: list[float] = []
        rows = (self.vae.vertices, self.vae.latent)
        self.latent_mean, self.latent_std = torch.zeros(rows), torch.ones(rows)

    def train_epoch(self) -> None:
        """Pass once over the data; leaves the mean and deviation of the mus it met."""
        start = time.perf_counter()
        self.epoch += 1
        self.model.train()
        device = self.data.adjacency.device
        losses: dict[bool, list[Tensor]] = {True: [], False: []}
        label_losses, mus, moments = [], [], []
        with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
            torch.manual_seed(_seed(self.seed, self.epoch, 0))
            for rows, pairs in self._batches():
                total, on_labels, mu = self._step(rows, pairs)
                losses[pairs is not None].append(total)
                label_losses += [] if on_labels is None else [on_labels]
                mus.append(mu)
                if len(mus) == MOMENTS_STEPS:
                    moments.append(_moments(mus))
                    mus = []
        moments += [_moments(mus)] if mus else []
        self.latent_mean, self.latent_std = _mean_std(moments)
        values = {
            "loss_labeled_batches": losses[True],
            "loss_unlabeled_batches": losses[False],
            "labels_running": label_losses,
        }
        for metric, tensors in values.items():
            if tensors:
                self._record(metric, torch.stack(tensors).cpu().double().mean().item())
        self.seconds.append(time.perf_counter() - start)

    def measure(self) -> None:
        """Evaluate after an epoch."""
        data = self.data
        measured = evaluation.reconstruction(
            self.model, data.adjacency[data.validation], data.operations[data.validation]
        )
        device = str(data.adjacency.device)
        measured |= evaluation.validity(
            *evaluation.draw(
                self.model,
                self.latent_mean.to(device),
                self.latent_std.to(device),
                self.settings.validity_samples,
                _seed(self.seed, self.epoch, 1),
            )
        )
        if self.labeled:
            for name, labeled in {"train": data.labeled, **data.watched}.items():
                measured[f"labels_{name}"] = evaluation.labeled_loss(
                    self.model, data.adjacency, data.operations, labeled
                )
        for metric, value in measured.items():
            self._record(metric, value)

    def save(self, checkpoint: Path, timing: Path) -> None:
        """Write a checkpoint, complete or not at all."""
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {"latent.mean": self.latent_mean, "latent.std": self.latent_std}
        for kind, adam in self._adams().items():
            for entry, vectors in adam.state().items():
                tensors |= {f"{kind}.{k}.{entry}": vector for k, vector in enumerate(vectors)}
        about = {
            "key": _key(self.name, self.seed, self.data, self.settings),
            "epoch": self.epoch,
            "history": self.history,
        }
        for path in (checkpoint, timing):
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = [  # hidden, since a worker that is killed leaves it behind
            path.with_name(f".{path.name}.{uuid4().hex}.tmp") for path in (checkpoint, timing)
        ]
        temporary[1].write_text(json.dumps({"seconds": self.seconds}))
        temporary[1].replace(timing)
        save_file(
            {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()},
            temporary[0],
            {"ionas": json.dumps(about)},
        )
        temporary[0].replace(checkpoint)

    def restore(self, checkpoint: Path, timing: Path) -> None:
        """Go back to where a checkpoint was written."""
        tensors, about = _read(checkpoint, _key(self.name, self.seed, self.data, self.settings))
        self.model.load_state_dict(_part(tensors, "model"))  # copies into the flat vectors
        for kind, adam in self._adams().items():
            for entry, vectors in adam.state().items():
                for k, vector in enumerate(vectors):
                    vector.copy_(tensors[f"{kind}.{k}.{entry}"])
        self.latent_mean, self.latent_std = tensors["latent.mean"], tensors["latent.std"]
        self.epoch = about["epoch"]
        self.history = [(epoch, metric, value) for epoch, metric, value in about["history"]]
        self.seconds = json.loads(timing.read_text())["seconds"][: self.epoch]

    def _step(
        self, rows: Tensor, pairs: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """One step on a batch; pairs are positions of networks and images, None if unlabeled."""
        vertices, width = self.data.operations.shape[1:]
        batch = self.cells[rows].to(self.data.adjacency.dtype)
        adjacency = batch[:, : vertices**2].view(-1, vertices, vertices)
        operations = batch[:, vertices**2 :].view(-1, vertices, width)
        adam, label_loss = self.unlabeled, None
        if pairs is not None and self.labeled:
            adam, label_loss = self.labeled, partial(self._label_loss, pairs)
            arch2vec_gradient.gradient_of(self.flat[1]).zero_()
        total, mu, on_labels = arch2vec_gradient.step(
            self.plan, adjacency, operations, label_loss, self.settings.labeled_weight
        )
        _adam_step(adam, self.settings)
        return total, on_labels, mu

    def _label_loss(self, pairs: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
        networks, images = pairs
        labeled = self.data.labeled
        if isinstance(self.model, AccuracyModel):
            return nn.functional.mse_loss(self.model.predict(z), labeled.accuracy[networks])
        assert isinstance(self.model, IOModel)
        with torch.autocast(z.device.type, torch.bfloat16, self.settings.mixed_precision):
            features = self.model.image_features(labeled.pixels[images])
        predicted = self.model.predict(z, features.to(z.dtype))
        return nn.functional.mse_loss(predicted, labeled.outputs[networks, images])

    def _batches(self) -> Iterable[tuple[Tensor, tuple[Tensor, Tensor] | None]]:
        """Rows of the cells of each batch and, if labeled, positions of networks and images."""
        data, size = self.data, self.settings.batch_size
        generator = torch.Generator().manual_seed(_seed(self.seed, self.epoch, 2))
        device = data.adjacency.device
        if self.name == "arch2vec_original":
            order = torch.randperm(len(data.train), generator=generator).to(device)
            yield from ((data.train[batch], None) for batch in order.split(size))
            return
        order = torch.randperm(len(data.labeled), generator=generator).to(device)
        networks, images = order // len(data.labeled.pixels), order % len(data.labeled.pixels)
        rows = data.labeled.networks[networks].split(size)
        pairs = list(zip(networks.split(size), images.split(size), strict=True))
        order = torch.randperm(len(data.unlabeled), generator=generator).to(device)
        cells = data.unlabeled[order].split(size)
        lengths = run_lengths(len(pairs), len(cells), self.settings)
        for is_labeled, k in batch_order(len(pairs), len(cells), *lengths):
            yield (rows[k], pairs[k]) if is_labeled else (cells[k], None)

    def _adams(self) -> dict[str, "_Adam"]:
        return {"unlabeled": self.unlabeled} | ({"labeled": self.labeled} if self.labeled else {})

    def _record(self, metric: str, value: float) -> None:
        self.history.append((self.epoch, metric, value))


def _flatten(parameters: list[nn.Parameter]) -> nn.Parameter:
    """Make parameters, and their gradients, views of one vector each."""
    sizes = [parameter.numel() for parameter in parameters]
    vector = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    vector.grad = torch.zeros_like(vector)
    views = zip(vector.detach().split(sizes), vector.grad.split(sizes), strict=True)
    for parameter, (value, gradient) in zip(parameters, views, strict=True):
        parameter.data = value.view_as(parameter)
        parameter.grad = gradient.view_as(parameter)
    return vector


class _Adam(NamedTuple):
    """Parameter vectors, their gradients, and what Adam remembers of them."""

    vectors: list[Tensor]
    gradients: list[Tensor]
    exp_avg: list[Tensor]
    exp_avg_sq: list[Tensor]
    step: list[Tensor]

    def state(self) -> dict[str, list[Tensor]]:
        """What a checkpoint keeps."""
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq, "step": self.step}


def _adam(vectors: list[nn.Parameter]) -> _Adam:
    first, second = ([torch.zeros_like(vector.detach()) for vector in vectors] for _ in range(2))
    steps = [vector.new_zeros((), dtype=torch.float32) for vector in vectors]
    gradients = [arch2vec_gradient.gradient_of(vector) for vector in vectors]
    return _Adam([vector.detach() for vector in vectors], gradients, first, second, steps)


@torch.no_grad()
def _adam_step(adam: _Adam, settings: Settings) -> None:
    """A step of Adam on the clipped gradient.

    The kernel of `torch.optim.Adam(fused=True)`, called without the bookkeeping around it, which
    takes as long; it divides by a scale, so that clipping needs no pass of its own.
    """
    norms = [torch.linalg.vector_norm(gradient) for gradient in adam.gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if len(norms) > 1 else norms[0]
    torch._foreach_add_(adam.step, 1)
    torch._fused_adam_(
        adam.vectors,
        adam.gradients,
        adam.exp_avg,
        adam.exp_avg_sq,
        [],
        adam.step,
        lr=settings.learning_rate,
        beta1=0.9,
        beta2=0.999,
        weight_decay=0.0,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
        grad_scale=(norm + 1e-6).div_(settings.clip).clamp_(min=1).float(),
    )


def _moments(mus: list[Tensor]) -> tuple[Tensor, int]:
    """Variance and mean of mus over cells, (2, V, L), and the number of cells."""
    together = torch.cat(mus)
    return torch.stack(torch.var_mean(together, 0, correction=0)), len(together)


def _mean_std(moments: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all parts, both (V, L)."""
    variance, mean = torch.stack([part for part, _ in moments]).cpu().double().unbind(1)
    sizes = torch.tensor([size for _, size in moments], dtype=torch.float64)
    weight = (sizes / sizes.sum())[:, None, None]
    center = (weight * mean).sum(0)
    spread = (weight * (variance + (mean - center).square())).sum(0).sqrt()
    return center.float(), spread.float()


def _history(
    name: str, seed: int, data: Data, settings: Settings, mark: Path, device: str
) -> pd.DataFrame:
    if not mark.exists():
        raise ValueError(
            f"the worker on {platform.node()} does not see {mark.parent}, the folder of the "
            "checkpoints; keep runs where all workers see them (IONAS_RUNS names the place)"
        )
    return train(name, seed, data, settings, mark.parent, device).history


def _seed(seed: int, epoch: int, stream: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1)[0])


def _paths(folder: Path, name: str, seed: int) -> tuple[Path, Path]:
    stem = f"{name}_seed{seed}"
    return folder / "checkpoints" / f"{stem}.safetensors", folder / "timings" / f"{stem}.json"


def _key(name: str, seed: int, data: Data, settings: Settings) -> dict[str, Any]:
    """What a checkpoint must agree in; the number of epochs may grow."""
    kept = {k: v for k, v in asdict(settings).items() if k not in ("epochs", "original_epochs")}
    sizes = [len(data.adjacency), len(data.unlabeled), *data.labeled.outputs.shape]
    return {"model": name, "seed": seed, "settings": kept, "sizes": sizes}


def _read(path: Path, key: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.exists():
        raise ValueError(f"there is no trained model {path}; train it first")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["ionas"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and train again") from error
    if about["key"] != key:
        raise ValueError(
            f"{path} was trained with {about['key']}, not with {key}; remove it and train again"
        )
    return tensors, about


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in tensors.items()
        if name.startswith(f"{prefix}.")
    }
