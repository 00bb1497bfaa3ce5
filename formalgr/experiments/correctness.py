"""Global correctness (Fijalkow & Gupta 2019, Def. 1): P_z(C(G_c(z)) = c) for every class, with exact bounds.

In: labelled samples. Out: Correctness. Trust: sound at the stated confidence (samples that cannot be decided count as
failures in upper bounds and as successes in lower ones).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from formalgr.experiments.labelled import Labelled
from formalgr.global_robustness.binomial import check_alpha, check_delta, lower_bound, upper_bound
from formalgr.global_robustness.multiplicity import GlobalVerdict, overall, refutation_alpha


@dataclass(frozen=True)
class ClassCorrectness:
    """Counts of one class and Clopper-Pearson bounds of its failure probability, each at confidence 1 - alpha."""

    label: int
    samples: int
    right: int
    wrong: int
    unknown: int
    failure_lower: float
    failure_upper: float
    verdict: GlobalVerdict

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "class": self.label,
            "samples": self.samples,
            "right": self.right,
            "wrong": self.wrong,
            "unknown": self.unknown,
            "failure_lower": self.failure_lower,
            "failure_upper": self.failure_upper,
            "verdict": self.verdict.value,
        }


@dataclass(frozen=True)
class Correctness:
    """Bounds of classes and the claim: failure probability at most `delta` for EVERY one of the `asked` classes."""

    classes: tuple[ClassCorrectness, ...]
    asked: int
    delta: float
    alpha: float

    @property
    def verdict(self) -> GlobalVerdict:
        """Certified iff every class is, refuted iff one is (at the level that allows for looking at all)."""
        missing = self.asked - len(self.classes)
        return overall([one.verdict for one in self.classes] + missing * [GlobalVerdict.UNDECIDED])


def correctness(
    samples: Sequence[Labelled], delta: float, alpha: float, classes: int | None = None
) -> Correctness:
    """The bounds and the verdict from samples of independent classes. Raises UsageError for a bad delta or alpha.

    classes: how many the claim is about, where some have no samples.
    """
    check_alpha(alpha)
    check_delta(delta)
    asked = classes or len(samples)
    level = refutation_alpha(alpha, asked)
    return Correctness(tuple(_class(one, delta, alpha, level) for one in samples), asked, delta, alpha)


def _class(one: Labelled, delta: float, alpha: float, refuting: float) -> ClassCorrectness:
    right, wrong = int(np.sum(one.right)), int(np.sum(one.wrong))
    upper = upper_bound(len(one) - right, len(one), alpha)
    verdict = GlobalVerdict.UNDECIDED
    if upper <= delta:
        verdict = GlobalVerdict.CERTIFIED
    elif lower_bound(wrong, len(one), refuting) > delta:
        verdict = GlobalVerdict.REFUTED
    lower = lower_bound(wrong, len(one), alpha)
    return ClassCorrectness(one.label, len(one), right, wrong, one.unknown, lower, upper, verdict)
