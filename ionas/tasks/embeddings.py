"""What search and prediction need to know of embeddings: their names, and that they fit a table."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd


def split_names(stored: Iterable[str]) -> pd.DataFrame:
    """Split names such as `io_mean_seed2` into `embedding` and `training_seed` (NA: not trained).

    Returns a row per name, indexed by it.
    """
    names = pd.Series(list(stored), dtype=str)
    found = names.str.extract(r"^(?P<embedding>.*?)(?:_seed(?P<training_seed>\d+))?$")
    found["training_seed"] = pd.to_numeric(found["training_seed"]).astype("Int64")
    return found.set_axis(pd.Index(names))


def check_embeddings(embeddings: Mapping[str, np.ndarray], cells: int) -> None:
    """Raise ValueError if an embedding is not finite, or has other than one row per cell."""
    for name, values in embeddings.items():
        if values.ndim != 2 or len(values) != cells:
            raise ValueError(
                f"embedding {name!r} has shape {values.shape}, not ({cells}, D); embed every cell "
                "of this table, in its order"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"embedding {name!r} is not finite; train its model again")
