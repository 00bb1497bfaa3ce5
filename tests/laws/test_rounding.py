"""Rounding at the edges of float64: bounds hold from denormals to overflow; NaN and infinity prove nothing.

Networks with weights from 1e-320 to 1e300, cancelling rows, slopes of 1e-40 and thresholds at the exact value of a row
are bounded by every engine and compared with exact rationals at corners and random points.
"""

from fractions import Fraction

import numpy as np
import pytest

from formalgr.bounds.base import Rows
from formalgr.bounds.crown import CrownBounder, lower_forms
from formalgr.bounds.forward import ForwardBounder
from formalgr.bounds.interval import IntervalBounder
from formalgr.core.arrays import RATIONAL
from formalgr.core.box import Box
from formalgr.core.errors import NumericalError
from formalgr.core.exact import fraction
from formalgr.core.linear import Interval, LinearForm
from formalgr.core.rounding import is_exact_difference, nearest_down, nearest_up
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.operators.base import OnnxForm
from formalgr.operators.clip import clip_table
from formalgr.operators.combine import Add, AddConstant, DivideConstant, MultiplyConstant
from formalgr.operators.dense import Dense
from formalgr.operators.piecewise import Piecewise
from formalgr.search.contract import contract
from formalgr.search.relax import FoldedRelaxer
from formalgr.spec.query import Query
from formalgr.verify.pipeline import verify, verify_batch
from tests.zoo import activation, below, box, chain

BOUNDERS = [IntervalBounder(), ForwardBounder(), CrownBounder()]


class _Extreme:
    """A random network over 3 inputs whose values lie near 10^`level`, moved over the whole range of float64."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.level = self.start = self.random.uniform(-320.0, 250.0)
        self.builder, self.last, self.width = GraphBuilder((1, 3)), 0, 3

    def build(self) -> Graph:
        """One to five layers."""
        for _ in range(self.random.integers(1, 6)):
            getattr(self, str(self.random.choice(["dense", "dense", "scale", "shift", "bend", "clip", "skip"])))()
        if not self.last:
            self.dense()
        return self.builder.build()

    def box(self) -> Box:
        """Two boxes around points of the network's magnitude, some of their sides points."""
        center = self.random.normal(size=(2, 3)) * 10.0**self.start
        radius = np.abs(self.random.normal(size=(2, 3))) * 10.0 ** (self.start + self.random.choice([0, -3, -12, -16]))
        radius[self.random.random(radius.shape) < 0.1] = 0.0
        return Box(center - radius, center + radius)

    def add(self, *operators) -> None:
        """Append operators in sequence."""
        self.last = self.builder.chain(f"n{self.builder.last}", operators, self.last)

    def step(self) -> float:
        """A random change of level that stays within the range of float64."""
        wanted = self.level + self.random.choice([0.0, self.random.uniform(-300, 300), self.random.uniform(-30, 30)])
        change = float(np.clip(np.clip(wanted, -330.0, 290.0) - self.level, -320.0, 300.0))
        self.level += change
        return change

    def values(self) -> np.ndarray:
        """Numbers of the present magnitude."""
        return self.random.normal(size=self.width) * 10.0 ** min(self.level, 300.0)

    def dense(self) -> None:
        """Weights of one scale, some of them 1e-21, sometimes two rows that cancel."""
        change, width = self.step(), self.width
        self.width = int(self.random.integers(1, 4))
        weights = self.random.normal(size=(width, self.width)) * 10.0**change
        weights[self.random.random(weights.shape) < 0.2] = 1e-21
        if width > 1 and self.random.random() < 0.4:
            weights[1] = -weights[0]
        self.add(Dense(weights, self.values() * (self.random.random() < 0.6)))

    def scale(self) -> None:
        """A product or a quotient with constants."""
        change = self.step()
        if self.random.random() < 0.5:
            self.add(MultiplyConstant(self.random.normal(size=self.width) * 10.0**change))
        else:
            self.add(DivideConstant(self.random.normal(size=self.width) * 10.0 ** -max(change, -290.0)))

    def shift(self) -> None:
        """A sum with constants."""
        self.add(AddConstant(self.values()))

    def bend(self) -> None:
        """A rectifier, with slopes down to denormal float32 numbers."""
        kind = self.random.integers(4)
        if kind == 0:
            self.add(*activation("Relu", (1, self.width)))
        elif kind == 1:
            self.add(*activation("Abs", (1, self.width)))
        elif kind == 2:
            alpha = float(self.random.choice([1e-40, 1e-21, 1e-10, 0.1, 0.3]))
            self.add(*activation("LeakyRelu", (1, self.width), alpha=alpha))
        else:
            slope = self.random.normal(size=self.width) * 10.0 ** self.random.uniform(-30.0, 3.0)
            tables = np.zeros((1, self.width)), np.stack([slope, np.ones(self.width)]), np.zeros((2, self.width))
            self.add(Piecewise(OnnxForm("PRelu", {}, (None, slope)), *tables))

    def clip(self) -> None:
        """Limits within reach."""
        size = 10.0 ** min(self.level, 300.0)
        self.add(clip_table(-0.3 * size, 0.2 * size))

    def skip(self) -> None:
        """x - |x|."""
        bent = self.builder.chain(f"a{self.builder.last}", activation("Abs", (1, self.width)), self.last)
        self.last = self.builder.add(f"n{self.builder.last}", Add(-1.0), self.last, bent)


def _points(box: Box, random) -> list[tuple[int, np.ndarray]]:
    """(which box, point): corners and random points."""
    found = []
    for which in range(len(box)):
        low, high = box.lower[which], box.upper[which]
        found += [(which, np.where(random.random(3) < 0.5, low, high)) for _ in range(4)]
        found += [(which, np.clip(random.uniform(low, high), low, high)) for _ in range(3)]
    return found


def _exact_values(graph: Graph, point) -> list[list[Fraction]]:
    values = graph.to(RATIONAL).values(RATIONAL.asarray(np.array([point])))
    return [[fraction(x) for x in value.reshape(-1)] for value in values]


def _rows(graph: Graph, random, output: list[Fraction]) -> Rows:
    """Two rows that are zero at the given output, up to one rounding of the threshold."""
    matrix = random.normal(size=(2, graph.outputs))
    exact = [sum(Fraction(a) * y for a, y in zip(row, output, strict=True)) for row in matrix.tolist()]
    return Rows(matrix, np.array([float(x) if abs(x) < Fraction(10) ** 290 else 0.0 for x in exact]))


def _not_above(low: float, value: Fraction) -> bool:
    """Whether low <= value, -inf included; NaN and +inf are not."""
    return low == -np.inf or (np.isfinite(low) and Fraction(low) <= value)


def _check_forms(form: LinearForm, least, rows: Rows, samples) -> None:
    """The forms and their minima lie below the rows at samples (which box, point, exact output)."""
    for which, point, output in samples:
        for k, (row, bound) in enumerate(zip(rows.matrix.tolist(), rows.bounds.tolist(), strict=True)):
            value = sum((Fraction(a) * y for a, y in zip(row, output, strict=True)), -Fraction(bound))
            assert _not_above(float(least[which, k]), value)
            parts = [*form.flat()[which, k].tolist(), float(form.constant[which, k]), float(form.error[which, k])]
            if np.all(np.isfinite(parts)):
                *slope, constant, error = map(Fraction, parts)
                linear = sum((a * Fraction(x) for a, x in zip(slope, point.tolist(), strict=True)), constant - error)
                assert linear <= value


def _check(seed: int) -> bool:
    """Whether anything of the network could be bounded (False: all of it overflows)."""
    extreme = _Extreme(seed)
    graph, random, region = extreme.build(), extreme.random, extreme.box()
    exact = [(which, point, _exact_values(graph, point)) for which, point in _points(region, random)]
    rows, samples = _rows(graph, random, exact[0][2][-1]), [(which, point, v[-1]) for which, point, v in exact]
    bounded = False
    with np.errstate(all="ignore"):
        for bounder in BOUNDERS:
            try:
                bounds = bounder.node_bounds(graph, region)
                form = lower_forms(graph, bounds, rows)
                least = region.minimum(form)
            except NumericalError:
                continue
            for which, _, values in exact:
                for node, value in zip(bounds.boxes, values, strict=True):
                    ends = (end[which].reshape(-1).tolist() for end in (node.lower, node.upper))
                    assert all(_not_above(a, x) and _not_above(-b, -x) for a, b, x in zip(*ends, value, strict=True))
            _check_forms(form, least, rows, samples)
            bounded = True
        try:
            relaxer = FoldedRelaxer(graph, rows)
            form, least, state = relaxer.bound(region, None)
            halves, twice = region.split(np.zeros(2, dtype=np.int64)), np.array([0, 1, 0, 1])
            inner, lowest, _ = relaxer.bound(halves, relaxer.descend(state)[twice])
        except NumericalError:
            return bounded
    _check_forms(form, least, rows, samples)
    _check_forms(inner, lowest, rows, [
        (which + 2 * (point[0] > halves.upper[which, 0]), point, output) for which, point, output in samples
    ])
    return True


def test_bounds_hold_over_the_whole_range_of_float64():
    bounded = [_check(seed) for seed in range(250)]
    assert np.mean(bounded) > 0.95


@pytest.mark.slow
def test_bounds_hold_over_the_whole_range_of_float64_on_many_networks():
    for seed in range(10_000, 20_000):
        _check(seed)


def test_an_underflowing_coefficient_is_multiplied_by_what_lies_below():
    """1e-200 * 1e-200 is 0 in float64, times 1e300 it is 1e-100: backward bounds once lost it."""
    network = chain(1, ([[1e300]], [0]), "Relu", ([[1e-200]], [0]), ([[1e-200]], [0]))
    rows = Rows(np.array([[-1.0]]), np.array([-1e-101]))
    region = Box(np.array([[0.0]]), np.array([[1.0]]))
    for bounder in BOUNDERS:
        assert region.minimum(lower_forms(network.graph, bounder.node_bounds(network.graph, region), rows)) < 0.0
    assert FoldedRelaxer(network.graph, rows).bound(region, None)[1] < 0.0


@pytest.mark.parametrize("slope, lower", [(np.nan, -1.0), (np.inf, -np.inf), (1.0, np.nan), (1.0, -np.inf)])
def test_contraction_cuts_nothing_by_nan_or_infinity(slope, lower):
    """inf / inf once made the part that is left of a box empty, and with it the box proven."""
    region = Box(np.array([[0.0, 0.0]]), np.array([[1.0, 1.0]]))
    form = LinearForm(np.array([[[slope, 1.0]]]), np.zeros((1, 1)), np.zeros((1, 1)))
    left, closed = contract(region, form, np.array([[lower]]), np.array([[True]]), below(1))
    assert not closed[0] and np.all(left.lower <= 0.0) and np.all(left.upper[0, 0] >= 1.0)


def test_minima_that_are_nan_or_overflow_raise():
    region = Box(np.array([[-1.0]]), np.array([[1.0]]))
    for slope, constant in ((np.nan, 0.0), (np.inf, 0.0), (1.0, np.inf)):
        form = LinearForm(np.array([[[slope]]]), np.array([[constant]]), np.zeros((1, 1)))
        with np.errstate(invalid="ignore"), pytest.raises(NumericalError):
            region.minimum(form)


@pytest.mark.parametrize("lower, upper", [(np.nan, 1.0), (0.0, np.nan), (np.inf, np.inf), (-np.inf, -np.inf)])
def test_boxes_of_nodes_that_overflow_raise(lower, upper):
    with pytest.raises(NumericalError):
        Interval(np.array([[lower]]), np.array([[upper]])).checked("a node")


def test_overflow_is_an_error_and_never_a_verdict():
    deep = chain(1, ([[1e200]], [0]), "Relu", ([[1e200]], [-1]), "Relu", ([[1]], [0]))
    with np.errstate(all="ignore"), pytest.raises(NumericalError):
        verify(deep, Query(box((-1, 1)), below(-1, bound=-1)))
    plain, huge = chain(1, ([[1]], [0])), Fraction(10) ** 400
    for query in (
        Query(box((0, huge)), below(-1, bound=-1)),
        Query(box((0, 1)), below(-1, bound=-huge)),
        Query(box((0, 1)), below(-huge, bound=-1)),
    ):
        with pytest.raises(NumericalError, match="beyond float64"):
            verify(plain, query)


def test_an_empty_batch_has_no_outcomes():
    assert verify_batch(chain(1, ([[1]], [0])), []) == []


def test_ends_are_rounded_outward_down_to_denormals():
    tiny = Fraction(1, 10**400)
    assert nearest_down(tiny) == 0.0 and nearest_up(tiny) == 5e-324
    assert nearest_down(-tiny) == -5e-324 and nearest_up(-tiny) == 0.0
    assert Fraction(nearest_down(Fraction(1, 10))) < Fraction(1, 10) < Fraction(nearest_up(Fraction(1, 10)))


def test_exact_differences_are_told_from_rounded_ones():
    """1 - 1e-10 rounds to a multiple of 2^-52 as often as not: that alone does not make it exact."""
    random = np.random.default_rng(0)
    left = np.concatenate([np.ones(500), random.normal(size=500)])
    right = left * random.choice([1e-21, 1e-10, 0.5, 1.0], size=1000) * random.choice([1.0, 1.1], size=1000)
    right = right.astype(np.float32).astype(np.float64)
    truth = [Fraction(a) - Fraction(b) == Fraction(a - b) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    assert is_exact_difference(left, right).tolist() == truth
    assert 100 < sum(truth) < 900


def test_pieces_that_meet_only_after_rounding_are_refused():
    """The folded system writes f as a line plus hinges, which is f only when the pieces meet exactly."""
    breakpoint_, left, right = 0.7, 0.1, 0.2
    intercept = left * breakpoint_ - right * breakpoint_
    assert left * breakpoint_ == right * breakpoint_ + intercept
    with pytest.raises(ValueError, match="do not meet"):
        Piecewise(OnnxForm("X", {}, ()), np.array([breakpoint_]), np.array([left, right]), np.array([0.0, intercept]))
