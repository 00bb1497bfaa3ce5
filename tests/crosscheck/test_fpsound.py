"""Twenty queries that are satisfiable by 1e-6 and 1e-9 in exact arithmetic: a single proof that they hold is a defect.

The unsafe point lies at a vertex of a linear region, known by construction (../shared/cases/INDEX.md, fpsound). In
eight of them float32 evaluation does not see the violation at the point that is found.
"""

import os
from pathlib import Path

import pytest

from formalgr.api import verify_property
from formalgr.attacks.gradient import PgdAttack
from formalgr.attacks.random_search import RandomSearch
from formalgr.core.budget import Budget
from formalgr.core.verdict import Guarantee, Verdict
from formalgr.graph.network import load
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.options import VerifyOptions

FOLDER = Path(os.environ.get("FORMALGR_CASES", Path(__file__).resolve().parents[3] / "shared" / "cases")) / "fpsound"
CASES = [f"n{number:02d}_1e-{digits}" for number in range(10) for digits in (6, 9)]
LIMIT_SECONDS = 30.0
BLIND = VerifyOptions(random=RandomSearch(samples=0, rounds=0), pgd=PgdAttack(steps=1, restarts=1, step=1e-9))
"""Attacks that hardly leave the center: branch and bound must find the vertex."""

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no folder of cases at {FOLDER} (set FORMALGR_CASES)")


def _outcome(case: str, options: VerifyOptions | None = None):
    network, property_ = load(FOLDER / f"{case[:3]}.onnx"), read_vnnlib(FOLDER / f"{case}.vnnlib")
    outcome = verify_property(network, property_, options, Budget(LIMIT_SECONDS))
    if outcome.counterexample is not None:
        assert property_.queries[0].box.contains(outcome.counterexample.point)
    return outcome


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_violated(case):
    outcome = _outcome(case)
    assert outcome.verdict is Verdict.VIOLATED
    assert outcome.guarantee >= Guarantee.FLOAT_SOUND


def test_float32_misses_some_of_them():
    """What makes the cases hard: the replayed point is unsafe over the reals, onnxruntime does not see it."""
    confirmed = [_outcome(case).counterexample.confirmed_float32 for case in CASES]
    assert confirmed.count(False) >= 4


@pytest.mark.parametrize("case", CASES)
def test_branch_and_bound_alone_never_proves_them(case):
    outcome = _outcome(case, BLIND)
    assert outcome.verdict is Verdict.VIOLATED


@pytest.mark.parametrize("solver", ["highs", "cbc", "z3", "reluplex"])
@pytest.mark.parametrize("case", CASES[::5])
def test_no_solver_proves_them(case, solver):
    assert _outcome(case, VerifyOptions(solver=solver, solver_seconds=2.0)).verdict is not Verdict.HOLDS
