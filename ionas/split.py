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
    """Split cells at random into a train and a validation part, and draw labeled ones from each.

    Parameters
    ----------
    hashes
        (N,) hashes of the cells of a table.
    labeled_train, labeled_validation
        Cells to label in each part (paper: 608 and 77).
    validation_fraction
        Share of the cells in the validation part (paper: 0.1).
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
    order = np.random.default_rng(seed).permutation(count)
    validation = round(count * validation_fraction)
    parts = {"train": order[validation:], "validation": order[:validation]}
    frame = pd.DataFrame(
        {"index": np.arange(count), "hash": hashes, "part": "train", "labeled": "", "rank": -1}
    )
    frame.loc[parts["validation"], "part"] = "validation"
    for name, wanted in (("train", labeled_train), ("validation", labeled_validation)):
        able = parts[name] if known is None else parts[name][known[parts[name]]]
        if wanted > len(able):
            of = "cells" if known is None else "cells with a test accuracy"
            raise ValueError(
                f"labeled_{name} is {wanted}, but the {name} part has only {len(able)} {of}; ask "
                "for fewer or change validation_fraction"
            )
        frame.loc[able[:wanted], "labeled"] = name
        frame.loc[able[:wanted], "rank"] = np.arange(wanted)
    return frame
