"""What a certified claim says of other latents: ideal ones instead of the sampled float32 numbers, other distributions.

In: GlobalCertificate, the user's Shift. Out: numbers, sentences. Trust: sound (global_robustness/shift.py; what is said
of another distribution rests on the bounds that its user gives).
"""

from formalgr.core.rounding import nearest_down
from formalgr.global_robustness.certify import GlobalCertificate
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.global_robustness.shift import Shift


def corollary(certificate: GlobalCertificate, shift: Shift | None = None) -> dict | None:
    """The certified claim for the prior itself, or for what a shift makes of it. None: nothing was certified, or it is
    empty there: the shift moves latents by more than epsilon, or loses them all.
    """
    whole = certificate.rounding if shift is None else certificate.rounding.then(shift)
    epsilon, delta = whole.keeps(certificate.epsilon), whole.upper(certificate.delta)
    if certificate.verdict is not GlobalVerdict.CERTIFIED or epsilon is None or delta >= 1.0:
        return None
    return {"epsilon": nearest_down(epsilon), "epsilon_exact": str(epsilon), "delta": delta}


def shift_document(certificate: GlobalCertificate, shift: Shift | None) -> dict | None:
    """The user's shift and the claim under it (its keys are null where there is none); None without a shift."""
    if shift is None:
        return None
    given = {"distance": str(shift.distance), "probability": shift.probability, "ratio": shift.ratio}
    claim = corollary(certificate, shift) or dict.fromkeys(("epsilon", "epsilon_exact", "delta"))
    return {"shift": given, **claim}


def corollary_sentences(certificate: GlobalCertificate, shift: Shift | None = None) -> list[str]:
    """Both corollaries in plain words; nothing where nothing was certified."""
    if certificate.verdict is not GlobalVerdict.CERTIFIED:
        return []
    found, moved = corollary(certificate), float(certificate.rounding.distance)
    told = []
    if found is not None:
        told.append(
            f"The sampled latents are float32 numbers. For the prior itself: {_claim(found)} (rounding moves a latent "
            f"by at most {moved:.2g})."
        )
    if shift is None:
        return [
            *told,
            "For another distribution, whose density is at most r times the prior's and whose latents are then moved "
            f"by at most s, but for a share p: ({float(certificate.epsilon):g} - s, r * {certificate.delta:g} + "
            "p)-robust.",
        ]
    other = (
        f"For another distribution, whose density is at most {shift.ratio:g} times the prior's and whose latents are "
        f"then moved by at most {float(shift.distance):g}, but for a share {shift.probability:g}"
    )
    found = corollary(certificate, shift)
    return [*told, f"{other}, nothing follows." if found is None else f"{other}: {_claim(found)}."]


def _claim(found: dict) -> str:
    return f"({found['epsilon']:.10g}, {found['delta']:.10g})-robust"
