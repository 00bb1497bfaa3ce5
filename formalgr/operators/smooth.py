"""Smooth functions of one variable that are convex or concave between known bends: all bounds from tangents.

In: value and derivative, bends, a guess of where the derivative has a given value. Out: Smooth. Trust: sound, given the
error bounds of value and derivative.

Proof sketch. Let g(x) = f(x) - s x on a piece [a, b] between bends, where f is convex (else mirror everything). Its
maximum lies at a or b. For ANY p in [a, b], g(x) >= g(p) + g'(p) (x - p), which is smallest at a or b: so a badly
guessed p costs tightness, never truth, and the error of the derivative enters as |x - p| times it. The extremes over a
box are the extremes over its pieces, so every slope s gives sound lines. Where f has known limits, lines are
cut to them. The best lines of a convex piece are the chord above and the tangent at the middle below (least area);
across a bend they are the tangents through an end, which `candidates` approaches.
"""

from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.core.linear import Interval
from formalgr.core.program import Sense
from formalgr.core.rounding import SLACK, dtype_name, gamma, nearest_down, nearest_up, underflow
from formalgr.operators.activation import Activation
from formalgr.operators.base import ProgramBuilder, in_float32_range

STEEPEST = 1e9
"""Steeper lines are not tried: what they would gain is lost to rounding."""

SEGMENTS = 6
"""Pieces of the encoding over the whole box: more are tighter, each is a binary variable of a solver."""

ENOUGH = 0.02
"""Two lines whose gap is below this share of the output's range are enough for a solver, without pieces."""

ROUNDS = 10
"""Steps towards a tangent through an end of the box."""


def relative_float32(function: Activation, lower, upper, terms: int):
    """Error of float32 evaluation by `terms` roundings relative to |f|, largest at an end; infinite at an overflow."""
    xp = namespace(lower)
    size = xp.maximum(xp.abs(function.evaluate(lower)), xp.abs(function.evaluate(upper)))
    error = gamma(terms, "float32") * size + underflow(terms, "float32")
    return in_float32_range(error, size)


def clipped(value, box: Interval):
    """The value pulled into the box."""
    xp = namespace(value)
    return xp.minimum(xp.maximum(value, box.lower), box.upper)


def _change(width, rate):
    """Upper bound of width * rate; 0 where the width is, even if the rate is infinite, at an end of the domain."""
    xp, nothing = namespace(width), 0.0 * width
    return xp.where(width > 0.0, width * xp.where(width > 0.0, rate, nothing), nothing) * SLACK * SLACK


class Smooth(Activation):
    """f with its derivative. A concrete function gives `jet`, `bends`, `touching`, errors, and its limits if any."""

    exact = False
    rational = False
    limits: tuple[float, float] = (-float("inf"), float("inf"))
    """Numbers that f never leaves."""
    slope_limits: tuple[float, float] = (-float("inf"), float("inf"))
    """Numbers that f' never leaves."""
    rising: bool = False
    """Whether f never falls, and has a value everywhere."""

    @abstractmethod
    def jet(self, value) -> tuple:
        """(f, f') at `value`, computed."""

    @abstractmethod
    def bends(self, box: Interval) -> tuple[list, list]:
        """Ascending inner ends of pieces, clipped to the box, and for each piece, one more, whether f is convex."""

    @abstractmethod
    def touching(self, slope, piece: int, box: Interval):
        """A point, or infinity, where f' is about `slope` on the piece of that number; it is clipped. Heuristic."""

    @abstractmethod
    def image_error(self, image):
        """Bound of |computed f - f|, given the computed one."""

    @abstractmethod
    def steep_error(self, steep):
        """Bound of |computed f' - f'|, given the computed one."""

    def bend_error(self, box: Interval):
        """What f may deviate from being convex or concave on a piece because its ends are rounded."""
        return 0.0

    def inside(self, box: Interval) -> Interval:
        """The part of the box where f has values; lines hold only there, and elsewhere the network has no output.

        Raises Unbounded where f has no finite bounds over it.
        """
        return box

    def beyond(self, box: Interval):
        """Elements whose box holds more bends than are counted: only the limits are known there; None: nowhere."""
        return None

    def derivative(self, value):
        return self.jet(value)[1]

    def curved(self, box: Interval):
        return box.upper > box.lower

    def candidates(self, box: Interval) -> tuple:
        xp, box = namespace(box.lower), self.inside(box)
        middle = 0.5 * box.lower + 0.5 * box.upper
        width = box.upper - box.lower
        wide = width > 1e-9 * (xp.abs(box.lower) + xp.abs(box.upper))
        rise = self.evaluate(box.upper) - self.evaluate(box.lower)
        tangent = self.derivative(middle)
        slopes = [xp.where(wide, rise / xp.where(wide, width, 1.0 + 0.0 * width), tangent), tangent]
        marks = [box.lower, *self.bends(box)[0], box.upper]
        for near, far in zip(marks[1:-1], marks[2:], strict=True):
            if bool(xp.any(far > near)):
                slopes.append(self._through(box.lower, near, far))
        for near, far in zip(marks[1:-1], marks, strict=False):
            if bool(xp.any(far < near)):
                slopes.append(self._through(box.upper, near, far))
        return tuple(xp.where(xp.abs(slope) <= STEEPEST, slope, 0.0 * width) for slope in slopes)

    def _through(self, anchor, near, far):
        """Slope of the tangent between `near` and `far` that passes through the graph at `anchor`. Heuristic.

        By regula falsi (Illinois): the height of the tangent over the graph at the anchor changes its sign there.
        """
        xp, start = namespace(anchor), self.evaluate(anchor)

        def height(point):
            image, steep = self.jet(point)
            return image + steep * (anchor - point) - start

        at_near, at_far = height(near), height(far)
        before = None
        for _ in range(ROUNDS):
            gap = at_near - at_far
            flat = gap == 0.0
            share = xp.where(flat, 0.5 + 0.0 * gap, at_near / xp.where(flat, 1.0 + 0.0 * gap, gap))
            share = xp.minimum(xp.maximum(share, 0.0 * gap), 0.0 * gap + 1.0)
            point = near + share * (far - near)
            at_point = height(point)
            same = (at_point > 0.0) == (at_near > 0.0)
            # an end that stays a second time counts half, so that the other side moves as well
            weight = 1.0 if before is None else xp.where(same == before, 0.5 + 0.0 * gap, 1.0 + 0.0 * gap)
            near, far = xp.where(same, point, near), xp.where(same, far, point)
            at_near, at_far = xp.where(same, at_point, weight * at_near), xp.where(same, weight * at_far, at_point)
            before = same
        return self.derivative(point)

    def offsets(self, slope, box: Interval) -> tuple:
        xp, box = namespace(box.lower), self.inside(box)
        inner, convex = self.bends(box)
        marks = [box.lower, *inner, box.upper]
        low = high = None
        for mark in marks:
            value, error = self._gap(slope, mark, self.evaluate(mark))
            low = value - error if low is None else xp.minimum(low, value - error)
            high = value + error if high is None else xp.maximum(high, value + error)
        for number, up in enumerate(convex):
            below, above = self._tangent(slope, number, Interval(marks[number], marks[number + 1]))
            if up is not False:
                low = xp.minimum(low, below) if up is True else xp.where(up, xp.minimum(low, below), low)
            if up is not True:
                high = xp.maximum(high, above) if up is False else xp.where(up, high, xp.maximum(high, above))
        extra = self.bend_error(box)
        return self._cut(slope, box, low - extra, high + extra)

    def _gap(self, slope, point, image) -> tuple:
        """f(x) - slope x at a point, computed, and a bound of its error that covers subtracting or adding it too."""
        xp = namespace(point)
        drop = slope * point
        size = xp.abs(image) + xp.abs(drop)
        dtype = dtype_name(point)
        return image - drop, (self.image_error(image) + gamma(8, dtype) * size) * SLACK + underflow(8, dtype)

    def _tangent(self, slope, number: int, piece: Interval) -> tuple:
        """Bounds of f - slope x over a piece: from below if f is convex there, from above if it is concave."""
        xp = namespace(piece.lower)
        point = clipped(self.touching(slope, number, piece), piece)
        image, steep = self.jet(point)
        value, error = self._gap(slope, point, image)
        rest = steep - slope
        dtype = dtype_name(point)
        doubt = (self.steep_error(steep) + gamma(4, dtype) * (xp.abs(steep) + xp.abs(slope))) * SLACK
        doubt = doubt + underflow(4, dtype)
        down, up = xp.maximum(doubt - rest, 0.0 * rest), xp.maximum(doubt + rest, 0.0 * rest)
        left, right = point - piece.lower, piece.upper - point
        below = value - error - xp.maximum(_change(right, down), _change(left, up))
        above = value + error + xp.maximum(_change(right, up), _change(left, down))
        return below, above

    def _cut(self, slope, box: Interval, low, high) -> tuple:
        """Offsets no looser than the limits of f allow; where pieces do not apply, by the limits alone."""
        xp = namespace(box.lower)
        ends = slope * box.lower, slope * box.upper
        size = gamma(4, dtype_name(low)) * (xp.abs(ends[0]) + xp.abs(ends[1]))
        size = xp.where(slope == 0.0, 0.0 * size, size + underflow(4, dtype_name(low)))
        least = self.limits[0] - xp.maximum(*ends) - size
        most = self.limits[1] - xp.minimum(*ends) + size
        lost = self.beyond(box)
        if lost is not None:
            low, high = xp.where(lost, least, low), xp.where(lost, most, high)
        return xp.maximum(low, least), xp.minimum(high, most)

    def float32_slopes(self, lower, upper) -> tuple:
        # f' is monotone between bends
        box = self.inside(Interval(lower, upper))
        xp, least, largest = namespace(lower), None, None
        for mark in (box.lower, *self.bends(box)[0], box.upper):
            steep = self.derivative(mark)
            error = self.steep_error(steep)
            least = steep - error if least is None else xp.minimum(least, steep - error)
            largest = steep + error if largest is None else xp.maximum(largest, steep + error)
        lost = self.beyond(box)
        if lost is not None:
            least, largest = xp.where(lost, -float("inf"), least), xp.where(lost, float("inf"), largest)
        low, high = self.slope_limits
        return xp.maximum(least, low + 0.0 * lower), xp.minimum(largest, high + 0.0 * lower)

    def encode(self, builder: ProgramBuilder, arguments: tuple[np.ndarray, ...], box: Interval) -> np.ndarray:
        # result = interpolation of f + a deviation within proven limits, and within the two best lines
        results = builder.variables(box.lower, box.upper)
        part = builder.ranges(arguments[0])[None]
        lines, chain = self.lines(part), _Interpolation.of(self, part)
        gap = (lines.upper_slope - lines.lower_slope) * (0.5 * part.lower + 0.5 * part.upper)
        gap = gap + lines.upper_offset - lines.lower_offset
        coarse = (gap > ENOUGH * (box.upper - box.lower)).reshape(-1)
        coarse = coarse & np.all(np.diff(chain.points, axis=0) > 0.0, axis=0)
        ends = [end.reshape(-1) for end in vars(lines).values()]
        for k, (argument, result) in enumerate(zip(arguments[0].reshape(-1), results.reshape(-1), strict=True)):
            low_slope, low, high_slope, high = (float(end[k]) for end in ends)
            pair = [int(argument), int(result)]
            builder.linear(pair, [-low_slope, 1.0], Sense.GREATER, low)
            builder.linear(pair, [-high_slope, 1.0], Sense.LESS, high)
            if coarse[k]:
                chain.encode(builder, *pair, k)
        return results


def _spread(function: Smooth, box: Interval) -> np.ndarray:
    """SEGMENTS + 1 points per unit from end to end, closer where f bends more, (SEGMENTS + 1, units)."""
    lower, upper = box.lower.reshape(-1), box.upper.reshape(-1)
    fine = lower + np.linspace(0.0, 1.0, 8 * SEGMENTS + 1)[:, None] * (upper - lower)
    # a chord of length h over curvature c errs by c h^2 / 8: equal errors need a density of c^(1/2)
    bend = np.sqrt(np.abs(np.diff(function.derivative(fine), axis=0)))
    bend = np.cumsum(bend + 1e-3 * np.max(bend, axis=0) + 1e-300, axis=0)
    reached = np.concatenate([np.zeros((1, lower.size)), bend / bend[-1]], axis=0)
    wanted = np.linspace(0.0, 1.0, SEGMENTS + 1)
    points = np.stack([np.interp(wanted, reached[:, k], fine[:, k]) for k in range(lower.size)], axis=1)
    points[0], points[-1] = lower, upper
    return np.maximum.accumulate(np.clip(points, lower, upper), axis=0)


@dataclass(frozen=True)
class _Interpolation:
    """f between SEGMENTS + 1 points of a box by chords; all (SEGMENTS [+ 1], units).

    low + slope x <= f(x) <= high + slope x between the points of each chord.
    """

    points: np.ndarray
    slopes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, function: Smooth, box: Interval) -> "_Interpolation":
        points = _spread(function, function.inside(box))
        width = np.diff(points, axis=0)
        wide = width > 0.0
        slopes = np.where(wide, np.diff(function.evaluate(points), axis=0) / np.where(wide, width, 1.0), 0.0)
        slopes = np.where(np.abs(slopes) <= STEEPEST, slopes, 0.0)
        return cls(points, slopes, *function.offsets(slopes, Interval(points[:-1], points[1:])))

    def encode(self, builder: ProgramBuilder, argument: int, result: int, unit: int) -> None:
        """result - chords(argument) lies within the proven deviation; the chords meet exactly, in rationals."""
        points, slopes = ([Fraction(x) for x in part[:, unit].tolist()] for part in (self.points, self.slopes))
        intercepts = [Fraction(float(self.low[0, unit]))]
        for k in range(1, SEGMENTS):
            intercepts.append(intercepts[-1] + (slopes[k - 1] - slopes[k]) * points[k])
        least = min(Fraction(low) - t for low, t in zip(self.low[:, unit].tolist(), intercepts, strict=True))
        most = max(Fraction(high) - t for high, t in zip(self.high[:, unit].tolist(), intercepts, strict=True))
        pieces = [*zip(slopes, intercepts, strict=True), (slopes[-1], intercepts[-1])]
        heights = [slope * x + t for (slope, t), x in zip(pieces, points, strict=True)]
        ends = (np.array([nearest_down(min(heights))]), np.array([nearest_up(max(heights))]))
        chord = int(builder.variables(*ends)[0])
        builder.piecewise(argument, chord, tuple(points[1:-1]), tuple(slopes), tuple(intercepts))
        builder.linear([result, chord], [1.0, -1.0], Sense.GREATER, nearest_down(least))
        builder.linear([result, chord], [1.0, -1.0], Sense.LESS, nearest_up(most))
