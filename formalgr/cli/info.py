"""`formalgr info`: what a network or a property file holds.

In: Session. Out: names and values, or JSON. Trust: sound (read by the readers that verification uses).
"""

from formalgr.cli import options
from formalgr.cli.session import Session
from formalgr.cli.verify import PROPERTY

DESCRIPTION = """
What a file holds, as verification sees it: for a network its sizes, operators and how exactly it can be handled; for a
property its boxes and unsafe polytopes."""

EPILOG = """
examples
  formalgr info network.onnx
  formalgr info property.vnnlib.gz --json"""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="network (.onnx) or property (.vnnlib), or .gz")
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Read the file and print what it holds."""
    from formalgr.report import json as report_json
    from formalgr.report import text

    name = session.args.file
    document = _property(name) if name.lower().endswith(PROPERTY) else _network(name)
    if session.args.json:
        session.result(report_json.text({"schema": "formalgr.info/1", **document}))
    else:
        rows = [(key.replace("_", " "), _shown(value)) for key, value in document.items()]
        session.result(text.rows_text(rows))
    return 0


def _shown(value: object) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{number} {key}" for key, number in value.items())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value) or "none"
    if isinstance(value, list) and isinstance(value[0], dict):
        return "\n".join(f"{item['path']}\nsha256 {item['sha256']}" for item in value)
    return str(value)


def _network(name: str) -> dict:
    from collections import Counter

    import numpy as np

    from formalgr.graph.network import load
    from formalgr.operators.activation import Activation
    from formalgr.operators.linear_map import LinearMap

    network = load(name)
    graph = network.graph
    activations = [node for node in graph.nodes if isinstance(node.operator, Activation)]
    pools = [node for node in graph.nodes if not isinstance(node.operator, (Activation, LinearMap))]
    parameters = sum(
        int(value.size)
        for node in graph.nodes
        if isinstance(node.operator, LinearMap)
        for value in vars(node.operator).values()
        if isinstance(value, np.ndarray) and value.dtype == np.float64
    )
    return {
        "kind": "network",
        "files": [{"path": source.path, "sha256": source.sha256} for source in network.sources],
        "input_shape": list(graph.input_shape),
        "output_shape": list(graph.output_shape),
        "operators": dict(Counter(node.operator.onnx().op_type for node in graph.nodes)),
        "activation_units": sum(int(np.prod(node.shape, dtype=np.int64)) for node in activations),
        "pooling_units": sum(int(np.prod(node.shape, dtype=np.int64)) for node in pools),
        "parameters": parameters,
        "element_type": network.element,
        "exact_encoding": graph.exact,
        "rational_evaluation": graph.rational,
        "agrees_with_onnxruntime": True,
        "notes": list(network.notes),
    }


def _property(name: str) -> dict:
    from formalgr.spec.vnnlib_reader import read_vnnlib

    property_ = read_vnnlib(name)
    polytopes = [polytope for query in property_.queries for polytope in query.unsafe.polytopes]
    return {
        "kind": "property",
        "files": [{"path": property_.path, "sha256": property_.sha256}],
        "vnnlib_version": "2.0" if property_.networks else "1.0",
        "networks": [_declared(network) for network in property_.networks],
        "semantics": property_.semantics.value,
        "inputs": property_.inputs,
        "outputs": property_.outputs,
        "boxes": len(property_.queries),
        "empty_boxes": sum(query.box.empty for query in property_.queries),
        "unsafe_polytopes": len(polytopes),
        "rows": sum(polytope.rows for polytope in polytopes),
        "strict_rows": sum(sum(polytope.strict) for polytope in polytopes),
        "inputs_in_rows": 0 if property_.wiring is None else len(property_.wiring.watched),
    }


def _declared(network) -> str:
    """A network as its file declares it, on one line."""
    sides = (
        ", ".join(f"{tensor.name} {tensor.element} [{','.join(map(str, tensor.shape))}]" for tensor in tensors)
        for tensors in (network.inputs, network.outputs)
    )
    return f"{network.name}: {' -> '.join(sides)}" + (f" ({' '.join(network.same_as)})" if network.same_as else "")
