"""Does the answer depend on the generator? Two sets of generators, one classifier, the same latents.

In: labelled samples of both. Out: Dependence. Trust: sound at the stated confidence (exact McNemar test and an interval
of the difference, as global_robustness/compare).

Fijalkow & Gupta 2019, section 4: generators trained on disjoint data gave 94.40 % and 93.70 % on 5000 latents, called
"the same" without a test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from formalgr.core.errors import UsageError
from formalgr.experiments.labelled import Labelled
from formalgr.global_robustness.compare import Answers, Discordant, difference, discordant, fails_less
from formalgr.global_robustness.frontier import Interval
from formalgr.global_robustness.multiplicity import holm


@dataclass(frozen=True)
class Pairing:
    """One class (None: all together): how often each set is wrong, on which latents they differ, what follows.

    p_value: two-sided exact McNemar test of "both fail equally often"; difference: of the failure probabilities, first
    minus second, at confidence 1 - alpha.
    """

    label: int | None
    wrong: tuple[int, int]
    pairs: Discordant
    p_value: float
    difference: Interval

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "class": self.label,
            "samples": self.pairs.samples,
            "wrong": list(self.wrong),
            "only_first": self.pairs.only_first_at_least,
            "only_second": self.pairs.only_second_at_least,
            "undecided": self.pairs.only_first_at_most - self.pairs.only_first_at_least
            + self.pairs.only_second_at_most - self.pairs.only_second_at_least,
            "p_value": self.p_value,
            "difference": [self.difference.lower, self.difference.upper],
        }


def dependence(first: Sequence[Labelled], second: Sequence[Labelled], alpha: float) -> list[Pairing]:
    """One Pairing a class, then all classes together.

    All together, the test asks whether both fail equally often in every class, and the interval is for the mean over
    classes: counts are sums with probabilities of their own, whose tails are no heavier than binomial ones (Hoeffding
    1956). Raises UsageError unless classes and latents are the same.
    """
    if [one.label for one in first] != [one.label for one in second]:
        raise UsageError("both sets of generators need the same classes")
    for one, other in zip(first, second, strict=True):
        if not np.array_equal(one.latents, other.latents):
            raise UsageError(f"the generators of class {one.label} take different latents; the sizes must be equal")
    rows = [_pairing(one.label, [one], [other], alpha) for one, other in zip(first, second, strict=True)]
    return rows if len(rows) == 1 else [*rows, _pairing(None, first, second, alpha)]


def differing(rows: Sequence[Pairing], alpha: float) -> list[int]:
    """The classes in which the sets surely differ, all of them together at confidence 1 - alpha (Holm)."""
    classes = [row for row in rows if row.label is not None]
    kept = holm([row.p_value for row in classes], alpha)
    return [row.label for row, holds in zip(classes, kept, strict=True) if holds]


def _pairing(label: int | None, first: Sequence[Labelled], second: Sequence[Labelled], alpha: float) -> Pairing:
    answers = [
        Answers(np.concatenate([~one.right for one in half]), np.concatenate([one.wrong for one in half]))
        for half in (first, second)
    ]
    pairs = discordant(*answers)
    swapped = discordant(*reversed(answers))
    p_value = min(1.0, 2.0 * min(fails_less(pairs), fails_less(swapped)))
    wrong = tuple(int(np.sum(half.violated)) for half in answers)
    return Pairing(label, wrong, pairs, p_value, difference(pairs, alpha))
