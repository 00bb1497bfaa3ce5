"""Writes trained networks as ONNX files by formalgr's own writer. Trust: heuristic.

In: torch layers. Out: a file that onnxruntime evaluates alike.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from formalgr.graph.graph import GraphBuilder
from formalgr.graph.onnx_writer import OPSET, Names, write
from formalgr.operators.base import NodeSpec, Shape
from formalgr.operators.registry import build

TOLERANCE = 1e-5  # between torch and onnxruntime: float32 sums of up to 1024 terms in another order


def export(layers: nn.Sequential, path: Path, *, inputs: int, input_name: str) -> None:
    """Write `layers` on flat rows of `inputs` values as ONNX nodes, batch dimension free; see `node_spec`."""
    builder = GraphBuilder((1, inputs))
    for index, layer in enumerate(layers):
        spec = node_spec(layer, builder.shape(builder.last), f"layer {index} of {path.name}")
        builder.chain(f"{spec.op_type.lower()}{index}", build(spec), builder.last)
    write(builder.build(), path, Names(input=input_name, output="y"))


def node_spec(layer: nn.Module, shape: Shape, where: str) -> NodeSpec:
    """The ONNX node that means the torch layer on values of `shape`. Raises ValueError for any other layer."""
    constants: tuple[np.ndarray, ...] = ()
    attributes: dict[str, float] = {}
    match layer:
        case nn.Linear():
            op_type, constants = "Gemm", (layer.weight.detach().numpy().T, layer.bias.detach().numpy())
        case nn.Conv2d(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
            op_type, constants = "Conv", (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        case nn.Unflatten():
            op_type, constants = "Reshape", (np.array((1, *layer.unflattened_size), dtype=np.int64),)
        case nn.Flatten():
            op_type, constants = "Reshape", (np.array((1, -1), dtype=np.int64),)
        case nn.LeakyReLU():
            op_type, attributes = "LeakyRelu", {"alpha": layer.negative_slope}
        case nn.ReLU():
            op_type = "Relu"
        case nn.Tanh():
            op_type = "Tanh"
        case nn.Hardtanh():
            op_type, constants = "Clip", (np.float32(layer.min_val), np.float32(layer.max_val))
        case _:
            raise ValueError(f"cannot export {type(layer).__name__} ({where})")
    return NodeSpec(op_type, OPSET, attributes, (None, *constants), (True,) * (1 + len(constants)), (shape,), where)


def run_onnx(path: Path, inputs: np.ndarray) -> np.ndarray:
    """What onnxruntime computes on one CPU thread: `(batch, rows) -> (batch, out)`, float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: part})[0] for part in _parts(inputs)])


def _parts(inputs: np.ndarray) -> list[np.ndarray]:
    """Batches that even the values of a wide convolutional network fit into memory for."""
    return np.array_split(inputs, -(-len(inputs) // 500))


def check_export(layers: nn.Sequential, path: Path, inputs: torch.Tensor) -> float:
    """The largest difference between torch and onnxruntime on `inputs (batch, rows)`, in units of the largest output.

    Raises ValueError above the tolerance; outputs below 1 count as 1.
    """
    with torch.no_grad():
        expected = np.concatenate([layers(torch.from_numpy(part)).numpy() for part in _parts(inputs.numpy())])
    found = run_onnx(path, inputs.numpy())
    difference = float(np.max(np.abs(found - expected)) / max(1.0, np.max(np.abs(expected))))
    if not difference <= TOLERANCE:
        raise ValueError(f"{path} differs from torch by {difference:.3g} in onnxruntime, more than {TOLERANCE:g}")
    return difference
