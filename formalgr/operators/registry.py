"""The operators by ONNX type: adding one is a file and a row here.

In: NodeSpec. Out: chains of operators. Trust: sound (an unlisted type is refused by name).
"""

from formalgr.operators import (
    clip,
    combine,
    convolution,
    dense,
    normalize,
    pooling,
    rectifiers,
    reshape,
    resize,
    s_shaped,
)
from formalgr.operators.base import Builder, NodeSpec, Operator

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
    "Gemm": dense.gemm,
    "GlobalAveragePool": pooling.global_pool,
    "GlobalMaxPool": pooling.global_pool,
    "HardSigmoid": clip.hard_sigmoid,
    "Identity": reshape.identity,
    "LeakyRelu": rectifiers.leaky_relu,
    "MatMul": dense.matmul,
    "MaxPool": pooling.max_pool,
    "Mul": combine.mul,
    "PRelu": rectifiers.prelu,
    "Pad": reshape.pad,
    "Relu": rectifiers.relu,
    "Reshape": reshape.reshape,
    "Resize": resize.resize,
    "Sigmoid": s_shaped.s_shaped,
    "Slice": reshape.slice_,
    "Split": reshape.split,
    "Squeeze": reshape.squeeze,
    "Sub": combine.sub,
    "Tanh": s_shaped.s_shaped,
    "Transpose": reshape.transpose,
    "Unsqueeze": reshape.unsqueeze,
    "Upsample": resize.upsample,
}

SEVERAL_OUTPUTS = {"Split"}
"""Operators whose outputs after the first have a meaning."""


def build(spec: NodeSpec) -> tuple[Operator, ...]:
    """The chain of operators that means the node; raises UnsupportedOperator naming node, type, opset and feeds."""
    if spec.op_type not in REGISTRY:
        raise spec.refuse(f"operator {spec.op_type} is not supported; supported are {', '.join(sorted(REGISTRY))}")
    if spec.output and spec.op_type not in SEVERAL_OUTPUTS:
        raise spec.refuse(f"output {spec.output} of {spec.op_type} is not supported")
    return REGISTRY[spec.op_type](spec)
