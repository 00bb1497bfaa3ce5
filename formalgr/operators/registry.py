"""The operators by ONNX type: adding one is a file and a row here.

In: NodeSpec. Out: recipes of operators. Trust: sound (an unlisted type is refused by name).
"""

from formalgr.operators import (
    clip,
    combine,
    convolution,
    dense,
    extreme,
    gather,
    normalize,
    pooling,
    rectifiers,
    reduction,
    reshape,
    resize,
    s_shaped,
)
from formalgr.operators.base import Builder, NodeSpec, Recipe

REGISTRY: dict[str, Builder] = {
    "Abs": rectifiers.absolute,
    "Add": combine.add,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalize.batch_normalization,
    "Cast": reshape.cast,
    "Clip": clip.clip,
    "Concat": combine.concat,
    "Conv": convolution.conv,
    "ConvTranspose": convolution.conv_transpose,
    "Div": combine.div,
    "Dropout": reshape.identity,
    "Expand": resize.expand,
    "Flatten": reshape.flatten,
    "Gather": gather.gather,
    "Gemm": dense.gemm,
    "GlobalAveragePool": pooling.global_pool,
    "GlobalMaxPool": pooling.global_pool,
    "HardSigmoid": clip.hard_sigmoid,
    "Identity": reshape.identity,
    "LeakyRelu": rectifiers.leaky_relu,
    "MatMul": dense.matmul,
    "Max": extreme.extreme,
    "MaxPool": pooling.max_pool,
    "Mean": combine.mean,
    "Min": extreme.extreme,
    "Mul": combine.mul,
    "Neg": combine.negate,
    "PRelu": rectifiers.prelu,
    "Pad": reshape.pad,
    "ReduceMax": reduction.reduce_max,
    "ReduceMean": reduction.reduce_sum,
    "ReduceMin": reduction.reduce_max,
    "ReduceSum": reduction.reduce_sum,
    "Relu": rectifiers.relu,
    "Reshape": reshape.reshape,
    "Resize": resize.resize,
    "Sigmoid": s_shaped.s_shaped,
    "Slice": reshape.slice_,
    "Split": reshape.split,
    "Squeeze": reshape.squeeze,
    "Sub": combine.sub,
    "Sum": combine.add,
    "Tanh": s_shaped.s_shaped,
    "Transpose": reshape.transpose,
    "Unsqueeze": reshape.unsqueeze,
    "Upsample": resize.upsample,
}

SEVERAL_OUTPUTS = {"Split"}
"""Operators whose outputs after the first have a meaning."""


def build(spec: NodeSpec) -> Recipe:
    """The operators that mean the node; raises UnsupportedOperator naming node, type, opset and feeds."""
    if spec.op_type not in REGISTRY:
        raise spec.refuse(f"operator {spec.op_type} is not supported; supported are {', '.join(sorted(REGISTRY))}")
    if spec.output and spec.op_type not in SEVERAL_OUTPUTS:
        raise spec.refuse(f"output {spec.output} of {spec.op_type} is not supported")
    return REGISTRY[spec.op_type](spec)
