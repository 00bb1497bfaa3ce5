"""What a global certificate says, in plain sentences.

In: GlobalCertificate. Out: text. Trust: sound (they repeat the certificate, guarantee level and confidence included).
"""

import math
from collections import Counter
from collections.abc import Sequence

from formalgr.core.verdict import Guarantee, Reason
from formalgr.global_robustness.binomial import lower_bound, upper_bound
from formalgr.global_robustness.certify import ClassResult, GlobalCertificate, GlobalVerdict
from formalgr.global_robustness.frontier import Counts
from formalgr.report.words import GUARANTEES, MEANINGS


def percent(share: float) -> str:
    """A share as a percentage without needless digits: 0.05 -> 5%, 0.9995 -> 99.95%."""
    return f"{100.0 * share:.10g}%"


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    more = [f"{len(names) - shown} more"] if len(names) > shown else []
    return ", ".join([*names[:shown], *more])


def counted(number: int, one: str, many: str) -> str:
    """`1 class`, `10 classes`."""
    return f"{number} {one if number == 1 else many}"


def overall_sentence(certificate: GlobalCertificate) -> str:
    """The overall verdict in plain words, with its confidence."""
    epsilon, delta = f"{float(certificate.epsilon):.10g}", percent(certificate.delta)
    confidence = percent(1.0 - certificate.alpha)
    head = f"{certificate.verdict.value.upper()} at confidence {confidence}"
    if certificate.verdict is GlobalVerdict.CERTIFIED:
        return (
            f"{head}: for {_each_class(certificate)}, at least {percent(1.0 - certificate.delta)} of what its "
            f"generator produces is classified correctly, and stays so wherever the latent moves by up to {epsilon}."
        )
    if certificate.verdict is GlobalVerdict.REFUTED:
        refuted = [one for one in certificate.classes if one.verdict is GlobalVerdict.REFUTED]
        return (
            f"{head}: for {_classes(refuted)}, more than {delta} of what the generator produces is misclassified "
            f"somewhere within {epsilon} of its latent."
        )
    return f"UNDECIDED at confidence {confidence}: {why_undecided(certificate)}."


def bounds_sentence(certificate: GlobalCertificate) -> str:
    """What the bounds of a class are, and what its verdict rests on where that is not the bounds."""
    confidence = percent(1.0 - certificate.alpha)
    if certificate.rule is None:
        return f"bounds on delta: of the probability that a sample fails, each at confidence {confidence}"
    return (
        f"bounds on delta: of the probability that a sample fails, both together at confidence {confidence} whenever "
        f"one stops; verdicts come from {certificate.rule.value} (certified) and the Beta mixture (refuted), which "
        "decide sooner"
    )


def why_undecided(certificate: GlobalCertificate) -> str | None:
    """Why the verdict is undecided, and the way out; None when it is decided."""
    if certificate.verdict is not GlobalVerdict.UNDECIDED:
        return None
    undecided = [one for one in certificate.classes if one.verdict is GlobalVerdict.UNDECIDED]
    what = f"delta = {certificate.delta:.10g} lies within the bounds of {_classes(undecided)}"
    if certificate.delta == 0.0:
        return f"{what}; delta = 0 is never certified by sampling"
    unknown = sum(one.counts.unknown for one in undecided)
    if unknown:
        counted = ", ".join(f"{count}: {reason}" for reason, count in reasons(certificate).items())
        advice = "; allow more time" if Reason.TIMEOUT.value in counted else ""
        return f"{what}; unknown samples count against the claim ({counted}){advice}"
    enough = None if certificate.rule is not None else samples_enough(certificate)
    hint = f": at the shares seen, -n {enough} with another --seed would decide" if enough else ""
    if certificate.rule is not None:
        taken = max(one.counts.samples for one in undecided)
        return f"{what}; after {taken} samples it stays open, and a larger -n with another --seed may decide"
    return f"{what}; more samples narrow them{hint}"


def samples_enough(certificate: GlobalCertificate) -> int | None:
    """Samples per class that would decide every undecided class if its shares stayed as seen; None beyond 10^6."""
    undecided = [one.counts for one in certificate.classes if one.verdict is GlobalVerdict.UNDECIDED]
    samples = max(counts.samples for counts in undecided)
    while samples <= 1_000_000:
        samples = _round_number(samples)
        if all(_decided(counts, samples, certificate.delta, certificate.alpha) for counts in undecided):
            return samples
    return None


def _round_number(above: int) -> int:
    """The next number of 1, 1.5, 2, 3, 5, 7 times a power of ten."""
    power = 10 ** (len(str(above)) - 1)
    return next(int(step * power) for step in (1, 1.5, 2, 3, 5, 7, 10) if int(step * power) > above)


def _decided(counts: Counts, samples: int, delta: float, alpha: float) -> bool:
    failed = math.ceil(counts.not_proven * samples / counts.samples)
    violated = counts.violated * samples // counts.samples
    return upper_bound(failed, samples, alpha) <= delta or lower_bound(violated, samples, alpha) > delta


def local_sentence(certificate: GlobalCertificate) -> str:
    """How strong the local verdicts are that the global one is built on."""
    if certificate.guarantee is Guarantee.NONE:
        return "Local verdicts: none was reached."
    level, semantics = certificate.guarantee, certificate.semantics.value
    return f"Local verdicts: {GUARANTEES[level]} or stronger ({MEANINGS[level]}); semantics: {semantics}."


def reasons(certificate: GlobalCertificate) -> dict[str, int]:
    """How many samples stayed unknown for which reason."""
    return dict(Counter(record.reason.value for record in certificate.records if record.reason is not None))


def _each_class(certificate: GlobalCertificate) -> str:
    labels = [one.label for one in certificate.classes]
    if len(labels) == 1:
        return f"class {labels[0]}"
    return f"each of the {len(labels)} classes" if labels == list(range(len(labels))) else f"each of {_list(labels)}"


def _classes(results: Sequence[ClassResult]) -> str:
    labels = [one.label for one in results]
    return f"class {labels[0]}" if len(labels) == 1 else _list(labels)


def _list(labels: Sequence[int]) -> str:
    return f"classes {', '.join(map(str, labels[:-1]))} and {labels[-1]}"
