"""Pooling: AveragePool, GlobalAveragePool (linear) and MaxPool, GlobalMaxPool (exact, by its largest argument).

In: the ONNX nodes of those names. Out: AveragePool, MaxPool. Trust: sound.
"""

import math
from dataclasses import dataclass

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import is_rational, namespace
from formalgr.core.linear import AffineForm, Drift, Interval, Pulled, Sums
from formalgr.core.local import Local
from formalgr.core.rounding import SLACK, SMALLEST_NORMAL
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, ProgramBuilder, Shape
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.window import Window, in_pieces, read_window


def _merge(value):
    """(batch, n, channels, *spatial) -> (batch * n, channels, *spatial)."""
    return namespace(value).reshape(value, (value.shape[0] * value.shape[1], *value.shape[2:]))


def _patch_values(window: Window, shape: Shape) -> int:
    """How many values the patches of one (channels, *spatial) hold."""
    return shape[0] * window.size * math.prod(window.out(tuple(shape[1:])))


def _part(value, number: int):
    """(batch * n, ...) -> (batch, n, ...)."""
    return namespace(value).reshape(value, (value.shape[0] // number, number, *value.shape[1:]))


@dataclass(frozen=True)
class AveragePool(LinearMap):
    """Mean over windows; `counts` (*out) holds the divisor of every window."""

    window: Window
    counts: np.ndarray
    dyadic = False

    @property
    def terms(self) -> int:
        return self.window.size + 1

    def out_shape(self, *shapes: Shape) -> Shape:
        return (*shapes[0][:2], *self.window.out(tuple(shapes[0][2:])))

    def apply(self, *values):
        xp = namespace(values[0])

        def part(piece):
            return xp.sum(self.window.patches(piece, 0.0), axis=2) / self.counts

        return in_pieces(part, values[0], _patch_values(self.window, values[0].shape[2:]))

    def adjoint(self, cotangent, *shapes) -> tuple:
        xp = namespace(cotangent)
        share = _merge(cotangent / self.counts)
        patches = xp.stack([share] * self.window.size, axis=2)
        return (_part(self.window.scatter(patches, tuple(shapes[0][2:])), cotangent.shape[1]),)

    def magnitude(self, *values):
        return self.apply(*values)

    def onnx(self) -> OnnxForm:
        padded = any(low or high for low, high in self.window.pads)
        include = int(padded and bool(np.all(arrays_of.to_numpy(self.counts) == self.window.size)))
        return OnnxForm("AveragePool", {**_attributes(self.window), "count_include_pad": include}, (None,))


@dataclass(frozen=True)
class MaxPool(Operator):
    """Maximum over windows of an input with the given spatial shape; padding never wins."""

    window: Window
    spatial: tuple[int, ...]

    def out_shape(self, *shapes: Shape) -> Shape:
        if tuple(shapes[0][2:]) != self.spatial:
            raise ValueError(f"MaxPool of {list(self.spatial)} meets shape {list(shapes[0])}")
        return (*shapes[0][:2], *self.window.out(self.spatial))

    def _patches(self, merged):
        """Windows with padding replaced by the smallest value of the array, which never exceeds a real entry."""
        if not any(low or high for low, high in self.window.pads):
            return self.window.patches(merged)
        smallest = merged.reshape(-1).min() if is_rational(merged) else float(namespace(merged).min(merged))
        return self.window.patches(merged, smallest)

    def places(self, shape: Shape) -> np.ndarray:
        """Which elements of an input of `shape` every window holds, (kernel, outputs), -1 for padding."""
        elements = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(1, *shape)
        windows = np.moveaxis(self.window.patches(_merge(elements), -1.0), 1, 0)
        return np.rint(windows).astype(np.int64).swapaxes(0, 2).reshape(self.window.size, -1)

    def local_outputs(self, local: Local) -> tuple[np.ndarray, tuple[int, ...]]:
        """(origin, window) of the outputs that read the windows of a value laid out as its input."""
        first, size = self.window.readers(local.origin[:, 2:], local.window[2:], self.spatial)
        return np.concatenate([local.origin[:, :2], first], axis=1), (*local.window[:2], *size)

    def evaluate(self, *values):
        xp = namespace(values[0])

        def part(piece):
            return xp.max(self._patches(piece), axis=2)

        return in_pieces(part, values[0], _patch_values(self.window, values[0].shape[2:]))

    def _one_hot(self, merged_patches):
        """Mask (batch, channels, kernel, *out) of the first largest real entry of every window."""
        xp = namespace(merged_patches)
        valid = self.window.valid(self.spatial)
        mask = valid if isinstance(merged_patches, np.ndarray) else xp.asarray(valid, device=merged_patches.device)
        best = xp.argmax(xp.where(mask, merged_patches, -float("inf")), axis=2)
        kernel = xp.arange(self.window.size, device=getattr(merged_patches, "device", None))
        return best[:, :, None] == xp.reshape(kernel, (1, 1, -1, *(1,) * (merged_patches.ndim - 3)))

    def pullback(self, cotangent, *values) -> tuple:
        xp = namespace(cotangent)
        mask = self._one_hot(self._patches(_merge(values[0])))
        patches = xp.where(mask, _merge(cotangent)[:, :, None], 0.0)
        return (_part(self.window.scatter(patches, self.spatial), cotangent.shape[1]),)

    def interval(self, *boxes: Interval) -> Interval:
        return Interval(self.evaluate(boxes[0].lower), self.evaluate(boxes[0].upper))

    def _chosen(self, box: Interval):
        """Largest lower bound: its mask, and where it dominates every other entry of its window, (.., *out)."""
        xp = namespace(box.lower)
        mask = self._one_hot(self._patches(_merge(box.lower)))
        upper = self._patches(_merge(box.upper))
        others = xp.max(xp.where(mask, -float("inf"), upper), axis=2)
        lower = xp.max(self._patches(_merge(box.lower)), axis=2)
        return mask, lower >= others

    def curved(self, box: Interval):
        return box.upper > box.lower

    def forward(self, forms: tuple[AffineForm, ...], boxes: tuple[Interval, ...]) -> AffineForm:
        (form,), (box,) = forms, boxes
        xp = namespace(form.center)
        batch, number = form.center.shape[:2]
        inputs = form.generators.shape[1]
        mask, sure = self._chosen(box)

        def pick(value, copies):
            tall = xp.reshape(xp.stack([mask] * copies, axis=1), (-1, *mask.shape[1:])) if copies > 1 else mask
            return xp.sum(xp.where(tall, self._patches(_merge(value)), 0.0), axis=2)

        rows = xp.permute_dims(form.generators, (0, 2, 1, *range(3, form.generators.ndim)))
        rows = xp.reshape(rows, (batch * number, inputs, *form.generators.shape[3:]))
        picked = pick(xp.reshape(rows, (batch * number * inputs, 1, *rows.shape[2:])), inputs)
        picked = xp.reshape(picked, (batch, number, inputs, *picked.shape[1:]))
        generators = xp.permute_dims(picked, (0, 2, 1, *range(3, picked.ndim)))
        out = self.interval(box)
        middle = 0.5 * out.lower + 0.5 * out.upper
        reach = xp.maximum(out.upper - middle, middle - out.lower)
        reach = reach * (1.0 + 1e-12) + 1e-300
        keep = _part(sure, number)
        return AffineForm(
            xp.where(keep[:, None], generators, 0.0),
            xp.where(keep, _part(pick(form.center, 1), number), middle),
            xp.where(keep, _part(pick(form.radius, 1), number), reach),
        )

    def backward(self, coefficients, boxes: tuple[Interval, ...]) -> Pulled:
        (box,) = boxes
        xp = namespace(coefficients)
        batch, rows = coefficients.shape[:2]
        number = coefficients.shape[2]
        mask, sure = self._chosen(box)
        mask, sure = _part(mask, number), _part(sure, number)
        top = self.interval(box).upper
        positive = xp.maximum(coefficients, 0.0 * coefficients)
        negative = coefficients - positive
        # max >= the chosen entry always; max <= it only where it dominates, else max <= the largest upper bound
        used = xp.where(sure[:, None], coefficients, positive)
        pulled = self._put_back(used, mask, (batch, rows, *box.lower.shape[1:]))
        loose = xp.where(sure[:, None], 0.0 * negative, negative)
        flat = xp.reshape(loose, (batch, rows, -1))
        weighted = xp.matmul(flat, xp.reshape(top, (batch, -1, 1)))[..., 0]
        size = xp.reshape(xp.abs(top) + self.interval(box).magnitude, (batch, -1, 1))
        magnitudes = xp.matmul(xp.abs(xp.reshape(coefficients, (batch, rows, -1))), size)[..., 0]
        return Pulled((pulled,), weighted, magnitudes, flat.shape[-1] + self.window.size)

    def drift(self, errors: tuple, boxes: tuple[Interval, ...], sums: tuple[Sums, ...]) -> Drift:
        (error,), (box,) = errors, boxes
        xp, number = namespace(error), error.shape[1]
        error = error + SMALLEST_NORMAL["float32"]
        mask, sure = (_part(m, number) for m in self._chosen(Interval(box.lower - error, box.upper + error)))
        worst = self.evaluate(error)
        own = xp.where(sure, 0.0 * worst + SMALLEST_NORMAL["float32"], worst) * SLACK

        def pull(coefficients) -> tuple:
            batch, rows = coefficients.shape[:2]
            kept = xp.where(sure[:, None], coefficients, 0.0 * coefficients)
            return (self._put_back(kept, mask, (batch, rows, *box.lower.shape[1:])),)

        def spread(parts):
            chosen = self.evaluate(parts[0])
            return xp.where(sure, chosen, 0.0 * chosen) + own

        return Drift(pull, own, spread, self.window.size)

    def _put_back(self, coefficients, mask, shape):
        """Coefficients (batch, rows, *out) given to the entry that the mask (batch, n, c, kernel, *out) chooses."""
        xp = namespace(coefficients)
        patches = xp.where(mask[:, None], coefficients[:, :, :, :, None], 0.0)
        flat = xp.reshape(patches, (shape[0] * shape[1] * shape[2], *patches.shape[3:]))
        return xp.reshape(self.window.scatter(flat, self.spatial), shape)

    def encode(self, builder: ProgramBuilder, arguments: tuple[np.ndarray, ...], box: Interval) -> np.ndarray:
        results = builder.variables(box.lower, box.upper)
        windows = self.window.patches(arguments[0].astype(np.float64), -1.0)
        windows = np.moveaxis(windows, 2, -1).reshape(results.size, -1)
        for row, result in zip(windows, results.reshape(-1), strict=True):
            builder.maximum(tuple(int(i) for i in row if i >= 0), int(result))
        return results

    def onnx(self) -> OnnxForm:
        return OnnxForm("MaxPool", _attributes(self.window), (None,))


def _attributes(window: Window) -> dict:
    attributes = {
        "kernel_shape": list(window.kernel),
        "strides": list(window.strides),
        "pads": [p[0] for p in window.pads] + [p[1] for p in window.pads],
    }
    return attributes if set(window.dilations) == {1} else {**attributes, "dilations": list(window.dilations)}


def _spatial(spec: NodeSpec) -> tuple[int, ...]:
    if len(spec.shapes[0]) < 3:
        raise spec.refuse(f"{spec.op_type} needs (batch, channels, spatial...) values, got {list(spec.shapes[0])}")
    return tuple(spec.shapes[0][2:])


def _window(spec: NodeSpec) -> tuple[Window, tuple[int, ...]]:
    """The window of a node and the spatial shape below it; refuses more patches than evaluation can hold."""
    spatial = _spatial(spec)
    window = read_window(spec, tuple(spec.attribute("kernel_shape")), spatial)
    spec.check_size((spec.shapes[0][1], window.size, *window.out(spatial)))
    return window, spatial


def _whole(spatial: tuple[int, ...]) -> Window:
    """One window over all of the spatial axes."""
    return Window(spatial, (1,) * len(spatial), (1,) * len(spatial), ((0, 0),) * len(spatial))


def whole_maximum(spatial: tuple[int, ...]) -> MaxPool:
    """The maximum over all of the spatial axes of (batch, channels, *spatial) values."""
    return MaxPool(_whole(spatial), spatial)


def average_pool(spec: NodeSpec) -> tuple[Operator, ...]:
    """AveragePool, with or without counting the padding."""
    spec.only("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides")
    window, spatial = _window(spec)
    counts = np.sum(window.valid(spatial), axis=0).astype(np.float64)
    if spec.attribute("count_include_pad", 0):
        counts = np.full(counts.shape, float(window.size), dtype=np.float64)
    return (AveragePool(window, counts),)


def max_pool(spec: NodeSpec) -> tuple[Operator, ...]:
    """MaxPool with its first output only."""
    spec.only("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides")
    return (MaxPool(*_window(spec)),)


def global_pool(spec: NodeSpec) -> tuple[Operator, ...]:
    """GlobalAveragePool and GlobalMaxPool: one window over all spatial axes."""
    spec.only()
    spatial = _spatial(spec)
    if spec.op_type == "GlobalMaxPool":
        return (whole_maximum(spatial),)
    window = _whole(spatial)
    return (AveragePool(window, np.full((1,) * len(spatial), float(window.size), dtype=np.float64)),)
