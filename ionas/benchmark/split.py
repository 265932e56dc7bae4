"""Which cells train the models, and which of them are labeled (appendices C and D; METHOD 1, 6)."""

import numpy as np
import pandas as pd

from ionas.benchmark.table import Table
from ionas.parameters import SearchSpace


def split_table(table: Table, p: SearchSpace) -> pd.DataFrame:
    """Split the cells of a table as the parameters say; see `split_cells`."""
    return split_cells(table.cells.hashes, table.known("test_accuracy"), p)


def part_sizes(split: pd.DataFrame) -> pd.DataFrame:
    """Count `cells` by `part` and by `labeled` (empty for cells without a label)."""
    return split.groupby(["part", "labeled"]).size().rename("cells").reset_index()


def split_cells(hashes: np.ndarray, known: np.ndarray, p: SearchSpace) -> pd.DataFrame:
    """Split N cells into a train and a validation part, and draw labeled ones from each.

    This is the authors' recipe with their random generators, so on NAS-Bench-101 the first 608
    labeled train cells of seed 1 are the paper's own. In ascending order of their hash, the first
    cells are the train part. One generator shuffles the train part, then the validation part; a
    second one of the same seed draws labeled cells from the first, then from the second. (The
    paper does not list its 77 labeled validation cells; those drawn here may be the same.)

    Only cells whose test accuracy is `known`, (N,) bool, are labeled. Returns a row per cell in the
    order of the table: `index`, `hash`, `part` (train or validation), `labeled` (train, validation
    or empty) and `rank`, the position at which a labeled cell of a part was drawn, from 0 (-1: not
    labeled). The first ranks are the same however many cells are labeled, and the parts are the
    same for every seed. Raises ValueError if a part has fewer known cells than are wanted.
    """
    by_hash = np.argsort(hashes, kind="stable")
    train_size = int((1 - p.validation_fraction) * len(hashes))
    parts = {"train": by_hash[:train_size], "validation": by_hash[train_size:]}
    wanted = {"train": p.labeled_train, "validation": p.labeled_validation}
    frame = pd.DataFrame({"index": np.arange(len(hashes)), "hash": hashes})
    frame = frame.assign(part="train", labeled="", rank=-1)
    frame.loc[parts["validation"], "part"] = "validation"
    shuffle, draw = (np.random.RandomState(p.seed) for _ in range(2))
    for name, part in parts.items():
        drawn = draw.permutation(shuffle.permutation(part))
        able = drawn[known[drawn]]
        if wanted[name] > len(able):
            raise ValueError(
                f"labeled_{name} is {wanted[name]}, but the {name} part has only {len(able)} cells "
                "with a test accuracy; ask for fewer or change validation_fraction"
            )
        labeled = able[: wanted[name]]
        frame.loc[labeled, "labeled"] = name
        frame.loc[labeled, "rank"] = np.arange(len(labeled))
    return frame
