"""Graphs as ONNX files: opset 17, IR version 8, run against the graph before the file appears.

In: Graph, a path. Out: one file. Trust: sound (bytes that onnxruntime evaluates otherwise are not written).
"""

import gzip
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formalgr.core.errors import InputError, ModelError
from formalgr.core.rounding import ORACLE_RELATIVE
from formalgr.graph.graph import Graph
from formalgr.graph.network import check_agreement, random_inputs
from formalgr.graph.runtime import Oracle, Session
from formalgr.operators.base import OnnxForm, Shape
from formalgr.operators.reshape import Reshape

OPSET, IR_VERSION = 17, 8
"""What onnxruntime since 1.13 and most other tools read."""

NEWER = {("AveragePool", "dilations"): (19, 9)}
"""Attributes that need a newer opset and IR version."""

COMPARED = 16
"""Random inputs on which written bytes are compared with their graph."""


@dataclass(frozen=True)
class Names:
    """How the input and the output of a written file are called."""

    input: str = "x"
    output: str = "y"


@dataclass(frozen=True)
class Written:
    """What was written: SHA-256 of the uncompressed bytes, element type, and whether the leading batch axis is free."""

    path: str
    sha256: str
    element: str
    free_batch: bool


def write(
    graph: Graph,
    path: str | Path,
    names: Names = Names(),  # noqa: B008 -- an immutable value
    *,
    metadata: Mapping[str, str] | None = None,
    verify: Callable[[Oracle], None] | None = None,
) -> Written:
    """Write the graph as one ONNX file (gzip when it is named .gz) that means the same; it appears whole or not at all.

    float32 when float32 holds every constant, else float64. `verify` may refuse the written network by raising. Raises
    ModelError when onnxruntime cannot run it, Refused when it differs from the graph, InputError when saving fails.
    """
    data, element, free = model_bytes(graph, names, metadata or {})
    if verify is not None:
        verify(Oracle((Session(data, str(path)),)))
    _save(Path(path), data)
    return Written(str(path), hashlib.sha256(data).hexdigest(), element, free)


def model_bytes(graph: Graph, names: Names, metadata: Mapping[str, str]) -> tuple[bytes, str, bool]:
    """The ONNX bytes of the graph, their element type, and whether the batch axis is free; checked in onnxruntime.

    The batch axis is free when a batch gives what its examples give alone (tried, not assumed).
    """
    element = "float32" if _fits_float32(graph) else "float64"
    inputs = random_inputs(graph, COMPARED)
    for free in (True, False) if len(graph.input_shape) > 1 and graph.input_shape[0] == 1 else (False,):
        data = _Proto(graph, names, element, free).bytes(metadata)
        session = Session(data, "the network to be written")
        try:
            fits = not free or session.joins(inputs)
            session.open()
        except ModelError as error:
            if free:
                continue
            raise ModelError(f"{error} (its constants need {element})") from None
        if fits:
            break
    check_agreement(graph, Oracle((session,)), inputs, ORACLE_RELATIVE, "the network to be written")
    return data, element, free


def _fits_float32(graph: Graph) -> bool:
    for node in graph.nodes:
        for constant in node.operator.onnx().inputs:
            if constant is not None and constant.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    if np.any(constant.astype(np.float32) != constant):
                        return False
    return True


class _Proto:
    """Builds the protocol buffer of one graph."""

    def __init__(self, graph: Graph, names: Names, element: str, free: bool):
        self._graph, self._names, self._element, self._free = graph, names, element, free
        self._taken = {names.input, names.output}
        self._nodes, self._constants = [], []

    def bytes(self, metadata: Mapping[str, str]) -> bytes:
        """The serialised model, accepted by the ONNX checker. Raises ModelError when it is not."""
        from onnx import TensorProto, checker, helper

        values = [self._names.input]
        for index, node in enumerate(self._graph.nodes, start=1):
            last = index == len(self._graph.nodes)
            name = self._fresh(node.name)
            shapes = [self._graph.nodes[i - 1].shape if i else self._graph.input_shape for i in node.inputs]
            form = node.operator.onnx()
            if isinstance(node.operator, Reshape):
                form = OnnxForm("Reshape", {}, (None, self._target(shapes[0], node.shape)))
            elif form.op_type == "Slice":
                form = _whole_axes_dropped(form, shapes[0])
            output = self._names.output if last else name
            self._add(name, form, [values[i] for i in node.inputs], output)
            values.append(output)
        if not self._graph.nodes:
            self._add("identity", OnnxForm("Identity", {}, (None,)), [self._names.input], self._names.output)
        kind = TensorProto.FLOAT if self._element == "float32" else TensorProto.DOUBLE
        ends = (self._names.input, self._graph.input_shape), (self._names.output, self._graph.output_shape)
        entry, leave = (helper.make_tensor_value_info(name, kind, self._declared(shape)) for name, shape in ends)
        proto = helper.make_graph(self._nodes, "formalgr", [entry], [leave], self._constants)
        used = {(node.op_type, item.name) for node in self._nodes for item in node.attribute}
        opset, version = max([(OPSET, IR_VERSION), *(need for what, need in NEWER.items() if what in used)])
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(proto, opset_imports=opsets, ir_version=version, producer_name="formalgr")
        helper.set_model_props(model, dict(metadata))
        try:
            checker.check_model(model)
        except checker.ValidationError as error:
            raise ModelError(f"the network cannot be written in opset {opset}: {str(error).splitlines()[0]}") from None
        return model.SerializeToString(deterministic=True)

    def _declared(self, shape: Shape) -> list:
        return ["batch", *shape[1:]] if self._free else list(shape)

    def _target(self, source: Shape, target: Shape) -> np.ndarray:
        """The shape constant of a Reshape: a leading batch axis is copied (0) when it is free."""
        copies = self._free and source[:1] == (1,) == target[:1]
        return np.array([0, *target[1:]] if copies else target, dtype=np.int64)

    def _fresh(self, name: str) -> str:
        fresh, number = name, 2
        while fresh in self._taken:
            fresh, number = f"{name}_{number}", number + 1
        self._taken.add(fresh)
        return fresh

    def _add(self, name: str, form: OnnxForm, sources: list[str], output: str) -> None:
        from onnx import helper, numpy_helper

        feeds, inputs = iter(sources), []
        for index, constant in enumerate(form.inputs):
            if constant is None:
                inputs.append(next(feeds))
            elif form.op_type == "Clip" and not np.isfinite(constant):
                inputs.append("")
            else:
                floating = constant.dtype.kind == "f"
                values = np.asarray(constant, dtype=self._element if floating else np.int64, order="C")
                inputs.append(self._fresh(f"{name}.{index}"))
                self._constants.append(numpy_helper.from_array(values, inputs[-1]))
        while inputs and not inputs[-1]:
            inputs.pop()
        self._nodes.append(helper.make_node(form.op_type, inputs, [output], name, **form.attributes))


def _whole_axes_dropped(form: OnnxForm, shape: Shape) -> OnnxForm:
    """A Slice without the axes that it takes whole, so that a free batch axis stays whole."""
    _, starts, ends, axes, steps = form.inputs
    kept = [k for k, size in enumerate(shape) if (starts[k], steps[k]) != (0, 1) or ends[k] < size]
    kept = kept or [len(shape) - 1]
    return OnnxForm("Slice", {}, (None, starts[kept], ends[kept], axes[kept], steps[kept]))


def _save(path: Path, data: bytes) -> None:
    """Save the bytes under a temporary name beside the file and rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "xb") as stream:
            stream.write(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
