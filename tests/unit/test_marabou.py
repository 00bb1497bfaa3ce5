"""Marabou as a backend: what it is asked, what its words prove, and (with the extra) its verdicts on known queries."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest

from formalgr.cli.main import main
from formalgr.core.budget import Budget
from formalgr.core.program import Linear, Maximum, Piecewise, Program, Sense, Variable
from formalgr.core.verdict import Verdict
from formalgr.solvers import marabou_backend
from formalgr.solvers.base import Status
from formalgr.solvers.marabou_backend import LEAST_COEFFICIENT, MarabouBackend, _Builder
from formalgr.solvers.milp import pieces_within
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify
from tests.instances import box_property, difference
from tests.laws.test_backends_agree import enumerated_minimum, random_program
from tests.zoo import ZOO


def values_of(build: _Builder, program: Program, point: dict[int, Fraction]) -> dict[int, Fraction]:
    """All columns where the program's variables have the values of `point`: rows define columns, in order."""
    values = dict(point)
    for argument, result in build.rectified:
        (row,) = [row for row in build.rows if row.indices[-1] == argument and row.coefficients[-1] == -1]
        terms = zip(row.indices[:-1], row.coefficients[:-1], strict=True)
        values[argument] = sum(Fraction(a) * values[k] for k, a in terms) - Fraction(row.lower)
        values[result] = max(values[argument], Fraction(0))
    return values


def test_hinges_and_maxima_are_the_functions():
    """The rows that define a result hold with the function's value, and with no other."""
    wave = Piecewise(0, 1, (Fraction(-1, 2), Fraction(1, 4)), (1, -2, 3), (0, Fraction(-3, 2), Fraction(-11, 4)))
    program = Program((Variable(-1, 1), Variable(-9, 9)), piecewise=(wave,))
    build = _Builder(program)
    for x in (Fraction(-1), Fraction(-3, 4), Fraction(0), Fraction(1, 3), Fraction(1)):
        piece = next(piece for piece in pieces_within(wave, program.variables[0]) if x <= piece.upper)
        values = values_of(build, program, {0: x, 1: piece.at(x)})
        row = build.rows[-1]
        total = sum(Fraction(a) * values[k] for k, a in zip(row.indices, row.coefficients, strict=True))
        assert row.lower <= total <= row.upper
    variables = (Variable(-2, 2), Variable(-1, 3), Variable(-2, 1), Variable(-9, 9))
    three = Program(variables, maxima=(Maximum((0, 1, 2), 3),))
    build = _Builder(three)
    for point in ((0, 1, -1), (2, -1, 1), (-2, -1, 1), (1, 1, 1)):
        exact = dict(enumerate(map(Fraction, point)))
        values = values_of(build, three, {**exact, 3: max(exact.values())})
        row = build.rows[-1]
        total = sum(Fraction(a) * values[k] for k, a in zip(row.indices, row.coefficients, strict=True))
        assert row.lower <= total <= row.upper


def test_near_zero_coefficients_become_slack():
    tiny = LEAST_COEFFICIENT / 2
    row = Linear((0, 1, 2), (1, tiny, -1), Sense.EQUAL, 0)
    build = _Builder(Program((Variable(-1, 1), Variable(-4, 8), Variable(-9, 9)), (row,)))
    assert build.rows[0].indices == (0, 2) and build.rows[0].lower == -8 * tiny and build.rows[0].upper == 4 * tiny


@pytest.fixture
def says(monkeypatch):
    """A Marabou that answers with a given word, or raises."""

    def install(word, values=None):
        def solve(query, options, redirect):
            if isinstance(word, Exception):
                raise word
            return word, values or {}, None

        fake = SimpleNamespace(MarabouCore=SimpleNamespace(solve=solve), createOptions=lambda **options: options)
        monkeypatch.setattr(marabou_backend, "_marabou", lambda: fake)
        monkeypatch.setattr(_Builder, "query", lambda self, core: None)

    return install


def test_words_and_what_they_prove(says):
    program = Program((Variable(-1, 1),), objective=0, cutoff=0)
    says("unsat")
    answer = MarabouBackend().solve(program, Budget())
    assert answer.status is Status.UNDECIDED and 0 < answer.bound <= 1e-2
    assert MarabouBackend().solve(replace(program, cutoff=None), Budget()).status is Status.INFEASIBLE
    says("sat", {0: -0.5})
    assert MarabouBackend().solve(program, Budget()).point == (-0.5,)
    for word in ("TIMEOUT", "ERROR", "", IndexError("map::at")):
        says(word)
        answer = MarabouBackend().solve(program, Budget())
        assert answer.status is Status.UNDECIDED and answer.bound is None and answer.point is None
    assert "map::at" in answer.why
    says("unsat")
    large = replace(program, variables=(Variable(-1, 1), Variable(0, 1e6)))
    assert MarabouBackend().solve(large, Budget()).bound is None


def test_without_the_extra_the_command_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("formalgr.solvers.registry.importlib.util.find_spec", lambda name: None)
    network = difference(tmp_path / "n.onnx")
    asked = box_property(tmp_path / "p.vnnlib", [(0, 1)] * 2, "(<= Y_0 -9)", 2)
    assert main(["verify", str(network), str(asked), "--solver", "marabou"]) == 4
    assert "pip install 'formalgr[marabou]'" in capsys.readouterr().err


def test_marabou_agrees_with_enumeration_and_the_zoo():
    pytest.importorskip("maraboupy", reason="the extra marabou is not installed")
    for seed in range(10):
        program = random_program(seed)
        least = enumerated_minimum(program)
        for step in (-4, -1, 1):
            answer = MarabouBackend().solve(replace(program, cutoff=Fraction(least) + step), Budget(20.0))
            assert answer.bound is None or answer.bound <= least + 1e-6
    decided = 0
    for row in ZOO:
        outcome = verify(row.network, row.query, VerifyOptions(solver="marabou"), Budget(10.0))
        assert outcome.verdict in (row.expected, Verdict.UNKNOWN), (row.why, outcome)
        decided += outcome.verdict is not Verdict.UNKNOWN
    assert decided > len(ZOO) / 2
