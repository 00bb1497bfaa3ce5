"""Global certificates as JSON.

In: GlobalCertificate. Out: a document for report/json. Trust: sound (it repeats what was decided).
"""

from collections.abc import Mapping

from formalgr.core.verdict import Verdict
from formalgr.global_robustness.certify import ClassResult, GlobalCertificate
from formalgr.report.json import Provenance
from formalgr.report.sentences import reasons, why_undecided
from formalgr.report.words import GUARANTEES

GLOBAL = "formalgr.global/1"


def global_document(
    certificate: GlobalCertificate,
    provenance: Provenance,
    pair: Mapping | None = None,
    ideal: Mapping | None = None,
    shifted: Mapping | None = None,
) -> dict:
    """A global certificate (schema formalgr.global/1).

    `pair` describes the adversarial pair that was drawn, `ideal` the claim for latents that are not rounded to float32,
    `shifted` the claim for the user's other distribution.
    """
    return {
        "schema": GLOBAL,
        "verdict": certificate.verdict.value,
        "epsilon": float(certificate.epsilon),
        "epsilon_exact": str(certificate.epsilon),
        "delta": certificate.delta,
        "alpha": certificate.alpha,
        "confidence": 1.0 - certificate.alpha,
        "guarantee": GUARANTEES[certificate.guarantee],
        "semantics": certificate.semantics.value,
        "rule": "fixed" if certificate.rule is None else certificate.rule.value,
        "max_samples": certificate.most,
        "why": why_undecided(certificate),
        "classes": [_class(result) for result in certificate.classes],
        "stages": dict(certificate.stages),
        "seconds": {**certificate.seconds, "total": provenance.seconds},
        "unknown_reasons": reasons(certificate),
        "confirmed_float32": _confirmations(certificate),
        "pair": pair,
        "for_unrounded_latents": ideal,
        "for_shifted_latents": shifted,
        "notes": list(certificate.notes),
        **provenance.keys(),
    }


def _class(result: ClassResult) -> dict:
    counts = result.counts
    return {
        "class": result.label,
        "samples": counts.samples,
        "robust": counts.robust,
        "violated": counts.violated,
        "unknown": counts.unknown,
        "misclassified": counts.misclassified,
        "delta_lower": result.delta_lower,
        "delta_upper": result.delta_upper,
        "verdict": result.verdict.value,
        "decided_at": result.decided_at,
        "latents_sha256": result.latents_sha256,
    }


def _confirmations(certificate: GlobalCertificate) -> dict[str, int]:
    """What onnxruntime said of the witnesses on the original files, in float32."""
    found = [one.confirmed_float32 for one in certificate.records if one.verdict is Verdict.VIOLATED]
    return {"yes": found.count(True), "no": found.count(False), "not run": found.count(None)}
