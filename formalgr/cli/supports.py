"""`formalgr supports`: what this version can read, one item a line, for scripts.

In: Session. Out: lines or JSON. Trust: sound (read off the registries).
"""

from formalgr.cli import options
from formalgr.cli.session import Session
from formalgr.core.errors import UsageError

DESCRIPTION = """
What this version can read and decide, one item a line; the questions of the VNN-LIB 2.0 standard by their names."""

EPILOG = """
examples
  formalgr supports --onnx-operators
  formalgr supports --onnx-operators --markdown > docs/operators.md
  formalgr supports --solvers --json
  formalgr supports --multiple-network-theories"""

ANSWERS = {
    "onnx-element-types": ("types that verdicts are sound for; real: over real numbers", ["real", "float32"]),
    "vnnlib-versions": ("the oldest and the newest version of VNN-LIB", ["1.0", "2.0"]),
    "hidden-node-theories": ("NH: no hidden nodes", ["NH"]),
    "multiple-input-output-theories": ("SIO, MIO: one or several inputs and outputs of a network", ["SIO", "MIO"]),
    "multiple-network-theories": (
        "SNET: one network; MENET, MINET, MNET: several equal, isomorphic, any", ["SNET", "MENET", "MINET", "MNET"]
    ),
    "multiple-node-comparison-theories": ("MNC: comparisons across inputs and outputs of a network", ["SNC", "MNC"]),
    "arithmetic-complexity-theories": (
        "BND: bounds; OUTC: comparisons of outputs; LIN: linear terms", ["BND", "OUTC", "LIN"]
    ),
    "optimised-disjunctive-reasoning": ("false: disjunctions become a list of boxes and polytopes", ["false"]),
    "serialise-assignments": ("whether witnesses can be written as TensorProto files", ["false"]),
    "unsat-proofs": ("whether proofs can be written in the format of VNN-LIB", ["false"]),
}
"""Questions whose answer is a constant of this version: what is asked, and the lines of the answer."""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("--onnx-operators", action="store_true", help="the ONNX operators that have a meaning here")
    parser.add_argument(
        "--markdown", action="store_true", help="with --onnx-operators: the page docs/operators.md, what each one means"
    )
    parser.add_argument(
        "--onnx-opset-versions", action="store_true", help="the oldest and the newest opset that is read"
    )
    for name, (what, _) in ANSWERS.items():
        parser.add_argument(f"--{name}", action="store_true", help=what)
    parser.add_argument("--solvers", action="store_true", help="the solvers that are installed")
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Print the lists that were asked for. Raises UsageError when none was."""
    import importlib.util

    from formalgr.graph.onnx_file import NEWEST_OPSET, OLDEST_OPSET
    from formalgr.operators.registry import REGISTRY
    from formalgr.report import json as report_json
    from formalgr.solvers.registry import BACKENDS

    args = session.args
    if args.markdown:
        if not args.onnx_operators or args.json:
            raise UsageError("--markdown is a form of --onnx-operators: formalgr supports --onnx-operators --markdown")
        from formalgr.report.operators import operators_page

        session.result(operators_page())
        return 0
    lists: dict[str, list] = {}
    if args.onnx_operators:
        lists["onnx_operators"] = sorted(REGISTRY)
    if args.onnx_opset_versions:
        lists["onnx_opset_versions"] = [OLDEST_OPSET, NEWEST_OPSET]
    for name, (_, answer) in ANSWERS.items():
        if getattr(args, name.replace("-", "_")):
            lists[name.replace("-", "_")] = answer
    if args.solvers:
        lists["solvers"] = [name for name, kind in BACKENDS.items() if importlib.util.find_spec(kind.package)]
    if not lists:
        raise UsageError("nothing asked: say what, such as --onnx-operators (see `formalgr supports --help`)")
    if args.json:
        session.result(report_json.text({"schema": "formalgr.supports/1", **lists}))
    else:
        session.result("\n".join(str(item) for items in lists.values() for item in items))
    return 0
