"""Training of the embedding models on labeled and unlabeled batches (paper, appendix F).

Every random choice of an epoch comes from the seed and the number of the epoch, so a training that
goes on from the checkpoint of any epoch ends with the same bytes as one that was never stopped.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

from ionas import parallel, parts
from ionas.embedding import metrics
from ionas.embedding.accuracy_model import AccuracyModel
from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.data import DATA_OF, Batch, Data, batches, gather, pack, unpack
from ionas.embedding.io_model import IOModel
from ionas.embedding.metrics import Model
from ionas.parameters import EmbeddingTraining

MODELS = tuple(DATA_OF)
NO_PART_OF_A_TRAINING = {"run", "seeds", "epochs", "original_epochs", "jobs", "device"}
BLOCK = 128  # batches whose moments of mu are computed at once
STREAMS = ("noise", "drawn cells", "order of batches")  # of random numbers in an epoch


def build(name: str, shape: tuple[int, int, int, int], p: EmbeddingTraining, seed: int) -> Model:
    """Build an untrained model for data of the given `Data.shape`.

    All models of one seed begin with the same autoencoder.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose one of {', '.join(MODELS)}")
    vertices, operations, channels, outputs = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = Arch2vec(
            vertices, operations, p.hidden, p.latent, p.layers, p.decoder_dropout, p.activation
        )
        if name == "io":
            widths = p.image_channels, p.image_steps, p.embedding, p.head_hidden, p.head_dropout
            return IOModel(vae, channels, *widths, outputs)
        return AccuracyModel(vae, p.embedding, p.accuracy_hidden) if name == "accuracy" else vae


def train(
    name: str,
    seed: int,
    data: Data,
    p: EmbeddingTraining,
    folder: Path | None = None,
    device: str = "cpu",
) -> "Trainer":
    """Train one model.

    The `io` and the `accuracy` model learn from labeled and unlabeled batches, with a separate Adam
    for each kind; the reference `arch2vec` from the cells of the same batches, without labels;
    `arch2vec_original` from the whole train part, as in arch2vec's own paper, and
    `arch2vec_original_eval` in the same way as its script ran: in evaluation mode from the second
    epoch on (no dropout, Z = mu, batch statistics frozen) and with one order of batches.

    If a folder is given, the checkpoint `NAME_seedS.safetensors` there is replaced after each
    epoch. A training found there goes on; one with other parameters or more epochs starts again.
    """
    part, timing = f"{name}_seed{seed}.safetensors", f"{name}_seed{seed}.json"
    data = data.to(device)
    trainer = Trainer(name, seed, data, p)
    if folder and (checkpoint := parts.read(folder, part)):
        trainer.restore(checkpoint, parts.read(folder, timing))
    epochs = _epochs(name, p)
    if trainer.epoch > epochs:
        trainer = Trainer(name, seed, data, p)
    while trainer.epoch < epochs:
        trainer.train_epoch()
        if folder:
            # The timing is written first: `restore` cuts it to the epochs of the checkpoint.
            parts.write(folder, timing, json.dumps(trainer.seconds).encode())
            parts.write(folder, part, trainer.checkpoint())
    trainer.model.eval()
    return trainer


def train_all(
    *study: Any, p: EmbeddingTraining, parts: Path, jobs: int = 0, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Train every model with every seed on the result of `data.gather`; see `train_data`."""
    return train_data(gather(*study)[0], p, parts, jobs, device)


def train_data(
    data: Mapping[str, Data], p: EmbeddingTraining, folder: Path, jobs: int, device: str
) -> dict[str, np.ndarray]:
    """Train every model with every seed; `load` reads the models from the result.

    The folder keeps the data and the checkpoints. Workers on other machines use it as well, so that
    a training whose worker dies goes on from its last epoch. Raises ValueError if they do not see
    the folder.
    """
    folder = folder.resolve()
    for name, part in data.items():
        parts.write(folder, f"{name}.safetensors", pack(part))
    items = [(name, seed, p, folder, device) for name in MODELS for seed in p.seeds]
    trained = {"shape": np.array(data["io"].shape)}
    for arrays in parallel.run(_trained, items, jobs, "training embeddings", "model"):
        trained |= arrays
    return trained


def _trained(
    name: str, seed: int, p: EmbeddingTraining, folder: Path, device: str
) -> dict[str, np.ndarray]:
    content = parts.read(folder, f"{DATA_OF[name]}.safetensors")
    if content is None:
        raise parallel.unseen(folder, "checkpoints")
    trainer = train(name, seed, unpack(content), p, folder, device)
    tensors = {**trainer.model.state_dict(), "history": _text(trainer.history)}
    return {f"{name}_seed{seed}/{key}": value.cpu().numpy() for key, value in tensors.items()}


def load(trained: Mapping[str, np.ndarray], name: str, seed: int, p: EmbeddingTraining) -> Model:
    """Load a model that `train_all` trained, on the CPU and in evaluation mode."""
    vertices, operations, channels, outputs = trained["shape"].tolist()
    model = build(name, (vertices, operations, channels, outputs), p, seed)
    prefix = f"{name}_seed{seed}/"
    state = {key: torch.from_numpy(trained[prefix + key].copy()) for key in model.state_dict()}
    model.load_state_dict(state)
    model.eval()
    return model


def history(trained: Mapping[str, np.ndarray], p: EmbeddingTraining) -> pd.DataFrame:
    """Read the metrics after each epoch: `model`, `seed`, `epoch` (from 1), `metric`, `value`."""
    rows = [
        (name, seed, *row)
        for name in MODELS
        for seed in sorted(p.seeds)
        for row in json.loads(trained[f"{name}_seed{seed}/history"].tobytes())
    ]
    return pd.DataFrame(rows, columns=["model", "seed", "epoch", "metric", "value"])


def sizes(trained: Mapping[str, np.ndarray], p: EmbeddingTraining) -> pd.DataFrame:
    """Count the `parameters` of each `model` and of its `autoencoder`; also its `epochs`."""
    rows = []
    for name in MODELS:
        model = load(trained, name, p.seeds[0], p)
        numbers = [sum(q.numel() for q in part.parameters()) for part in (model, model.vae)]
        rows.append((name, *numbers, _epochs(name, p)))
    return pd.DataFrame(rows, columns=["model", "parameters", "autoencoder", "epochs"])


def seconds(folder: Path, p: EmbeddingTraining) -> pd.DataFrame:
    """Processor time of every training and its evaluation (Table 4): `model`, `seed`, `seconds`."""
    rows = [
        (name, seed, sum(json.loads(parts.read(folder, f"{name}_seed{seed}.json") or b"[]")))
        for name in MODELS
        for seed in p.seeds
    ]
    return pd.DataFrame(rows, columns=["model", "seed", "seconds"])


def losses_on_test_sets(
    *study: Any, trained: Mapping[str, np.ndarray], p: EmbeddingTraining
) -> pd.DataFrame:
    """Measure the IO models of all seeds on the test sets (Table 5): `set`, `seed`, `loss`."""
    data, tests = gather(*study)
    cells = data["io"].adjacency, data["io"].operations
    models = {seed: load(trained, "io", seed, p) for seed in p.seeds}
    rows = [
        (name, seed, metrics.labeled_loss(model, *cells, labeled.to("cpu")))
        for name, labeled in tests.items()
        for seed, model in models.items()
    ]
    return pd.DataFrame(rows, columns=["set", "seed", "loss"])


class Trainer:
    """A model in training.

    All parameters are views of one vector, those of the autoencoder first, so that zeroing the
    gradient, clipping and Adam are one operation each. One Adam updates the autoencoder's part of
    the vector after unlabeled batches, another the whole vector after labeled ones.

    `history` has rows of epoch (from 1), metric and value. `latent_mean` and `latent_std`, (V, L),
    are the mean and standard deviation of mu over the cells of the last epoch: in the IO and
    Accuracy models over unlabeled batches, else over all. `seconds` is the processor time of each
    epoch and its evaluation.
    """

    def __init__(self, name: str, seed: int, data: Data, p: EmbeddingTraining) -> None:
        self.name, self.seed, self.data, self.p = name, seed, data, p
        self.model = build(name, data.shape, p, seed).to(data.adjacency.device)
        self.vae = self.model.vae
        vector, self.gradient = _one_vector(self.model)
        size = sum(parameter.numel() for parameter in self.vae.parameters())
        shared = nn.Parameter(vector.detach()[:size])
        shared.grad = self.gradient[:size]
        self.vectors = {"unlabeled": shared}
        if self.model is not self.vae:
            self.vectors["labeled"] = vector
        self.adams = {
            kind: torch.optim.Adam([vector], lr=p.learning_rate, fused=True)
            for kind, vector in self.vectors.items()
        }
        self.epoch = 0
        self.history: list[tuple[int, str, float]] = []
        self.seconds: list[float] = []
        rows = (self.vae.vertices, self.vae.latent)
        self.latent_mean, self.latent_std = torch.zeros(rows), torch.ones(rows)

    def train_epoch(self) -> None:
        """Train on all batches of an epoch, then evaluate.

        Raises ValueError if a loss is not finite, as where the learning rate is too large.
        """
        start = time.process_time()
        self.epoch += 1
        one_order = self.name == "arch2vec_original_eval"
        self.model.train(not one_order or self.epoch == 1)
        order = _seed(self.seed, 1 if one_order else self.epoch, "order of batches")
        losses: dict[str, list[Tensor]] = {}
        mus, moments = [], []
        device = self.data.adjacency.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_seed(self.seed, self.epoch, "noise"))
            for batch in batches(self.name, self.data, self.p, order):
                found, mu = self.step(batch)
                for metric, loss in found.items():
                    losses.setdefault(metric, []).append(loss)
                if batch.networks is None or "labeled" not in self.adams:
                    mus.append(mu)
                if len(mus) == BLOCK:
                    moments.append(_moments(mus))
                    mus = []
        moments += [_moments(mus)] if mus else []
        self.latent_mean, self.latent_std = _mean_std(moments)
        means = {key: torch.stack(found).cpu().double().mean() for key, found in losses.items()}
        if not all(mean.isfinite() for mean in means.values()):
            raise ValueError(
                f"the loss of {self.name}, seed {self.seed}, is not finite in epoch {self.epoch}; "
                "lower learning_rate"
            )
        measured = {key: mean.item() for key, mean in means.items()} | self.measure()
        self.history += [(self.epoch, *pair) for pair in measured.items()]
        self.seconds.append(time.process_time() - start)

    def step(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Make one step of Adam; return losses by the name of their metric, and mu (B, V, L)."""
        cells = batch.adjacency, batch.operations
        mu, log_std = self.vae.encode(*cells)
        z = self.vae.sample(mu, log_std)
        loss = self.vae.loss(z, mu, log_std, *cells)
        found, kind, met = {}, "unlabeled", "unlabeled"
        if batch.networks is not None and batch.images is not None:
            met = "labeled"
            if not isinstance(self.model, Arch2vec):
                kind, places = "labeled", (batch.networks, batch.images)
                on_labels = self.model.label_loss(z, self.data.labeled, *places)
                loss = loss + self.p.labeled_weight * on_labels
                found["labels_running"] = on_labels.detach()
        found[f"loss_{met}_batches"] = loss.detach()
        self.gradient.zero_()
        loss.backward()
        clip_grad_norm_([self.vectors[kind]], self.p.clip)
        self.adams[kind].step()
        return found, mu.detach()

    def measure(self) -> dict[str, float]:
        """Measure the model after an epoch; return metrics by name."""
        data, device = self.data, self.data.adjacency.device
        cells = data.adjacency, data.operations
        validation = (part[data.validation] for part in cells)
        measured = metrics.reconstruction(self.model, *validation)
        moments = self.latent_mean.to(device), self.latent_std.to(device)
        seed = _seed(self.seed, self.epoch, "drawn cells")
        drawn = metrics.draw(self.model, *moments, self.p.validity_samples, seed)
        measured |= metrics.validity(*drawn)
        if "labeled" in self.adams:
            for name, labeled in {"train": data.labeled, **data.watched}.items():
                measured[f"labels_{name}"] = metrics.labeled_loss(self.model, *cells, labeled)
        return measured

    def checkpoint(self) -> bytes:
        """Write the state of the training, and the key that a training must have to restore it."""
        about = {"key": self._key(), "epoch": self.epoch, "history": self.history}
        tensors = {"about": _text(about), "mean": self.latent_mean, "std": self.latent_std}
        tensors |= {f"model.{key}": value for key, value in self.model.state_dict().items()}
        for kind, adam in self.adams.items():
            state = adam.state[self.vectors[kind]]
            tensors |= {f"{kind}.{key}": value for key, value in state.items()}
        copies = {key: value.detach().cpu().clone() for key, value in tensors.items()}
        return safetensors.torch.save(copies)

    def restore(self, checkpoint: bytes, timing: bytes | None) -> None:
        """Restore the state of a checkpoint, if it is of this training."""
        # Copied into memory that torch aligns, see `data.unpack`.
        tensors = {key: t.clone() for key, t in safetensors.torch.load(checkpoint).items()}
        about = json.loads(tensors["about"].numpy().tobytes())
        if about["key"] != self._key():
            return
        state = {key: tensors[f"model.{key}"] for key in self.model.state_dict()}
        self.model.load_state_dict(state)  # copies into the vector
        for kind, adam in self.adams.items():
            vector = self.vectors[kind]
            adam.state[vector] = {
                key: tensors[f"{kind}.{key}"].to(vector.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.latent_mean, self.latent_std = tensors["mean"], tensors["std"]
        self.epoch = about["epoch"]
        self.history = [(epoch, metric, value) for epoch, metric, value in about["history"]]
        spent = json.loads(timing) if timing else [float("nan")] * self.epoch
        self.seconds = spent[: self.epoch]

    def _key(self) -> list[Any]:
        parameters = self.p.model_dump(mode="json", exclude=NO_PART_OF_A_TRAINING)
        data = self.data
        sizes = len(data.adjacency), len(data.unlabeled), *data.labeled.outputs.shape
        return [self.name, self.seed, parameters, *sizes]


def _one_vector(model: nn.Module) -> tuple[nn.Parameter, Tensor]:
    """Make the parameters of a model, and their gradients, views of one vector each."""
    parameters = list(model.parameters())
    vector = nn.Parameter(parameters_to_vector(parameters).detach())
    gradient = vector.grad = torch.zeros_like(vector)
    sizes = [parameter.numel() for parameter in parameters]
    views = zip(vector.detach().split(sizes), gradient.split(sizes), strict=True)
    for parameter, (value, slope) in zip(parameters, views, strict=True):
        parameter.data, parameter.grad = value.view_as(parameter), slope.view_as(parameter)
    return vector, gradient


def _moments(mus: list[Tensor]) -> tuple[Tensor, int]:
    """Variance and mean of mu over cells, (2, V, L), and the number of cells."""
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


def _seed(seed: int, epoch: int, stream: str) -> int:
    sequence = np.random.SeedSequence([seed, epoch, STREAMS.index(stream)])
    return int(sequence.generate_state(1)[0])


def _epochs(name: str, p: EmbeddingTraining) -> int:
    return p.original_epochs if name.startswith("arch2vec_original") else p.epochs


def _text(value: Any) -> Tensor:
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
