"""Several classifiers on several sets of generators and on test pictures: shares, bounds, and which differences hold.

In: studies on the same latents, labelled pictures. Out: Column, Comparison. Trust: sound at the stated confidence for
generated pictures (labels as experiments/labelled); for test pictures labels are those of float64 evaluation.

Fijalkow & Gupta 2019, section 4: eight classifiers by two generators and the test set, ordered without a test. Here
every pair of a column is compared on the same pictures (McNemar, exact), every classifier on both sets of generators
with the same latents, and the p-values of a family are corrected together (Holm). What the paper concludes from its
table is then confirmed, refuted or left open by these tests.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from formalgr.experiments.confidence import Share, share
from formalgr.experiments.datasets import Pictures
from formalgr.experiments.labelled import Labelled, evaluate
from formalgr.global_robustness.compare import Answers, difference, discordant, fails_less
from formalgr.global_robustness.frontier import Interval
from formalgr.global_robustness.multiplicity import holm
from formalgr.graph.network import Network


@dataclass(frozen=True)
class Column:
    """What is known of every classifier on the same pictures: `answers` by classifier, `name` of the pictures."""

    name: str
    answers: Mapping[str, Answers]

    def right(self, classifier: str, alpha: float) -> Share:
        """The share that is classified right: unknowns are not counted, in the upper bound they are.

        Over several classes the bounds are those of the mean (Hoeffding 1956, as experiments/dependence).
        """
        answers = self.answers[classifier]
        samples = answers.violated.size
        surely, perhaps = samples - int(np.sum(answers.not_proven)), samples - int(np.sum(answers.violated))
        return Share(surely, samples, share(surely, samples, alpha).lower, share(perhaps, samples, alpha).upper)


@dataclass(frozen=True)
class Comparison:
    """`better` is wrong less often than `worse` in a column: p-value, and whether it holds after Holm.

    Classifiers on a column's pictures; or columns, `column` being the classifier.

    difference: P(worse wrong) - P(better wrong) at confidence 1 - alpha, for this pair alone.
    """

    column: str
    better: str
    worse: str
    p_value: float
    holds: bool
    difference: Interval

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "column": self.column,
            "better": self.better,
            "worse": self.worse,
            "p_value": self.p_value,
            "holds": self.holds,
            "difference": [self.difference.lower, self.difference.upper],
        }


def generated(name: str, samples: Mapping[str, Sequence[Labelled]]) -> Column:
    """The column of one set of generators from the labelled samples of every classifier."""
    answers = {
        classifier: Answers(
            np.concatenate([~one.right for one in mine]), np.concatenate([one.wrong for one in mine])
        )
        for classifier, mine in samples.items()
    }
    return Column(name, answers)


def on_pictures(name: str, networks: Mapping[str, Network], pictures: Pictures, rule: str) -> Column:
    """The column of test pictures; a tie is wrong. Raises InputError when the pictures do not fit a classifier."""
    answers = {}
    for classifier, network in networks.items():
        pictures.check(network)
        scores = evaluate(network, pictures.pixels)
        scores = scores if rule == "argmax" else -scores
        own = scores[np.arange(len(scores)), pictures.labels]
        wrong = np.sum(scores >= own[:, None], axis=1) > 1
        answers[classifier] = Answers(wrong, wrong)
    return Column(name, answers)


def comparisons(column: Column, alpha: float) -> list[Comparison]:
    """Every pair of classifiers, the one that looks better first; what holds holds at confidence 1 - alpha together.

    With several classes the hypothesis is that both fail equally often in every class.
    """
    return _compared([(column.name, dict(pair)) for pair in combinations(column.answers.items(), 2)], alpha)


def changes(first: Column, second: Column, alpha: float) -> list[Comparison]:
    """Every classifier on two sets of generators, with the same latents; as `comparisons`."""
    return _compared(
        [(name, {first.name: mine, second.name: second.answers[name]}) for name, mine in first.answers.items()], alpha
    )


def _compared(pairs: Sequence[tuple[str, Mapping[str, Answers]]], alpha: float) -> list[Comparison]:
    """A comparison for each pair of names with their answers."""
    found = []
    for where, answers in pairs:
        names = tuple(answers)
        p_values = [fails_less(discordant(*(answers[name] for name in order))) for order in (names, names[::-1])]
        better, worse = names if p_values[0] <= p_values[1] else names[::-1]
        gap = difference(discordant(answers[worse], answers[better]), alpha)
        found.append((where, better, worse, min(1.0, 2.0 * min(p_values)), gap))
    kept = holm([one[3] for one in found], alpha)
    return [
        Comparison(where, better, worse, p, holds, gap)
        for (where, better, worse, p, gap), holds in zip(found, kept, strict=True)
    ]


class Finding(enum.Enum):
    """What the tests say of a claim: shown, its opposite shown, some of both, or neither."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    MIXED = "mixed"
    OPEN = "open"


@dataclass(frozen=True)
class Claim:
    """A conclusion of the paper: of `of` tests that bear on it `confirm` hold in its direction, `oppose` in the other.

    Confirmed: some hold for it and none against it.
    """

    text: str
    confirm: int
    oppose: int
    of: int

    @property
    def finding(self) -> Finding:
        """What follows."""
        if self.confirm and self.oppose:
            return Finding.MIXED
        return Finding.CONFIRMED if self.confirm else Finding.REFUTED if self.oppose else Finding.OPEN

    def to_json(self) -> dict:
        """Plain values."""
        tests = {"confirm": self.confirm, "oppose": self.oppose, "tests": self.of}
        return {"claim": self.text, "finding": self.finding.value, **tests}


def separation(column: Column, compared: Sequence[Comparison], apart: bool = True) -> Claim:
    """The claim that a column tells the classifiers apart, confirmed by one difference; or that it does not, which one
    difference refutes and no test confirms.
    """
    held = sum(one.holds for one in compared)
    text = f"{column.name} {'tells' if apart else 'does not tell'} the classifiers apart"
    return Claim(text, held if apart else 0, 0 if apart else held, len(compared))


def harder(first: Column, second: Column, compared: Sequence[Comparison], classifiers: Sequence[str]) -> Claim:
    """The claim that these classifiers are wrong more often on the second set than on the first (of `changes`)."""
    mine = [one for one in compared if one.column in classifiers and one.holds]
    confirm = sum(one.better == first.name for one in mine)
    text = f"{second.name} is harder than {first.name} for classifiers trained without augmentation"
    return Claim(text, confirm, len(mine) - confirm, sum(one.column in classifiers for one in compared))


def helped(column: Column, compared: Sequence[Comparison], pairs: Sequence[tuple[str, str]]) -> Claim:
    """The claim that of every (augmented, standard) pair of classifiers the first is wrong less often in the column."""
    tested = [one for one in compared if {one.better, one.worse} in [set(pair) for pair in pairs]]
    confirm = sum(one.holds and (one.better, one.worse) in pairs for one in tested)
    oppose = sum(one.holds for one in tested) - confirm
    return Claim(f"training with augmentation helps on {column.name}", confirm, oppose, len(tested))
