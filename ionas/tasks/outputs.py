"""What labeled networks compute after less training than notebook 02 gives, and in other forms.

Results are named `OUTPUTS/PART`: of a dose (`0`, `1`, ..., `all`) or of a kind, and of the `train`
or `validation` networks, in the order of notebook 02's; (N, I, k) for N networks, I images and k
values. `DOSE/PART_accuracy`, (N,), are accuracies on the test images.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ionas import pretraining
from ionas.images import Images, ImageSet
from ionas.io_dataset import network_targets
from ionas.networks import CPU_BATCH, CellTable, Network, build, load_network
from ionas.parameters import IODataset, Pretraining
from ionas.parts import Call, complete
from ionas.space.cells import Cell
from ionas.tasks.clusters import variance_shares
from ionas.tasks.distances import cka

PENALTY = 1e-3  # of the ridge readout, as a share of the mean variance of a feature
REGIONS = 2  # along each side of a feature map
KINDS = ("unweighted", "maps", "logits", "cka")
PARTS = ("train", "validation")
Arrays = Mapping[str, np.ndarray]


def network_seed(cell: Cell, seed: int) -> int:
    """Seed from which notebook 02, with its `seed`, trains the network of a cell."""
    return int(np.random.SeedSequence([seed, int(cell.hash, 16)]).generate_state(1)[0])


def untrained(cell: Cell, p: Pretraining, in_channels: int, classes: int, seed: int) -> Network:
    """Build the network of a cell with the weights that a training of this seed begins with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(cell, p, in_channels, classes)


@torch.no_grad()
def calibrate(network: Network, pixels: Tensor) -> Tensor:
    """Normalise by the statistics of a batch, (I, C, H, W), from now on.

    Returns the (I, F) features of the batch; the network is in evaluation mode afterwards.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the running statistics become those of the batch
    features = network.train().features(pixels)
    network.eval()
    return features


def ridge_readout(features: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
    """Fit a last layer in closed form: (I, F) features, (I,) classes -> `weight` and `bias`.

    Ridge regression on one-hot classes, (C, F) and (C,). The bias is not penalised; the squared
    weights are, by PENALTY times the sum of squares of a centred feature, averaged over features.
    """
    x, y = features.double(), F.one_hot(labels, classes).double()
    centred, mean = x - x.mean(0), y.mean(0)
    gram = centred.T @ centred
    gram.diagonal().add_((PENALTY * gram.diagonal().mean()).clamp(min=1e-12))
    weight = torch.linalg.solve(gram, centred.T @ (y - mean)).T
    found = {"weight": weight, "bias": mean - weight @ x.mean(0)}
    return {name: value.to(features.dtype) for name, value in found.items()}


def by_dose(
    networks: pd.DataFrame,
    table: CellTable,
    shown: Arrays,
    targets: Arrays,
    images: Path | None,
    p: Pretraining,
    doses: list[int],
    readout_images: int,
    *,
    parts: Path,
    jobs: int = 0,
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Outputs and accuracies of the networks of each dose, a number of epochs, and of `all`.

    A network is trained anew by notebook 02's recipe with fewer epochs, from the same weights; with
    0 epochs it keeps these, and a `ridge_readout` is its last layer. It is normalised by the
    statistics of the first `readout_images` train images (0: all), on which the readout is fitted
    as well: after a few steps, running statistics are still far from these. `all` are the
    `targets` of notebook 03, whose images and number of outputs the others have, and the
    accuracies of the `networks` of notebook 02.
    """
    data = pretraining.load(images, p)
    count, top_k = targets["train_validation"].shape[1:]
    seen = [shown[f"validation_{name}"][:count] for name in ("pixels", "labels")]
    sets = {"train": vars(data.train).values(), "shown": seen, "test": vars(data.test).values()}
    arrays = {f"{k}_{i}": np.asarray(v) for k, pair in sets.items() for i, v in enumerate(pair)}
    texts = list(zip(*table.cells[networks["index"].to_numpy()].to_text(), strict=True))
    recipes = [p.model_copy(update={"epochs": dose}).model_dump(mode="json") for dose in doses]
    about = {
        "set": (data.classes, data.mean, data.std),
        "readout": readout_images or len(data.train),
        "top_k": top_k,
        "device": device,
    }
    calls: list[Call] = [((k, text, about), tuple(arrays)) for k in recipes for text in texts]
    made = iter(complete(_trained, calls, arrays, parts, jobs, "outputs by dose", "network"))
    outputs = {"all": np.concatenate([targets[f"{part}_validation"] for part in PARTS])}
    accuracy = {"all": networks["test_accuracy"].to_numpy()}
    for dose in map(str, doses):
        rows = [next(made) for _ in texts]
        outputs[dose] = np.array([row["outputs"] for row in rows])
        accuracy[dose] = np.array([row["accuracy"] for row in rows])
    found, labeled = {}, networks["labeled"].to_numpy()
    for dose, values in outputs.items():
        for part in PARTS:  # in the precision of notebook 03's
            found[f"{dose}/{part}"] = values[labeled == part].astype(np.float16).astype(np.float32)
            found[f"{dose}/{part}_accuracy"] = accuracy[dose][labeled == part].astype(np.float32)
    return found


def _trained(
    recipe: dict[str, Any], cell_text: list[str], about: dict[str, Any], *arrays: np.ndarray
) -> dict[str, Any]:
    pairs = zip(*[map(torch.from_numpy, arrays)] * 2, strict=True)
    train, shown, test = (Images(*pair) for pair in pairs)
    cell, p = Cell.from_text(*cell_text), Pretraining.model_construct(**recipe)
    seed, batch, classes = network_seed(cell, p.seed), train[: about["readout"]], about["set"][0]
    if p.epochs:
        data = ImageSet("", train, test[:1], test[:1], *about["set"])  # only the train part counts
        network = pretraining.train_network(cell, data, p, seed, about["device"]).network.cpu()
        calibrate(network, batch.pixels)
    else:
        network = untrained(cell, p, batch.pixels.shape[1], len(classes), seed)
        features = calibrate(network, batch.pixels)
        network.classifier.load_state_dict(ridge_readout(features, batch.labels, len(classes)))
    outputs = network_targets(network, shown, IODataset(top_k=about["top_k"])).tolist()
    return {"outputs": outputs, "accuracy": pretraining.accuracy(network, test)}


def doses_of(outputs: Iterable[str]) -> list[str]:
    """Names of the doses in the result of `by_dose`, from the least to `all`."""
    found = {name.partition("/")[0] for name in outputs}
    return sorted(found, key=lambda dose: (len(dose), dose))


def summary(doses: Arrays) -> pd.DataFrame:
    """Describe the train networks of each dose.

    Returns `dose`; `mean`, `least` and `most` of the accuracies; `between networks`, the share of
    the variance of outputs that lies between the networks on one image.
    """
    rows = []
    for dose in doses_of(doses):
        accuracy, shares = doses[f"{dose}/train_accuracy"], variance_shares(doses[f"{dose}/train"])
        ends = (float(take(accuracy)) for take in (np.mean, np.min, np.max))
        rows.append((dose, *ends, shares["networks"]))
    return pd.DataFrame(rows, columns=["dose", "mean", "least", "most", "between networks"])


@torch.inference_mode()
def network_kinds(network: Network, images: Images, top_k: int) -> dict[str, Tensor]:
    """Outputs of one network of other kinds than the paper's, on I images.

    `unweighted` (I, k) are the features, and the bias as a feature 1, in the paper's order but
    not multiplied by their weights. `maps` (I, k * 4) are the contributions of four regions each of
    the k feature maps of the largest weights. `logits` (I, C) are the scores of all classes.
    `features` (I, F) are the pooled features in the network's own order.
    """
    maps = torch.cat([network.body(x) for x in images.pixels.split(CPU_BATCH)])  # (I, F, H, W)
    features, head = maps.mean((2, 3)), network.classifier
    appended = F.pad(features, (0, 1), value=1.0)
    weights = torch.cat([head.weight, head.bias[:, None]], 1)
    order = weights.argsort(dim=1, descending=True, stable=True)[images.labels, :top_k]
    largest, channels = head.weight.sort(dim=1, descending=True, stable=True)
    largest, channels = (part[images.labels, :top_k, None] for part in (largest, channels))
    regions = F.adaptive_avg_pool2d(maps, REGIONS).flatten(2)  # (I, F, 4)
    kept = regions.gather(1, channels.expand(-1, -1, regions.shape[2])) * largest
    return {
        "unweighted": appended.gather(1, order),
        "maps": kept.flatten(1),
        "logits": head(features),
        "features": features,
    }


def other_kinds(
    networks: pd.DataFrame, table: CellTable, shown: Arrays, targets: Arrays, folder: Path
) -> dict[str, np.ndarray]:
    """Outputs of notebook 02's networks of all KINDS, and their `features`.

    Those of `network_kinds` as they are, but `maps`, which are reduced to their first k principal
    components, fitted on all pairs of a train network and an image. `cka` are a network's
    similarities by linear CKA with each train network, reduced in the same way: the same for every
    image.
    """
    count, top_k = targets["train_validation"].shape[1:]
    seen = (torch.from_numpy(shown[f"validation_{k}"][:count]) for k in ("pixels", "labels"))
    images, parts = Images(*seen), networks["labeled"].to_numpy()
    loaded = (load_network(folder, table.cells[int(index)]) for index in networks["index"])
    each = [network_kinds(network, images, top_k) for network in loaded]
    found = {kind: np.stack([one[kind].numpy() for one in each]) for kind in each[0]}
    train = parts == "train"
    alike = cka(found["features"], found["features"][train])[:, None]
    found["maps"] = _principal(found["maps"], train, top_k)
    found["cka"] = np.repeat(_principal(alike, train, top_k), count, 1)
    return {
        f"{kind}/{part}": values[parts == part].astype(np.float32)
        for kind, values in found.items()
        for part in PARTS
    }


def _principal(values: np.ndarray, train: np.ndarray, components: int) -> np.ndarray:
    """Reduce the last axis of (N, I, D) values to principal components of the train networks."""
    from sklearn.decomposition import PCA

    rows = values[train].reshape(-1, values.shape[-1])
    pca = PCA(min(components, *rows.shape), svd_solver="full").fit(rows)
    return pca.transform(values.reshape(-1, values.shape[-1])).reshape(*values.shape[:-1], -1)
