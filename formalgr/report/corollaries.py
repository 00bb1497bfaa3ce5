"""What a certified claim says of other latents: ideal ones instead of the sampled float32 numbers, other distributions.

In: GlobalCertificate, Study. Out: numbers, sentences. Trust: sound (global_robustness/shift.py; the formula for another
distribution rests on what its user knows of it).
"""

from fractions import Fraction

from formalgr.core.rounding import nearest_down
from formalgr.global_robustness.certify import GlobalCertificate
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.global_robustness.shift import Shift, float32_normal, float32_uniform
from formalgr.global_robustness.study import Study


def _rounding(study: Study) -> Shift:
    """From the sampled latents to those of the prior itself."""
    prior = study.prior(study.classes[0])
    if prior.interval is None:
        return float32_normal(prior.latent)
    return float32_uniform(float(max(map(abs, prior.interval))))


def corollary(certificate: GlobalCertificate, study: Study) -> dict | None:
    """The certified claim for the prior itself: a slightly smaller epsilon, a slightly larger delta. None: no claim."""
    if certificate.verdict is not GlobalVerdict.CERTIFIED:
        return None
    shift = _rounding(study)
    epsilon = shift.keeps(certificate.epsilon)
    if epsilon is None:
        return None
    return {"epsilon": nearest_down(epsilon), "epsilon_exact": str(epsilon), "delta": shift.upper(certificate.delta)}


def corollary_sentences(certificate: GlobalCertificate, study: Study) -> list[str]:
    """Both corollaries in plain words; nothing where nothing was certified."""
    found = corollary(certificate, study)
    if found is None:
        return []
    moved = float(certificate.epsilon - Fraction(found["epsilon_exact"]))
    return [
        f"The sampled latents are float32 numbers. For the prior itself: ({found['epsilon']:.10g}, "
        f"{found['delta']:.10g})-robust (rounding moves a latent by at most {moved:.2g}).",
        "For another distribution, whose density is at most r times the prior's and whose latents are then moved by at "
        f"most s, but for a share p: ({float(certificate.epsilon):g} - s, r * {certificate.delta:g} + p)-robust.",
    ]
