"""Writes trained dense networks as ONNX files. In: torch layers. Out: a file that onnxruntime evaluates alike. Trust: heuristic."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET, IR_VERSION = 17, 8
TOLERANCE = 1e-5  # between torch and onnxruntime: float32 sums of up to 1024 terms in another order


def export_dense(layers: nn.Sequential, path: Path, *, input_name: str) -> None:
    """Write `layers` (Linear, ReLU, LeakyReLU, Hardtanh) as Gemm, Relu, LeakyRelu, Clip nodes, batch dimension free."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    current = input_name
    for index, layer in enumerate(layers):
        target = "y" if index == len(layers) - 1 else f"h{index}"
        match layer:
            case nn.Linear():
                weights = constant(f"w{index}", layer.weight.detach().numpy())
                bias = constant(f"b{index}", layer.bias.detach().numpy())
                nodes.append(helper.make_node("Gemm", [current, weights, bias], [target], f"gemm{index}", transB=1))
            case nn.LeakyReLU():
                slope = layer.negative_slope
                nodes.append(helper.make_node("LeakyRelu", [current], [target], f"leaky{index}", alpha=slope))
            case nn.ReLU():
                nodes.append(helper.make_node("Relu", [current], [target], f"relu{index}"))
            case nn.Hardtanh():
                low = constant(f"low{index}", np.asarray(layer.min_val))
                high = constant(f"high{index}", np.asarray(layer.max_val))
                nodes.append(helper.make_node("Clip", [current, low, high], [target], f"clip{index}"))
            case _:
                raise ValueError(f"cannot export layer {index}: {type(layer).__name__}")
        current = target
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    graph = helper.make_graph(
        nodes, path.stem,
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", linear[0].in_features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", linear[-1].out_features])],
        constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="formalgr"
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def run_onnx(path: Path, inputs: np.ndarray) -> np.ndarray:
    """What onnxruntime computes on one CPU thread: `(batch, rows) -> (batch, out)`, float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def check_export(layers: nn.Sequential, path: Path, inputs: torch.Tensor) -> float:
    """The largest difference between torch and onnxruntime on `inputs (batch, rows)`; raises above the tolerance."""
    with torch.no_grad():
        expected = layers(inputs).numpy()
    found = run_onnx(path, inputs.numpy())
    difference = float(np.max(np.abs(found - expected) / np.maximum(1.0, np.abs(expected))))
    if not difference <= TOLERANCE:
        raise ValueError(f"{path} differs from torch by {difference:.3g} in onnxruntime, more than {TOLERANCE:g}")
    return difference
