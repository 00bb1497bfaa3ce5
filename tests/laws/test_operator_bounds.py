"""The bounds of every operator contain its exact values: checked in rational arithmetic, not up to a tolerance.

The exact value of a rational operator is computed on rationals; of Tanh, Sigmoid and BatchNormalization in 80-bit
floats from their formulas, with a slack of 2^-56 of the sizes involved.
"""

from fractions import Fraction

import numpy as np
import pytest

from formalgr.core import exact
from formalgr.core.arrays import RATIONAL, Arrays, to_numpy
from formalgr.core.linear import AffineForm, Interval, absorb
from formalgr.core.program import Sense
from formalgr.operators.base import ProgramBuilder
from formalgr.operators.exponential import Exponential, Logarithm, SoftPlus
from formalgr.operators.normalize import BatchNorm
from formalgr.operators.powers import Inverse, Root
from formalgr.operators.s_shaped import SShaped
from formalgr.operators.waves import Wave
from tests.operator_rows import ROWS

CASES = [
    pytest.param(operator, shapes, id=f"{row.name}: {position} {type(operator).__name__}")
    for row in ROWS
    for position, (operator, shapes) in enumerate(row.operators())
]
EVERY_OPERATOR = pytest.mark.parametrize(("operator", "shapes"), CASES)

RADII = (0.0, 1e-30, 1e-3, 0.7, 3.0, 1e6)
"""Radii of the boxes that are tried; the first is a point."""

SAMPLES = 6
WIDE_SLACK = Fraction(1, 2**56)


DOMAINS = {
    Exponential: (-40.0, 3.0), Logarithm: (1e-3, 1e3), Inverse: (0.05, 1e3), Root: (0.0, 1e4), SoftPlus: (-50.0, 50.0),
    Wave: (-1e5, 1e5),
}
"""Where operators have values, of a size that 80-bit floats hold to 2^-56."""


def _sigmoid(wide):
    decay = np.exp(-np.abs(wide))
    return np.where(wide > 0, 1 / (1 + decay), decay / (1 + decay))


FORMULAS = {
    SShaped: lambda operator, x: np.tanh(x) if operator.kind == "Tanh" else _sigmoid(x),
    Exponential: lambda operator, x: np.exp(x),
    Logarithm: lambda operator, x: np.log(x),
    SoftPlus: lambda operator, x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    Root: lambda operator, x: np.sqrt(x),
    Wave: lambda operator, x: np.sin(x) if operator.kind == "Sin" else np.cos(x),
}
"""Operators without rational evaluation, in 80-bit floats."""


def _fitted(operator, box: Interval) -> Interval:
    """The box pulled into the domain of the operator."""
    low, high = DOMAINS.get(type(operator), (-np.inf, np.inf))
    return Interval(np.clip(box.lower, low, high), np.clip(box.upper, low, high))


def _fitted_form(operator, form: AffineForm) -> AffineForm:
    """The form moved and shrunk into the domain of the operator."""
    if type(operator) not in DOMAINS:
        return form
    low, high = DOMAINS[type(operator)]
    center = np.clip(form.center, low + 0.1 * min(high - low, 1.0), high - 0.1 * min(high - low, 1.0))
    room = 0.9 * np.minimum(center - low, high - center)
    share = np.minimum(1.0, room / np.maximum(form.spread + form.radius, 1e-300))
    return AffineForm(form.generators * share[:, None], center, form.radius * share)


def _rational(values) -> np.ndarray:
    return exact.rational_array(values)


def _wide(values: np.ndarray) -> np.ndarray:
    """Rationals as 80-bit floats."""
    result = np.empty(values.shape, dtype=np.longdouble)
    for index, value in np.ndenumerate(values):
        high = float(exact.fraction(value))
        result[index] = np.longdouble(high) + np.longdouble(float(exact.fraction(value) - Fraction(high)))
    return result


def _from_wide(values: np.ndarray) -> np.ndarray:
    result = np.empty(values.shape, dtype=object)
    for index, value in np.ndenumerate(values):
        result[index] = exact.rational(Fraction(*value.as_integer_ratio()))
    return result


def truth(operator, *values):
    """Exact outputs (batch, *out) at rational inputs, and how far they may be off (0 for rational operators)."""
    if operator.rational:
        return operator.to(RATIONAL).evaluate(*values), _rational(0.0)
    (value,) = values
    wide = _wide(value)
    if type(operator) in FORMULAS:
        result = FORMULAS[type(operator)](operator, wide)
        return _from_wide(result), _rational(WIDE_SLACK * 2 * Fraction(max(1.0, float(np.max(np.abs(result))))))
    assert isinstance(operator, BatchNorm), "an operator without rational evaluation needs its formula here"
    form, shape = operator.form, operator.factor.shape
    scale, shift, mean, variance = (part.astype(np.longdouble).reshape(shape) for part in form.inputs[1:])
    factor = scale / np.sqrt(variance + np.longdouble(form.attributes["epsilon"]))
    size = np.max(np.abs(factor) * (np.abs(wide) + np.abs(mean)) + np.abs(shift))
    return _from_wide((wide - mean) * factor + shift), _rational(Fraction(float(size)) * WIDE_SLACK)


def _boxes(operator, shapes, random) -> list[Interval]:
    """One box per radius and input, in the domain of the operator: (radii, *shape)."""
    boxes = []
    for shape in shapes:
        center = random.standard_normal((len(RADII), *shape)) * random.choice([1e-3, 1.0, 10.0], (len(RADII), *shape))
        center[random.random(center.shape) < 0.15] = 0.0
        radius = np.array(RADII).reshape(-1, *(1,) * len(shape)) * random.random(center.shape)
        boxes.append(_fitted(operator, Interval(center - radius, center + radius)))
    return boxes


def _samples(boxes, random) -> list[np.ndarray]:
    """Points of the boxes, (radii, SAMPLES, *shape) per input: some of them corners."""
    points = []
    for box in boxes:
        lower, upper = box.lower[:, None], box.upper[:, None]
        shape = (lower.shape[0], SAMPLES, *lower.shape[2:])
        share = np.where(random.random(shape) < 0.5, random.random(shape), random.integers(0, 2, shape))
        points.append(np.clip(lower + share * (upper - lower), lower, upper))
    return points


def _flat(points):
    return [point.reshape(-1, *point.shape[2:]) for point in points]


def _folded(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(RADII), SAMPLES, *values.shape[1:])


@EVERY_OPERATOR
def test_interval_contains_samples(operator, shapes):
    random = np.random.default_rng(1)
    boxes = _boxes(operator, shapes, random)
    values, slack = truth(operator, *(_rational(point) for point in _flat(_samples(boxes, random))))
    bounds = operator.interval(*boxes)
    assert bounds.lower.shape == (len(RADII), *operator.out_shape(*shapes))
    values = _folded(values)
    assert np.all(_rational(bounds.lower)[:, None] <= values + slack)
    assert np.all(values <= _rational(bounds.upper)[:, None] + slack)


@EVERY_OPERATOR
def test_interval_of_a_point_is_small(operator, shapes):
    random = np.random.default_rng(2)
    points = [box.lower for box in _boxes(operator, shapes, random)]
    bounds = operator.interval(*(Interval(point, point) for point in points))
    value = operator.evaluate(*points)
    size = np.max(np.abs(value)) + max(np.max(np.abs(point)) for point in points) + 1.0
    assert np.all(bounds.upper - bounds.lower <= 1e-12 * size)
    assert np.all(np.abs(bounds.lower - value) <= 1e-12 * size)


def _forms(operator, shapes, random) -> tuple[AffineForm, ...]:
    """Forms over three shared symbols: a point, tiny, ordinary, wide, and one with a radius alone."""
    forms = []
    for shape in shapes:
        center = random.standard_normal((len(RADII), *shape))
        size = np.array(RADII).reshape(-1, *(1,) * len(shape))
        generators = random.standard_normal((len(RADII), 3, *shape)) * size[:, None]
        generators[random.random(generators.shape) < 0.2] = 0.0
        radius = np.abs(random.standard_normal(center.shape)) * size * random.choice([0.0, 1e-6, 1.0])
        generators[3] = 0.0
        forms.append(_fitted_form(operator, AffineForm(generators, center, radius)))
    return tuple(forms)


def _reach(form: AffineForm, symbols: np.ndarray) -> np.ndarray:
    """center + generators . symbols in rationals: (radii, samples, *node) for symbols (samples, 3)."""
    batch, _, *node = form.generators.shape
    flat = _rational(form.generators.reshape(batch, 3, -1))
    moved = np.stack([exact.RATIONAL_NAMESPACE.matmul(_rational(symbols), row) for row in flat])
    return moved.reshape(batch, len(symbols), *node) + _rational(form.center)[:, None]


@EVERY_OPERATOR
def test_forward_form_contains_samples(operator, shapes):
    random = np.random.default_rng(3)
    forms = _forms(operator, shapes, random)
    boxes = tuple(form.interval() for form in forms)
    corners = random.choice([-1.0, 1.0], (SAMPLES, 3))
    symbols = np.where(random.random((SAMPLES, 3)) < 0.5, random.uniform(-1, 1, (SAMPLES, 3)), corners)
    inputs = []
    for form in forms:
        error = random.uniform(-1, 1, (len(RADII), SAMPLES, *form.center.shape[1:])).round(3)
        inputs.append(_reach(form, symbols) + _rational(error) * _rational(form.radius)[:, None])
    values, slack = truth(operator, *_flat(inputs))
    result = operator.forward(forms, boxes)
    assert result.generators.shape == (len(RADII), 3, *operator.out_shape(*shapes))
    off = np.abs(_folded(values) - _reach(result, symbols))
    assert np.all(off <= _rational(result.radius)[:, None] + slack)


def _coefficients(shape, random) -> np.ndarray:
    """Rows of coefficients (radii, 4, *out): dense, sparse, one-hot, zero."""
    rows = random.standard_normal((len(RADII), 4, *shape))
    rows[:, 1][random.random(rows[:, 1].shape) < 0.7] = 0.0
    hot = np.zeros(rows[:, 2].shape).reshape(len(RADII), -1)
    hot[np.arange(len(RADII)), random.integers(0, hot.shape[1], len(RADII))] = random.choice([-1.0, 1.0])
    rows[:, 2] = hot.reshape(rows[:, 2].shape)
    rows[:, 3] = 0.0
    return rows


def _dot(coefficients: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Exact coefficients . values: (radii, rows, *node), (radii, samples, *node) -> (radii, rows, samples)."""
    left = _rational(coefficients.reshape(*coefficients.shape[:2], -1))
    right = values.reshape(*values.shape[:2], -1)
    return np.stack([exact.RATIONAL_NAMESPACE.matmul(a, b.T) for a, b in zip(left, right, strict=True)])


@EVERY_OPERATOR
def test_backward_bound_is_below_samples(operator, shapes):
    random = np.random.default_rng(4)
    boxes = _boxes(operator, shapes, random)
    points = [_rational(point) for point in _samples(boxes, random)]
    values, slack = truth(operator, *_flat(points))
    coefficients = _coefficients(operator.out_shape(*shapes), random)
    pulled = operator.backward(coefficients, tuple(boxes))
    none = np.zeros(coefficients.shape[:2], dtype=np.float64)
    constant, error = absorb(none, none, pulled, none)
    bound = (_rational(constant) - _rational(error))[:, :, None]
    for part, point in zip(pulled.coefficients, points, strict=True):
        bound = bound + _dot(part, point)
    units = np.sum(np.abs(coefficients.reshape(*coefficients.shape[:2], -1)), axis=-1)
    assert np.all(bound <= _dot(coefficients, _folded(values)) + slack * _rational(units)[:, :, None])


@EVERY_OPERATOR
def test_pullback_is_the_slope(operator, shapes):
    random = np.random.default_rng(5)
    step, least = 1e-6, DOMAINS.get(type(operator), (-np.inf,))[0] + 0.05
    for _ in range(20):  # redrawn while a kink lies within the step
        points = [random.standard_normal((2, *shape)) for shape in shapes]
        points = [np.maximum(_fitted(operator, Interval(point, point)).lower, least) for point in points]
        ways = [random.standard_normal((2, *shape)) for shape in shapes]
        cotangent = random.standard_normal((2, *operator.out_shape(*shapes)))
        ahead, behind = ([p + s * step * w for p, w in zip(points, ways, strict=True)] for s in (1.0, -1.0))
        there = [operator.pullback(cotangent, *place) for place in (ahead, behind)]
        if all(np.allclose(a, b, atol=1e-4) for a, b in zip(*there, strict=True)):
            break
    rise = np.sum((operator.evaluate(*ahead) - operator.evaluate(*behind)) * cotangent) / (2.0 * step)
    slope = sum(np.sum(a * w) for a, w in zip(operator.pullback(cotangent, *points), ways, strict=True))
    assert slope == pytest.approx(rise, rel=1e-5, abs=1e-6)


@EVERY_OPERATOR
def test_torch_bounds_are_numpy_bounds(operator, shapes):
    random = np.random.default_rng(6)
    boxes, forms = _boxes(operator, shapes, random), _forms(operator, shapes, random)
    coefficients = _coefficients(operator.out_shape(*shapes), random)
    for dtype, relative in (("float64", 1e-10), ("float32", 1e-3)):
        arrays = Arrays("torch", dtype)

        def move(value, arrays=arrays):
            return type(value)(*(arrays.asarray(part) for part in vars(value).values()))

        there = operator.to(arrays)
        ours, theirs = operator.interval(*boxes), there.interval(*map(move, boxes))
        pairs = [(ours.lower, theirs.lower), (ours.upper, theirs.upper)]
        held = tuple(form.interval() for form in forms)
        ours, theirs = operator.forward(forms, held), there.forward(tuple(map(move, forms)), tuple(map(move, held)))
        pairs += [(ours.interval().lower, theirs.interval().lower), (ours.center, theirs.center)]
        ours = operator.backward(coefficients, tuple(boxes))
        theirs = there.backward(arrays.asarray(coefficients), tuple(map(move, boxes)))
        pairs += list(zip(ours.coefficients, theirs.coefficients, strict=True)) if dtype == "float64" else []
        usual = slice(None) if dtype == "float64" else slice(0, -1)  # float32 loses all digits at a radius of 1e6
        for mine, other in pairs:
            assert str(other.dtype).endswith(dtype)
            mine, other = mine[usual], other[usual]
            np.testing.assert_allclose(to_numpy(other), mine, rtol=relative, atol=relative * np.max(np.abs(mine)))


class Recorder(ProgramBuilder):
    """Keeps what an operator encodes as functions of the values: `residuals` are 0, `slacks` at least 0."""

    def __init__(self, arguments: list[Interval]):
        self.bounds = [pair for box in arguments for pair in zip(box.lower.flat, box.upper.flat, strict=True)]
        self.residuals, self.slacks, self.tables = [], [], []

    def variables(self, lower, upper):
        first = len(self.bounds)
        self.bounds += list(zip(lower.reshape(-1).tolist(), upper.reshape(-1).tolist(), strict=True))
        return np.arange(first, len(self.bounds), dtype=np.int64).reshape(lower.shape)

    def ranges(self, indices):
        ends = np.array([self.bounds[k] for k in indices.reshape(-1).tolist()]).reshape(*indices.shape, 2)
        return Interval(ends[..., 0], ends[..., 1])

    def linear(self, indices, coefficients, sense, right):
        pairs = list(zip(indices, coefficients, strict=True))

        def rest(x):
            return sum(x[i] * exact.rational(c) for i, c in pairs) - exact.rational(right)

        if sense is Sense.EQUAL:
            self.residuals.append(rest)
        else:
            assert sense in (Sense.LESS, Sense.GREATER)
            self.slacks.append(rest if sense is Sense.GREATER else lambda x: -rest(x))

    def piecewise(self, argument, result, breakpoints, slopes, intercepts):
        tables = [[exact.rational(value) for value in table] for table in (breakpoints, slopes, intercepts)]
        for b, left, right, start, end in zip(tables[0], *(t[k:][: len(t) - 1] for t in tables[1:] for k in (0, 1)),
                                              strict=True):
            assert left * b + start == right * b + end, "the pieces do not meet"
        self.tables.append((argument, result, tables))
        self.residuals.append(lambda x: x[result] - _at(tables, x[argument]))

    def maximum(self, arguments, result):
        self.residuals.append(lambda x: x[result] - max(x[i] for i in arguments))

    def complete(self, x: dict) -> None:
        """Values for the variables that are neither arguments nor results: forward through tables, or back."""
        for argument, result, tables in self.tables:
            if argument in x:
                x.setdefault(result, _at(tables, x[argument]))
        for argument in {argument for argument, _, _ in self.tables} - set(x):
            mine = [(result, tables) for other, result, tables in self.tables if other == argument]
            tried = {(x[result] - t) / s for result, tables in mine for s, t in zip(*tables[1:], strict=True) if s}
            x[argument] = next(w for w in tried if all(_at(tables, w) == x[result] for result, tables in mine))


def _at(tables, value):
    """Value of a piecewise linear function given by its tables."""
    breakpoints, slopes, intercepts = tables
    k = sum(value > b for b in breakpoints)
    return value * slopes[k] + intercepts[k]


@EVERY_OPERATOR
def test_encoding_admits_the_value(operator, shapes):
    random = np.random.default_rng(7)
    boxes = [Interval(random.standard_normal((1, *shape)) - 1.0, None) for shape in shapes]
    boxes = [_fitted(operator, Interval(box.lower, box.lower + 2.0)) for box in boxes]
    points = [_rational(box.lower + (box.upper - box.lower) * random.random(box.lower.shape)) for box in boxes]
    values, slack = truth(operator, *points)
    sizes = [int(np.prod(shape)) for shape in shapes]
    starts = np.cumsum([0, *sizes])
    arguments = tuple(
        np.arange(start, start + size, dtype=np.int64).reshape(shape)
        for start, size, shape in zip(starts, sizes, shapes, strict=False)
    )
    recorder = Recorder(boxes)
    results = operator.encode(recorder, arguments, operator.interval(*boxes)[0])
    assert results.shape == operator.out_shape(*shapes)
    x = dict(enumerate(value for point in points for value in point.reshape(-1)))
    for index, value in zip(results.reshape(-1).tolist(), np.ravel(values[0]), strict=True):
        assert x.setdefault(index, value) == value
    recorder.complete(x)
    assert len(x) == len(recorder.bounds), "a variable besides the results has no known value"
    bounds = recorder.bounds[int(starts[-1]) :]
    for index, (low, high) in enumerate(bounds, start=int(starts[-1])):
        assert exact.rational(low) <= x[index] + slack and x[index] - slack <= exact.rational(high)
    # the factor of BatchNormalization is irrational: its encoding is as exact as float64 weights are
    assert all(abs(residual(x)) <= slack * 2**8 for residual in recorder.residuals)
    assert all(gap(x) >= -slack * 2**8 for gap in recorder.slacks)
    free = sum(low < high for low, high in bounds)
    assert len(recorder.residuals) >= free or not operator.exact, "a result is not tied to the arguments"
