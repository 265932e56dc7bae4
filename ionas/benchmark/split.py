"""Which cells train the models, and which of them are labeled (appendices C and D; METHOD 1, 6)."""

import numpy as np
import pandas as pd


def split_cells(
    hashes: np.ndarray,
    labeled_train: int,
    labeled_validation: int,
    validation_fraction: float = 0.1,
    seed: int = 1,
    known: np.ndarray | None = None,
) -> pd.DataFrame:
    """Split cells into a train and a validation part, and draw labeled ones from each.

    This is the authors' recipe with their random generators, so on NAS-Bench-101 the first 608
    labeled train cells of seed 1 are the paper's own. In ascending order of their hash, the first
    cells are the train part. One generator shuffles the train part, then the validation part; a
    second one of the same seed draws labeled cells from the first, then from the second. (The
    paper's 77 labeled validation cells are printed nowhere: those drawn here are a candidate.)

    Parameters
    ----------
    hashes
        (N,) hashes of the cells of a table.
    labeled_train, labeled_validation
        Cells to label in each part (paper: 608 and 77).
    validation_fraction
        Share of the cells in the validation part (paper: 0.1).
    seed
        Of the labeled cells; the parts are the same for every seed.
    known
        (N,) whether a cell's test accuracy is known; only such cells are labeled. None: all are.

    Returns
    -------
    DataFrame
        A row per cell in the order of the table: `index`, `hash`, `part` (train or validation),
        `labeled` (train, validation or empty) and `rank`, the place of a labeled cell in the order
        in which those of its part were drawn, from 0 (-1: not labeled). The first ranks are the
        same however many cells are labeled.

    Raises
    ------
    ValueError
        If a part has fewer cells that can be labeled than are wanted.
    """
    count = len(hashes)
    by_hash = np.argsort(hashes, kind="stable")
    train_size = int((1 - validation_fraction) * count)
    parts = {"train": by_hash[:train_size], "validation": by_hash[train_size:]}
    wanted = {"train": labeled_train, "validation": labeled_validation}
    frame = pd.DataFrame(
        {"index": np.arange(count), "hash": hashes, "part": "train", "labeled": "", "rank": -1}
    )
    frame.loc[parts["validation"], "part"] = "validation"
    shuffle, draw = (np.random.RandomState(seed) for _ in range(2))
    for name, part in parts.items():
        drawn = draw.permutation(shuffle.permutation(part))
        able = drawn if known is None else drawn[known[drawn]]
        if wanted[name] > len(able):
            of = "cells" if known is None else "cells with a test accuracy"
            raise ValueError(
                f"labeled_{name} is {wanted[name]}, but the {name} part has only {len(able)} {of}; "
                "ask for fewer or change validation_fraction"
            )
        labeled = able[: wanted[name]]
        frame.loc[labeled, "labeled"] = name
        frame.loc[labeled, "rank"] = np.arange(len(labeled))
    return frame
