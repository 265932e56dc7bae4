"""Outputs of networks: heat maps, distances, clusters, and the accuracies in each cluster.

Section 5 of the paper, Figs 2 to 4; METHOD section 7. Targets are those of notebook 03: (N, I, k)
for N networks, I images and k ordered features.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ionas.benchmark.table import Table
from ionas.parameters import OutputFeatures

SHUFFLES = 1000
EXTREME = 0.1  # share of the networks that count as worst, and as best
BLOCK = 256  # images whose distances are computed at a time
BINS = 50
ROUNDING = 1e-12  # shares that differ by less count as equal


def variance_shares(targets: np.ndarray) -> dict[str, float]:
    """Shares of the variance of (N, I, k) targets that Figs. 2 and 3 show.

    `images` is the share between the images of one network (Fig. 2), `networks` that between the
    networks on one image (Fig. 3), summed over features. Their sum exceeds 1 where images and
    networks interact. NaN if nothing varies.
    """
    values = targets.astype(np.float64)
    whole = values.var((0, 1)).sum() or float("nan")  # around the mean target vector
    return {
        "images": float(values.var(1).mean(0).sum() / whole),
        "networks": float(values.var(0).mean(0).sum() / whole),
    }


def comparability(targets: np.ndarray) -> dict[str, float]:
    """Scale-free agreement of (N, I, k) targets, to compare those made in different ways.

    `distance` is the mean distance of two networks, as in `distances`, divided by the mean squared
    norm of a target: 0 if all networks agree, 2 if they are independent with mean 0. `common` is
    the share of the variance around the mean target that all networks have in common on an image: 0
    if they are independent, 1 if all agree.
    """
    values = targets.astype(np.float64)
    between = values.var(0, ddof=1).mean()
    return {
        "distance": float(2 * between / np.square(values).mean()),
        "common": float(1 - between / values.var((0, 1)).mean()),
    }


def order_comparison(
    own: Mapping[str, np.ndarray], ordered: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Compare the `comparability` of targets in the networks' own order and ordered by weight.

    Both are of the networks of which there is the own order, the first ones.
    """
    rows = {"own order": own, "ordered by weight": ordered}
    count = len(own["train_validation"])
    found = {name: comparability(made["train_validation"][:count]) for name, made in rows.items()}
    return pd.DataFrame(found).T


def distances(targets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Distance of every two train networks: squared distance of their targets, mean over images.

    The squares are summed over the k features, as in the authors' code, for which their threshold
    of 0.4 was chosen (the text of the paper says mean squared error). Returns `distances`, float64,
    a value per pair in the order of SciPy's `pdist`.
    """
    from scipy.spatial.distance import pdist

    outputs = targets["train_validation"]
    count, images = outputs.shape[:2]
    total = np.zeros(count * (count - 1) // 2)
    for start in range(0, images, BLOCK):
        part = outputs[:, start : start + BLOCK].reshape(count, -1).astype(np.float64)
        total += pdist(part, "sqeuclidean")
    return {"distances": total / images}


def distance_histogram(pairs: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Histogram of `distances`: `low`, `high`, `pairs`; the largest 1 % are in the last bin."""
    values = pairs["distances"]
    counts, edges = np.histogram(np.minimum(values, np.quantile(values, 0.99)), BINS)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "pairs": counts})


def cluster_networks(
    pairs: Mapping[str, np.ndarray], networks: pd.DataFrame, table: Table, p: OutputFeatures
) -> pd.DataFrame:
    """Cluster the train networks and tell their accuracies.

    If `p.threshold` is 0, the threshold is a quantile of all distances, which does not depend on
    their scale; the paper's 0.4 does. Takes `distances`, and `index`, `hash`, `labeled` and
    `test_accuracy` of the networks of notebook 02.

    Returns `index`, `hash`; `measured`, the test accuracy reached in notebook 02; `accuracy`, the
    mean test accuracy in the table if it is known of all these networks, else the measured one;
    `source`, `table` or `networks`; `cluster`; `threshold`. Source and threshold are the
    same in all rows.
    """
    train = networks[networks["labeled"] == "train"]
    known = table.values("test_accuracy")[train["index"]]
    complete = bool(np.isfinite(known).all())
    threshold = p.threshold or float(np.quantile(pairs["distances"], p.threshold_quantile))
    found = train[["index", "hash"]].assign(
        measured=train["test_accuracy"],
        accuracy=known if complete else train["test_accuracy"],
        source="table" if complete else "networks",
        cluster=cluster(pairs["distances"], threshold),
        threshold=threshold,
    )
    return found.reset_index(drop=True)


def cluster(pairs: np.ndarray, threshold: float) -> np.ndarray:
    """Complete-linkage agglomerative clusters of `distances`.

    Clusters whose most distant members are at least `threshold` apart are not joined. Returns (N,)
    cluster numbers, 0 being the largest cluster, equal sizes in the order of their first member.
    """
    from scipy.spatial.distance import squareform
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=threshold
    )
    found = model.fit_predict(squareform(pairs))
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    sizes = np.bincount(inverse)
    rank = np.empty(len(sizes), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[inverse]


def heat_maps(
    targets: Mapping[str, np.ndarray],
    images: Mapping[str, np.ndarray],
    clusters: pd.DataFrame,
    image: int,
) -> dict[str, np.ndarray]:
    """Collect what Figures 2 and 3 show.

    `worst`, `median` and `best` are (I, k) targets of the network with that accuracy, images in the
    order of their classes `labels`, (I,). `on_image` (N, k) are the targets of all networks on one
    image, the worst network first; `accuracy` (N,) are their accuracies, and `label` is the class
    of the image. Raises ValueError if there is no such image.
    """
    outputs = targets["train_validation"]
    count = outputs.shape[1]
    if image >= count:
        raise ValueError(f"image is {image}, but there are {count} images: choose 0 to {count - 1}")
    labels = images["validation_labels"][:count]
    by_class = np.argsort(labels, kind="stable")
    accuracy = clusters["accuracy"].to_numpy()
    ranking = np.argsort(accuracy, kind="stable")
    chosen = {"worst": 0, "median": len(ranking) // 2, "best": -1}
    return {
        **{name: outputs[ranking[rank]][by_class] for name, rank in chosen.items()},
        "labels": labels[by_class],
        "on_image": outputs[ranking, image],
        "accuracy": accuracy[ranking],
        "label": labels[image : image + 1],
    }


def cluster_accuracy(clusters: pd.DataFrame, p: OutputFeatures) -> pd.DataFrame:
    """Range of accuracies in each cluster of at least `p.min_cluster` networks (Fig. 4).

    Returns `cluster`, `size`, `min`, `mean`, `max`, the worst cluster (by mean) first; `chance_min`
    and `chance_max`, the medians of the least and the largest accuracy of as many random networks.
    """
    found = clusters.groupby("cluster")["accuracy"].agg(["size", "min", "mean", "max"])
    found = found[found["size"] >= p.min_cluster].reset_index()
    rng, accuracy = np.random.default_rng(p.seed), clusters["accuracy"].to_numpy()
    drawn = {
        size: np.stack([rng.permutation(accuracy)[:size] for _ in range(SHUFFLES)])
        for size in found["size"].unique()
    }
    for name, reduce in (("chance_min", np.min), ("chance_max", np.max)):
        ends = {size: float(np.median(reduce(rows, 1))) for size, rows in drawn.items()}
        found[name] = found["size"].map(ends).astype(float)
    return found.sort_values(["mean", "cluster"], ignore_index=True)


def summary(
    targets: Mapping[str, np.ndarray], clusters: pd.DataFrame, p: OutputFeatures
) -> dict[str, Any]:
    """Compute the numbers that are given with Figures 2 to 4.

    `networks`, `images` and `features` are the shape of the targets; `shares` is the result of
    `variance_shares`; `agreement` and `agreement_measured` are those of `accuracy_agreement`.
    `worst`, `best` and `mixed` count the clusters of at least `p.min_cluster` networks that hold
    one of the worst tenth of the networks, one of the best tenth, and one of each.
    """
    outputs, labels = targets["train_validation"], clusters["cluster"].to_numpy()
    count = max(1, round(EXTREME * len(clusters)))
    order = clusters["accuracy"].argsort(kind="stable").to_numpy()
    shown = {number for number, size in enumerate(np.bincount(labels)) if size >= p.min_cluster}
    worst, best = (shown & set(labels[rows].tolist()) for rows in (order[:count], order[-count:]))
    return {
        **dict(zip(("networks", "images", "features"), outputs.shape, strict=True)),
        "shares": variance_shares(outputs),
        "agreement": accuracy_agreement(labels, clusters["accuracy"].to_numpy(), p.seed),
        "agreement_measured": accuracy_agreement(labels, clusters["measured"].to_numpy(), p.seed),
        "worst": len(worst),
        "best": len(best),
        "mixed": len(worst & best),
    }


def accuracy_agreement(labels: np.ndarray, accuracy: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Test by permutation whether networks of one cluster are close in accuracy.

    `explained` is the share of the variance of accuracy between clusters (eta squared); `chance` is
    its mean over 1,000 random assignments of the networks to clusters of the same sizes; `p_value`
    is (k + 1) / 1,001 if k of these explain as much. NaN if all accuracies are equal.
    """
    rng = np.random.default_rng(seed)
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    centred = np.asarray(accuracy, np.float64) - np.mean(accuracy, dtype=np.float64)
    whole = float((centred**2).sum())
    if whole == 0:
        return dict.fromkeys(("explained", "chance", "p_value"), float("nan"))

    def explained(values: np.ndarray) -> float:
        return float((np.bincount(inverse, values) ** 2 / sizes).sum() / whole)

    here = explained(centred)
    shuffled = np.array([explained(rng.permutation(centred)) for _ in range(SHUFFLES)])
    return {
        "explained": here,
        "chance": float(shuffled.mean()),
        "p_value": float((np.sum(shuffled >= here - ROUNDING) + 1) / (SHUFFLES + 1)),
    }
