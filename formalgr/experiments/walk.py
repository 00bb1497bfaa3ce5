"""Random walk through the latent space (Fijalkow & Gupta 2019, section 4): does the classifier stay sure of the class?

In: Study, class. Out: Walk. Trust: sound for right and wrong (as experiments/labelled); confidences are plain float64.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.errors import UsageError
from formalgr.core.seeds import named_generator
from formalgr.experiments.labelled import Labelled, evaluate, labelled
from formalgr.global_robustness.study import Study


@dataclass(frozen=True, kw_only=True)
class WalkOptions:
    """z <- clip(z + N(0, deviation^2 I), -bound, bound), `steps` times; `confidence` is what the start must exceed.

    The start is the first of `tries` samples, clipped, that is right and confident.
    """

    steps: int = 160
    deviation: float = 0.2
    bound: float = 1.0
    confidence: float = 0.95
    tries: int = 1000

    def __post_init__(self):
        if self.steps < 1 or self.tries < 1 or not self.bound > 0.0 or not self.deviation >= 0.0:
            raise UsageError("a walk needs steps and tries >= 1, a bound > 0 and a deviation >= 0")


@dataclass(frozen=True)
class Walk:
    """The places of one class's walk, labelled, start first; images (steps + 1, *generator output).

    `start` is the index of the sample that it began at.
    """

    start: int
    places: Labelled
    images: np.ndarray

    @property
    def first_wrong(self) -> int | None:
        """The first step at which the label is wrong."""
        wrong = np.nonzero(self.places.wrong)[0]
        return int(wrong[0]) if wrong.size else None


def walk(study: Study, label: int, seed: int, options: WalkOptions) -> Walk | None:
    """The walk of one class; None when no sample is confident enough to start from."""
    tried = np.clip(study.prior(label).sample(seed, label, 0, options.tries), -options.bound, options.bound)
    starts = labelled(study, label, tried)
    fit = np.nonzero(starts.right & (starts.confidences > options.confidence))[0]
    if not fit.size:
        return None
    random = named_generator(seed, f"walk {label}")
    latents = [tried[fit[0]].astype(np.float64)]
    for _ in range(options.steps):
        moved = latents[-1] + options.deviation * random.standard_normal(latents[0].size, dtype=np.float64)
        latents.append(np.clip(moved, -options.bound, options.bound))
    places = labelled(study, label, np.array(latents, dtype=np.float32))
    generator = study.generator_network(label)
    images = evaluate(generator, places.latents).reshape(-1, *generator.graph.output_shape)
    return Walk(int(fit[0]), places, images)
