"""JSON documents with the keys that scripts rely on: they may gain keys, never lose any; no NaN, no Infinity.

In: outcomes. Out: JSON text. Trust: sound (they repeat what was decided).
"""

import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

import formalgr
from formalgr.core.verdict import Counterexample, Outcome, Stage
from formalgr.report.words import GUARANTEES, verdict_word

RESULT = "formalgr.result/1"
PACKAGES = ("numpy", "scipy", "onnx", "onnxruntime", "highspy", "pulp", "z3-solver", "python-flint")
"""Packages whose versions a result may depend on."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What is needed to produce a result again: the files, the seed and the command (empty where nobody knows them);
    `seconds` is the whole run's.
    """

    sources: tuple
    seed: int | None
    argv: tuple[str, ...]
    seconds: float

    def keys(self) -> dict:
        """inputs, versions, seed, argv."""
        return {
            "inputs": [{"path": str(source.path), "sha256": source.sha256} for source in self.sources],
            "versions": versions(),
            "seed": self.seed,
            "argv": list(self.argv),
        }


def versions() -> dict[str, str]:
    """Version of formalgr, Python and every package that a result may depend on."""
    found = {"formalgr": formalgr.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def text(document: object) -> str:
    """The document as JSON on several lines; numbers that JSON does not have become null."""
    return json.dumps(plain(document), indent=1, allow_nan=False)


def plain(value: object) -> object:
    """The same with text keys and lists; numbers that JSON does not have become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def result_document(outcome: Outcome, provenance: Provenance) -> dict:
    """The outcome of one query or property (schema formalgr.result/1)."""
    stages = {stage.value: int(outcome.stage is stage) for stage in Stage}
    why = [] if outcome.reason is None else [outcome.reason.value]
    return {
        "schema": RESULT,
        "verdict": verdict_word(outcome),
        "guarantee": GUARANTEES[outcome.guarantee],
        "semantics": outcome.semantics.value,
        "why": "; ".join([*why, *outcome.notes]) or None,
        "did": outcome.did or None,
        "witness": None if outcome.counterexample is None else witness_document(outcome.counterexample),
        "stages": stages,
        "seconds": {"total": provenance.seconds, **_by_stage(outcome.stage_seconds)},
        **provenance.keys(),
    }


def witness_document(counterexample: Counterexample) -> dict:
    """A replayed point: its inputs and outputs, and what onnxruntime says of it."""
    answer = counterexample.float32_outputs
    return {
        "inputs": counterexample.inputs.tolist(),
        "outputs": counterexample.outputs.tolist(),
        "confirmed_float32": counterexample.confirmed_float32,
        "rounded": counterexample.rounded,
        "float32_outputs": None if answer is None else answer.tolist(),
    }


def _by_stage(spent: Iterable[tuple[Stage, float]]) -> dict[str, float]:
    return {stage.value: seconds for stage, seconds in spent}
