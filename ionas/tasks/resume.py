"""What searches and fits share: names of embeddings, and calls whose results are kept."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save, save_file

from ionas import parallel, parts

Call = tuple[tuple[Any, ...], tuple[str, ...]]  # plain arguments, and names of arrays


def split_names(stored: Iterable[str]) -> pd.DataFrame:
    """Tell `embedding` and `training_seed` (NA if not trained) from names as `io_mean_seed2`.

    A row per name, indexed by it.
    """
    names = pd.Series(list(stored), dtype=str)
    found = names.str.extract(r"^(?P<embedding>.*?)(?:_seed(?P<training_seed>\d+))?$")
    found["training_seed"] = pd.to_numeric(found["training_seed"]).astype("Int64")
    return found.set_axis(pd.Index(names))


def check_embeddings(embeddings: Mapping[str, np.ndarray], cells: int) -> None:
    """Raise ValueError if an embedding has not one row per cell of the table, or is not finite."""
    for name, values in embeddings.items():
        if values.ndim != 2 or len(values) != cells:
            raise ValueError(
                f"embedding {name!r} has shape {values.shape}, not ({cells}, D); embed every cell "
                "of this table, in its order"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"embedding {name!r} is not finite; train its model again")


def complete(
    function: Callable[..., Any],
    calls: Sequence[Call],
    arrays: Mapping[str, np.ndarray],
    folder: Path,
    jobs: int,
    description: str,
    unit: str,
) -> list[Any]:
    """Return `function(*arguments, *arrays)` of every call, and keep each result as it comes.

    A call is its arguments, plain JSON values, and the names of its arrays. Its result, a JSON
    value, is a part named by the hash of both, so that it holds whatever other calls there are.
    Workers read arrays from a file in the folder: one that is sent is lost with its worker.
    """
    arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    hashes = {name: _hash(save({"": values})) for name, values in arrays.items()}
    files = [
        _hash(json.dumps([arguments, [hashes[n] for n in names]]).encode())[:32] + ".json"
        for arguments, names in calls
    ]
    found = [parts.read(folder, file) for file in files]
    results = [None if content is None else json.loads(content) for content in found]
    missing = [place for place, result in enumerate(results) if result is None]
    inputs = folder.resolve() / "inputs.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, inputs)
    try:
        items = [(function, str(inputs), *calls[place]) for place in missing]
        for position, result in parallel.completed(_call, items, jobs, description, unit):
            place = missing[position]
            parts.write(folder, files[place], json.dumps(result).encode())
            results[place] = result
    finally:
        inputs.unlink(missing_ok=True)
    return results


def _call(
    function: Callable[..., Any], inputs: str, arguments: tuple[Any, ...], names: tuple[str, ...]
) -> Any:
    with safe_open(inputs, "np") as file:
        return function(*arguments, *map(file.get_tensor, names))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
