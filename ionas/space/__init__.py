"""Cells, their identity, and the search spaces that they come from.

`nasbench101` and `nasbench201` define a `Space` each; `cells` handles the cells of both alike.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

INPUT, OUTPUT = "input", "output"
PADDING = -1  # operation of a row without a vertex


class InvalidCell(ValueError):
    """A graph that is not a cell; the message names the rule that it breaks."""


@dataclass(frozen=True, eq=False)
class Space:
    """A search space; its functions take cells as `cells.CellSet` holds them."""

    name: str
    operations: tuple[str, ...]  # in the order of the one-hot encoding, input first, output last
    vertices: int  # V, the largest number in a pruned cell
    edges: int  # the largest number in a pruned cell
    hashes: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (N,) texts of 32 hex digits
    # The same cells with their vertices in the order of the published file.
    canonical_order: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    wiring: np.ndarray | None = None  # (V, V), if the cells differ in their operations alone

    @property
    def inner(self) -> tuple[str, ...]:
        """Operations of the inner vertices."""
        return self.operations[1:-1]
