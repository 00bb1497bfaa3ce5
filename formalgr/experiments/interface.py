"""The experiments from Python, as formalgr.experiments: plain values in, the frozen results of the rooms out.

In: Study, numbers. Out: Correctness, Share, Outlier, Walk, Movement, Pairing, FgsmScore, Comparison, ClassAttack.
Trust: sound (the rooms decide). Every function draws the same latents for the same seed. Where it takes
`timeout_seconds`, it answers from what is whole by then (fewer classes, or fewer samples of one) or raises OutOfTime.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from formalgr.attacks.base import Attack
from formalgr.attacks.gradient import PgdAttack
from formalgr.core.budget import Budget
from formalgr.core.progress import Progress, Tick, silent
from formalgr.experiments.attacking import ClassAttack, Hunt, attack_class
from formalgr.experiments.confidence import Share, above_levels
from formalgr.experiments.continuity import Movement, movement
from formalgr.experiments.correctness import Correctness, correctness
from formalgr.experiments.datasets import read_pictures
from formalgr.experiments.dependence import Pairing, dependence
from formalgr.experiments.fgsm import FgsmScore, steps
from formalgr.experiments.labelled import Labelled, equally_many, level, sampled_alike
from formalgr.experiments.outliers import Outlier, outliers
from formalgr.experiments.table import Column, Comparison, changes, comparisons, generated
from formalgr.experiments.walk import Walk, WalkOptions, walk
from formalgr.global_robustness.study import Study
from formalgr.graph.network import Network


def within(budget: Budget, progress: Progress = silent) -> Progress:
    """The progress callback that also raises OutOfTime once the budget is spent."""

    def tick(state: Tick) -> None:
        progress(state)
        budget.check()

    return tick


def samples_of(
    study: Study, samples: int, *, seed: int = 0, progress: Progress = silent, timeout_seconds: float = float("inf")
) -> list[Labelled]:
    """The first samples of every class, right, wrong or undecided: what most functions below are made of."""
    return _alike([study], samples, seed, progress, timeout_seconds)[0]


def _alike(
    studies: Sequence[Study],
    samples: int,
    seed: int,
    progress: Progress = silent,
    timeout_seconds: float = float("inf"),
) -> list[list[Labelled]]:
    return sampled_alike(studies, samples, seed, within(Budget(timeout_seconds), progress))


def global_correctness(
    study: Study, *, samples: int = 10_000, delta: float = 0.05, alpha: float = 1e-3, seed: int = 0, **how
) -> Correctness:
    """Def. 1 for every class, with exact bounds at confidence 1 - alpha each; keywords as `samples_of`."""
    found = samples_of(study, samples, seed=seed, **how)
    return correctness(found, delta, level(alpha, samples, "timeout_seconds" in how), len(study.classes))


def confidence_shares(
    study: Study, *, samples: int = 10_000, alpha: float = 1e-3, seed: int = 0, **how
) -> dict[int, tuple[Share, ...]]:
    """By class the shares of samples whose confidence exceeds .9, .97 and .99; keywords as `samples_of`."""
    each = level(alpha, samples, "timeout_seconds" in how)
    return {one.label: above_levels(one, each) for one in samples_of(study, samples, seed=seed, **how)}


def misclassified(study: Study, *, samples: int = 10_000, seed: int = 0, **how) -> list[Outlier]:
    """All wrong samples, the least confident in their own class first; keywords as `samples_of`."""
    return outliers(samples_of(study, samples, seed=seed, **how))


def random_walk(study: Study, label: int, *, seed: int = 0, **how) -> Walk | None:
    """A walk through the latent space of one class; keywords as WalkOptions. None without a confident start."""
    return walk(study, label, seed, WalkOptions(**how))


def generator_movement(generator: Network, latents: np.ndarray, epsilon: str | float | Fraction) -> Movement:
    """Brackets of how far a picture moves while its latent (n, latent) moves by up to epsilon, certified above."""
    exact = epsilon if isinstance(epsilon, (str, Fraction)) else repr(float(epsilon))
    return movement(generator.graph, np.atleast_2d(latents), exact)


def generator_dependence(
    first: Study, second: Study, *, samples: int = 5000, alpha: float = 1e-3, seed: int = 0, **how
) -> list[Pairing]:
    """Two sets of generators on the same latents: a row a class, then all together; keywords as `samples_of`."""
    both = _alike([first, second], samples, seed, **how)
    return dependence(*map(equally_many, both), level(alpha, samples, "timeout_seconds" in how))


def classifier_table(
    studies: Mapping[str, Mapping[str, Study]], *, samples: int = 1000, alpha: float = 1e-3, seed: int = 0, **how
) -> tuple[list[Column], list[Comparison]]:
    """Columns and tested differences for studies by set of generators and by classifier; keywords as `samples_of`.

    Differences between classifiers in each column, then those between the first two columns.
    """
    every = _alike([study for mine in studies.values() for study in mine.values()], samples, seed, **how)
    labelled, each = map(equally_many, every), level(alpha, samples, "timeout_seconds" in how)
    columns = [generated(name, {key: next(labelled) for key in mine}) for name, mine in studies.items()]
    found = [one for column in columns for one in comparisons(column, each)]
    return columns, found + (changes(*columns[:2], each) if len(columns) > 1 else [])


def fgsm_scores(
    classifier: Network, pictures: str | Path, epsilons: Sequence[float], *, number: int = 1000, **how
) -> list[FgsmScore]:
    """How many test pictures survive one sign step of each size; keywords: seed, alpha, largest (value of white)."""
    seed, alpha, largest = how.pop("seed", 0), how.pop("alpha", 1e-3), how.pop("largest", 255.0)
    if how:
        raise TypeError(f"fgsm_scores has no option {next(iter(how))!r}; its keywords are number, seed, alpha, largest")
    taken = steps(classifier, read_pictures(Path(pictures), largest=largest).drawn(number, seed))
    return [taken.score(epsilon, alpha) for epsilon in epsilons]


def adversarial_pairs(
    study: Study,
    epsilon: str | float | Fraction,
    *,
    attack: Attack | None = None,
    samples: int = 200,
    timeout_seconds: float = float("inf"),
    **how,
) -> list[ClassAttack]:
    """Replayed realistic adversarial pairs of every class, as many as time allows; keywords as Hunt."""
    exact = epsilon if isinstance(epsilon, (str, Fraction)) else repr(float(epsilon))
    hunt, budget = Hunt(attack=attack or PgdAttack(), epsilon=exact, samples=samples, **how), Budget(timeout_seconds)
    return [attack_class(study, label, hunt, budget) for label in study.classes]
