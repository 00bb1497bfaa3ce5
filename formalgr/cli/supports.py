"""`formalgr supports`: what this version can read, one item a line, for scripts.

In: Session. Out: lines or JSON. Trust: sound (read off the registries).
"""

from formalgr.cli import options
from formalgr.cli.session import Session
from formalgr.core.errors import UsageError

DESCRIPTION = "What this version can read, one item a line."

EPILOG = """
examples
  formalgr supports --onnx-operators
  formalgr supports --solvers --json"""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("--onnx-operators", action="store_true", help="the ONNX operators that have a meaning here")
    parser.add_argument("--onnx-opsets", action="store_true", help="the opsets that are read")
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
    lists: dict[str, list] = {}
    if args.onnx_operators:
        lists["onnx_operators"] = sorted(REGISTRY)
    if args.onnx_opsets:
        lists["onnx_opsets"] = list(range(OLDEST_OPSET, NEWEST_OPSET + 1))
    if args.solvers:
        lists["solvers"] = [name for name, kind in BACKENDS.items() if importlib.util.find_spec(kind.package)]
    if not lists:
        raise UsageError("nothing asked: choose from --onnx-operators, --onnx-opsets, --solvers")
    if args.json:
        session.result(report_json.text({"schema": "formalgr.supports/1", **lists}))
    else:
        session.result("\n".join(str(item) for items in lists.values() for item in items))
    return 0
