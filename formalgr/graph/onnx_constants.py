"""Nodes of constants, computed by the ONNX reference implementation; only known operators, only so large.

In: a node, its constants. Out: the values of its outputs. Trust: sound (what is not known to be a plain function of
numbers, or would be too large, raises).
"""

import math

import numpy as np

from formalgr.core.errors import ModelError
from formalgr.operators.base import LARGEST_NODE
from formalgr.operators.registry import REGISTRY

FOLDED = {
    *REGISTRY, "And", "ArgMax", "ArgMin", "Ceil", "Constant", "ConstantOfShape", "CumSum", "Equal", "Erf", "EyeLike",
    "Floor", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "NonZero", "Not",
    "OneHot", "Or", "Range", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare", "Round", "ScatterElements",
    "ScatterND", "Shape", "Size", "Tan", "Tile", "TopK", "Trilu", "Where", "Xor",
}
"""Operators that are plain functions of numbers. The reference implementation runs more: text, pictures, loops."""

GROWING = {
    "ConstantOfShape", "Expand", "EyeLike", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample", "Conv",
    "ConvTranspose", "AveragePool", "MaxPool",
}
"""Operators whose result may be larger than all of what they read put together, or than a product of it."""


def folded(node, opset: int, constants: list[np.ndarray]) -> list[np.ndarray]:
    """The values of the node's outputs. Raises ModelError when they are too large, ValueError when they have none."""
    from onnx import ModelProto, ValueInfoProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    values = dict(zip((name for name in node.input if name), constants, strict=True))
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    made = [ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "fold", [], made, tensors)
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    if node.op_type in GROWING or math.prod(max(value.size, 1) for value in constants) > LARGEST_NODE:
        _check_size(model)
    try:
        return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, {})]
    except Exception as error:  # the reference implementation raises anything on what does not fit
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None


def _check_size(model) -> None:
    """Raises ModelError unless it is known before that no output holds more than LARGEST_NODE values."""
    from onnx import shape_inference

    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph.output
    except Exception as error:  # as above
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None
    for value in inferred:
        sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        known = value.type.tensor_type.HasField("shape") and min(sizes, default=1) > 0
        if not known or math.prod(sizes) > LARGEST_NODE:
            raise ModelError(f"the constant {value.name} may hold more than {LARGEST_NODE} values")
