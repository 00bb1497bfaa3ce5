"""Certificates of frontiers: brackets, the band and what makes it valid; and the check that recomputes them.

In: StudyFrontier; bytes. Out: bytes; what is proven. Trust: as global_certificate: latents are drawn again, every
counterexample is at its distance and replayed, the level of the band is proven in ball arithmetic; proven radii are
taken over.
"""

from fractions import Fraction

import numpy as np

from formalgr.core.decimals import written
from formalgr.core.errors import Refused
from formalgr.core.verdict import Guarantee
from formalgr.global_robustness.band import CountBounds, Rule
from formalgr.global_robustness.binomial import check_alpha
from formalgr.global_robustness.curves import ClassFrontier, StudyFrontier, side_alpha
from formalgr.global_robustness.frontier import Brackets, Frontier
from formalgr.global_robustness.recheck import band_holds
from formalgr.report.signed import (
    LEVELS,
    MALFORMED,
    assumed,
    latents_of,
    lines_of,
    networks_line,
    replay,
    require,
    signed,
    study_named,
)
from formalgr.report.words import GUARANTEES

SCHEMA = "formalgr.frontier-certificate/1"


def frontier_certificate(result: StudyFrontier) -> bytes:
    """The certificate as a file; the band's bounds by number of failures stand in one line for all classes."""
    options, study = result.options, result.study
    head = {
        "schema": SCHEMA,
        "max_epsilon": str(result.max_epsilon),
        "alpha": result.alpha,
        "classifiers": options.classifiers,
        "samples": options.samples,
        "seed": options.seed,
        "guarantee": GUARANTEES[result.guarantee],
        "classes": list(study.classes),
    }
    bounds = result.classes[0].band.bounds
    band = {"upper": bounds.upper.tolist(), "lower": bounds.lower.tolist()}
    return signed([head, networks_line(study), band, *(_class_line(one, result) for one in result.classes)])


def _class_line(one: ClassFrontier, result: StudyFrontier) -> dict:
    mean = one.band.mean()
    return {
        "class": one.label,
        "latent": result.study.prior(one.label).latent,
        "latents_sha256": one.latents_sha256,
        "lower": [str(record.lower) for record in one.records],
        "upper": [None if record.upper is None else str(record.upper) for record in one.records],
        "points": [None if record.point is None else [str(x) for x in record.point] for record in one.records],
        "levels": "".join(LEVELS[record.guarantee] for record in one.records),
        "at_cap": [one.band.lower(result.max_epsilon), one.band.upper(result.max_epsilon)],
        "mean": [mean.lower, mean.upper],
    }


def check_frontier(data: bytes) -> tuple[str, str]:
    """(what is proven, what is taken over). Raises Refused, saying what is wrong, where anything does not fit."""
    try:
        head, networks, band, *classes = lines_of(data)
        check_alpha(head["alpha"])
        require([line["class"] for line in classes] == head["classes"], "a class is missing or out of order")
        side = side_alpha(head["alpha"], head["classifiers"], len(classes))
        upper, lower = (np.array(band[name], dtype=np.float64) for name in ("upper", "lower"))
        require(upper.shape == lower.shape == (head["samples"] + 1,), "the band is of another number of samples")
        bounds = CountBounds(Rule.BAND, head["samples"], side, side, upper, lower)
        require(band_holds(bounds, side), "the level of the band is not proven")
        points = {line["class"]: _checked(head, networks, line, bounds) for line in classes}
        levels = {mark for line in classes for mark in line["levels"]} - {"-"}
        weakest = min((level for level, mark in LEVELS.items() if mark in levels), default=Guarantee.NONE)
        require(head["guarantee"] == GUARANTEES[weakest], f"the weakest local proof is {GUARANTEES[weakest]}")
        replayed = replay(study_named(networks), head["seed"], points)
    except Refused:
        raise
    except MALFORMED as error:
        raise Refused(f"the certificate is malformed ({type(error).__name__}: {error})") from None
    return _sentence(head), assumed(head["guarantee"], replayed).replace("samples called robust were", "radii were")


def _checked(head: dict, networks: dict, line: dict, bounds: CountBounds) -> dict:
    """Latents, distances, brackets and what follows from them; the points to be replayed. Raises Refused."""
    who, number = f"class {line['class']}: ", head["samples"]
    latents = latents_of(networks, head, line, number)
    lower = list(map(written, line["lower"]))
    upper = [None if x is None else written(x) for x in line["upper"]]
    require(len(line["points"]) == len(line["levels"]) == len(lower) == number, who + "a sample is missing")
    points = {}
    for k, (point, radius) in enumerate(zip(line["points"], upper, strict=True)):
        require((point is None) == (radius is None), who + f"sample {k} has half a counterexample")
        require(line["levels"][k] != "-" or (point is None and lower[k] < 0), who + f"sample {k} has no level")
        if point is not None:
            latent = latents[k].tolist()
            distance = max(abs(written(x) - Fraction(z)) for x, z in zip(point, latent, strict=True))
            require(distance == radius, who + f"the counterexample of sample {k} lies at another distance")
            points[k] = (point, radius)
    cap = written(head["max_epsilon"])
    found = Frontier(Brackets.of(zip(lower, upper, strict=True), cap), bounds)
    mean = found.mean()
    stated = [*line["at_cap"], *line["mean"]]
    require(stated == [found.lower(cap), found.upper(cap), mean.lower, mean.upper], who + "other bounds")
    return points


def _sentence(head: dict) -> str:
    return (
        f"bounds of F(eps) for all eps up to {head['max_epsilon']} and {len(head['classes'])} classes at confidence "
        f"{1.0 - head['alpha']:.10g} from {head['samples']} brackets each; latents, distances and the band recomputed"
    )
