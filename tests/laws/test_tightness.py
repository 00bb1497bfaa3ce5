"""Lines around curved functions are sound whatever is guessed, and the tightest ones: compared with dense samples.

Of all lines below f, those with the least area between line and f pass through the convex envelope of f at the middle
of the box (the area is the integral of f minus width times the line's value there); so does the best line above f.
"""

import numpy as np
import pytest

from formalgr.core.linear import Interval
from formalgr.operators.exponential import Exponential, Logarithm, SoftPlus
from formalgr.operators.powers import Inverse, Power, Root
from formalgr.operators.s_shaped import SShaped
from formalgr.operators.waves import Wave

GRID = 1001
"""Samples of a box; between two of them f leaves their chord by less than 1e-5 of its range."""

FUNCTIONS = {
    "Sigmoid": (SShaped("Sigmoid"), -12.0, 12.0),
    "Tanh": (SShaped("Tanh"), -6.0, 6.0),
    "Exp": (Exponential(), -5.0, 3.0),
    "Log": (Logarithm(), 0.01, 5.0),
    "Softplus": (SoftPlus(), -8.0, 8.0),
    "Sqrt": (Root(), 0.0, 5.0),
    "Reciprocal": (Inverse(), 0.1, 5.0),
    "Reciprocal below 0": (Inverse(), -5.0, -0.1),
    "Pow 2": (Power(2), -3.0, 3.0),
    "Pow 3": (Power(3), -3.0, 3.0),
    "Pow 5": (Power(5), -2.0, 2.0),
    "Sin": (Wave("Sin"), -2.0, 2.0),
    "Cos": (Wave("Cos"), -1.0, 4.0),
}


def _envelope(x: np.ndarray, y: np.ndarray, at: float) -> float:
    """The convex envelope of the points at one place, by their lower hull (Andrew's monotone chain)."""
    hull: list[tuple[float, float]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) > 1:
            (a, fa), (b, fb) = hull[-2:]
            if (fb - fa) * (point[0] - a) < (point[1] - fa) * (b - a):
                break
            hull.pop()
        hull.append(point)
    return float(np.interp(at, *zip(*hull, strict=True)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lines_touch_the_envelope_at_the_middle(name):
    function, low, high = FUNCTIONS[name]
    ends = np.sort(np.random.default_rng(0).uniform(low, high, (25, 2)), axis=1)
    box = Interval(ends[:, 0], ends[:, 1])
    lines = function.lines(box)
    middle = 0.5 * (box.lower + box.upper)
    below = lines.lower_slope * middle + lines.lower_offset
    above = lines.upper_slope * middle + lines.upper_offset
    for k in range(len(ends)):
        x = np.linspace(*ends[k], GRID)
        y = function.evaluate(x)
        least, most = _envelope(x, y, middle[k]), -_envelope(x, -y, middle[k])
        excess = max(least - below[k], above[k] - most)
        assert excess <= 0.01 * (most - least) + 1e-5 * (np.max(y) - np.min(y)), (ends[k], excess / (most - least))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_gap_is_near_the_best(name):
    """Affine forms take one slope for both sides; the best one is found by trying many."""
    function, low, high = FUNCTIONS[name]
    ends = np.sort(np.random.default_rng(1).uniform(low, high, (25, 2)), axis=1)
    box = Interval(ends[:, 0], ends[:, 1])
    below, above = function.offsets(function.candidates(box)[0], box)
    steep = [function.derivative(ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * np.linspace(1e-3, 1.0, 400))]
    for k in range(len(ends)):
        x = np.linspace(*ends[k], GRID)
        y = function.evaluate(x)
        rest = y[None] - steep[0][k][:, None] * x[None]
        best = np.min(np.max(rest, axis=1) - np.min(rest, axis=1))
        assert above[k] - below[k] <= 1.7 * best + 1e-5 * (np.max(y) - np.min(y))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_slope_and_any_guess_give_sound_lines(name, monkeypatch):
    """Where the derivative has a given value is guessed; here wildly. Boxes of all widths, slopes of all sizes."""
    function, low, high = FUNCTIONS[name]
    random = np.random.default_rng(2)
    shape = (400,)

    def wild(self, slope, piece, box):
        return box.lower + random.random(shape) ** 3 * (box.upper - box.lower)

    far = 4.0 if isinstance(function, Wave) else 1.0  # boxes that hold many bends
    width = (high - low) * far * 10.0 ** random.uniform(-9.0, 0.0, shape)
    lower = random.uniform(low, high, shape)
    box = Interval(lower, lower + width if far > 1.0 else np.minimum(lower + width, high))
    share = np.linspace(0.0, 1.0, GRID)[:, None]
    points = box.lower + share * (box.upper - box.lower)
    values = function.evaluate(points)
    slopes = [scale * random.standard_normal(shape) for scale in (0.0, 1e-9, 0.1, 1.0, 30.0)]
    for guess in (type(function).touching, wild):
        monkeypatch.setattr(type(function), "touching", guess)
        for slope in (*slopes, function.derivative(0.5 * box.lower + 0.5 * box.upper)):
            below, above = function.offsets(slope, box)
            rest = values - slope * points
            slack = 1e-14 * (np.abs(values) + np.abs(slope * points) + 1.0)
            assert np.all(below <= rest + slack) and np.all(rest - slack <= above)
