"""Realistic adversarial pairs of one class (Fijalkow & Gupta 2019, Def. 4): latents in batches, an attack, the replay.

In: Study, Hunt. Out: ClassAttack. Trust: sound for what is found (every pair ends in a replayed point within eps
of a latent that is surely classified right); finding nothing proves nothing.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.attacks.base import Attack
from formalgr.attacks.replay import Replayer
from formalgr.core.box import inward_float32
from formalgr.core.budget import Budget
from formalgr.core.seeds import named_generator
from formalgr.experiments.labelled import labelled
from formalgr.global_robustness.study import Study
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball, target_label

BATCH = 250
"""Samples attacked together: bounds the memory, and how late a limit is noticed."""


@dataclass(frozen=True, kw_only=True)
class Hunt:
    """What is looked for: z' within `epsilon` of z with another label, or with `target`; z must exceed `confidence`.

    `pairs`: how many are enough.
    """

    attack: Attack
    epsilon: str | Fraction
    samples: int
    seed: int = 0
    target: int | None = None
    confidence: float = 0.0
    pairs: float = float("inf")


@dataclass(frozen=True)
class ClassAttack:
    """What happened to one class: samples, wrong at their latent, tried, found (index, replayed point, confirmed).

    Samples that are right, but not confident enough, are not tried.
    """

    label: int
    samples: int
    wrong: int
    tried: int
    found: tuple
    seconds: float


def attack_class(study: Study, label: int, hunt: Hunt, budget: Budget) -> ClassAttack:
    """Attack the samples of one class in batches until they, the pairs or the time are enough."""
    network = study.composed(label)
    unsafe = study.unsafe(label)
    if hunt.target is not None:
        unsafe = target_label(hunt.target, network.scores, study.label_rule)
    replayer, random = Replayer(network), named_generator(hunt.seed, f"attack {label}")
    started, samples, wrong, tried = budget.elapsed, 0, 0, 0
    found: list[tuple[int, np.ndarray, bool | None]] = []
    for start in range(0, hunt.samples, BATCH):
        if budget.expired or len(found) >= hunt.pairs or label == hunt.target:
            break
        count = min(BATCH, hunt.samples - start)
        latents = study.prior(label).sample(hunt.seed, label, start, count)
        batch = labelled(study, label, latents)
        places = np.nonzero(batch.right & (batch.confidences >= hunt.confidence))[0]
        samples, wrong, tried = samples + count, wrong + int(np.sum(batch.wrong)), tried + len(places)
        if not len(places):
            continue
        queries = [Query(latent_ball(latents[k], hunt.epsilon), unsafe) for k in places]
        box = inward_float32([query.box for query in queries])
        candidates = hunt.attack.run(network.graph, box, unsafe, random, budget)
        for k in np.nonzero(candidates.excess <= 0.0)[0].tolist():
            replayed = replayer.replay(queries[k], candidates.points[k].tolist())
            if replayed is not None:
                found.append((start + int(places[k]), replayed.inputs, replayed.confirmed_float32))
    return ClassAttack(label, samples, wrong, tried, tuple(found), budget.elapsed - started)
