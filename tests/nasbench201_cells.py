"""Every cell of NAS-Bench-201, for tests."""

from functools import cache
from itertools import product

from ionas.space.cells import CellSet
from ionas.space.nasbench201 import ARCHITECTURE, NASBENCH201


@cache
def enumerate_nasbench201() -> CellSet:
    """All 15,625 cells, in the order of their operations."""
    choices = product(NASBENCH201.inner, repeat=6)
    return CellSet.from_architectures([ARCHITECTURE.format(*names) for names in choices])
