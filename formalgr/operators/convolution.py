"""Convolutions: Conv and ConvTranspose with constant kernels, any number of spatial axes, groups.

In: ONNX nodes Conv, ConvTranspose. Out: Convolution. Trust: sound: plain sums of products by matrix products.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.core.local import Local
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, Shape
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.window import Window, in_pieces, read_window


@dataclass(frozen=True)
class Convolution(LinearMap):
    """Conv, or its transpose: weights (groups, wide / groups, narrow / groups * kernel).

    `narrow` is the side that patches are taken from: the input of Conv, the output of ConvTranspose, with spatial
    shape `spatial`. bias (out channels, 1, ...) or None.
    """

    weights: np.ndarray
    bias: np.ndarray | None
    window: Window
    spatial: tuple[int, ...]
    transposed: bool = False

    @property
    def _channels(self) -> tuple[int, int]:
        """Channels on the narrow (patched) side and on the wide side."""
        groups, wide, columns = self.weights.shape
        return groups * columns // self.window.size, groups * wide

    @property
    def terms(self) -> int:
        _, wide, columns = self.weights.shape
        return (wide * self.window.size if self.transposed else columns) + 1

    @property
    def offset(self):
        return self.bias

    def out_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        narrow, wide = self._channels
        small = self.window.out(self.spatial)
        given, made = ((wide, *small), (narrow, *self.spatial)) if self.transposed else (
            (narrow, *self.spatial), (wide, *small))
        if len(shape) < 2 or tuple(shape[1:]) != given:
            raise ValueError(f"a convolution of {list(given)} meets values of shape {list(shape)}")
        return (shape[0], *made)

    def _gather(self, value, weights):
        """Conv: (batch, n, narrow, *spatial) -> (batch, n, wide, *out)."""
        xp = namespace(value)
        groups, wide, columns = weights.shape

        def part(piece):
            patches = self.window.patches(piece)
            out = patches.shape[3:]
            patches = xp.reshape(patches, (piece.shape[0], groups, columns, -1))
            return xp.reshape(xp.matmul(weights, patches), (piece.shape[0], groups * wide, *out))

        return self._in_pieces(part, value)

    def _spread(self, value, weights):
        """ConvTranspose: (batch, n, wide, *out) -> (batch, n, narrow, *spatial)."""
        xp = namespace(value)
        groups, wide, columns = weights.shape
        turned = xp.permute_dims(weights, (0, 2, 1))

        def part(piece):
            patches = xp.matmul(turned, xp.reshape(piece, (piece.shape[0], groups, wide, -1)))
            patches = xp.reshape(patches, (piece.shape[0], -1, self.window.size, *piece.shape[2:]))
            return self.window.scatter(patches, self.spatial)

        return self._in_pieces(part, value)

    def _in_pieces(self, part, value):
        groups, _, columns = self.weights.shape
        return in_pieces(part, value, groups * columns * math.prod(self.window.out(self.spatial)))

    def apply(self, *values):
        return (self._spread if self.transposed else self._gather)(values[0], self.weights)

    def apply_local(self, local: Local, shape: Shape) -> Local | None:
        local = local.reshaped(shape)
        if local is None or local.window[0] > 1:
            return None
        corner, axes = local.origin[:, :1], local.window[2:]
        local = local.seen(np.concatenate([corner, 0 * corner, local.origin[:, 2:]], axis=1), (1, shape[1], *axes))
        made = (shape[0], *self.out_shape(shape)[1:])
        if self.transposed or set(self.window.strides) == {1}:
            start, values = self._spread_windows(local)
            fits = tuple(min(ends) for ends in zip(values.shape[3:], made[2:], strict=True))
            inside = np.clip(start, 0, np.array(made[2:]) - np.array(fits))
            spread = Local(values, np.concatenate([corner, 0 * corner, start], axis=1), made)
            return spread.seen(np.concatenate([corner, 0 * corner, inside], axis=1), (1, made[1], *fits))
        inside, fits = self.window.readers(local.origin[:, 2:], axes, self.spatial)
        start, size = self.window.reached(inside, fits)
        seen = local.seen(np.concatenate([corner, 0 * corner, start], axis=1), (1, shape[1], *size))
        values = replace(self, window=self.window.bare, spatial=size)._gather(seen.values, self.weights)
        return Local(values, np.concatenate([corner, 0 * corner, inside], axis=1), made)

    def _spread_windows(self, local: Local) -> tuple[np.ndarray, np.ndarray]:
        """Where what windows spread to begins, and what it is: fewer products than gathering it, without strides."""
        start, size = self.window.reached(local.origin[:, 2:], local.window[2:])
        if self.transposed:
            kernel, weights = self, self.weights
        else:
            # a convolution spreads every input with the kernel turned around
            groups, wide, columns = self.weights.shape
            turned = self.weights.reshape(groups, wide, -1, self.window.size)[..., ::-1]
            weights = np.moveaxis(turned, 1, 2).reshape(groups, -1, wide * self.window.size)
            reach = [d * (k - 1) for k, d in zip(self.window.kernel, self.window.dilations, strict=True)]
            start = local.origin[:, 2:] + np.array([low for low, _ in self.window.pads]) - np.array(reach)
            kernel = replace(self, weights=weights)
        return start, replace(kernel, window=self.window.bare, spatial=size)._spread(local.values, weights)

    def adjoint(self, cotangent, *shapes) -> tuple:
        return ((self._gather if self.transposed else self._spread)(cotangent, self.weights),)

    def magnitude(self, *values):
        weights = namespace(values[0]).abs(self.weights)
        return (self._spread if self.transposed else self._gather)(values[0], weights)

    def onnx(self) -> OnnxForm:
        narrow, wide = self._channels
        groups = self.weights.shape[0]
        kernel = self.weights.reshape(wide, narrow // groups, *self.window.kernel)
        attributes = {
            "kernel_shape": list(self.window.kernel),
            "strides": list(self.window.strides),
            "dilations": list(self.window.dilations),
            "pads": [p[0] for p in self.window.pads] + [p[1] for p in self.window.pads],
            "group": groups,
        }
        if self.transposed:
            least = _transposed_spatial(self.window, self.window.out(self.spatial))
            attributes["output_padding"] = [a - b for a, b in zip(self.spatial, least, strict=True)]
        inputs = (None, kernel) if self.bias is None else (None, kernel, self.bias.reshape(-1))
        return OnnxForm("ConvTranspose" if self.transposed else "Conv", attributes, inputs)


def _transposed_spatial(window: Window, small: tuple[int, ...]) -> tuple[int, ...]:
    """The smallest spatial shape whose windows are `small` in number."""
    return tuple(
        (n - 1) * s + (k - 1) * d + 1 - low - high
        for n, s, k, d, (low, high) in zip(
            small, window.strides, window.kernel, window.dilations, window.pads, strict=True
        )
    )


def _parts(spec: NodeSpec) -> tuple[np.ndarray, np.ndarray | None, int]:
    weights = spec.weights(1)
    if weights is None or weights.ndim < 3 or len(spec.shapes[0]) != weights.ndim:
        raise spec.refuse(f"{spec.op_type} needs a constant kernel with one axis per spatial axis of its input")
    bias = spec.weights(2)
    if bias is not None:
        bias = bias.reshape(-1, *(1,) * (weights.ndim - 2))
    return weights, bias, int(spec.attribute("group", 1))


def conv(spec: NodeSpec) -> tuple[Operator, ...]:
    """Conv with a constant kernel (out, in / groups, *kernel)."""
    spec.only("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    weights, bias, groups = _parts(spec)
    spatial = tuple(spec.shapes[0][2:])
    window = read_window(spec, weights.shape[2:], spatial)
    matrix = weights.reshape(groups, weights.shape[0] // groups, -1)
    return (Convolution(np.ascontiguousarray(matrix), bias, window, spatial),)


def conv_transpose(spec: NodeSpec) -> tuple[Operator, ...]:
    """ConvTranspose with a constant kernel (in, out / groups, *kernel); output_shape is refused."""
    spec.only("auto_pad", "dilations", "group", "kernel_shape", "output_padding", "pads", "strides")
    if spec.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise spec.refuse("auto_pad of ConvTranspose is not supported; write pads")
    weights, bias, groups = _parts(spec)
    rank = weights.ndim - 2
    small = spec.shapes[0][2:]
    window = read_window(spec, weights.shape[2:], small)
    spec.check_size((window.size, *small))
    extra = spec.attribute("output_padding", [0] * rank)
    least = _transposed_spatial(window, small)
    spatial = tuple(size + int(e) for size, e in zip(least, extra, strict=True))
    matrix = weights.reshape(groups, weights.shape[0] // groups, -1)
    return (Convolution(np.ascontiguousarray(matrix), bias, window, spatial, transposed=True),)
