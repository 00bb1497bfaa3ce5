"""Arrays over a node that vanish outside a window each: what one unit of a convolutional layer can reach.

In: windows and where they lie. Out: Local. Trust: sound (values are moved, scaled or copied, nothing else).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Local:
    """values (count, *window) at origin (count, axes), zero elsewhere, over a node of `shape` (axes,); all numpy.

    `shape` may lay out the node in another way than its operators do, as long as the
    row-major order is the same: a window seldom stays one when its node is flattened.
    """

    values: np.ndarray
    origin: np.ndarray
    shape: tuple[int, ...]

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index) -> "Local":
        return Local(self.values[index], self.origin[index], self.shape)

    @property
    def window(self) -> tuple[int, ...]:
        """Extent of every window, (axes,)."""
        return self.values.shape[1:]

    @property
    def volume(self) -> int:
        """Number of elements of a window."""
        return int(np.prod(self.window, dtype=np.int64))

    @property
    def elements(self) -> int:
        """Number of elements of the node."""
        return int(np.prod(self.shape, dtype=np.int64))

    @cached_property
    def places(self) -> np.ndarray:
        """Row-major position in the node of every window element, (count, volume)."""
        first = np.zeros(len(self), dtype=np.int64) + self.origin @ _strides(self.shape)
        inside = sum(np.ix_(*(np.arange(n) * s for n, s in zip(self.window, _strides(self.shape), strict=True))))
        return first[:, None] + np.reshape(inside, -1)[None, :]

    @property
    def flat(self) -> np.ndarray:
        """The values beside `places`, (count, volume)."""
        return self.values.reshape(len(self), self.volume)

    def at(self, elements: np.ndarray) -> np.ndarray:
        """The values at row-major positions in the node, (count, n), zero outside the windows."""
        inside, place = np.ones(elements.shape, dtype=bool), np.zeros(elements.shape, dtype=np.int64)
        for axis, index in enumerate(np.unravel_index(elements, self.shape)):
            offset = index - self.origin[:, axis, None]
            inside &= (offset >= 0) & (offset < self.window[axis])
            place = place * self.window[axis] + offset
        found = np.take_along_axis(self.flat, np.where(inside, place, 0), axis=1)
        return np.where(inside, found, 0.0)

    def dense(self) -> np.ndarray:
        """The whole arrays, (count, *shape)."""
        result = np.zeros((len(self), self.elements), dtype=self.values.dtype)
        np.put_along_axis(result, self.places, self.flat, axis=1)
        return result.reshape(len(self), *self.shape)

    def times(self, factors: np.ndarray) -> "Local":
        """Every element multiplied by the factor of its place; factors has one number per element of the node."""
        factor = np.reshape(factors, -1)[self.places]
        return Local((self.flat * factor).reshape(self.values.shape), self.origin, self.shape)

    def seen(self, origin: np.ndarray, window: tuple[int, ...]) -> "Local":
        """The same arrays with other windows, which may reach beyond the node; what lies outside them is dropped."""
        result = np.zeros((len(self), *window), dtype=self.values.dtype)
        shifts, group = np.unique(origin - self.origin, axis=0, return_inverse=True) if len(self) else (origin, origin)
        for index, shift in enumerate(shifts.tolist()):
            mine = np.nonzero(group.reshape(-1) == index)[0]
            pairs = list(zip(self.window, window, shift, strict=True))
            source = [slice(max(s, 0), max(min(old, new + s), 0)) for old, new, s in pairs]
            target = [slice(max(-s, 0), max(min(new, old - s), 0)) for old, new, s in pairs]
            if all(part.stop > part.start for part in source):
                result[(mine, *target)] = self.values[(mine, *source)]
        return Local(result, origin, self.shape)

    def reshaped(self, shape: tuple[int, ...]) -> "Local | None":
        """The same arrays over the node laid out as `shape`; None where the windows would be none there."""
        if shape == self.shape:
            return self
        if self.volume == 1:
            places = np.unravel_index(self.places[:, 0], shape) if shape else ()
            origin = np.stack(places, axis=1) if shape else np.zeros((len(self), 0), dtype=np.int64)
            return Local(self.values.reshape(len(self), *(1,) * len(shape)), origin.astype(np.int64), shape)
        window, origin = [], []
        for mine, theirs in _matching(self.shape, shape):
            merged = self._merged(mine)
            if merged is None:
                return None
            extent, start, size = merged
            axes = [k for k in theirs if shape[k] > 1]
            if len(axes) > 1 and extent < size:
                return None
            for k in theirs:
                split = len(axes) != 1 or k != axes[0]
                window.append(shape[k] if split else extent)
                origin.append(0 * start if split else start)
        columns = np.stack(origin, axis=1) if origin else np.zeros((len(self), 0), dtype=np.int64)
        return Local(self.values.reshape(len(self), *window), columns, shape)

    def _merged(self, axes: list[int]) -> tuple | None:
        """(window, origin, size) of neighbouring axes as one; None where the windows are no interval of it."""
        extent, start, size = 1, np.zeros(len(self), dtype=np.int64), 1
        for k in axes:
            whole = self.window[k] == self.shape[k]
            if not whole and extent > 1:
                return None
            start = start * self.shape[k] + self.origin[:, k]
            extent = extent * self.shape[k] if whole else self.window[k]
            size *= self.shape[k]
        return extent, start, size


def _strides(shape: tuple[int, ...]) -> np.ndarray:
    """Row-major distance between neighbours along every axis, (axes,)."""
    sizes = np.array([*shape, 1], dtype=np.int64)
    return np.cumprod(sizes[::-1])[::-1][1:].copy()


def _matching(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of neighbouring axes with as many elements on both sides."""
    groups, mine, theirs = [], [], []
    left = right = 1
    i = j = 0
    while i < len(old) or j < len(new):
        if mine and theirs and left == right and left > 1:
            groups.append((mine, theirs))
            mine, theirs, left, right = [], [], 1, 1
        if j == len(new) or (i < len(old) and left <= right):
            mine, left, i = [*mine, i], left * old[i], i + 1
        else:
            theirs, right, j = [*theirs, j], right * new[j], j + 1
    return [*groups, (mine, theirs)]
