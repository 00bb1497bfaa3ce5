"""`formalgr doctor`: is this installation in order?

In: Session. Out: names and values, or JSON. Trust: heuristic (a few quick checks).
"""

import importlib.metadata
import os
from collections.abc import Callable

from formalgr.cli import options
from formalgr.cli.session import Session

DESCRIPTION = """
Versions, cores, threads, memory, GPU, solvers and the shipped networks, and whether they do what they should on a small
case: every solver has a question with a known answer, the engine a proof that the independent checker accepts and a
counterexample that onnxruntime confirms."""

EPILOG = """
examples
  formalgr doctor
  formalgr doctor --json      # exit code 1 when something is wrong"""

EXTRAS = {"maraboupy": "marabou", "ray": "ray"}
"""Packages of optional extras, and the extra."""

GIB = float(1 << 30)


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Check and print; returns 1 when a check failed."""
    import platform

    from formalgr.cli.main import THREAD_VARIABLES
    from formalgr.cli.memory import LEAST, SHARE, machine_bytes
    from formalgr.core.exact import flint
    from formalgr.report import json as report_json
    from formalgr.report import text
    from formalgr.runs.workers import physical_cores

    checks = {"networks": _checked(session, _networks), "engine": _checked(session, _engine), **_solvers(session)}
    good = all(found.startswith("ok") for found in checks.values())
    document = {
        "platform": platform.platform(),
        "cores": physical_cores(),
        "threads": int(os.environ.get(THREAD_VARIABLES[0], "1")),
        "memory_bytes": machine_bytes(),
        "memory_limit_bytes": max(LEAST, machine_bytes() // SHARE),
        "gpu": _gpu(),
        "exact_arithmetic": "python-flint" if flint is not None else "fractions (slower: pip install python-flint)",
        "versions": report_json.versions(),
        "extras": {package: _version(package, extra) for package, extra in EXTRAS.items()},
        "checks": checks,
        "good": good,
    }
    if session.args.json:
        session.result(report_json.text({"schema": "formalgr.doctor/1", **document}))
        return 0 if good else 1
    least, most = document["memory_limit_bytes"] / GIB, document["memory_bytes"] / GIB
    memory = f"{most:.1f} GB, of which a command takes {least:.1f}"
    rows = [(key, str(document[key])) for key in ("platform", "cores")]
    rows += [("threads", f"{document['threads']} a process (--threads)"), ("memory", f"{memory} (--memory-limit)")]
    rows += [("GPU", document["gpu"]), ("exact arithmetic", document["exact_arithmetic"])]
    rows += [*document["versions"].items(), *document["extras"].items()]
    rows += [(f"check {name}", found) for name, found in checks.items()]
    session.result(text.rows_text([*rows, ("in order", "yes" if good else "NO")]))
    session.hint("next: formalgr demo" if good else "what is missing or failed stands above, with the way out")
    return 0 if good else 1


def _version(package: str, extra: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"not installed (optional: pip install 'formalgr[{extra}]')"


def _gpu() -> str:
    """What torch says of accelerators."""
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use (--device cpu, the default)"
    found = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
    names = ", ".join(f"{one.name}, {one.total_memory / GIB:.0f} GB" for one in found)
    return f"{names} (--device cuda)"


def _checked(session: Session, check: Callable[[], str]) -> str:
    """What the check found and how long it took, or how it failed: a broken package raises anything."""
    from formalgr.core.errors import MissingDependency

    since = session.budget.elapsed
    try:
        found = check()
    except MissingDependency as error:
        return f"missing: {error}"
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"
    return f"{found}, {session.budget.elapsed - since:.2f} s"


def _networks() -> str:
    """Whether the shipped networks are there and agree with onnxruntime (load refuses them otherwise)."""
    from formalgr.cli.shipped import digits
    from formalgr.graph.network import load

    files = sorted(digits().glob("*.onnx"))
    for file in files:
        load(file)
    return f"ok, {len(files)} shipped networks agree with onnxruntime"


def _engine() -> str:
    """A small ball is proven and its proof checked exactly; in a large one a counterexample is found and confirmed."""
    from formalgr.cli.shipped import digits
    from formalgr.core.budget import Budget
    from formalgr.core.verdict import Guarantee, Verdict
    from formalgr.graph.compose import compose
    from formalgr.graph.network import load
    from formalgr.spec.robustness import local_robustness
    from formalgr.verify.certificate import exactly
    from formalgr.verify.pipeline import verify_batch

    network = compose(load(digits() / "g_3.onnx"), load(digits() / "c_32_32.onnx"))
    center = [0.0] * network.graph.inputs
    asked = [local_robustness(center, radius, 3, network.scores) for radius in ("0.01", "3")]
    small, large = verify_batch(network, asked, None, Budget(20.0))
    proven, _ = exactly(network, asked[:1], [small], Budget(20.0))[0]
    found = large.counterexample
    if small.verdict is not Verdict.HOLDS or found is None or not found.confirmed_float32:
        return f"failed: {small.verdict.value} where it holds, {large.verdict.value} where it does not"
    if proven.guarantee is not Guarantee.EXACT:
        return f"failed: the proof was not accepted ({'; '.join(proven.notes)})"
    return "ok, a proof was checked exactly, a counterexample confirmed by onnxruntime"


def _solvers(session: Session) -> dict[str, str]:
    """What each solver says of the two questions of `_solver`."""
    from formalgr.solvers.registry import BACKENDS, OPTIONAL

    found = {}
    for name in BACKENDS:
        said = _checked(session, lambda name=name: _solver(name))
        found[name] = f"ok, optional and not installed ({said})" if said[0] == "m" and name in OPTIONAL else said
    return found


def _solver(name: str) -> str:
    """Whether it finds the point with y = relu(x) and x + y = 1, x = y = 1/2, and the least y with x + y = -1, 0."""
    from formalgr.core.budget import Budget
    from formalgr.core.program import Linear, Piecewise, Program, Sense, Variable
    from formalgr.solvers.registry import backend

    relu = Piecewise(0, 1, (0.0,), (0.0, 1.0), (0.0, 0.0))
    for total, point in ((1.0, (0.5, 0.5)), (-1.0, (-1.0, 0.0))):
        row = Linear((0, 1), (1.0, 1.0), Sense.EQUAL, total)
        program = Program((Variable(-1.0, 1.0), Variable(0.0, 1.0)), (row,), (relu,), inputs=(0,))
        answer = backend(name).solve(program, Budget(20.0))
        if answer.point is None or any(abs(float(x) - y) > 1e-6 for x, y in zip(answer.point[:2], point, strict=True)):
            return f"failed: {answer.status.value} {answer.why}"
    return "ok, two questions with known answers"
