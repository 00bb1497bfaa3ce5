"""Random tiny queries judged against exact enumeration: what the default pipeline says must be true.

In: cases of tests/random_queries.py. Out: Finding per question. Trust: the judge is exact; float32 points are sampled.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from formalgr.core.box import inward_float32
from formalgr.core.errors import FormalgrError
from formalgr.core.exact import rational_array, to_float
from formalgr.core.verdict import Outcome, Semantics, Verdict
from formalgr.graph.network import Network, load
from formalgr.graph.onnx_reader import read
from formalgr.spec.query import Query
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch
from tests.exact_cells import unsafe_points
from tests.onnx_meaning import PlainNetwork
from tests.random_queries import Case, Question

SECONDS = 4.0
"""Limit of one query; nothing else differs from the defaults."""

POINTS = 64
"""Random float32 points of the box that are tried against a HOLDS in float32."""


@dataclass(frozen=True)
class Finding:
    """What was said about a question: the outcome or an error, and what is wrong with it (None: nothing)."""

    question: Question
    outcome: Outcome | None
    error: str | None
    wrong: str | None

    @property
    def decided(self) -> bool:
        """Whether the verdict is HOLDS or VIOLATED."""
        return self.outcome is not None and self.outcome.verdict is not Verdict.UNKNOWN


def read_network(network: PlainNetwork) -> tuple[Network, str | None]:
    """The network as formalgr reads its file, and why onnxruntime was left out (it differs in float32), if it was."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        path.write_bytes(network.onnx())
        try:
            return load(path), None
        except FormalgrError as error:
            model = read(path)
            return Network(model.graph, None, (), (), element=model.element), type(error).__name__


def judge(
    case: Case, network: Network, semantics: Semantics = Semantics.REAL, solver: str = "auto"
) -> list[Finding]:
    """One finding per question of the case."""
    options = VerifyOptions(seconds_per_query=SECONDS, semantics=semantics, solver=solver)
    queries = [question.query for question in case.questions]
    try:
        answers = verify_batch(network, queries, options)
    except FormalgrError:
        answers = [_alone(network, query, options) for query in queries]
    findings = []
    for question, answer in zip(case.questions, answers, strict=True):
        if isinstance(answer, Outcome):
            findings.append(Finding(question, answer, None, fault(case, question, network, answer)))
        else:
            findings.append(Finding(question, None, f"{type(answer).__name__}: {answer}", None))
    return findings


def _alone(network: Network, query: Query, options: VerifyOptions) -> Outcome | FormalgrError:
    try:
        return verify_batch(network, [query], options)[0]
    except FormalgrError as error:
        return error


def fault(case: Case, question: Question, network: Network, outcome: Outcome) -> str | None:
    """What is wrong with an outcome, or None."""
    if outcome.verdict is Verdict.HOLDS:
        if question.witness is not None:
            return f"HOLDS, but {_said(question.witness)} is unsafe"
        return _unsafe_in_float32(case, question, network) if outcome.semantics is Semantics.FLOAT32 else None
    if outcome.verdict is Verdict.VIOLATED:
        if question.witness is None:
            return f"VIOLATED at {_said(outcome.counterexample.point)}, but it holds"
        return _false_point(case, question, network, outcome)
    return None


def _said(point: Iterable[Fraction]) -> str:
    return f"({', '.join(str(x) for x in point)})"


def _false_point(case: Case, question: Question, network: Network, outcome: Outcome) -> str | None:
    """Whether the counterexample is none: outside the box, safe over the reals, or (in float32) for onnxruntime."""
    point = outcome.counterexample.point
    if not all(a <= x <= b for a, x, b in zip(question.query.box.lower, point, question.query.box.upper, strict=True)):
        return f"VIOLATED at {_said(point)}, outside the box"
    outputs = case.network.evaluate(rational_array(np.array([point], dtype=object)))
    if not unsafe_points(outputs, question.query.unsafe)[0]:
        return f"VIOLATED at {_said(point)}, where the output is safe"
    if outcome.semantics is Semantics.FLOAT32:
        single = np.array([float(x) for x in point], dtype=np.float32)
        answer = network.oracle.run(single[None])
        if [Fraction(x) for x in single.tolist()] != list(point) or not _unsafe(answer, question)[0]:
            return f"VIOLATED in float32 at {_said(point)}, where onnxruntime finds it safe"
    return None


def _unsafe(outputs: np.ndarray, question: Question) -> np.ndarray:
    """Which float outputs are unsafe; what is not finite is."""
    finite = np.all(np.isfinite(outputs), axis=1)
    exact = rational_array(np.where(finite[:, None], outputs, 0.0).astype(np.float64))
    return unsafe_points(exact, question.query.unsafe) | ~finite


def _unsafe_in_float32(case: Case, question: Question, network: Network) -> str | None:
    """Which float32 point of the box (random ones, vertices of cells) some float32 evaluation finds unsafe, or None."""
    box = inward_float32([question.query.box])
    random = np.random.default_rng(len(question.cells.points))
    drawn = random.uniform(box.lower[0], box.upper[0], size=(POINTS, box.inputs))
    vertices = to_float(question.cells.points)
    points = np.clip(np.concatenate([drawn, vertices]), box.lower, box.upper).astype(np.float32)
    inside = [question.query.box.contains([Fraction(x) for x in point]) for point in points.tolist()]
    points = points[inside]
    ways = {"numpy": case.network.evaluate}
    if network.oracle is not None:
        ways |= {"onnxruntime": network.oracle.run, "onnxruntime unoptimised": network.oracle.plain().run}
    for name, evaluate in ways.items():
        if len(points):
            bad = np.nonzero(_unsafe(np.asarray(evaluate(points)), question))[0]
            if bad.size:
                return f"HOLDS in float32, but {name} finds {points[bad[0]].tolist()} unsafe"
    return None
