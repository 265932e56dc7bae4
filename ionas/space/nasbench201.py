"""NAS-Bench-201: its cells as graphs with operations on the vertices (METHOD 12).

A cell has an operation on each of the six edges between four nodes (Dong and Yang 2020). Here each
of those edges is a vertex, as in arch2vec: all cells have the same 8 vertices and 10 edges, and
differ only in the operations.
"""

import hashlib
import re
import reprlib
from collections.abc import Sequence

import numpy as np

from ionas.space import INPUT, OUTPUT, InvalidCell, Space

OPERATIONS = (INPUT, "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none", OUTPUT)
# The architecture string: for each node its incoming edges, with operation and source.
ARCHITECTURE = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
WIRING = np.zeros((8, 8), np.uint8)  # of every cell
WIRING[[0, 0, 0, 1, 1, 2, 3, 4, 5, 6], [1, 2, 4, 3, 5, 6, 6, 7, 7, 7]] = 1
_PATTERN = re.compile(
    re.escape(ARCHITECTURE).replace(re.escape("{}"), f"({'|'.join(OPERATIONS[1:-1])})")
)


def architectures(operations: np.ndarray) -> list[str]:
    """Write the architecture strings of cells given by their (N, 8) operations."""
    return [ARCHITECTURE.format(*row) for row in np.array(OPERATIONS)[operations[:, 1:-1]]]


def read_architectures(texts: Sequence[str]) -> np.ndarray:
    """Read (N, 8) int8 operations; raises InvalidCell naming the first row that is wrong."""
    codes = np.zeros((len(texts), 8), np.int8)
    codes[:, -1] = len(OPERATIONS) - 1
    for row, text in enumerate(texts):
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise InvalidCell(
                f"row {row}: {reprlib.repr(text)} is not an architecture of NAS-Bench-201, such as "
                f"{ARCHITECTURE.format(*['nor_conv_3x3'] * 6)!r}"
            )
        codes[row, 1:-1] = [OPERATIONS.index(name) for name in match.groups()]
    return codes


NASBENCH201 = Space(
    "NAS-Bench-201",
    OPERATIONS,
    vertices=8,
    edges=10,
    hashes=lambda _, operations: np.array(
        [hashlib.md5(text.encode()).hexdigest() for text in architectures(operations)], "U32"
    ),
    canonical_order=lambda adjacency, operations: (adjacency, operations),
    wiring=WIRING,
)
