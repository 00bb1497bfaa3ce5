"""Builders of robustness queries: the ball around a point and the set of wrong labels.

In: points, radii, labels. Out: RationalBox, UnsafeSet, Query. Trust: sound.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from formalgr.core.box import RationalBox
from formalgr.core.decimals import written
from formalgr.core.errors import UsageError
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet


def radius_of(epsilon: float | str | Fraction) -> Fraction:
    """The radius as the decimal the user typed (0.1 is 1/10). Raises UsageError unless it is finite and >= 0."""
    try:
        if isinstance(epsilon, float) and not math.isfinite(epsilon):
            raise ValueError
        value = written(str(epsilon)) if not isinstance(epsilon, Fraction) else epsilon
    except ValueError:
        raise UsageError(f"epsilon must be a finite number >= 0, got {epsilon}") from None
    if value < 0:
        raise UsageError(f"epsilon must be >= 0, got {epsilon}")
    return value


def latent_ball(
    center: Sequence[float | Fraction] | np.ndarray, epsilon: float | str | Fraction, domain: RationalBox | None = None
) -> RationalBox:
    """The closed ball {z' : ||z' - center||_inf <= epsilon}, exactly, or its part within `domain`.

    `center` (latent,) is flattened. Raises UsageError when the radius is negative or the center is not finite.
    """
    radius = radius_of(epsilon)
    flat = np.asarray(center).reshape(-1).tolist()
    if not all(math.isfinite(x) for x in flat):
        raise UsageError("the center of a ball must be finite")
    exact = [Fraction(x) for x in flat]
    ball = RationalBox(tuple(x - radius for x in exact), tuple(x + radius for x in exact))
    return ball if domain is None else ball.within(domain.lower, domain.upper)


def wrong_label(label: int, classes: int, rule: str = "argmax") -> UnsafeSet:
    """The outputs whose label is not `label`; a tie is wrong (correct means margin > 0).

    `rule` argmax or argmin. Raises UsageError when the label is out of range or the rule unknown.
    """
    if rule not in ("argmax", "argmin"):
        raise UsageError(f"label rule must be argmax or argmin, got {rule!r}")
    if classes < 2:
        raise UsageError("a network with one output has no other label; state the unsafe set on its value instead")
    if isinstance(label, bool) or not 0 <= label < classes:
        raise UsageError(f"class index must be in [0, {classes - 1}], got {label}")
    sign = Fraction(1 if rule == "argmax" else -1)
    polytopes = []
    for other in range(classes):
        if other == label:
            continue
        row = [Fraction(0)] * classes
        row[label], row[other] = sign, -sign
        polytopes.append(Polytope((tuple(row),), (Fraction(0),), (False,)))
    return UnsafeSet(tuple(polytopes), classes)


def changed_outputs(values: Sequence[Fraction], epsilon: float | str | Fraction) -> UnsafeSet:
    """The outputs of which at least one is `epsilon` or farther away from its value in `values` (outputs,).

    Katz et al. 2017 (Towards Proving the Adversarial Robustness of Deep Neural Networks): confidence-local robustness
    holds where no output lies in this set. Raises UsageError unless epsilon is finite and > 0.
    """
    distance = radius_of(epsilon)
    if distance == 0:
        raise UsageError("epsilon must be > 0: no output stays closer than 0 to its value")
    polytopes = []
    for place, value in enumerate(values):
        for sign in (1, -1):  # sign * (y - value) >= distance
            row = tuple(Fraction(-sign if k == place else 0) for k in range(len(values)))
            polytopes.append(Polytope((row,), (-distance - sign * value,), (False,)))
    return UnsafeSet(tuple(polytopes), len(values))


def target_label(target: int, classes: int, rule: str = "argmax") -> UnsafeSet:
    """The outputs whose label may be `target`: no other class is ahead of it; a tie counts.

    Raises UsageError as `wrong_label` does.
    """
    others = wrong_label(target, classes, rule).polytopes
    rows = tuple(tuple(-a for a in polytope.coefficients[0]) for polytope in others)
    return UnsafeSet((Polytope(rows, (Fraction(0),) * len(rows), (False,) * len(rows)),), classes)


def local_robustness(
    center: Sequence[float] | np.ndarray,
    epsilon: float | str | Fraction,
    label: int,
    classes: int,
    rule: str = "argmax",
) -> Query:
    """The query that HOLDS iff every point of the closed latent ball is classified as `label` (Def. 3, one sample)."""
    return Query(latent_ball(center, epsilon), wrong_label(label, classes, rule))
