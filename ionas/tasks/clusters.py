"""How alike the outputs of networks are, and whether alike networks are alike in accuracy.

Section 5 of the paper, Fig. 4: pairwise distances, complete-linkage clusters, and the range of test
accuracies in each.
"""

import numpy as np
import pandas as pd

ROUNDING = 1e-12  # shares that differ by less are equal


def variance_shares(targets: np.ndarray) -> dict[str, float]:
    """Shares of the variance of a feature, at a given rank, that Figs. 2 and 3 show.

    Parameters
    ----------
    targets
        (N, I, k): N networks, I images, k ordered features.

    Returns
    -------
    dict
        `images`: share that lies between the images of one network (Fig. 2); `networks`: share
        that lies between the networks on one image (Fig. 3). Means over networks, or images, and
        ranks. They add up to more than 1 where both matter together. NaN if nothing varies.
    """
    values = targets.astype(np.float64)
    whole = values.var((0, 1)).sum()  # around the mean target vector
    if whole == 0:
        return {"images": float("nan"), "networks": float("nan")}
    return {
        "images": float(values.var(1).mean(0).sum() / whole),
        "networks": float(values.var(0).mean(0).sum() / whole),
    }


def on_image(targets: np.ndarray, image: int) -> np.ndarray:
    """Targets (N, k) of all networks on one image of (N, I, k) targets.

    Raises
    ------
    ValueError
        If there is no such image.
    """
    if not 0 <= image < targets.shape[1]:
        raise ValueError(
            f"image is {image}, but the IO dataset has {targets.shape[1]} images: "
            f"choose 0 to {targets.shape[1] - 1}"
        )
    return targets[:, image]


def comparability(targets: np.ndarray) -> dict[str, float]:
    """How far the networks answer alike, free of units, for targets made in different ways.

    Parameters
    ----------
    targets
        (N, I, k) with N > 1.

    Returns
    -------
    dict
        `distance`: the mean distance of two networks, as in `distances`, over the mean square of
        all targets; 0 if all answer alike, 2 if they are independent with mean 0. `common`: share
        of the variance around the mean target that all networks have in common on an image; 0 if
        they are independent, 1 if all answer alike.
    """
    values = targets.astype(np.float64)
    between = values.var(0, ddof=1).mean()
    return {
        "distance": float(2 * between / np.square(values).mean()),
        "common": float(1 - between / values.var((0, 1)).mean()),
    }


def distances(targets: np.ndarray, block: int = 256) -> np.ndarray:
    """Distance of every two networks: the MSE of their targets on an image, mean over images.

    Parameters
    ----------
    targets
        (N, I, k): N networks, I images, k ordered features.
    block
        Images at a time; the memory needed is N * block * k doubles and the result.

    Returns
    -------
    ndarray
        (N, N) float64, symmetric, with a zero diagonal.

    Raises
    ------
    ValueError
        If the array has another shape, is empty, or holds values that are not finite.
    """
    from scipy.spatial.distance import pdist, squareform

    if targets.ndim != 3 or 0 in targets.shape:
        raise ValueError(f"targets have shape {targets.shape}; expected (networks, images, k)")
    count, images, width = targets.shape
    total = np.zeros(count * (count - 1) // 2)
    for start in range(0, images, block):
        part = targets[:, start : start + block].reshape(count, -1).astype(np.float64)
        if not np.isfinite(part).all():
            raise ValueError("targets hold values that are not finite: a network diverged")
        total += pdist(part, "sqeuclidean")
    return squareform(total / (images * width))


def threshold_rule(distances: np.ndarray, quantile: float = 0.25) -> float:
    """Distance at which to stop joining clusters, at whatever scale the features are.

    The paper takes 0.4. That is a distance in the units of its features, which depend on the width,
    the depth and the training of the networks, so it means nothing for other ones. Under complete
    linkage the threshold is the largest distance allowed within a cluster. The rule here says the
    same thing free of units: no two networks of a cluster differ by more than the closest
    `quantile` of all pairs do. So "alike" means "more alike than most pairs", at every scale.

    Raises
    ------
    ValueError
        If there are fewer than two networks or the quantile is not between 0 and 1.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile is {quantile}; it must lie between 0 and 1")
    if len(distances) < 2:
        raise ValueError("a threshold needs the distances of at least two networks")
    pairs = distances[np.triu_indices(len(distances), 1)]
    return float(np.quantile(pairs, quantile))


def cluster(distances: np.ndarray, threshold: float) -> np.ndarray:
    """Complete-linkage agglomerative clusters whose diameter stays below a threshold.

    Parameters
    ----------
    distances
        (N, N), symmetric.
    threshold
        Clusters whose most distant members are at least this far apart are not joined.

    Returns
    -------
    ndarray
        (N,) cluster numbers, 0 being the largest cluster; equal sizes in the order of their first
        member.

    Raises
    ------
    ValueError
        If the matrix is not square and symmetric, or the threshold is negative.
    """
    from sklearn.cluster import AgglomerativeClustering

    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances have shape {distances.shape}; expected (N, N)")
    if not np.allclose(distances, distances.T):
        raise ValueError("distances are not symmetric")
    if threshold < 0:
        raise ValueError(f"threshold is {threshold}; a distance cannot be negative")
    if len(distances) < 2:
        return np.zeros(len(distances), np.int64)
    model = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=threshold
    )
    found = model.fit_predict(distances)
    _, first, inverse, sizes = np.unique(
        found, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(sizes), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[inverse]


def cluster_accuracy(labels: np.ndarray, accuracy: np.ndarray, min_size: int = 3) -> pd.DataFrame:
    """Range of accuracies in each cluster of at least `min_size` networks (Fig. 4).

    Parameters
    ----------
    labels, accuracy
        (N,) cluster numbers and test accuracies.

    Returns
    -------
    DataFrame
        `cluster`, `size`, `min`, `mean`, `max`, the worst cluster (by mean) first.
    """
    if len(labels) != len(accuracy):
        raise ValueError(f"{len(labels)} cluster numbers but {len(accuracy)} accuracies")
    frame = pd.DataFrame({"cluster": labels, "accuracy": accuracy})
    table = frame.groupby("cluster")["accuracy"].agg(["size", "min", "mean", "max"]).reset_index()
    table = table[table["size"] >= min_size]
    return table.sort_values(["mean", "cluster"], ignore_index=True)


def extreme_clusters(
    labels: np.ndarray, accuracy: np.ndarray, among: np.ndarray, share: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the clusters, of those `among`, that hold one of the worst and of the best.

    Parameters
    ----------
    labels, accuracy
        (N,) cluster numbers and test accuracies.
    among
        Numbers of the clusters looked at.
    share
        Share of the networks that count as worst and as best, at least one network each.
    """
    count = max(1, round(share * len(accuracy)))
    order = np.argsort(accuracy, kind="stable")
    worst, best = labels[order[:count]], labels[order[-count:]]
    return np.intersect1d(worst, among), np.intersect1d(best, among)


def accuracy_agreement(labels: np.ndarray, accuracy: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Say whether networks of one cluster are nearer in accuracy than chance would make them.

    Returns
    -------
    dict
        `explained`: share of the variance of accuracy that lies between clusters (eta squared);
        `chance`: its mean when the same cluster sizes are filled with networks at random;
        `p_value`: (k + 1) / 1,001, where k of 1,000 such fillings explain as much. NaN if all
        accuracies are equal.
    """
    rng = np.random.default_rng(seed)
    accuracy = np.asarray(accuracy, np.float64)
    numbers, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    centred = accuracy - accuracy.mean()
    whole = float((centred**2).sum())
    if whole == 0:
        return {"explained": float("nan"), "chance": float("nan"), "p_value": float("nan")}

    def explained(values: np.ndarray) -> float:
        sums = np.bincount(inverse, values, minlength=len(numbers))
        return float((sums**2 / sizes).sum() / whole)

    here = explained(centred)
    shuffled = np.array([explained(rng.permutation(centred)) for _ in range(1000)])
    return {
        "explained": here,
        "chance": float(shuffled.mean()),
        "p_value": float((np.sum(shuffled >= here - ROUNDING) + 1) / (len(shuffled) + 1)),
    }
