"""Builders of robustness queries: the ball around a point and the set of wrong labels.

In: points, radii, labels. Out: RationalBox, UnsafeSet, Query. Trust: sound.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from formalgr.core.box import RationalBox
from formalgr.core.errors import UsageError
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet


def radius_of(epsilon: float | str | Fraction) -> Fraction:
    """The radius as the decimal the user typed (0.1 is 1/10). Raises UsageError unless it is finite and >= 0."""
    try:
        if isinstance(epsilon, float) and not math.isfinite(epsilon):
            raise ValueError
        value = Fraction(str(epsilon)) if not isinstance(epsilon, Fraction) else epsilon
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"epsilon must be a finite number >= 0, got {epsilon}") from None
    if value < 0:
        raise UsageError(f"epsilon must be >= 0, got {epsilon}")
    return value


def latent_ball(center: Sequence[float] | np.ndarray, epsilon: float | str | Fraction) -> RationalBox:
    """The closed ball {z' : ||z' - center||_inf <= epsilon}, exactly; `center` (latent,) is flattened.

    Raises UsageError when the radius is negative or the center is not finite.
    """
    radius = radius_of(epsilon)
    flat = np.asarray(center).reshape(-1).tolist()
    if not all(math.isfinite(x) for x in flat):
        raise UsageError("the center of a ball must be finite")
    exact = [Fraction(x) for x in flat]
    return RationalBox(tuple(x - radius for x in exact), tuple(x + radius for x in exact))


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


def local_robustness(
    center: Sequence[float] | np.ndarray,
    epsilon: float | str | Fraction,
    label: int,
    classes: int,
    rule: str = "argmax",
) -> Query:
    """The query that HOLDS iff every point of the closed latent ball is classified as `label` (Def. 3, one sample)."""
    return Query(latent_ball(center, epsilon), wrong_label(label, classes, rule))
