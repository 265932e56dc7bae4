"""The same models trained on other labels: less training, fewer networks or images, other kinds.

Every variant is compared with the reference, which has all epochs, all networks and images, and the
outputs of the paper. All variants make as many steps on labels as the reference: where there are
fewer networks or images, each pair is seen more often.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ionas import parallel
from ionas.embedding import metrics, training
from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.data import PARTS, Data, Labeled, gather, pack, unpack
from ionas.embedding.extract import extract
from ionas.embedding.io_model import IOModel
from ionas.parameters import EmbeddingTraining, LabelValue
from ionas.parts import read as read_part
from ionas.parts import write as write_part

REFERENCE = "reference"
EMBEDDING = {"io": "io_flatten", "accuracy": "accuracy_flatten", "arch2vec": "arch2vec"}
BY_MEAN = (REFERENCE, "dose-0")  # variants whose IO model is compared with arch2vec, by the mean
MODELS = {  # axis of a variant -> models that are trained on it; on all others, the IO model
    REFERENCE: tuple(EMBEDDING),
    **dict.fromkeys(("dose", "networks"), ("io", "accuracy")),
}


class Variant(NamedTuple):
    """Labels to train on: `outputs` of a dose (`0`, `1`, ..., `all`) or a kind, of the first
    `networks` train networks on the first `images` images.

    Its name, `AXIS-LEVEL` or the reference, has no `_`, as it is part of the names of embeddings.
    """

    name: str
    outputs: str
    networks: int
    images: int


def variants(levels: Mapping[str, list[Any]], networks: int, images: int) -> list[Variant]:
    """The reference, of `networks` and `images`, and all variants of it.

    `levels` has the epochs of each `dose`, numbers of `networks` and of `images`, and every `kind`;
    numbers that are not smaller than the reference's are left out.
    """
    return [
        Variant(REFERENCE, "all", networks, images),
        *(Variant(f"dose-{n}", str(n), networks, images) for n in levels["dose"]),
        *(Variant(f"networks-{n}", "all", n, images) for n in levels["networks"] if n < networks),
        *(Variant(f"images-{n}", "all", networks, n) for n in levels["images"] if n < images),
        *(Variant(f"kind-{kind}", kind, networks, images) for kind in levels["kind"]),
    ]


def settings(p: LabelValue) -> EmbeddingTraining:
    """Parameters of the models and of their training; those not in `p` are notebook 05's."""
    shared = LabelValue.model_fields.keys() & EmbeddingTraining.model_fields.keys()
    return EmbeddingTraining(**{name: getattr(p, name) for name in shared}, validity_samples=1)


def train_variants(
    *study: Any,
    doses: Mapping[str, np.ndarray],
    kinds: Mapping[str, np.ndarray],
    levels: Mapping[str, list[Any]],
    p: EmbeddingTraining,
    parts: Path,
    jobs: int = 0,
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Train the models on all `variants`, with every seed.

    Takes the study of `data.gather`; `doses` and `kinds` are `OUTPUTS/PART` as of
    `tasks.outputs`. All outputs are scaled to the spread of those of the reference, so that the
    loss on labels weighs the same.

    Returns embeddings of all cells, `MODEL_VARIANT_seedS` (N, L), of arch2vec by the mean and of
    the others by the flattened latent matrix; of some IO models also the mean, as
    `io_mean-VARIANT_seedS`. For each unseen network also `loss/...` of the same
    names, the mean squared error of the model on the images of its training, and `blind/...`, that
    of answering with the mean over the train networks seen, whatever the cell.
    """
    whole, items, outputs = gather(*study)[0]["io"], [], {**doses, **kinds}
    spread = _spread(doses["all/train"])
    for variant in variants(levels, *doses["all/train"].shape[:2]):
        prefix, given = f"{variant.outputs}/", {}
        for part in PARTS:
            accuracy = f"/{part}_accuracy"  # of a kind, that of the reference
            given[f"{part}_accuracy"] = outputs.get(
                prefix + accuracy[1:], outputs["all" + accuracy]
            )
            factor = np.float32(spread / _spread(outputs[f"{prefix}train"]))
            given[part] = outputs[prefix + part] * factor
        data = variant_data(whole, given, variant)
        write_part(parts.resolve(), f"{variant.name}.safetensors", pack(data))
        for model in MODELS.get(variant.name.partition("-")[0], ("io",)):
            items += [(model, variant.name, k, p, parts.resolve(), device) for k in p.seeds]
    found: dict[str, np.ndarray] = {}
    for arrays in parallel.run(_trained, items, jobs, "training on other labels", "model"):
        found |= arrays
    return found


def variant_data(whole: Data, given: Mapping[str, np.ndarray], variant: Variant) -> Data:
    """The data of a variant, whose networks and images are the first ones of the `whole`.

    They are repeated in turns until there are as many. All other train cells are unlabeled.
    `given` are outputs and accuracies by part, `PART` (n, I, k) and `PART_accuracy` (n,).
    """
    seen, unseen = whole.labeled, whole.watched["unseen_networks"]
    rows = np.resize(range(variant.networks), len(seen.networks))
    columns = np.resize(range(variant.images), len(seen.pixels))

    def labeled(of: Labeled, part: str, rows: np.ndarray, columns: np.ndarray) -> Labeled:
        outputs, accuracy = given[part][rows][:, columns], given[f"{part}_accuracy"][rows]
        targets = (torch.tensor(values, dtype=torch.float32) for values in (outputs, accuracy))
        return Labeled(of.networks[rows], of.pixels[columns], *targets)

    left = np.setdiff1d(whole.train, seen.networks[: variant.networks])
    every, first = np.arange(len(unseen.networks)), np.arange(variant.images)
    return replace(
        whole,
        unlabeled=torch.tensor(left),
        labeled=labeled(seen, "train", rows, columns),
        watched={"unseen_networks": labeled(unseen, "validation", every, first)},
    )


def _trained(
    model: str, variant: str, seed: int, p: EmbeddingTraining, folder: Path, device: str
) -> dict[str, np.ndarray]:
    content = read_part(folder, f"{variant}.safetensors")
    if content is None:
        raise parallel.unseen(folder, "checkpoints")
    data, key = unpack(content), f"{model}_{variant}_seed{seed}"
    trained = training.train(model, seed, data, p, folder / variant, device).model.cpu()
    cells = data.adjacency, data.operations
    embeddings = extract(model, trained, *cells)
    found = {key: embeddings[EMBEDDING[model]]}
    if model == "io" and variant in BY_MEAN:
        found[f"io_mean-{variant}_seed{seed}"] = embeddings["io_mean"]
    if isinstance(trained, Arch2vec):
        return found
    seen, unseen = data.labeled, data.watched["unseen_networks"]
    z = metrics.encode(trained, *(part[unseen.networks] for part in cells))
    with metrics.evaluating(trained):
        if isinstance(trained, IOModel):
            features, truth = trained.tower(unseen.pixels), unseen.outputs
            told = torch.stack(
                [trained.predict(k.expand(len(features), -1, -1), features) for k in z]
            )
            mean = seen.outputs[:, : len(features)].mean(0)
        else:
            told, truth, mean = trained.predict(z), unseen.accuracy, seen.accuracy.mean()
    for name, answer in (("loss", told), ("blind", mean)):
        errors = (answer - truth).square().reshape(len(z), -1)
        found[f"{name}/{key}"] = errors.double().mean(1).numpy()
    return found


def _spread(outputs: np.ndarray) -> float:
    """Standard deviation around the mean output, over networks and images."""
    return float(np.sqrt(outputs.var((0, 1), dtype=np.float64).mean()))
