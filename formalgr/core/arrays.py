"""The array namespace: numpy, torch or exact rationals behind one interface (array-api-compat).

In: numpy arrays. Out: arrays of the chosen namespace, dtype and device. Trust: sound (conversions from float32 and
float64 are exact unless float32 is asked for, which only guides).
"""

import ctypes
from dataclasses import dataclass
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

from formalgr.core import exact
from formalgr.core.errors import MissingDependency

Array: TypeAlias = Any
"""An array of numpy, of torch or of exact rationals; no type of Python's says that."""


def namespace(array):
    """The namespace that `array` belongs to: exact rationals for object arrays, else numpy or torch."""
    if isinstance(array, np.ndarray):
        return exact.RATIONAL_NAMESPACE if array.dtype == object else _numpy()
    return array_api_compat.array_namespace(array)


def _numpy():
    """numpy itself, which follows the array API standard from 2.0 on; before, the wrapper.

    The wrapper imports all of numpy, numpy.f2py and numpy.testing too: a sixth of the time of a tiny instance.
    """
    if hasattr(np, "__array_api_version__"):
        return np
    import array_api_compat.numpy

    return array_api_compat.numpy


def zeros(like, shape):
    """Zeros of the given shape with the namespace, dtype and device of `like`."""
    if isinstance(like, np.ndarray) and like.dtype != object:
        return np.zeros(shape, dtype=like.dtype)
    return namespace(like).zeros(shape, dtype=like.dtype, device=array_api_compat.device(like))


def full(like, shape, value):
    """Array filled with `value`, with the namespace, dtype and device of `like`."""
    if isinstance(like, np.ndarray) and like.dtype != object:
        return np.full(shape, value, dtype=like.dtype)
    return namespace(like).full(shape, value, dtype=like.dtype, device=array_api_compat.device(like))


def cast(array, dtype: str):
    """The array in float32 or float64 (the array itself when it is so already), rounded to nearest."""
    if isinstance(array, np.ndarray):
        return array.astype(dtype, copy=False)
    xp = namespace(array)
    return xp.astype(array, getattr(xp, dtype), copy=False)


def copy(array):
    """A fresh array with the same values."""
    return array.copy() if isinstance(array, np.ndarray) else array.clone()


def columns_of(array, index: np.ndarray, missing: np.ndarray | None = None):
    """array (batch, rows, columns) at the columns index (batch, new) of each batch; 0 where `missing` (batch, new)."""
    if isinstance(array, np.ndarray):
        chosen = np.empty((*array.shape[:2], index.shape[1]), dtype=array.dtype)
        for one, columns, into in zip(array, index, chosen, strict=True):
            np.take(one, columns, axis=1, out=into, mode="clip")
        if missing is not None:
            for into, gone in zip(chosen, missing, strict=True):
                if gone.any():
                    into[:, gone] = 0
        return chosen
    xp, device = namespace(array), array_api_compat.device(array)
    full = np.broadcast_to(index[:, None, :], (*array.shape[:2], index.shape[1])).copy()
    chosen = xp.take_along_axis(array, xp.asarray(full, device=device), axis=2)
    if missing is None:
        return chosen
    return xp.where(xp.asarray(missing, device=device)[:, None, :], 0.0 * chosen, chosen)


def is_rational(array) -> bool:
    """Whether `array` holds exact rationals."""
    return isinstance(array, np.ndarray) and array.dtype == object


def to_numpy(array) -> np.ndarray:
    """The same numbers as a numpy array (float64 for rationals: nearest)."""
    if isinstance(array, np.ndarray):
        return exact.to_float(array) if array.dtype == object else array
    return array.detach().cpu().numpy()


def has_gpu() -> bool:
    """Whether torch is installed and sees a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


@dataclass(frozen=True)
class Arrays:
    """Where and how numbers are kept: `kind` numpy | torch | rational, `dtype` float64 | float32, `device`.

    Raises MissingDependency when a CUDA device is asked for and there is none.
    """

    kind: str = "numpy"
    dtype: str = "float64"
    device: str = "cpu"

    def __post_init__(self):
        if self.kind not in ("numpy", "torch", "rational") or self.dtype not in ("float64", "float32"):
            raise ValueError(f"unknown array kind {self.kind!r} or dtype {self.dtype!r}")
        if self.device != "cpu" and (self.kind != "torch" or not has_gpu()):
            raise MissingDependency(f"device {self.device} was asked for and torch sees no such device; use cpu")

    def asarray(self, values):
        """`values` (numpy array, list or scalar) in this namespace."""
        if self.kind == "rational":
            return exact.rational_array(values)
        array = np.asarray(values, dtype=self.dtype)
        if self.kind == "numpy":
            return array
        import torch

        return torch.as_tensor(array, dtype=getattr(torch, self.dtype), device=self.device)


NUMPY = Arrays()
RATIONAL = Arrays(kind="rational")


def keep_freed_memory() -> None:
    """Ask the C library to keep freed blocks instead of returning them to the kernel (1.5-1.8x on batched bounds).

    glibc's mallopt: M_TRIM_THRESHOLD -1, M_TOP_PAD -2, M_MMAP_THRESHOLD -3. Does nothing on other C libraries.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in ((-1, 1 << 30), (-2, 1 << 26), (-3, 1 << 30)):
        mallopt(option, value)
