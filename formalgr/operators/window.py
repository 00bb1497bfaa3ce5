"""Sliding windows over the spatial axes: patches out, and their transpose back in.

In: (batch, channels, *spatial) arrays. Out: (batch, channels, kernel, *out) patches. Trust: sound (values are moved;
`scatter` adds copies).
"""

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import namespace

PATCH_BYTES = 1 << 20
"""Patches of one piece: half of a usual second-level cache."""

DEVICE_PATCH_BYTES = 1 << 28
"""The same where torch computes: an accelerator wants few large products."""


@dataclass(frozen=True)
class Window:
    """Kernel geometry: kernel, strides, dilations (one per spatial axis) and pads (before, after) per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Number of positions in the kernel."""
        return math.prod(self.kernel)

    def out(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial shape of the output; raises ValueError when the kernel is larger than the padded input."""
        result = []
        for size, k, s, d, (low, high) in zip(
            spatial, self.kernel, self.strides, self.dilations, self.pads, strict=True
        ):
            room = size + low + high - d * (k - 1) - 1
            if room < 0:
                raise ValueError(f"a kernel of size {k} does not fit {size} values padded by {low} and {high}")
            result.append(room // s + 1)
        return tuple(result)

    @property
    def bare(self) -> "Window":
        """The same geometry without pads."""
        return replace(self, pads=((0, 0),) * len(self.pads))

    def reached(self, first: np.ndarray, extent: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
        """(start, size) of the inputs that outputs first .. first + extent - 1 read; first (count, axes)."""
        low = np.array([pad for pad, _ in self.pads])
        size = zip(extent, self.kernel, self.strides, self.dilations, strict=True)
        return first * np.array(self.strides) - low, tuple((n - 1) * s + d * (k - 1) + 1 for n, k, s, d in size)

    def readers(self, start: np.ndarray, extent: tuple[int, ...], spatial: tuple[int, ...]) -> tuple:
        """(first, size) of outputs, all of them inside, among which are all that read inputs start .. + extent - 1."""
        strides, out = np.array(self.strides), np.array(self.out(spatial))
        reach = np.array([d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True)])
        low = np.array([pad for pad, _ in self.pads])
        size = np.minimum((np.array(extent) - 1 + reach) // strides + 1, out)
        first = -((reach - low - start) // strides)
        return np.clip(first, 0, out - size), tuple(size.tolist())

    def _by_window(self, spatial: tuple[int, ...]) -> bool:
        """Whether patches are moved a window at a time: fewer slices than one for each place in the kernel."""
        return math.prod(self.out(spatial)) < self.size

    def slices(self, spatial: tuple[int, ...]):
        """Where the patches lie in the padded input: as few slices as hold them all."""
        windows, places = (self.out(spatial), self.strides), (self.kernel, self.dilations)
        (fixed, far), (moving, step) = (windows, places) if self._by_window(spatial) else (places, windows)
        for place in product(*(range(n) for n in fixed)):
            yield (slice(None), slice(None)) + tuple(
                slice(p * f, p * f + (n - 1) * s + 1, s) for p, f, n, s in zip(place, far, moving, step, strict=True)
            )

    def _padded(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size + low + high for size, (low, high) in zip(spatial, self.pads, strict=True))

    def _inside(self, spatial: tuple[int, ...]):
        return (slice(None), slice(None)) + tuple(
            slice(low, low + size) for size, (low, _) in zip(spatial, self.pads, strict=True)
        )

    def patches(self, value, fill=0.0):
        """All windows of (batch, channels, *spatial), padded with `fill`: (batch, channels, kernel, *out)."""
        spatial = value.shape[2:]
        if any(low or high for low, high in self.pads):
            padded = arrays_of.full(value, (*value.shape[:2], *self._padded(spatial)), fill)
            padded[self._inside(spatial)] = value
        else:
            padded = value
        xp, by_window = namespace(value), self._by_window(spatial)
        patches = xp.stack([padded[index] for index in self.slices(spatial)], axis=-1 if by_window else 2)
        return xp.reshape(patches, (*value.shape[:2], self.size, *self.out(spatial))) if by_window else patches

    def scatter(self, patches, spatial: tuple[int, ...]):
        """Transpose of `patches`: values added back to where they came from, (batch, channels, *spatial)."""
        batch, channels = patches.shape[:2]
        padded = arrays_of.zeros(patches, (batch, channels, *self._padded(spatial)))
        by_window, xp = self._by_window(spatial), namespace(patches)
        if by_window:
            patches = xp.reshape(patches, (batch, channels, *self.kernel, -1))
        for k, index in enumerate(self.slices(spatial)):
            padded[index] += patches[..., k] if by_window else patches[:, :, k]
        return padded[self._inside(spatial)]

    def valid(self, spatial: tuple[int, ...]) -> np.ndarray:
        """Which window positions lie inside the unpadded input, (kernel, *out) bool."""
        ones = np.ones((1, 1, *spatial), dtype=np.float64)
        return self.patches(ones)[0, 0] > 0.5


def in_pieces(part, value, patches: int):
    """`part` of so many of (batch, n, ...) at a time that their patches stay in the cache (measured 1.3x to 3x).

    In: a function of (pieces, ...); `patches` values of one of them.
    """
    xp = namespace(value)
    batch, number = value.shape[:2]
    flat = xp.reshape(value, (batch * number, *value.shape[2:]))
    step = max(1, (PATCH_BYTES if isinstance(value, np.ndarray) else DEVICE_PATCH_BYTES) // (8 * patches))
    parts = [part(flat[start : start + step]) for start in range(0, max(1, batch * number), step)]
    result = parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
    return xp.reshape(result, (batch, number, *result.shape[1:]))


def read_window(spec, kernel: tuple[int, ...], spatial: tuple[int, ...]) -> Window:
    """The window of a Conv or pooling node from its attributes (auto_pad resolved); refuses what it cannot mean."""
    rank = len(kernel)
    strides = tuple(int(s) for s in spec.attribute("strides", [1] * rank))
    dilations = tuple(int(d) for d in spec.attribute("dilations", [1] * rank))
    flat = [int(p) for p in spec.attribute("pads", [0] * (2 * rank))]
    fits = (len(strides), len(dilations), len(flat)) == (rank, rank, 2 * rank)
    if not fits or min((*kernel, *strides, *dilations), default=1) < 1:
        raise spec.refuse(f"strides, dilations and pads of {spec.op_type} do not fit a kernel of {rank} axes")
    if len(spatial) != rank or min(flat, default=0) < 0:
        raise spec.refuse(f"{spec.op_type} with a kernel of {rank} axes and pads {flat} over {len(spatial)} axes")
    pads = tuple(zip(flat[:rank], flat[rank:], strict=True))
    auto = spec.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        same = []
        for size, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            small, large = total // 2, total - total // 2
            same.append((small, large) if auto == "SAME_UPPER" else (large, small))
        pads = tuple(same)
    elif auto not in ("NOTSET", "VALID"):
        raise spec.refuse(f"auto_pad {auto} is not supported")
    elif auto == "VALID":
        pads = ((0, 0),) * rank
    if spec.attribute("ceil_mode", 0):
        if auto != "NOTSET":
            raise spec.refuse("ceil_mode=1 with auto_pad is not supported; write pads")
        pads = _rounded_up(Window(tuple(kernel), strides, dilations, tuple(pads)), spatial)
        if pads != tuple(zip(flat[:rank], flat[rank:], strict=True)) and spec.attribute("count_include_pad", 0):
            raise spec.refuse("ceil_mode=1 with count_include_pad=1 is not supported")
    window = Window(tuple(kernel), strides, dilations, tuple(pads))
    padded = [size + low + high for size, (low, high) in zip(spatial, window.pads, strict=True)]
    spec.check_size(padded)
    spec.check_size((window.size, *(max(size // s, 1) for size, s in zip(padded, strides, strict=True))))
    return window


def _rounded_up(window: Window, spatial: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Pads with which the last, incomplete window counts too, unless it would start in the padding (ceil_mode)."""
    pads = []
    for size, k, s, d, (low, high) in zip(
        spatial, window.kernel, window.strides, window.dilations, window.pads, strict=True
    ):
        reach = d * (k - 1) + 1
        steps = -(-(size + low + high - reach) // s)
        steps = steps - 1 if steps * s >= size + low else steps
        pads.append((low, max(high, steps * s + reach - size - low)))
    return tuple(pads)
