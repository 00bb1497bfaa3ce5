"""Brackets of the largest robust radius as values, and how far and how fine they are asked for.

In: radii, counterexamples. Out: RadiusBracket, RadiusOptions. Trust: sound (plain data; ends that
contradict each other are refused).
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from formalgr.core.box import RationalBox
from formalgr.core.documents import Documented
from formalgr.core.errors import InputError, ModelError, Refused, UsageError
from formalgr.core.verdict import Counterexample, Guarantee, Reason, Semantics
from formalgr.spec.robustness import radius_of
from formalgr.verify.options import VerifyOptions

TOLERANCE = Fraction(1, 1000)
"""Default tolerance, as a share of the cap."""

UNPROVEN = Fraction(-1)
"""Lower end of a latent whose center is not proven to be classified right (STATISTICS section 1)."""


@dataclass(frozen=True)
class RadiusBracket(Documented):
    """lower < R <= upper: the closed ball of radius `lower` is proven, `witness` is replayed at distance `upper`.

    lower is -1 where the center itself is not proven; upper is None where no counterexample was found up to the cap
    (then so is witness). `guarantee` is the weakest of what was proven and replayed; `reason` says why the bracket is
    wider than asked, None when it is not; `proof_seconds` is what the proof of `lower` took. Raises Refused when the
    two ends contradict each other.
    """

    lower: Fraction
    upper: Fraction | None
    witness: Counterexample | None
    guarantee: Guarantee
    reason: Reason | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    proof_seconds: float = 0.0

    def __post_init__(self):
        if (self.upper is None) != (self.witness is None):
            raise ValueError("a bracket has an upper end exactly when it holds a counterexample")
        if self.upper is not None and self.lower >= self.upper:
            raise Refused(f"radius {self.lower} was proven and a counterexample lies at distance {self.upper}: a bug")

    @property
    def misclassified(self) -> bool:
        """Whether the center itself is wrong."""
        return self.upper == 0


@dataclass(frozen=True, kw_only=True)
class RadiusOptions:
    """How far and how fine: radii up to `max_epsilon`, brackets no wider than `tolerance` (default max_epsilon / 1000).

    `relative`: a bracket may also be as wide as this share of its upper end. `local` steers the checks; its
    seconds_per_query limits each latent, all radii together. With a `domain` only the inputs within it count. Raises
    UsageError unless both radii are > 0 and the semantics is real: root bounds and replays speak of the reals.
    """

    max_epsilon: float | str | Fraction = Fraction(1)
    tolerance: float | str | Fraction | None = None
    relative: Fraction = Fraction(0)
    local: VerifyOptions = field(default_factory=VerifyOptions)
    domain: RationalBox | None = None

    def __post_init__(self):
        if self.local.semantics is not Semantics.REAL:
            raise UsageError("radius brackets are over the reals; semantics float32 is for verify and global")
        cap = _positive("max_epsilon", self.max_epsilon)
        tolerance = TOLERANCE * cap if self.tolerance is None else _positive("tolerance", self.tolerance)
        object.__setattr__(self, "max_epsilon", cap)
        object.__setattr__(self, "tolerance", tolerance)

    def allowed(self, upper: Fraction) -> Fraction:
        """The widest bracket wanted that ends at `upper`."""
        return max(self.tolerance, self.relative * upper)

    @property
    def step(self) -> Fraction:
        """The grid of radii that are tried: the largest power of two <= tolerance / 16, so that floats hold them."""
        return Fraction(2) ** math.floor(math.log2(self.tolerance / 16))


@dataclass(frozen=True)
class Known:
    """What an earlier run found of one latent: a proven radius with its level and cost (-1: none), a point to replay.

    `attacked`: attacks and root bounds have been tried on it.
    """

    lower: Fraction = UNPROVEN
    proof: Guarantee = Guarantee.NONE
    point: tuple[Fraction, ...] | None = None
    proof_seconds: float = 0.0
    attacked: bool = False


def _positive(name: str, value: float | str | Fraction) -> Fraction:
    try:
        radius = radius_of(value)
    except UsageError:
        radius = Fraction(0)
    if radius <= 0:
        raise UsageError(f"{name} must be a finite number > 0, got {value}")
    return radius


def exact_latents(latents: np.ndarray, inputs: int) -> np.ndarray:
    """The latents as float64 (number, inputs), unchanged in value.

    Raises InputError when they are no finite numbers that float64 holds, ModelError when they do not fit `inputs`.
    """
    given = np.asarray(latents)
    if given.ndim != 2 or given.shape[1] != inputs:
        raise ModelError(f"latents must be (number, {inputs}) for this network, got shape {given.shape}")
    if given.dtype.kind not in "fiu":
        raise InputError(f"latents must be real numbers, got type {given.dtype}")
    exact = given.astype(np.float64)
    bad = np.nonzero(~np.all(np.isfinite(exact), axis=1))[0]
    if bad.size:
        raise InputError(f"latent {bad[0]} is not finite")
    if not np.array_equal(exact.astype(given.dtype), given):
        raise InputError(f"latents of type {given.dtype} do not fit float64; give float32 or float64")
    return exact
