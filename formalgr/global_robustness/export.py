"""The global question of a study as VNN-LIB 2.0: one query and one network file for each class.

In: Study, epsilon, delta. Out: Property, GlobalQuery. Trust: sound (the query is exact; what it implies for Def. 3 is
said with it).

For class c, with N = C after G_c: are there latents z, w with |z_i| <= B, |w_i - z_i| <= epsilon for all i, such that N
calls z class c, strictly, and w another class (or a tie)? No such pair means that every latent of the box that N gets
right is robust (Def. 4 has no instance in the box). B is the smallest multiple of 1/10000 with P(|z_i| > B for some i)
<= delta for z ~ N(0, I).
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from formalgr.core.box import RationalBox
from formalgr.core.errors import UsageError
from formalgr.core.verdict import Semantics
from formalgr.global_robustness.prior import NORMAL
from formalgr.global_robustness.study import Study
from formalgr.graph.network import Network
from formalgr.graph.wiring import Wiring
from formalgr.spec.query import Declared, Property, Query, Tensor
from formalgr.spec.robustness import radius_of, wrong_label
from formalgr.spec.unsafe import Polytope, UnsafeSet

GRAIN = 10_000
"""The half-width of the latent box is a multiple of 1 / GRAIN."""


@dataclass(frozen=True)
class GlobalQuery:
    """The query of one class, the network it is about, and the half-width of its latent box."""

    property: Property
    network: Network
    half_width: Fraction
    comments: tuple[str, ...]


def half_width(latent: int, delta: float) -> Fraction:
    """The smallest multiple of 1 / GRAIN such that N(0, I) leaves the box [-B, B]^latent with probability <= delta.

    Raises UsageError for delta 0, where no box is large enough.
    """
    from scipy.stats import norm

    if not 0.0 < delta <= 1.0:
        raise UsageError("the latents of an exported query leave out probability delta, which must be > 0")
    tail = -math.expm1(math.log1p(-delta) / latent) if delta < 1.0 else 1.0
    return Fraction(math.floor(float(norm.isf(tail / 2.0)) * GRAIN) + 1, GRAIN)


def global_query(
    study: Study, label: int, epsilon: float | str | Fraction, delta: float, semantics: Semantics
) -> GlobalQuery:
    """The GlobalQuery of one class; inputs and outputs are float32 where the semantics are, else real.

    Raises UsageError for a prior that is not N(0, I).
    """
    if study.latent_prior != NORMAL:
        raise UsageError("an exported query speaks of N(0, I): give a study with the normal prior")
    network, radius = study.composed(label), radius_of(epsilon)
    latent, classes = network.graph.inputs, network.scores
    wide, near = half_width(latent, delta), range(latent)
    one = Fraction(1)
    differences = Wiring(
        tuple(((k, one),) for k in near) + tuple(((k, one), (latent + k, one)) for k in near),
        tuple(((k, one),) for k in near) + tuple(((k, -one), (latent + k, one)) for k in near),
        (),
    )
    wrong = wrong_label(label, classes, study.label_rule)
    right = tuple(tuple(-a for a in polytope.coefficients[0]) for polytope in wrong.polytopes)
    none = (Fraction(0),) * classes
    polytopes = tuple(
        Polytope(
            (*((*row, *none) for row in right), (*none, *polytope.coefficients[0])),
            (Fraction(0),) * (len(right) + 1),
            (*(True,) * len(right), False),
        )
        for polytope in wrong.polytopes
    )
    box = RationalBox((-wide,) * latent + (-radius,) * latent, (wide,) * latent + (radius,) * latent)
    element = "float32" if semantics is Semantics.FLOAT32 else "real"
    shapes = (network.graph.input_shape, network.graph.output_shape)
    networks = tuple(
        Declared(name, (Tensor(given, element, shapes[0]),), (Tensor(made, element, shapes[1]),), same)
        for name, given, made, same in (("net", "Z", "Y", None), ("copy", "W", "V", ("equal-to", "net")))
    )
    query = Query(box, UnsafeSet(polytopes, 2 * classes))
    property_ = Property((query,), 2 * latent, 2 * classes, "", "", networks, differences)
    return GlobalQuery(property_, network, wide, _comments(label, radius, wide, delta))


def _comments(label: int, radius: Fraction, wide: Fraction, delta: float) -> tuple[str, ...]:
    """What the query asks, for its readers."""
    return (
        f"Global robustness of class {label}, epsilon {float(radius):g}: are there latents Z and W with |W - Z| <=",
        f"epsilon in every coordinate such that the network calls Z class {label} and W another class, or a tie?",
        f"Z lies in [-{float(wide):g}, {float(wide):g}]^p, which N(0, I) leaves with probability at most {delta:g}.",
        "sat: Z and W are a realistic adversarial pair. unsat: every Z of the box that is classified right is robust.",
    )
