"""What a bound for the sampled latents says about other latents: ideal ones, or those of another distribution.

In: how far the other distribution Q may be from the sampled one P. Out: bounds of F under Q. Trust: sound, given that
the distance holds: formulas with the user's bound (docs/statistics.md section 9).

If z ~ P and z' ~ Q can be drawn together with ||z - z'||_inf <= s, the ball of radius eps around z' lies in that of
radius eps + s around z, so R(z) <= R(z') + s and F_Q(eps) <= F_P(eps + s).
"""

from dataclasses import dataclass
from fractions import Fraction

from formalgr.core.errors import UsageError
from formalgr.core.rounding import PROBABILITY_RELATIVE, UNIT_ROUNDOFF
from formalgr.global_robustness.prior import LatentPrior
from formalgr.spec.robustness import radius_of


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How far Q is from P: P is reweighted by at most `ratio`, then moved by at most `distance` but for `probability`.

    distance: sup norm (infinity-Wasserstein distance, where probability is 0); probability: the share that may go
    anywhere (total variation distance, where distance is 0); ratio: dQ/dP <= ratio (1: no reweighting).
    Raises UsageError on values outside their domain.
    """

    distance: Fraction | float | str = Fraction(0)
    probability: float = 0.0
    ratio: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "distance", radius_of(self.distance))
        if not 0.0 <= self.probability <= 1.0:
            raise UsageError(f"the probability of a shift must be in [0, 1], got {self.probability}")
        if not 1.0 <= self.ratio < float("inf"):
            raise UsageError(f"the ratio of a shift must be finite and >= 1, got {self.ratio}")

    def needs(self, epsilon: Fraction | float | str) -> Fraction:
        """The radius at which F_P is needed to bound F_Q(eps) from above: eps + distance."""
        return radius_of(epsilon) + self.distance

    def upper(self, bound: float) -> float:
        """F_Q(eps) <= this, from F_P(needs(eps)) <= bound: min(1, ratio * bound + probability)."""
        return min(1.0, (self.ratio * bound + self.probability) * (1.0 + PROBABILITY_RELATIVE))

    def keeps(self, epsilon: Fraction | float | str) -> Fraction | None:
        """The radius at which Q is certified when P is at eps: eps - distance; None where eps is too small."""
        left = radius_of(epsilon) - self.distance
        return left if left >= 0 else None

    def then(self, other: "Shift") -> "Shift":
        """From P by this shift, and from there by the other one."""
        up = 1.0 + PROBABILITY_RELATIVE
        lost = (other.ratio * self.probability + other.probability) * up
        return Shift(
            distance=self.distance + other.distance, probability=min(1.0, lost), ratio=self.ratio * other.ratio * up
        )


def rounding_of(prior: LatentPrior) -> Shift:
    """From the sampled latents, which are float32 numbers, to those of the prior itself."""
    if prior.interval is None:
        return float32_normal(prior.latent)
    return float32_uniform(float(max(map(abs, prior.interval))))


def float32_normal(latent: int, half_width: float = 8.0) -> Shift:
    """From the sampled float32 latents to N(0, I_p) itself, p = `latent`: rounding moves z_j by at most u |z_j|.

    Latents with some |z_j| > half_width count as lost; at 8 that is 1.2e-15 for each coordinate. The float64 numbers of
    the random generator are taken for ideal ones.
    """
    from scipy.special import ndtr

    beyond = 2.0 * latent * float(ndtr(-half_width)) * (1.0 + PROBABILITY_RELATIVE)
    return Shift(distance=_rounding(half_width), probability=min(1.0, beyond))


def float32_uniform(largest: float) -> Shift:
    """The same for latents that are uniform on a box within [-largest, largest]^p."""
    return Shift(distance=_rounding(largest))


def _rounding(largest: float) -> Fraction:
    """What rounding to float32, by way of float64, moves a number of at most this size; subnormals are absolute."""
    relative = Fraction(UNIT_ROUNDOFF["float32"]) + 2 * Fraction(UNIT_ROUNDOFF["float64"])
    return Fraction(largest) * relative + Fraction(2) ** -149
