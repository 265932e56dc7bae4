"""The IO dataset: the output of trained networks on images (paper, sections 3 and D; METHOD 3).

The pooled features of two networks are comparable only up to a permutation. So they are put in the
order of the last layer's weights for the true class, and multiplied by them: the target of a
(network, image) pair is the list of the contributions to the true class's logit that have the
largest weights.

Functions of this module take `networks`, one row per trained network with `index` in the `table`
of cells, `hash`, `labeled`, its part of the split, and `trained_from`; `images` as
`ionas.pretraining.io_images` returns them; and the `folder` in which
`ionas.pretraining.train_networks` kept the networks. What is made of each network carries its
`trained_from`, 32 bytes. So a result that is `known` from an earlier call, as from a publication,
serves for its networks, which need not be in the folder then.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ionas.images import Images
from ionas.networks import CPU_BATCH, CellTable, Network, load_network
from ionas.parameters import IODataset

SETS = (  # of Table 2, by what is new in them
    "train",
    "unseen networks",
    "unseen images",
    "test: unseen images",
    "test: unseen networks and images",
)
IN_OWN_ORDER = 16  # networks that are enough to see what the order is good for
Arrays = Mapping[str, np.ndarray]


def targets(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    top_k: int = 10,
    ordered: bool = True,
) -> Tensor:
    """Ordered, weighted top-k features of one network: (I, F) pooled features -> (I, top_k).

    `weight` (C, F) and `bias` (C,) are those of the dense layer; `labels` (I,) are the true
    classes. A feature 1 is appended, whose weight is the bias. Each feature is multiplied by its
    weight for the image's true class; the products are ordered by weight, not by product,
    descending; the first `top_k` are kept (paper: 10 of 513). Equal weights keep the order of the
    features, the bias being the last. With `top_k` = F + 1 the sum of a row is the logit of the
    true class. If not `ordered`, the network's own first `top_k` products are kept, which only
    serves to show what the order is good for.

    Raises ValueError if the shapes do not fit, or `top_k` is not in 1 to F + 1.
    """
    width = weight.shape[1]
    given = [tuple(tensor.shape) for tensor in (features, weight, bias, labels)]
    if given != [(len(labels), width), (len(bias), width), (len(bias),), (len(labels),)]:
        raise ValueError(f"shapes {given} do not fit: expected (I, F), (C, F), (C,) and (I,)")
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
def network_targets(
    network: Network, images: Images, p: IODataset, device: str = "cpu", ordered: bool = True
) -> np.ndarray:
    """Compute `targets` of a network in evaluation mode on I images, (I, top_k) float32.

    Raises ValueError if one is not finite or too large for float16, in which the targets are kept
    (which loses a millionth of their variance).
    """
    network, images = network.to(device).eval(), images.to(device)
    size = min(p.batch_size, CPU_BATCH) if torch.device(device).type == "cpu" else p.batch_size
    features = torch.cat([network.features(x) for x in images.pixels.split(size)])  # (I, F)
    head = network.classifier
    made = targets(features, head.weight, head.bias, images.labels, p.top_k, ordered)
    values = made.cpu().numpy()
    if not (np.abs(values) <= np.finfo(np.float16).max).all():
        raise ValueError(
            f"the targets of network {network.cell.hash} are too large or not finite: its training "
            "diverged; lower the learning rate or label other cells"
        )
    return values


def io_targets(
    networks: pd.DataFrame,
    table: CellTable,
    images: Arrays,
    p: IODataset,
    folder: Path,
    known: Arrays | None = None,
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Compute the targets of all trained networks, with one network in memory at a time.

    Returns (N, I, k) float16 arrays `train_validation`, `train_test`, `validation_validation` and
    `validation_test`, named by the part of the networks and of the images; `train_from` and
    `validation_from` are (N, 32) uint8. Raises ValueError if a network is missing or damaged, if
    fewer images were kept than are wanted, or if a target is not finite.
    """
    shown = chosen_images(images, p)
    made: dict[str, np.ndarray] = {}
    for part, rows in networks.groupby("labeled", sort=False):
        named = {seen: f"{part}_{seen}" for seen in shown}
        earlier = _by_network(known, f"{part}_from", named)
        stacks: dict[str, list[np.ndarray]] = {seen: [] for seen in shown}
        for index, origin in zip(rows["index"], rows["trained_from"], strict=True):
            found = earlier.get(origin)
            if found is None:
                network = load_network(folder, table.cells[int(index)])
                found = {
                    seen: network_targets(network, values, p, device).astype(np.float16)
                    for seen, values in shown.items()
                }
            for seen, values in found.items():
                stacks[seen].append(values)
        made |= {named[seen]: np.stack(values) for seen, values in stacks.items()}
        made[f"{part}_from"] = _origins(rows)
    return made


def own_order_targets(
    networks: pd.DataFrame,
    table: CellTable,
    images: Arrays,
    p: IODataset,
    folder: Path,
    known: Arrays | None = None,
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Compute `train_validation` of `io_targets` with each network's products in its own order.

    It is made of the first train networks, at most IN_OWN_ORDER; `train_from` is theirs.
    """
    shown = chosen_images(images, p)["validation"]
    rows = networks[networks["labeled"] == "train"][:IN_OWN_ORDER]
    earlier = _by_network(known, "train_from", {"": "train_validation"})
    found = []
    for index, origin in zip(rows["index"], rows["trained_from"], strict=True):
        if origin not in earlier:
            network = load_network(folder, table.cells[int(index)])
            values = network_targets(network, shown, p, device, ordered=False)
            earlier[origin] = {"": values.astype(np.float16)}
        found.append(earlier[origin][""])
    return {"train_validation": np.stack(found), "train_from": _origins(rows)}


def _origins(networks: pd.DataFrame) -> np.ndarray:
    return np.array([list(bytes.fromhex(origin)) for origin in networks["trained_from"]], np.uint8)


def _by_network(
    known: Arrays | None, origins: str, arrays: Mapping[str, str]
) -> dict[str, dict[str, np.ndarray]]:
    """Rows of arrays, by what each network was trained from."""
    if known is None or origins not in known:
        return {}
    names = [bytes(row).hex() for row in known[origins]]
    return {
        name: {short: known[long][place] for short, long in arrays.items()}
        for place, name in enumerate(names)
    }


@torch.inference_mode()
def worked_pair(
    networks: pd.DataFrame,
    table: CellTable,
    images: Arrays,
    folder: Path,
    known: Arrays | None = None,
) -> dict[str, np.ndarray]:
    """Compute all contributions of the first validation image in the first train network.

    Returns `label`, the true class; `logit`, the network's own for this class; and F + 1 values
    each of `feature` (its position in the network; the bias is F), `weight`, `value` and
    `contribution`, their product, in descending order of weight. `targets` keeps the first
    contributions; their sum is the logit. `train_from` is the network's.
    """
    first = networks[networks["labeled"] == "train"][:1]
    origin = _origins(first)
    if known is not None and np.array_equal(known["train_from"], origin):
        return dict(known)
    network = load_network(folder, table.cells[int(first["index"].iloc[0])])
    label = images["validation_labels"][0]
    pixels = torch.from_numpy(images["validation_pixels"][:1])
    head = network.classifier
    value = torch.cat([network.features(pixels)[0], pixels.new_ones(1)])
    weight = torch.cat([head.weight[label], head.bias[label, None]])
    ordered, order = weight.sort(descending=True, stable=True)
    found = {
        "feature": order,
        "weight": ordered,
        "value": value[order],
        "contribution": ordered * value[order],
        "logit": network(pixels)[0, label],
    }
    values = {name: value.numpy() for name, value in found.items()}
    return {"label": np.array(label), "train_from": origin, **values}


def chosen_images(images: Arrays, p: IODataset) -> dict[str, Images]:
    """Choose the first images of each part, as many as wanted (0: all).

    Raises ValueError if fewer were kept.
    """
    chosen = {}
    for part, count in (("validation", p.validation_images), ("test", p.test_images)):
        pixels, labels = (torch.as_tensor(images[f"{part}_{k}"]) for k in ("pixels", "labels"))
        if count > len(labels):
            raise ValueError(
                f"cannot take {count} {part} images: notebook 02 keeps {len(labels)}; "
                "take fewer, or have it keep more"
            )
        chosen[part] = Images(pixels, labels)[: count or len(labels)]
    return chosen


def sizes(networks: pd.DataFrame, images: Arrays, p: IODataset) -> pd.DataFrame:
    """Count `networks` and `images` by `part`; a number is missing where a part has none."""
    counts = {part: len(values) for part, values in chosen_images(images, p).items()}
    frame = pd.DataFrame({"networks": networks["labeled"].value_counts(), "images": counts})
    return frame.reindex(["train", "validation", "test"]).rename_axis("part").astype("Int64")


def splits(networks: pd.DataFrame, p: IODataset) -> dict[str, list[int]]:
    """Split the train networks for the unseen images: a share for validation, the rest for test.

    As in the authors' code, the first ones by hash are for validation (METHOD 3). The share is
    rounded to whole networks, at least one on each side (paper: 61 of 608). Returns
    `validation_networks` and `test_networks`, ascending positions among the train networks. Raises
    ValueError if there are fewer than two.
    """
    hashes = networks.loc[networks["labeled"] == "train", "hash"].to_numpy()
    count = len(hashes)
    if count < 2:
        raise ValueError(f"{count} train networks cannot be split in two; train at least two")
    size = min(max(round(p.validation_share * count), 1), count - 1)
    order = np.argsort(hashes, kind="stable")
    return {
        "validation_networks": np.sort(order[:size]).tolist(),
        "test_networks": np.sort(order[size:]).tolist(),
    }


def set_table(targets: Arrays, networks: pd.DataFrame, p: IODataset) -> pd.DataFrame:
    """Make Table 2 of the paper, with the errors that a model must beat on each set (Fig. 10).

    Takes the result of `io_targets`. Returns `set`, a short name; `labeled`, `networks` and
    `images` as in Table 2; `network_count`, `image_count` and `size`, their product. Then come mean
    squared errors of predictions that need no model: `baseline`, by the set's own mean target;
    `network_blind`, by the mean target of the train networks on the image, NaN if the image is not
    in the train set; `image_blind`, by the mean target of the network on the images of the train
    set, NaN if the network is not in it.
    """
    train = targets["train_validation"]
    on_image, of_network = train.mean(0, dtype=np.float64), train.mean(1, dtype=np.float64)[:, None]
    split = splits(networks, p)
    validation, test = split["validation_networks"], split["test_networks"]
    unseen = targets["train_test"]
    share = round(len(validation) / len(train), 2)
    words = [
        ("train", "train", "validation"),
        ("validation", "validation", "validation"),
        ("validation", f"{share:g} train", "test"),
        ("test", f"{1 - share:g} train", "test"),
        ("test", "validation", "test"),
    ]
    sets: list[tuple[np.ndarray, np.ndarray | float, np.ndarray | float]] = [
        (train, on_image, of_network),
        (targets["validation_validation"], on_image, np.nan),
        (unseen[validation], np.nan, of_network[validation]),
        (unseen[test], np.nan, of_network[test]),
        (targets["validation_test"], np.nan, np.nan),
    ]
    rows = []
    for name, labels, (values, network_blind, image_blind) in zip(SETS, words, sets, strict=True):
        networks_seen, images_seen, k = values.shape
        baseline = values.reshape(-1, k).var(0, dtype=np.float64).mean()
        errors = [float(np.mean((values - blind) ** 2)) for blind in (network_blind, image_blind)]
        counts = networks_seen, images_seen, networks_seen * images_seen
        rows.append([name, *labels, *counts, float(baseline), *errors])
    columns = ["set", "labeled", "networks", "images", "network_count", "image_count", "size"]
    return pd.DataFrame(rows, columns=[*columns, "baseline", "network_blind", "image_blind"])
