"""Proven latent mass as JSON, tables and sentences; printed bounds are rounded outward.

In: LatentMass. Out: documents, text. Trust: sound (they repeat what was proven, and at which confidence).
"""

from rich import box
from rich.table import Table
from rich.text import Text

from formalgr.core.verdict import Semantics
from formalgr.global_robustness.latent_mass import ClassMass, LatentMass
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.report.certificate import GLOBAL
from formalgr.report.json import Provenance
from formalgr.report.sentences import percent
from formalgr.report.text import COLOURS, bounds_text, rounded_down, rounded_up
from formalgr.report.words import GUARANTEES, MEANINGS


def mass_document(result: LatentMass, provenance: Provenance, pictures: dict[int, str]) -> dict:
    """The bounds (schema formalgr.global/1 with a `mode`); alpha and confidence are null where nothing was sampled.

    pictures: files of the latent plane by class.
    """
    return {
        "schema": GLOBAL,
        "mode": "mass" if result.alpha is None else "hybrid",
        "verdict": None if result.verdict is None else result.verdict.value,
        "epsilon": float(result.epsilon),
        "epsilon_exact": str(result.epsilon),
        "delta": result.delta,
        "alpha": result.alpha,
        "confidence": None if result.alpha is None else 1.0 - result.alpha,
        "guarantee": GUARANTEES[result.guarantee],
        "semantics": Semantics.REAL.value,
        "why": why_undecided(result),
        "classes": [{**_class(one), "picture": pictures.get(one.label)} for one in result.classes],
        "seconds": {"total": provenance.seconds},
        "frontier": [_curve(one) for one in result.classes if one.curve],
        "notes": list(result.notes),
        **provenance.keys(),
    }


def _curve(one: ClassMass) -> dict:
    """Proven bounds at several radii."""
    radii, lower, upper = zip(*one.curve, strict=True)
    return {"class": one.label, "epsilon": [float(r) for r in radii], "lower": list(lower), "upper": list(upper)}


def _class(one: ClassMass) -> dict:
    regions, drawn = one.found.regions, one.drawn
    counts = None if drawn is None else drawn.counts
    names = ("samples", "robust", "violated", "unknown", "misclassified")
    return {
        "class": one.label,
        **{name: 0 if counts is None else getattr(counts, name) for name in names},
        "delta_lower": one.lower,
        "delta_upper": one.upper,
        "verdict": None if one.verdict is None else one.verdict.value,
        "failing_mass": one.found.failing.lower,
        "robust_mass": one.found.robust.lower,
        "open_mass": one.found.open_.upper,
        "gap": one.upper - one.lower,
        "boxes": {
            "bounded": one.bounded,
            "failing": len(regions.failing),
            "robust": len(regions.robust),
            "open": len(regions.open_),
        },
        "latents_sha256": None if drawn is None else drawn.latents_sha256,
        "seconds": one.seconds,
    }


def mass_table(result: LatentMass) -> Table:
    """One row a class: the masses that are proven, the bounds of F(eps) and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    names = ["class", "failing\nmass", "robust\nmass", "open\nmass"]
    if result.alpha is not None:
        names += ["violated/\nunknown/n"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bounds on\nF(epsilon)", justify="center", no_wrap=True)
    if result.delta is not None:
        table.add_column("verdict", no_wrap=True)
    for one in result.classes:
        found, cells = one.found, []
        masses = rounded_down(found.failing.lower, 5), rounded_down(found.robust.lower, 5)
        if one.drawn is not None:
            counts = one.drawn.counts
            cells = [f"{counts.violated}/{counts.unknown}/{counts.samples}"]
        cells.append(bounds_text(one.lower, one.upper, 5))
        if one.verdict is not None:
            cells.append(Text(one.verdict.value, style=COLOURS[one.verdict]))
        table.add_row(str(one.label), *masses, rounded_up(found.open_.upper, 5), *cells)
    return table


def mass_sentences(result: LatentMass) -> list[str]:
    """What the numbers mean, the verdict first where there is one."""
    told = []
    if result.verdict is not None:
        told.append(_verdict(result))
    if result.alpha is None:
        told.append(
            "No sampling, no confidence level: every latent in the masses above was proven to fail or to be robust, "
            "and the rest counts for both sides."
        )
    else:
        told.append(
            f"Each bound holds at confidence {percent(1.0 - result.alpha)}: the samples were drawn from the open mass "
            "alone, after the regions were fixed."
        )
    level = result.guarantee
    told.append(f"Proofs: {GUARANTEES[level]} or stronger ({MEANINGS[level]}); semantics: {Semantics.REAL.value}.")
    return told


def _verdict(result: LatentMass) -> str:
    how = "without sampling" if result.alpha is None else f"at confidence {percent(1.0 - result.alpha)}"
    head, epsilon = f"{result.verdict.value.upper()} {how}", f"{float(result.epsilon):.10g}"
    if result.verdict is GlobalVerdict.CERTIFIED:
        return (
            f"{head}: of what each generator produces, at least {percent(1.0 - result.delta)} is classified correctly, "
            f"and stays so wherever the latent moves by up to {epsilon}."
        )
    if result.verdict is GlobalVerdict.REFUTED:
        labels = [str(one.label) for one in result.classes if one.verdict is GlobalVerdict.REFUTED]
        return (
            f"{head}: more than {percent(result.delta)} of what the generator produces is misclassified somewhere "
            f"within {epsilon} of its latent, for class {', '.join(labels)}."
        )
    return f"{head}: {why_undecided(result)}."


def why_undecided(result: LatentMass) -> str | None:
    """Why the verdict is undecided, and the way out; None where it is not."""
    if result.verdict is not GlobalVerdict.UNDECIDED:
        return None
    labels = [str(one.label) for one in result.classes if one.verdict is GlobalVerdict.UNDECIDED]
    way = "more time narrows them" if result.alpha is None else "more time or more samples narrow them"
    return f"delta = {result.delta:.10g} lies within the bounds of class {', '.join(labels)}; {way}"
