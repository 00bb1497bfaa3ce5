"""A solver-neutral program: bounded variables with linear, piecewise linear and maximum constraints.

In: constraints. Out: Program. Trust: sound (plain data; every backend lowers the same program).
"""

import enum
from dataclasses import dataclass, field
from fractions import Fraction

Number = float | int | Fraction


class Sense(enum.Enum):
    """Direction of a linear constraint. BELOW is strict for exact backends; float backends read it as LESS."""

    BELOW = "<"
    LESS = "<="
    EQUAL = "=="
    GREATER = ">="


@dataclass(frozen=True)
class Variable:
    """A real variable with sound finite bounds lower <= x <= upper."""

    lower: Number
    upper: Number


@dataclass(frozen=True)
class Linear:
    """sum(coefficients[k] * x[indices[k]]) SENSE right."""

    indices: tuple[int, ...]
    coefficients: tuple[Number, ...]
    sense: Sense
    right: Number


@dataclass(frozen=True)
class Piecewise:
    """x[result] = slopes[k] * x[argument] + intercepts[k] on the k-th piece, breakpoints[k-1] <= . <= breakpoints[k].

    breakpoints ascending, one fewer than slopes; the function is continuous.
    """

    argument: int
    result: int
    breakpoints: tuple[Number, ...]
    slopes: tuple[Number, ...]
    intercepts: tuple[Number, ...]


@dataclass(frozen=True)
class Maximum:
    """x[result] = max of x[arguments]."""

    arguments: tuple[int, ...]
    result: int


@dataclass(frozen=True)
class Program:
    """Minimise x[objective] (or only find a point, when None) subject to all constraints.

    `inputs` are the variables whose values make up a candidate point. Only points with x[objective] <= `cutoff` are of
    interest, when it is given. Raises ValueError on an index out of range and on a cutoff without an objective.
    """

    variables: tuple[Variable, ...]
    linear: tuple[Linear, ...] = ()
    piecewise: tuple[Piecewise, ...] = ()
    maxima: tuple[Maximum, ...] = ()
    objective: int | None = None
    inputs: tuple[int, ...] = field(default=())
    cutoff: Number | None = None

    def __post_init__(self):
        if self.cutoff is not None and self.objective is None:
            raise ValueError("a cutoff limits the objective, and this program has none")
        used = [i for row in self.linear for i in row.indices]
        used += [i for row in self.piecewise for i in (row.argument, row.result)]
        used += [i for row in self.maxima for i in (*row.arguments, row.result)]
        used += [] if self.objective is None else [self.objective]
        if used and not 0 <= min(used) <= max(used) < len(self.variables):
            raise ValueError(f"a constraint names variable {max(used)} of {len(self.variables)}")
