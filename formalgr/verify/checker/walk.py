"""One pass through a network over a box: every element as an affine form of symbols, open units as new symbols.

In: Program, box, phases, slopes. Out: forms of the outputs, bounds, a smaller program. Trust: sound.

Numbers are integers in units of 1 / unit, every rounding is counted. A form is a row (radius, a, b, c, ...) that says
|v - a - b s1 - c s2 - ...| <= radius. Symbols s are the inputs, then the open units, those that may be on or off: they
have a range, and lie between two forms of earlier symbols.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import lcm, prod

import numpy as np

from formalgr.verify.checker.network import Affine, Matrices, Name, Program, Relu

ONE = 1 << 24  # slopes of relaxations are whole numbers over it


class Walk:
    """The pass over a box (low, high), or at a point. phases: what phase splits say of units, 1 for on and 0 for off;
    slopes: those (below, above; over 2^24) of units that do not take the usual ones. `output`: forms of the outputs;
    `limits`: of what is <= 0 because of `phases`."""

    def __init__(self, program: Program, unit: int, box: tuple, phases: dict, slopes: dict, point: list | None = None):
        self.unit, self.phases, self._slopes, self._inputs = unit, phases, slopes, program.inputs
        self.low, self.high = self._ranges(*box)
        self.limits: dict[Name, np.ndarray] = {}
        self._blocks: list[tuple[int, Matrices]] = []  # first symbol, forms below and then forms above the symbols
        self._opened: list[tuple[tuple[Name, ...], np.ndarray]] = []
        inputs = np.eye(program.inputs, 2 + program.inputs, 2, dtype=object) * unit
        start = inputs if point is None else np.array([(0, x) for x in point], dtype=object)
        self._values, self._starts = [start], [0, program.inputs]
        for step in program.steps:
            self._values.append(self._relu(step) if isinstance(step, Relu) else self._affine(step))
            self._starts.append(self._starts[-1] + len(self._values[-1]))
        self.output = self._take(program.outputs)

    def _ranges(self, low: Iterable, high: Iterable) -> tuple[np.ndarray, np.ndarray]:
        """Least and most of what coefficients stand for: any error, the constant 1, symbols."""
        ends = ([-self.unit, self.unit, *low], [self.unit, self.unit, *high])
        return tuple(np.array(end, dtype=object) for end in ends)

    def _take(self, index: np.ndarray) -> np.ndarray:
        """Forms of the elements with these numbers one after the other, -1 being 0."""
        ends = np.min(index[index >= 0], initial=self._starts[-1]), np.max(index, initial=0)
        first, last = np.searchsorted(self._starts, ends, side="right") - 1
        forms = joined([*self._values[first : last + 1], np.zeros((1, 2), dtype=object)])
        return forms[np.where(index < 0, -1, index - self._starts[first]).reshape(-1)]

    def _affine(self, step: Affine) -> np.ndarray:
        x, (groups, terms, places) = self._take(step.gather), step.gather.shape
        forms = (step.weights @ Matrices(x.reshape(groups, terms, -1))).reshape(-1, x.shape[1])
        radius = step.weights.magnitude @ Matrices(x[:, 0].reshape(groups, terms, places))
        if step.slack:
            reach = np.maximum(*(-self.least(x, sign) for sign in (1, -1))).reshape(groups, terms, places)
            radius = radius + step.slack * reach.sum(axis=1, keepdims=True)
        forms[:, 0] = radius.reshape(-1)
        forms[:, 1] += step.shift * self.unit
        forms = self._divided(forms, step.divisor)
        forms[:, 0] += step.radius
        return forms

    def _divided(self, forms: np.ndarray, divisor: int) -> np.ndarray:
        """The forms of v / divisor: coefficients rounded down, the radius up by what that changes where it does."""
        if divisor == 1:
            return forms
        made, lost = forms // divisor, np.any(forms[:, 1:] % divisor != 0, axis=1).astype(object)
        made[:, 0] = -(-forms[:, 0] // divisor) + lost * self._reach(forms.shape[1])
        return made

    def _reach(self, width: int) -> int:
        """What an error of less than one unit in each coefficient, but for the radius, can change."""
        return -(-np.maximum(np.abs(self.low[1:width]), np.abs(self.high[1:width])).sum() // self.unit)

    def least(self, forms: np.ndarray, sign: int = 1, box: tuple | None = None) -> np.ndarray:
        """Lower bounds of sign * v, from the ranges of symbols alone; `box`: other ranges of the inputs."""
        low, high = (end[: forms.shape[1]] for end in (self._ranges(*box) if box else (self.low, self.high)))
        forms = forms * sign
        return (forms * np.where(forms > 0, low, high)).sum(axis=1) // self.unit

    def below(self, forms: np.ndarray, sign: int = 1) -> np.ndarray:
        """Forms of the inputs, of what lies below sign * v wherever the symbols may be."""
        forms, lost = wide(forms, len(self.low)) * sign, np.abs(forms[:, 0])
        for start, ends in reversed(self._blocks):
            part, forms = forms[:, start:], forms[:, :start]
            signs = np.concatenate([np.maximum(part, 0), np.minimum(part, 0)], axis=1)
            forms = forms + (Matrices(signs[None]) @ ends)[0] // self.unit
            lost = lost + self._reach(start)
        return np.concatenate([lost[:, None], forms[:, 1:]], axis=1)

    def _relu(self, step: Relu) -> np.ndarray:
        """A unit that is off is 0, one that is on its argument, one that may be both a new symbol between two lines."""
        x = self._take(step.gather)
        low, high = self.least(x), -self.least(x, -1)
        phases, open_ = self._phases(step.names, low, high)
        if self._blocks and open_:
            low[open_] = np.maximum(low[open_], self.least(self.below(x[open_])))
            high[open_] = np.minimum(high[open_], -self.least(self.below(x[open_], -1)))
            phases, open_ = self._phases(step.names, low, high)
        for k, name in enumerate(step.names):
            if name in self.phases:
                self.limits[name] = x[[k]] * (1 - 2 * self.phases[name])
                self.limits[name][:, 0] = x[k, 0]
        made = x * np.array([phase or 0 for phase in phases], dtype=object)[:, None]
        if not open_:
            return made
        names, start = tuple(step.names[k] for k in open_), len(self.low)
        x, low, high = x[open_], low[open_], high[open_]
        usual = [(ONE * (b > -a), b * ONE // (b - a)) for a, b in zip(low, high, strict=True)]
        chosen = [self._slopes.get(name) or pair for name, pair in zip(names, usual, strict=True)]
        flat, steep = np.array(chosen, dtype=object).T
        below, above = x * flat[:, None], x * steep[:, None]  # a line through 0 lies below with a slope from 0 to 1
        above[:, 1] += np.maximum(-steep * low, (ONE - steep) * high)  # a line lies above that does so at both ends
        lines = self._divided(np.concatenate([below, above]), ONE)
        lines[:, 1] += lines[:, 0] * np.repeat([-1, 1], len(names)).astype(object)
        lines[:, 0] = 0
        self._opened.append((names, x))
        self._blocks.append((start, Matrices(wide(lines, start)[None])))
        self.low, self.high = np.append(self.low, 0 * high), np.append(self.high, high)
        made = wide(made, len(self.low))
        made[open_] = np.eye(len(open_), len(self.low), start, dtype=object) * self.unit
        return made

    def _phases(self, names: tuple[Name, ...], low: np.ndarray, high: np.ndarray) -> tuple[list, list[int]]:
        """1 for units that are on, 0 for off, None where a unit may be both; and the places of these. A phase split is
        believed where the range contradicts it: such a unit is at 0, or the part is empty."""
        ranges = (1 if a >= 0 else 0 if b <= 0 else None for a, b in zip(low, high, strict=True))
        phases = [self.phases.get(name, phase) for name, phase in zip(names, ranges, strict=True)]
        return phases, [k for k, phase in enumerate(phases) if phase is None]

    def program(self) -> Program:
        """A program with the same outputs wherever this pass is valid: open units over inputs and each other."""
        steps, places, count = [], np.arange(self._inputs), self._inputs
        for names, x in self._opened:
            steps += [self._step(places, x), Relu(np.arange(count, count + len(x)), names)]
            count += 2 * len(x)
            places = np.append(places, np.arange(count - len(x), count))
        outputs = np.arange(count, count + len(self.output))
        return Program(self._inputs, (*steps, self._step(places, self.output)), count + len(outputs), outputs)

    def _step(self, places: np.ndarray, forms: np.ndarray) -> Affine:
        """Forms of inputs and open units, which are the elements at these places, as a step."""
        forms = wide(forms, 2 + len(places))
        return Affine(places[None, :, None], Matrices(forms[None, :, 2:]), forms[:, 1], self.unit, radius=forms[:, 0])


def wide(forms: np.ndarray, width: int) -> np.ndarray:
    """A copy, with zeros for symbols that came later."""
    return np.concatenate([forms, np.zeros((len(forms), width - forms.shape[1]), dtype=object)], axis=1)


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """Forms one after the other."""
    width = max(forms.shape[1] for forms in parts)
    return np.concatenate([wide(forms, width) for forms in parts])


def at(program: Program, point: Sequence[Fraction]) -> tuple[list[Fraction], list[Fraction]]:
    """Numbers below and above every output at a point, equal but for slack: units so fine that nothing is rounded."""
    unit = lcm(*(x.denominator for x in point)) * prod(getattr(step, "divisor", 1) for step in program.steps)
    walk = Walk(program, unit, ((), ()), {}, {}, [int(x * unit) for x in point])
    ends = (sign * walk.least(walk.below(walk.output, sign)) for sign in (1, -1))
    return tuple([Fraction(int(value), unit) for value in end] for end in ends)
