"""A network as steps that make numbered elements of earlier ones, affine maps and relus; matrices of integers for it.

In: numbers. Out: Program. Trust: sound (nothing is rounded). The inputs are numbered first, then what each step makes.
Products of integers are python-flint's where it is installed, else numpy's.
"""

from dataclasses import dataclass
from functools import cached_property
from math import lcm

import numpy as np

try:
    import flint
except ImportError:  # the slower path, the same values
    flint = None

Name = tuple[int, int]  # a unit: the number of its activation, in the order of the file from 0, and its flat element


def whole(*parts) -> tuple:
    """Integer arrays, one for each array of floats or fractions, and the least number that all are to be divided by."""
    flat = [np.reshape(part, -1).tolist() for part in parts]
    common = lcm(*{x.as_integer_ratio()[1] for values in flat for x in values})
    tops = ([a * (common // b) for a, b in (x.as_integer_ratio() for x in values)] for values in flat)
    return *(np.array(top, dtype=object).reshape(np.shape(part)) for top, part in zip(tops, parts, strict=True)), common


class Matrices:
    """Integer matrices (groups, rows, columns) that are multiplied many times."""

    def __init__(self, entries: np.ndarray):
        self.entries = entries

    def __matmul__(self, right: "Matrices") -> np.ndarray:
        """The product with matrices (groups, columns, width), group by group."""
        if flint is None or self.entries.shape[1] <= 1:  # numpy is as fast on a row
            return self.entries @ right.entries
        made = [(a * b).entries() for a, b in zip(self._ready, right._ready, strict=True)]
        return np.array(made, dtype=object).reshape(*self.entries.shape[:2], -1)

    @cached_property
    def magnitude(self) -> "Matrices":
        """The matrices of absolute values."""
        return Matrices(np.abs(self.entries))

    @cached_property
    def _ready(self) -> list:
        return [flint.fmpz_mat(*entries.shape, entries.reshape(-1).tolist()) for entries in self.entries]


@dataclass(frozen=True, eq=False)
class Affine:
    """(weights . x + shift) / divisor, where every weight may be off by `slack`, the result by `radius` units of the
    walk that made the step. weights (groups, rows, terms); gather (groups, terms, places): which elements x are the
    terms, -1 being 0; shift and results are ordered by group, row, place."""

    gather: np.ndarray
    weights: Matrices
    shift: np.ndarray
    divisor: int
    slack: int = 0
    radius: np.ndarray | int = 0


@dataclass(frozen=True, eq=False)
class Relu:
    """max(x, 0) of the elements x in `gather`, the arguments of the units in `names`."""

    gather: np.ndarray
    names: tuple[Name, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """Steps in order, the number of all elements, the outputs among these, whether a Softmax of them was left out."""

    inputs: int
    steps: tuple[Affine | Relu, ...]
    count: int
    outputs: np.ndarray
    softmax: bool = False
