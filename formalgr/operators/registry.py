"""The operators by ONNX type: adding one is a file and a row here.

In: NodeSpec. Out: recipes of operators. Trust: sound (an unlisted type is refused by name).
"""

from formalgr.operators import (
    bilinear,
    clip,
    combine,
    convolution,
    dense,
    exponential,
    extreme,
    gather,
    normalize,
    pooling,
    powers,
    rectifiers,
    reduction,
    reshape,
    resize,
    s_shaped,
    sign,
    softmax,
    waves,
)
from formalgr.operators.base import Builder, NodeSpec, Recipe

REGISTRY: dict[str, Builder] = {
    "Abs": rectifiers.absolute,
    "Add": combine.add,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalize.batch_normalization,
    "Cast": reshape.cast,
    "Celu": exponential.exponential_unit,
    "Clip": clip.clip,
    "Concat": combine.concat,
    "Conv": convolution.conv,
    "ConvTranspose": convolution.conv_transpose,
    "Cos": waves.wave,
    "Div": bilinear.div,
    "Dropout": reshape.identity,
    "Elu": exponential.exponential_unit,
    "Exp": exponential.exponential,
    "Expand": resize.expand,
    "Flatten": reshape.flatten,
    "Gather": gather.gather,
    "Gemm": dense.gemm,
    "GlobalAveragePool": pooling.global_pool,
    "GlobalMaxPool": pooling.global_pool,
    "HardSigmoid": clip.hard_sigmoid,
    "Identity": reshape.identity,
    "LeakyRelu": rectifiers.leaky_relu,
    "Log": exponential.logarithm,
    "LogSoftmax": softmax.softmax,
    "MatMul": dense.matmul,
    "Max": extreme.extreme,
    "MaxPool": pooling.max_pool,
    "Mean": combine.mean,
    "Min": extreme.extreme,
    "Mul": bilinear.mul,
    "Neg": combine.negate,
    "PRelu": rectifiers.prelu,
    "Pad": reshape.pad,
    "Pow": powers.power,
    "Reciprocal": powers.reciprocal,
    "ReduceMax": reduction.reduce_max,
    "ReduceMean": reduction.reduce_sum,
    "ReduceMin": reduction.reduce_max,
    "ReduceSum": reduction.reduce_sum,
    "Relu": rectifiers.relu,
    "Reshape": reshape.reshape,
    "Resize": resize.resize,
    "Selu": exponential.exponential_unit,
    "Sigmoid": s_shaped.s_shaped,
    "Sign": sign.sign,
    "Sin": waves.wave,
    "Slice": reshape.slice_,
    "Softmax": softmax.softmax,
    "Softplus": exponential.soft_plus,
    "Split": reshape.split,
    "Sqrt": powers.root,
    "Squeeze": reshape.squeeze,
    "Sub": combine.sub,
    "Sum": combine.add,
    "Tanh": s_shaped.s_shaped,
    "Transpose": reshape.transpose,
    "Unsqueeze": reshape.unsqueeze,
    "Upsample": resize.upsample,
}

RELAXED = {
    "Celu", "Cos", "Elu", "Exp", "Log", "LogSoftmax", "Pow", "Reciprocal", "Selu", "Sigmoid", "Sign", "Sin", "Softmax",
    "Softplus", "Sqrt", "Tanh",
}
"""Operators of which bounds and solvers see a superset of the values: sound, not exact."""

BILINEAR = {"Div", "MatMul", "Mul"}
"""Operators that are exact with a constant operand and relaxed for two computed ones."""

HINTS = {
    "ArgMax": "cut the file at the scores and ask about their order",
    "ArgMin": "cut the file at the scores and ask about their order",
    "DequantizeLinear": "export the network in float32",
    "Erf": "export GELU with approximate='tanh'",
    "Equal": "write the cases with Relu, Max and Min",
    "GRU": "unroll the recurrence",
    "Gelu": "write its tanh approximation out",
    "Greater": "write the cases with Relu, Max and Min",
    "GroupNormalization": "write it with ReduceMean, Sub, Mul, Add, Sqrt and Div",
    "HardSwish": "write it as Mul of x and HardSigmoid",
    "If": "export the branch that is meant",
    "InstanceNormalization": "write it with ReduceMean, Sub, Mul, Add, Sqrt and Div",
    "LSTM": "unroll the recurrence",
    "LayerNormalization": "write it with ReduceMean, Sub, Mul, Add, Sqrt and Div",
    "Less": "write the cases with Relu, Max and Min",
    "Loop": "unroll it",
    "Mish": "write it as Mul of x and Tanh of Softplus",
    "QuantizeLinear": "export the network in float32",
    "RNN": "unroll the recurrence",
    "Scan": "unroll it",
    "Where": "write the cases with Relu, Max and Min",
}
"""How to write what is not supported with what is."""

SEVERAL_OUTPUTS = {"Split"}
"""Operators whose outputs after the first have a meaning."""


def build(spec: NodeSpec) -> Recipe:
    """The operators that mean the node; raises UnsupportedOperator naming node, type, opset and feeds."""
    if spec.op_type not in REGISTRY:
        hint = HINTS.get(spec.op_type, "write it with those that `formalgr supports --onnx-operators` lists")
        raise spec.refuse(f"operator {spec.op_type} is not supported: {hint}")
    if spec.output and spec.op_type not in SEVERAL_OUTPUTS:
        raise spec.refuse(f"output {spec.output} of {spec.op_type} is not supported")
    return REGISTRY[spec.op_type](spec)
