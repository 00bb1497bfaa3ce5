"""Gather: chosen entries of one axis, in any order and as often as wanted.

In: the ONNX node of that name with constant indices. Out: Slice where the indices say one, else Gather. Trust: sound.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, Recipe, Shape
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.reshape import Reshape, Slice


@dataclass(frozen=True)
class Gather(LinearMap):
    """Entries indices[0], indices[1], ... of `axis` (an axis of the node), 0 <= index < its size."""

    indices: tuple[int, ...]
    axis: int

    @property
    def terms(self) -> int:
        return 1

    def out_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not 0 <= min(self.indices, default=0) <= max(self.indices, default=0) < shape[self.axis]:
            raise ValueError(f"Gather reads entry {max(self.indices)} of axis {self.axis} of shape {list(shape)}")
        return (*shape[: self.axis], len(self.indices), *shape[self.axis + 1 :])

    def _at(self, entries) -> tuple:
        return (slice(None),) * (self.axis + 1) + (entries,)

    def apply(self, *values):
        return values[0][self._at(np.array(self.indices))]

    def magnitude(self, *values):
        return self.apply(*values)

    def adjoint(self, cotangent, *shapes) -> tuple:
        result = arrays_of.zeros(cotangent, (cotangent.shape[0], *shapes[0]))
        left = np.array(self.indices)
        places = np.arange(len(left))
        while len(left):  # entries read twice are added in another round, so that no index occurs twice in one
            entries, first = np.unique(left, return_index=True)
            at = self._at(entries)
            result[at] = result[at] + cotangent[self._at(places[first])]
            left, places = np.delete(left, first), np.delete(places, first)
        return (result,)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Gather", {"axis": self.axis}, (None, np.array(self.indices, dtype=np.int64)))


def gather(spec: NodeSpec) -> Recipe:
    """Gather with constant indices of any shape."""
    spec.only("axis")
    shape = spec.shapes[0]
    if spec.constants[0] is not None:
        raise spec.refuse("Gather with computed indices is not supported; it must gather computed values")
    given, axis = np.asarray(spec.constant(1)), int(spec.attribute("axis", 0)) % len(shape)
    indices = np.where(given < 0, given + shape[axis], given).reshape(-1)
    if not np.all((indices >= 0) & (indices < shape[axis])):
        raise spec.refuse(f"Gather of entries {given.reshape(-1).tolist()} of an axis of size {shape[axis]}")
    steps = np.diff(indices)
    if len(indices) and np.all(steps > 0) and len(np.unique(steps)) <= 1:
        ranges = [(0, size, 1) for size in shape]
        ranges[axis] = (int(indices[0]), int(indices[-1]) + 1, int(steps[0]) if len(steps) else 1)
        taken: Operator = Slice(tuple(ranges))
    else:
        taken = Gather(tuple(indices.tolist()), axis)
    return taken, Reshape((*shape[:axis], *given.shape, *shape[axis + 1 :]))
