"""The IO dataset: what a trained network makes of an image (paper, sections 3 and D; METHOD 3).

The pooled features of two networks mean the same only up to a permutation. So they are put in the
order of the last layer's weights for the true class, and multiplied by them: the target of a
(network, image) pair is the list of the contributions to the true class's logit that have the
largest weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file
from torch import Tensor

from ionas.images import Images
from ionas.networks import CPU_BATCH, Network


def targets(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    top_k: int = 10,
    ordered: bool = True,
) -> Tensor:
    """Ordered, weighted top-k features of one network.

    A feature 1 is appended, whose weight is the bias. Each feature is multiplied by its weight for
    the image's true class; the products are ordered by weight, not by product, descending; the
    first `top_k` are kept. Equal weights keep the order of the features, the bias being the last.
    With `top_k` = F + 1 the sum of a row is the logit of the true class.

    Parameters
    ----------
    features
        (I, F) pooled features before the dense layer.
    weight, bias
        (C, F) and (C,) of the dense layer.
    labels
        (I,) true classes.
    top_k
        Number of contributions kept (paper: 10 of 513).
    ordered
        Whether to order them. If not, the network's own first `top_k` are kept: only to show what
        the order is good for.

    Returns
    -------
    Tensor
        (I, top_k), of the type and on the device of `features`.

    Raises
    ------
    ValueError
        If the shapes do not fit, a label is no class, or `top_k` is not in 1 to F + 1.
    """
    classes, width = weight.shape
    if features.shape[1:] != (width,) or bias.shape != (classes,):
        raise ValueError(
            f"features {tuple(features.shape)}, weight {tuple(weight.shape)} and bias "
            f"{tuple(bias.shape)} do not fit: expected (I, F), (C, F) and (C,)"
        )
    if labels.shape != features.shape[:1]:
        raise ValueError(f"{len(features)} images have labels of shape {tuple(labels.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels must be in 0 to {classes - 1}, the classes of the dense layer")
    if not 1 <= top_k <= width + 1:
        raise ValueError(
            f"top_k is {top_k}, but there are {width} features and the bias: "
            f"choose 1 to {width + 1}"
        )
    weights = torch.cat([weight, bias[:, None]], 1)  # (C, F + 1)
    appended = torch.cat([features, features.new_ones(len(features), 1)], 1)  # (I, F + 1)
    if not ordered:
        return (appended * weights[labels])[:, :top_k]
    largest, order = weights.sort(dim=1, descending=True, stable=True)
    return appended.gather(1, order[labels, :top_k]) * largest[labels, :top_k]


@torch.inference_mode()
def contributions(network: Network, pixels: Tensor, label: int) -> pd.DataFrame:
    """All contributions of one image to the logit of its true class, largest weight first.

    Parameters
    ----------
    network
        In evaluation mode.
    pixels, label
        (C, H, W) of the image, and its true class.

    Returns
    -------
    DataFrame
        F + 1 rows: `feature` (its position in the network; the bias is F), `weight`, `value`, and
        `contribution`, their product. The first rows are what `targets` keeps; the contributions
        add up to the logit.
    """
    head = network.classifier
    value = torch.cat([network.features(pixels[None])[0], pixels.new_ones(1)])
    weight = torch.cat([head.weight[label], head.bias[label, None]])
    ordered, order = weight.sort(descending=True, stable=True)
    values = {"feature": order, "weight": ordered, "value": value[order]}
    frame = pd.DataFrame({name: tensor.numpy() for name, tensor in values.items()})
    return frame.assign(contribution=frame["weight"] * frame["value"])


@torch.inference_mode()
def network_targets(
    networks: Iterable[Network],
    images: Images,
    top_k: int = 10,
    batch_size: int = 512,
    device: str = "cpu",
    ordered: bool = True,
) -> np.ndarray:
    """Targets of many networks on the same images, in evaluation mode.

    Parameters
    ----------
    networks
        Networks with `features` and a last linear layer `classifier`, as `ionas.networks.Network`;
        a generator that loads them one at a time keeps only one in memory.
    images
        I images, not augmented.
    top_k, batch_size, device
        Contributions kept, images in a batch (on a CPU at most `networks.CPU_BATCH`),
        device of the computation.
    ordered
        See `targets`.

    Returns
    -------
    ndarray
        (N, I, top_k) float32.

    Raises
    ------
    ValueError
        If there is no network or no image, a network gives values that are not finite, or as
        `targets` does.
    """
    if not len(images):
        raise ValueError("there are no images: the IO dataset needs at least one")
    here = images.to(device)
    if torch.device(device).type == "cpu":
        batch_size = min(batch_size, CPU_BATCH)
    rows: list[np.ndarray] = []
    for network in networks:
        network = network.to(device).eval()
        features = torch.cat([network.features(x) for x in here.pixels.split(batch_size)])  # (I, F)
        head = network.classifier
        values = targets(features, head.weight, head.bias, here.labels, top_k, ordered)
        if not values.isfinite().all():
            raise ValueError(
                f"network {len(rows)} gives outputs that are not finite: its training diverged; "
                "lower the learning rate or label other cells"
            )
        rows.append(values.cpu().numpy())
    if not rows:
        raise ValueError("there are no networks: the IO dataset needs at least one")
    return np.stack(rows).astype(np.float32)


def with_published(
    computed: Mapping[str, np.ndarray], networks: pd.DataFrame, folder: Path
) -> dict[str, np.ndarray]:
    """Put targets that a publication holds between those computed here.

    Parameters
    ----------
    computed
        (n, I, k) targets of the networks trained here, by `PART_IMAGES`, the part of the networks
        and that of the images; without the parts of which none was trained here.
    networks
        All networks wanted, in order: `hash`, `labeled` (the part), `published` (whether the
        targets are the publication's).
    folder
        Where `ionas.pretraining.published_networks` put the publication's networks and targets.

    Returns
    -------
    dict
        (N, I, k) float32 by `PART_IMAGES`, in the order of `networks`.

    Raises
    ------
    ValueError
        If the publication's targets are of another number of images or contributions, or a network
        is of another part there.
    """
    published = pd.read_parquet(folder / "networks.parquet")
    complete = {}
    for name, values in load_file(folder / "targets.safetensors").items():
        part = name.split("_")[0]
        there = pd.Index(published.loc[published["labeled"] == part, "hash"])
        wanted = networks[networks["labeled"] == part]
        taken = wanted["published"].to_numpy(bool)
        positions = there.get_indexer(wanted["hash"][taken])
        if (positions < 0).any():
            other = wanted["hash"][taken].to_numpy()[positions < 0][0]
            raise ValueError(
                f"network {other} is of the {part} part here, but not in the publication; "
                "set notebook 01 as it was there"
            )
        here = computed.get(name, values[:0])
        if here.shape[1:] != values.shape[1:]:
            raise ValueError(
                f"the published targets {name} have {values.shape[1]} images and {values.shape[2]} "
                f"contributions, those here {here.shape[1]} and {here.shape[2]}; set notebook 03 "
                "as it was there"
            )
        complete[name] = np.empty((len(wanted), *values.shape[1:]), np.float32)
        complete[name][taken], complete[name][~taken] = values[positions], here
    return complete


def first_images(pixels: Tensor, labels: Tensor, count: int) -> Images:
    """Return the first `count` images, or all if it is 0.

    Raises
    ------
    ValueError
        If there are fewer.
    """
    if count > len(labels):
        raise ValueError(
            f"cannot take {count} images: notebook 02 keeps {len(labels)}; "
            "take fewer, or have it keep more"
        )
    return Images(pixels, labels)[: count or len(labels)]


def split_networks(hashes: Sequence[str], fraction: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Split the train networks for the unseen images: a fraction for validation, the rest for test.

    As in the authors' code, the first ones by hash are for validation (METHOD 3). The fraction is
    rounded to whole networks, at least one on each side (paper: 61 of 608).

    Parameters
    ----------
    hashes
        Of the train networks.

    Returns
    -------
    validation, test
        Ascending positions among the train networks.

    Raises
    ------
    ValueError
        If there are fewer than two networks or the fraction is not between 0 and 1.
    """
    count = len(hashes)
    if count < 2:
        raise ValueError(f"{count} train networks cannot be split in two; label at least two")
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; it must lie between 0 and 1")
    size = min(max(round(fraction * count), 1), count - 1)
    order = np.argsort(np.asarray(hashes), kind="stable")
    return np.sort(order[:size]), np.sort(order[size:])


def baseline(values: np.ndarray) -> float:
    """Mean squared error of always predicting the mean target vector of (N, I, k) targets."""
    flat = values.reshape(-1, values.shape[-1])
    return float(flat.var(0, dtype=np.float64).mean())


def five_sets(
    train_validation: np.ndarray,
    validation_validation: np.ndarray,
    train_test: np.ndarray,
    validation_test: np.ndarray,
    validation_networks: np.ndarray,
    test_networks: np.ndarray,
) -> pd.DataFrame:
    """Table 2 of the paper, and the baseline of each set (Fig. 10, Table 5).

    Parameters
    ----------
    train_validation, validation_validation, train_test, validation_test
        (networks, images, k) targets, named by the part of the networks and of the images.
    validation_networks, test_networks
        Positions of the train networks whose targets on the test images are for validation and for
        test, from `split_networks`.

    Returns
    -------
    DataFrame
        `set`, a short name; `labeled`, `networks`, `images` as in Table 2; `network_count` and
        `image_count`; `size`, their product; `baseline`, the mean squared error of the set's own
        mean target vector.

    Raises
    ------
    ValueError
        If the positions are no partition of the train networks.
    """
    both = np.concatenate([validation_networks, test_networks])
    if not np.array_equal(np.sort(both), np.arange(len(train_test))):
        raise ValueError(
            f"validation_networks and test_networks must split the {len(train_test)} train networks"
        )
    share = round(len(validation_networks) / len(both), 2)
    rows = [
        ("train", "train", "train", "validation", train_validation),
        ("unseen networks", "validation", "validation", "validation", validation_validation),
        (
            "unseen images",
            "validation",
            f"{share:g} train",
            "test",
            train_test[validation_networks],
        ),
        ("test: unseen images", "test", f"{1 - share:g} train", "test", train_test[test_networks]),
        ("test: unseen networks and images", "test", "validation", "test", validation_test),
    ]
    return pd.DataFrame(
        [
            {
                "set": name,
                "labeled": labeled,
                "networks": networks,
                "images": images,
                "network_count": values.shape[0],
                "image_count": values.shape[1],
                "size": values.shape[0] * values.shape[1],
                "baseline": baseline(values),
            }
            for name, labeled, networks, images, values in rows
        ]
    )
