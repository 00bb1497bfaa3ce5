"""Tiny networks and properties as files, for tests of commands that read instances."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save


def chain(path: Path, steps: Sequence[tuple], inputs: int, outputs: int) -> Path:
    """Write x -> steps -> y; a step is an operator and its constants."""
    nodes, constants, value = [], [], "x"
    for number, (kind, *arrays) in enumerate(steps):
        names = [f"c{number}_{k}" for k in range(len(arrays))]
        constants += [numpy_helper.from_array(np.asarray(a, np.float32), n) for a, n in zip(arrays, names, strict=True)]
        after = "y" if number == len(steps) - 1 else f"v{number}"
        nodes.append(helper.make_node(kind, [value, *names], [after], name=f"n{number}"))
        value = after
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", s]) for n, s in (("x", inputs), ("y", outputs))]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def difference(path: Path) -> Path:
    """Write y = (x0 - x1, x1 - x0) through a layer of ReLUs."""
    weights = [[1, -1], [-1, 1]]
    return chain(path, [("MatMul", weights), ("Relu",), ("MatMul", weights)], 2, 2)


def absorbing(path: Path) -> Path:
    """Write y = (x + 1000) - 1000: x over the reals; in float32 x rounded to multiples of 2^-14."""
    return chain(path, [("Add", [1000.0]), ("Sub", [1000.0])], 1, 1)


def box_property(path: Path, bounds: Sequence[tuple], unsafe: str, outputs: int) -> Path:
    """Write a property over a box; bounds are pairs of decimals."""
    lines = [f"(declare-const X_{k} Real)" for k in range(len(bounds))]
    lines += [f"(declare-const Y_{k} Real)" for k in range(outputs)]
    lines += [f"(assert (>= X_{k} {low}))\n(assert (<= X_{k} {high}))" for k, (low, high) in enumerate(bounds)]
    path.write_text("\n".join([*lines, f"(assert {unsafe})"]) + "\n")
    return path
