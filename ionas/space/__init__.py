"""What an architecture is: cells, their identity, and the search spaces that they come from.

`nasbench101` and `nasbench201` have a `Space` each; `cells` treats the cells of both alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

INPUT, OUTPUT = "input", "output"
PADDING = -1  # operation of a row that stands for no vertex


class InvalidCell(ValueError):
    """A graph that is no cell; the message names the rule that it breaks."""


@dataclass(frozen=True, eq=False)
class Space:
    """A search space; its functions take cells as `cells.CellSet` holds them."""

    name: str
    operations: tuple[str, ...]  # in the order of the one-hot encoding, input first, output last
    vertices: int  # V, the most of a pruned cell
    edges: int  # the most of a pruned cell
    hashes: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (N,) texts of 32 hex digits
    # The same cells with their vertices in the order of the published file.
    canonical_order: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    wiring: np.ndarray | None = None  # (V, V), if the cells differ in their operations alone

    @property
    def inner(self) -> tuple[str, ...]:
        """Operations of the inner vertices."""
        return self.operations[1:-1]


def rows_by_size(sizes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each number of vertices with the rows that have it, at most 10,000 rows at once."""
    for n in np.unique(sizes):
        rows = np.flatnonzero(sizes == n)
        for start in range(0, len(rows), 10_000):
            yield int(n), rows[start : start + 10_000]
