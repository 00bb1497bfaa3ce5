"""Integer matrices and rationals: python-flint where it is installed, Python's own numbers otherwise.

In: floats, integers. Out: numpy object arrays of integers, rationals. Trust: sound (nothing rounds but floor and ceil).
"""

from fractions import Fraction
from functools import cached_property

import numpy as np

try:
    import flint
except ImportError:  # the slower path, the same values
    flint = None


def rational(numerator, denominator=1):
    """The exact quotient of two integers."""
    return Fraction(int(numerator), int(denominator)) if flint is None else flint.fmpq(numerator, denominator)


def floor(value) -> int:
    """The largest integer that is not above a rational."""
    return int(value.numerator) // int(value.denominator)


def ceil(value) -> int:
    """The smallest integer that is not below a rational."""
    return -(-int(value.numerator) // int(value.denominator))


def integers(values) -> np.ndarray:
    """Object array of Python integers."""
    source = np.asarray(values)
    return np.array([int(value) for value in source.reshape(-1).tolist()], dtype=object).reshape(source.shape)


def dyadic(*parts) -> tuple:
    """Integer arrays, one for each array of finite floats, and the power of two that all are to be divided by."""
    flat = [np.asarray(part, dtype=np.float64).reshape(-1).tolist() for part in parts]
    common = max((x.as_integer_ratio()[1] for part in flat for x in part), default=1)
    tops = ([top * (common // bottom) for top, bottom in map(float.as_integer_ratio, part)] for part in flat)
    return *(np.array(top, dtype=object).reshape(np.shape(part)) for top, part in zip(tops, parts, strict=True)), common


class Matrix:
    """An integer matrix (rows, columns) that is multiplied many times."""

    def __init__(self, entries: np.ndarray):
        self.entries = entries

    def times(self, right: np.ndarray) -> np.ndarray:
        """The product with an object array (columns, width) of integers."""
        shape = len(self.entries), right.shape[1]
        if flint is None or 0 in (*self.entries.shape, *shape):
            return self.entries @ right if self.entries.size else integers(np.zeros(shape, dtype=np.int64))
        result = np.empty(shape, dtype=object)
        result.reshape(-1)[:] = (self._ready * _ready(right)).entries()
        return result

    @cached_property
    def magnitude(self) -> "Matrix":
        """The matrix of absolute values."""
        return Matrix(np.abs(self.entries))

    @cached_property
    def _ready(self):
        return _ready(self.entries)


def _ready(entries: np.ndarray):
    return flint.fmpz_mat(*entries.shape, entries.reshape(-1).tolist())
