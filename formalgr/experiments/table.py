"""Several classifiers on several sets of generators and on test pictures: shares, bounds, and which differences hold.

In: studies on the same latents, labelled pictures. Out: Column, Comparison. Trust: sound at the stated confidence for
generated pictures (labels as experiments/labelled); for test pictures labels are those of float64 evaluation.

Fijalkow & Gupta 2019, section 4: eight classifiers by two generators and the test set, ordered without a test. Here
every pair of a column is compared on the same pictures (McNemar, exact) and the p-values of the column are corrected
together (Holm).
"""

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
    """`better` is wrong less often than `worse` on a column's pictures: p-value, and whether it holds after Holm.

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
    """The column of test pictures; a tie is wrong."""
    answers = {}
    for classifier, network in networks.items():
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
    found = []
    for pair in combinations(column.answers, 2):
        p_values = [fails_less(discordant(*(column.answers[name] for name in order))) for order in (pair, pair[::-1])]
        better, worse = pair if p_values[0] <= p_values[1] else pair[::-1]
        gap = difference(discordant(column.answers[worse], column.answers[better]), alpha)
        found.append((better, worse, min(1.0, 2.0 * min(p_values)), gap))
    kept = holm([one[2] for one in found], alpha)
    return [
        Comparison(column.name, better, worse, p, holds, gap)
        for (better, worse, p, gap), holds in zip(found, kept, strict=True)
    ]
