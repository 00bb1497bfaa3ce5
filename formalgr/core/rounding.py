"""Every tolerance and rounding-error formula, each with its reason.

In: array shapes and dtypes. Out: factors and radii. Trust: sound; every bound of the package leans on this file.

Model (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., ch. 2-3): one operation computes
fl(a op b) = (a op b)(1 + d) + e with |d| <= u and |e| <= ETA (underflow, also when subnormals are flushed). A sum of
n products in ANY order is off by at most gamma_n * sum |a_i b_i|, gamma_n = n u / (1 - n u).
"""

import math
from fractions import Fraction

import numpy as np

from formalgr.core.errors import NumericalError

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}
"""u: half the distance between 1 and the next number (IEEE 754, round to nearest)."""

SMALLEST_NORMAL = {"float32": 2.0**-126, "float64": 2.0**-1022}
"""ETA: what an operation can lose to underflow, even where subnormals are flushed to zero."""

NEGLIGIBLE = {"float32": 2.0**-102, "float64": 2.0**-969}
"""ETA / u. The rounding error gamma_n m of a quantity that is multiplied later must be gamma_n (m + NEGLIGIBLE): it
then covers n underflows too, and whatever multiplies the one multiplies the other."""

SLACK = 1.0 + 2.0**-20
"""Error radii are themselves computed in floating point; their relative error is below gamma_n < 2^-21 for n < 2^31
(float64), so this factor makes them upper bounds. float32 bounds only guide."""

STEP_SLACK = 1.0 + 2.0**-40
"""Adding a handful of error radii and scaling them errs by less than 16 u, relatively, in float64."""

LIBM_ULPS = 8
"""numpy documents at most 4 ulp for exp and tanh in float64, torch (SLEEF) 1 ulp; doubled."""

FLOAT32_EXTRA = 16
"""Roundings that a float32 implementation may add to those of merged linear maps: the factor of BatchNormalization is
a quotient by a square root, quotients become products with reciprocals, a Cast or a factor 1 is rounded again."""

MOST_ROUNDINGS = 1 << 20
"""More roundings of one summand than any network has; gamma_n of float32 exists up to 2^23."""

SOFTMAX_REACH = 86.0
"""exp(-86) = 4.5e-38 is above the smallest normal float32, and above where libraries clamp exp (onnxruntime: -88.4)."""

FLOAT32_LARGEST = 2.0**127
"""Half of the float32 range: a sum whose absolute terms stay below does not overflow in any order."""

BETA_QUANTILE_RELATIVE = 1e-12
"""Quantiles of the Beta distribution from scipy (Boost) were off by 5e-16 at most against ball arithmetic, for n up to
10^5 and alpha down to 10^-12. Bounds move outward by this much; `formalgr check` proves what they state."""

PROBABILITY_RELATIVE = 1e-9
"""Binomial and Beta probabilities from scipy were off by 2e-12 at most, relatively, on the same grid; sums of positive
terms over 10^5 steps in float64 err by less than 10^-9. Probabilities of error are counted larger by this much."""

ORACLE_RELATIVE = 1e-4
"""Own evaluation against onnxruntime in float32: a few thousand additions differ by 1e-5 relative to the largest
output; a wrong attribute differs by far more."""

NOISE_FACTOR, LARGEST_NOISE = 8.0, 1e-2
"""An ill-conditioned network may differ from onnxruntime by more: by this multiple of what own float32 evaluation
differs from own float64 evaluation (both sum in other orders, so the errors are alike but not equal), as long as that
is below 1e-2 of the largest output. A wrong meaning of an operator changes both own evaluations alike."""

COMPOSED_RELATIVE = 1e-5
"""A composed network against its two originals: the same operators on the same numbers, so closer still."""

SOLVER_MARGIN = 1e-5
"""A floating-point MILP proves a margin only above this: HiGHS and CBC work with feasibility tolerances 1e-6..1e-9
on scaled rows, ten times their largest default."""

INTEGRALITY = 1e-9
"""Integer feasibility tolerance asked of the MILP solvers: at big-M 1e3, 1e-6 would let a ReLU cheat by 1e-3."""

BROKEN_PAIR = 1e-8
"""How far a pair y = f(x) may be off in the solution of a linear program before it counts as broken: ten times the
tolerance asked of HiGHS. Only which pairs are split depends on it, no bound does."""

SMALL_MATRIX_VALUE = 1e-12
"""HiGHS drops matrix entries below its default 1e-9, which changes the network; this is its smallest legal value."""


def dtype_name(array) -> str:
    """The name 'float32' or 'float64' of a numpy or torch array's dtype."""
    if isinstance(array, np.ndarray):
        # numpy's own names cost microseconds, on every operation
        return {"d": "float64", "f": "float32"}.get(array.dtype.char) or array.dtype.name
    return str(array.dtype).rsplit(".", 1)[-1]


def gamma(terms: int, dtype: str) -> float:
    """Upper bound of n u / (1 - n u): relative error of a sum of `terms` products, any order (Higham 3.1)."""
    product = terms * UNIT_ROUNDOFF[dtype]
    if product >= 0.5:
        raise ValueError(f"a sum of {terms} terms has no error bound in {dtype}")
    return product / (1.0 - product) * SLACK


def underflow(terms: int, dtype: str) -> float:
    """Upper bound of what `terms` operations lose to underflow."""
    return terms * SMALLEST_NORMAL[dtype] * 2.0


def is_exact_difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Where the float64 left - right is exact (the error term of Knuth's TwoSum is zero)."""
    difference = left - right
    virtual = difference - left
    return (left - (difference - virtual)) - (right + virtual) == 0.0


def nearest(value: Fraction) -> float:
    """The float64 nearest to the rational `value`: off by at most u relatively, or ETA. Raises NumericalError."""
    try:
        return value.numerator / value.denominator if isinstance(value, Fraction) else float(value)
    except OverflowError:
        raise NumericalError(f"a number of about 10^{_digits(value)} lies beyond float64") from None


def _digits(value: Fraction) -> int:
    """Decimal exponent of a large rational, to within one."""
    return (abs(value.numerator).bit_length() - value.denominator.bit_length()) * 30103 // 100000


def nearest_down(value: Fraction) -> float:
    """The largest float64 that is <= the rational `value`. Raises NumericalError when float64 does not reach so far."""
    result = nearest(value)
    return math.nextafter(result, -math.inf) if _difference(result, value) > 0 else result


def nearest_up(value: Fraction) -> float:
    """The smallest float64 >= the rational `value`. Raises NumericalError when float64 does not reach so far."""
    result = nearest(value)
    return math.nextafter(result, math.inf) if _difference(result, value) < 0 else result


def _difference(result: float, value: Fraction | float) -> float:
    """A number with the sign of result - value: for a Fraction in integers, which is many times faster."""
    if not isinstance(value, Fraction):
        return result - value
    numerator, denominator = result.as_integer_ratio()
    return numerator * value.denominator - value.numerator * denominator
