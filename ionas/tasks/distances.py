"""Distances between networks, and which of them knows the networks' accuracies.

Distances of all pairs of N networks are in the order of SciPy's `pdist`.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from ionas.parameters import OutputFeatures
from ionas.space.cells import CellSet
from ionas.tasks import clusters
from ionas.tasks.embeddings import split_names
from ionas.tasks.intervals import LEVEL

FUNCTION, CKA, GRAPH = "outputs", "cka", "graph"
DRAWS = 1000  # of the bootstrap, and of the permutations
NEAREST = 0.01  # share of all pairs that count as nearest in function
BLOCK = 64  # images whose similarities to all others are computed at a time


def train_rows(networks: pd.DataFrame) -> np.ndarray:
    """Rows of the cells of the train networks in the table, (N,)."""
    return networks.loc[networks["labeled"] == "train", "index"].to_numpy()


def cka(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Linear CKA of networks: (N, I, F) and (M, I, G) features on the same I images -> (N, M).

    With centred features X and Y it is the sum of the products of the entries of the Gram matrices
    of both, over the product of the norms of these (Kornblith et al. 2019): 1 if Y is X rotated and
    scaled, 0 if no feature of one is correlated with one of the other, or features do not vary.
    """
    x, y = (part - part.mean(1, keepdims=True, dtype=np.float64) for part in (features, others))

    def alike(z: np.ndarray, start: int) -> np.ndarray:
        return (z[:, start : start + BLOCK] @ z.transpose(0, 2, 1)).reshape(len(z), -1)

    common = sum(alike(x, k) @ alike(y, k).T for k in range(0, x.shape[1], BLOCK))
    scale = np.outer(*(np.linalg.norm(z.transpose(0, 2, 1) @ z, axis=(1, 2)) for z in (x, y)))
    return np.divide(common, scale, out=np.zeros_like(scale), where=scale > 0)


def graph_edit_distances(cells: CellSet) -> np.ndarray:
    """Exact graph edit distance of every two cells.

    It is the least number of vertices to insert, delete or rename and of edges to insert or delete
    that make one labelled graph the other, where input stays input and output output. It is found
    by trying all assignments of inner vertices, where a missing vertex counts as one of a name of
    its own: 6 for cells of 5 vertices, 120 for 7.
    """
    from scipy.spatial.distance import cdist

    count = int(cells.n_vertices.max())
    order = np.tile(np.arange(count), (len(cells), 1))
    rows, last = np.arange(len(cells)), cells.n_vertices - 1
    order[rows, last], order[:, -1] = count - 1, last  # the output comes last, padding before it
    edges = cells.adjacency[rows[:, None, None], order[:, :, None], order[:, None, :]]
    names = cells.operations[rows[:, None], order]
    kinds = names[:, :, None] == np.unique(names)

    def flat(places: Sequence[int]) -> np.ndarray:
        moved = edges[:, places][:, :, places].reshape(len(cells), -1)
        return np.hstack([moved, kinds[:, places].reshape(len(cells), -1) / 2])

    here = flat(range(count))
    nearest = np.full((len(cells), len(cells)), np.inf)
    for inner in permutations(range(1, count - 1)):
        np.minimum(nearest, cdist(here, flat([0, *inner, count - 1]), "cityblock"), out=nearest)
    return nearest[np.triu_indices(len(cells), 1)]


def all_distances(
    networks: pd.DataFrame,
    table: Any,
    targets: Mapping[str, np.ndarray],
    kinds: Mapping[str, np.ndarray],
    embeddings: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Distances of every two train networks.

    Returns `outputs`, the squared distance of their targets; `cka`, 1 less linear CKA of their
    pooled features; `graph`, the graph edit distance of their cells; and, if there are embeddings,
    Euclidean distances in each embedding of the first training, by its name.
    """
    from scipy.spatial.distance import pdist

    rows = train_rows(networks)
    features, given = kinds["features/train"], embeddings or {}
    found = {
        FUNCTION: clusters.distances(targets)["distances"],
        CKA: 1 - cka(features, features)[np.triu_indices(len(rows), 1)],
        GRAPH: graph_edit_distances(table.cells[rows]),
    }
    names = split_names(given)
    first = names[names["training_seed"].eq(names["training_seed"].min())]
    return found | {
        name: pdist(given[str(key)][rows].astype(np.float64))
        for key, name in first["embedding"].items()
        if name != "latent"
    }


def correlations(
    pairs: Mapping[str, np.ndarray], networks: pd.DataFrame, table: Any, seed: int
) -> dict[str, np.ndarray]:
    """How well each distance of train networks orders the differences of their accuracies.

    Accuracies are those of the table. Returns, by distance, (1 + DRAWS,): Spearman's correlation
    with the absolute difference, then that of networks drawn with replacement: a pair counts as
    often as its two networks were drawn together, and pairs of a network with itself do not.
    """
    ranks, one, two = _ranks(pairs, table.values("test_accuracy")[train_rows(networks)])
    count, rng = int(two.max()) + 1, np.random.default_rng(seed)
    weights = [np.ones(len(one))]
    for times in rng.multinomial(count, np.full(count, 1 / count), DRAWS):
        weights.append(times[one] * times[two])
    drawn = []
    for weight in weights:
        spread = np.cov(ranks, aweights=weight)
        with np.errstate(invalid="ignore"):  # constant distances have no correlation
            drawn.append(spread[-1] / np.sqrt(spread.diagonal() * spread[-1, -1]))
    return dict(zip(pairs, np.stack(drawn, 1), strict=False))


def interval(drawn: np.ndarray, level: float = LEVEL) -> dict[str, float]:
    """`mean`, the first value, and `low` and `high`, the interval of the draws that follow.

    Draws that are NaN are left out.
    """
    tails = (1 - level) / 2, (1 + level) / 2
    low, high = np.nanquantile(drawn[1:], tails) if np.isfinite(drawn[0]) else (np.nan, np.nan)
    return {"mean": float(drawn[0]), "low": float(low), "high": float(high)}


def compare(
    pairs: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray],
    networks: pd.DataFrame,
    table: Any,
    p: OutputFeatures,
) -> pd.DataFrame:
    """Compare distances of train networks by what they tell of the accuracies in the table.

    Takes `correlations`. Returns, by `distance`: their `mean`, `low` and `high`; `p_value` of
    Mantel's test; `clusters`, `explained`, `chance` and `p_clusters`, the number of
    complete-linkage clusters at the quantile `p.threshold_quantile` of the distance, and the share
    of the variance of accuracy between them (`clusters.accuracy_agreement`).
    """
    accuracy, rows = table.values("test_accuracy")[train_rows(networks)], []
    for distance, values in pairs.items():
        labels = clusters.cluster(values, float(np.quantile(values, p.threshold_quantile)))
        agreement = clusters.accuracy_agreement(labels, accuracy, p.seed)
        agreement["p_clusters"] = agreement.pop("p_value")
        found = {"distance": distance, **interval(drawn[distance]), "clusters": labels.max() + 1}
        rows.append(found | agreement)
    return pd.DataFrame(rows).assign(p_value=mantel(pairs, accuracy, p.seed))


def mantel(pairs: Mapping[str, np.ndarray], accuracy: np.ndarray, seed: int = 0) -> np.ndarray:
    """P-values (K,) of Mantel's test: shares of permuted accuracies whose correlation is as large.

    One-sided; (k + 1) / (DRAWS + 1) if k permutations of Spearman's correlation reach the value.
    """
    from scipy.spatial.distance import squareform

    ranks, one, two = _ranks(pairs, accuracy)
    ranks -= ranks.mean(1, keepdims=True)
    differences, rng = squareform(ranks[-1], checks=False), np.random.default_rng(seed)
    orders = [np.arange(len(accuracy)), *(rng.permutation(len(accuracy)) for _ in range(DRAWS))]
    sums = np.stack([ranks[:-1] @ differences[k[one], k[two]] for k in orders])
    return (np.sum(sums[1:] >= sums[0] - 1e-9 * np.abs(sums[0]), 0) + 1) / (DRAWS + 1)


def clustered(
    pairs: Mapping[str, np.ndarray], networks: pd.DataFrame, table: Any, p: OutputFeatures
) -> pd.DataFrame:
    """Figure 4's clusters by CKA; see `clusters.cluster_networks`."""
    return clusters.cluster_networks({"distances": pairs[CKA]}, networks, table, p)


def twins(
    pairs: Mapping[str, np.ndarray], networks: pd.DataFrame, table: Any, count: int = 2
) -> pd.DataFrame:
    """Pairs of networks near in function and far in graph, and the reverse.

    The first `count` are, of the NEAREST pairs by CKA, those of the largest graph edit distance;
    the other `count`, of the pairs of the least graph edit distance, those farthest by CKA. No
    network is in two pairs of one kind. Returns two rows a pair: `kind`, `adjacency`,
    `operations`, `accuracy`, mean test accuracy in the table, `cka`, the similarity, and `graph`,
    the distance.
    """
    rows = train_rows(networks)
    one, two = np.triu_indices(len(rows), 1)
    every = pd.DataFrame({"one": one, "two": two, "cka": 1 - pairs[CKA], "graph": pairs[GRAPH]})
    near = every[every["cka"] >= every["cka"].quantile(1 - NEAREST)]
    alike = every[every["graph"] == every["graph"].min()]
    kinds = {
        "alike by CKA, graphs apart": near.sort_values(["graph", "cka"], ascending=False),
        "graphs alike, apart by CKA": alike.sort_values("cka"),
    }
    found = []
    for kind, ordered in kinds.items():
        taken: list[int] = []
        for pair in ordered.itertuples():
            if len(taken) < 2 * count and not {pair.one, pair.two} & set(taken):
                taken += [pair.one, pair.two]
                found += [(kind, rows[k], pair.cka, pair.graph) for k in (pair.one, pair.two)]
    made = pd.DataFrame(found, columns=["kind", "index", "cka", "graph"])
    texts = dict(
        zip(("adjacency", "operations"), table.cells[made["index"]].to_text(), strict=True)
    )
    return made.assign(**texts, accuracy=table.values("test_accuracy")[made["index"]])


def _ranks(
    pairs: Mapping[str, np.ndarray], accuracy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks of all pairs by each distance and, last, by their difference in accuracy; the pairs."""
    from scipy.stats import rankdata

    one, two = np.triu_indices(len(accuracy), 1)
    values = [*pairs.values(), np.abs(accuracy[one] - accuracy[two])]
    return rankdata(values, axis=1), one, two
