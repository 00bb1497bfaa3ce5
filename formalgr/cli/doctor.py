"""`formalgr doctor`: is this installation in order?

In: Session. Out: names and values, or JSON. Trust: heuristic (a few quick checks).
"""

from formalgr.cli import options
from formalgr.cli.session import Session

DESCRIPTION = "Versions, cores, solvers and the shipped networks, and whether they do what they should on a small case."

EPILOG = """
examples
  formalgr doctor
  formalgr doctor --json      # exit code 1 when something is wrong"""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Check and print; returns 1 when a check failed."""
    import platform

    from formalgr.report import json as report_json
    from formalgr.report import text
    from formalgr.runs.workers import physical_cores

    checks = {"networks": _networks(), **_solvers()}
    good = all(found.startswith("ok") for found in checks.values())
    document = {
        "platform": platform.platform(),
        "cores": physical_cores(),
        "versions": report_json.versions(),
        "checks": checks,
        "good": good,
    }
    if session.args.json:
        session.result(report_json.text({"schema": "formalgr.doctor/1", **document}))
    else:
        rows = [("platform", document["platform"]), ("cores", str(document["cores"]))]
        rows += [(name, version) for name, version in document["versions"].items()]
        rows += [(f"check {name}", found) for name, found in checks.items()]
        session.result(text.rows_text([*rows, ("in order", "yes" if good else "NO")]))
    return 0 if good else 1


def _networks() -> str:
    """Whether the shipped networks are there and agree with onnxruntime (load refuses them otherwise)."""
    from formalgr.cli.shipped import digits
    from formalgr.core.errors import FormalgrError
    from formalgr.graph.network import load

    try:
        files = sorted(digits().glob("*.onnx"))
        for file in files:
            load(file)
    except FormalgrError as error:
        return f"failed: {error}"
    return f"ok, {len(files)} shipped networks agree with onnxruntime"


def _solvers() -> dict[str, str]:
    """Whether each solver finds a point with y = relu(x) and x + y = 1: x = y = 1/2."""
    from formalgr.core.budget import Budget
    from formalgr.core.errors import MissingDependency
    from formalgr.core.program import Linear, Piecewise, Program, Sense, Variable
    from formalgr.solvers.registry import BACKENDS, OPTIONAL, backend

    relu = Piecewise(0, 1, (0.0,), (0.0, 1.0), (0.0, 0.0))
    row = Linear((0, 1), (1.0, 1.0), Sense.EQUAL, 1.0)
    program = Program((Variable(-1.0, 1.0), Variable(0.0, 1.0)), (row,), (relu,), inputs=(0,))
    found = {}
    for name in BACKENDS:
        try:
            answer = backend(name).solve(program, Budget(20.0))
        except MissingDependency as error:
            found[name] = f"ok, optional and not installed: {error}" if name in OPTIONAL else f"missing: {error}"
            continue
        right = answer.point is not None and all(abs(float(value) - 0.5) < 1e-6 for value in answer.point[:2])
        found[name] = "ok" if right else f"failed: {answer.status.value} {answer.why}"
    return found
