"""Proven Gaussian mass: m_F <= F(eps) <= 1 - m_R without any sample, for generators of few latents.

In: Study, eps. Out: LatentMass. Trust: sound, at level float-sound; there is no confidence level at all.

One partition of the latent space (partition.py) serves every eps: latents within eps of what is proven wrong fail,
those farther than eps from what is not proven right are robust (cover.py); their masses are rounded outward (mass.py).
The rest is narrowed where it is largest: sampled points of it vote for the open boxes within eps of them.
"""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from formalgr import __version__
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.documents import Documented
from formalgr.core.errors import UsageError
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Guarantee
from formalgr.global_robustness.binomial import check_delta
from formalgr.global_robustness.frontier import Counts
from formalgr.global_robustness.judge import BoxJudge
from formalgr.global_robustness.mass import HALF_WIDTH, Measure
from formalgr.global_robustness.multiplicity import GlobalVerdict, overall
from formalgr.global_robustness.partition import Partition
from formalgr.global_robustness.regions import Measured, measured, votes
from formalgr.global_robustness.study import Study
from formalgr.runs.ledger import NAME, Ledger
from formalgr.search.bab import BranchOptions
from formalgr.spec.robustness import radius_of

MOST_LATENTS = 4
"""Beyond, boxes are too many: for a gap of .01 a half-space takes about 15, 10^3, 10^5 of them at p = 1, 2, 3."""

GROWTH, FEWEST = 1.5, 64
"""The gap is measured again when so many times the boxes have been bounded, and so many at least."""


@dataclass(frozen=True, kw_only=True)
class MassOptions:
    """How far to go: until upper - lower <= gap, or the claim is decided where only `delta` is given.

    `directory` keeps the partition, whatever eps is, so that a later run goes on from it. `radii`: bounds at these eps
    too, from the partition as it is in the end. Raises UsageError on a negative gap or a radius outside [0, 8).
    """

    gap: float | None = None
    delta: float | None = None
    directory: Path | None = None
    radii: Sequence[float | str | Fraction] = ()
    branch: BranchOptions = field(default_factory=BranchOptions)
    save_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.gap is not None and not self.gap >= 0.0:
            raise UsageError(f"gap must be >= 0, got {self.gap}")
        if self.delta is not None:
            check_delta(self.delta)
        object.__setattr__(self, "radii", tuple(sorted(map(mass_radius, self.radii))))

    def enough(self, found: Measured) -> bool:
        """Whether the bounds are as narrow as asked for."""
        if self.gap is None and self.delta is not None:
            return verdict_of(found.lower, found.upper, self.delta) is not GlobalVerdict.UNDECIDED
        return found.gap <= (DEFAULT_GAP if self.gap is None else self.gap)


DEFAULT_GAP = 1e-3
"""Where neither a gap nor a delta is asked for."""


def verdict_of(lower: float, upper: float, delta: float) -> GlobalVerdict:
    """CERTIFIED iff the upper bound of F(eps) is <= delta, REFUTED iff the lower one is > delta."""
    if upper <= delta:
        return GlobalVerdict.CERTIFIED
    return GlobalVerdict.REFUTED if lower > delta else GlobalVerdict.UNDECIDED


@dataclass(frozen=True)
class ClassMass:
    """lower <= F(eps) <= upper for one class: proven, or with `drawn` each at confidence 1 - alpha.

    `bounded` counts the boxes that this run bounded, `why` says how; `verdict` is None without a delta. `curve`:
    (eps, lower, upper), all proven, by rising eps; between two of them F lies between the first's lower and the
    second's upper bound.
    """

    label: int
    found: Measured
    lower: float
    upper: float
    verdict: GlobalVerdict | None
    bounded: int
    seconds: float
    why: str
    curve: tuple[tuple[Fraction, float, float], ...] = ()
    drawn: "Drawn | None" = None


@dataclass(frozen=True)
class Drawn:
    """What the local checks said of samples that were drawn from the open regions (hybrid.py)."""

    counts: Counts
    guarantee: Guarantee
    latents_sha256: str


@dataclass(frozen=True)
class LatentMass(Documented):
    """Bounds of F(eps) for every class; `verdict` is None where no delta was asked about.

    `alpha` is None where nothing was sampled: then there is no confidence level. `guarantee` is the weakest level of
    the proofs, which speak of real numbers.
    """

    epsilon: Fraction
    delta: float | None
    alpha: float | None
    verdict: GlobalVerdict | None
    guarantee: Guarantee
    classes: tuple[ClassMass, ...]
    sources: tuple
    notes: tuple[str, ...]


def latent_mass(
    study: Study,
    epsilon: float | str | Fraction,
    options: MassOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> LatentMass:
    """m_F <= F_c(eps) <= 1 - m_R for every class c, for generators of at most four latents; nothing is sampled.

    A spent budget leaves wider bounds, which are as true. Raises UsageError on eps outside [0, 8), on more latents.
    """
    options, budget, radius = options or MassOptions(), budget or Budget(), mass_radius(epsilon)
    study.check()
    for label in study.classes:
        latents = study.prior(label).latent
        if latents > MOST_LATENTS:
            raise UsageError(
                f"the generator of class {label} has {latents} latents, and boxes cover at most {MOST_LATENTS}; "
                "use --hybrid, or sampling alone"
            )
    with open_partitions(study, options.directory) as ledger:
        classes = []
        for place, label in enumerate(study.classes):
            share = budget.within(budget.remaining / (len(study.classes) - place))
            search = Search(study, label, radius, options, ledger)
            classes.append(search.run(share, progress))
    return conclusion(study, radius, options.delta, None, classes)


def conclusion(
    study: Study, epsilon: Fraction, delta: float | None, alpha: float | None, classes: Sequence[ClassMass]
) -> LatentMass:
    """The result of all classes."""
    sources = {source for label in study.classes for source in study.composed(label).sources}
    return LatentMass(
        epsilon,
        delta,
        alpha,
        None if delta is None else overall([one.verdict for one in classes]),
        min([Guarantee.FLOAT_SOUND, *(one.drawn.guarantee for one in classes if one.drawn is not None)]),
        tuple(classes),
        tuple(sorted(sources, key=lambda source: source.path)),
        tuple(sorted({note for label in study.classes for note in study.composed(label).notes})),
    )


def mass_radius(epsilon: float | str | Fraction) -> Fraction:
    """The radius as a rational. Raises UsageError unless it is in [0, 8)."""
    radius = radius_of(epsilon)
    if not radius < HALF_WIDTH:
        raise UsageError(f"epsilon must be below {HALF_WIDTH} for proven mass, got {epsilon}")
    return radius


KIND = "partition"


@contextmanager
def open_partitions(study: Study, directory: Path | None) -> Iterator[Ledger | None]:
    """The ledger of a study's partitions: they depend on the networks alone."""
    if directory is None:
        yield None
        return
    Path(directory).mkdir(parents=True, exist_ok=True)
    settings = {
        "formalgr": __version__,
        "question": "latent partition",
        "networks": {str(k): [source.sha256 for source in study.composed(k).sources] for k in study.classes},
        "between": study.between,
        "label rule": study.label_rule,
        "one-hot": study.one_hot,
        "prior": study.latent_prior,
    }
    with Ledger(Path(directory) / NAME, settings) as ledger:
        yield ledger


def packed(array: np.ndarray) -> dict:
    """An array as JSON: little-endian float64 in base 64."""
    return {"shape": list(array.shape), "data": base64.b64encode(array.astype("<f8").tobytes()).decode("ascii")}


def unpacked(body: dict) -> np.ndarray:
    """The array that `packed` wrote."""
    return np.frombuffer(base64.b64decode(body["data"]), dtype="<f8").astype(np.float64).reshape(body["shape"])


class Search:
    """The partition of one class, refined until its bounds are as narrow as asked for."""

    def __init__(self, study: Study, label: int, epsilon: Fraction, options: MassOptions, ledger: Ledger | None):
        self.label, self.epsilon, self.options, self.ledger = label, epsilon, options, ledger
        judge = BoxJudge(study.composed(label).graph, study.unsafe(label), options.branch)
        self.partition = Partition(judge, Measure(study.prior(label)), options.branch)
        self.random = named_generator(0, "votes")
        stored = None if ledger is None else ledger.get(KIND, str(label))
        if stored is not None:
            boxes = (Box(*unpacked(stored[name])) for name in ("right", "wrong", "open"))
            self.partition.restore(*boxes, unpacked(stored["points"]))

    def run(self, budget: Budget, progress: Progress) -> ClassMass:
        """Refine and measure by turns; the partition is saved even where the run is interrupted."""
        try:
            found = self._narrow(budget.within(0.5 * budget.remaining) if self.options.radii else budget, progress)
        finally:
            self.save()
        curve = self._curve(found, budget)
        verdict = None if self.options.delta is None else verdict_of(found.lower, found.upper, self.options.delta)
        work = self.partition.bounded, budget.elapsed, self.partition.why
        return ClassMass(self.label, found, found.lower, found.upper, verdict, *work, curve)

    def _curve(self, found: Measured, budget: Budget) -> tuple[tuple[Fraction, float, float], ...]:
        """Bounds at the radii that time allows, made monotone, for F is."""
        if not self.options.radii:
            return ()
        points = [found]
        for radius in self.options.radii:
            if radius != found.epsilon and not budget.expired:
                points.append(measured(self.partition, radius))
        points.sort(key=lambda point: point.epsilon)
        lower = np.maximum.accumulate([point.lower for point in points])
        upper = np.minimum.accumulate([point.upper for point in points[::-1]])[::-1]
        return tuple(zip([point.epsilon for point in points], lower.tolist(), upper.tolist(), strict=True))

    def _narrow(self, budget: Budget, progress: Progress) -> Measured:
        saved, cost = budget.elapsed, 0.0
        while True:
            started, fresh = budget.elapsed, not self.partition.bounded
            found = measured(self.partition, self.epsilon)
            cost = 0.0 if fresh else budget.elapsed - started  # the first one has packages to import
            progress(Tick("latent mass", 1, note=self._note(found)))
            if self.options.enough(found) or self._over or budget.expired or budget.remaining < 2.0 * cost:
                return found
            if budget.elapsed - saved > self.options.save_seconds:
                self.save()
                saved = budget.elapsed
            if self.epsilon and self.partition.measure.prior.latent <= MOST_LATENTS:
                self.partition.weigh(votes(self.partition, found, self.random))
            goal = max(GROWTH * self.partition.bounded, self.partition.bounded + FEWEST)
            # the next measurement takes longer, and must end in time
            while self.partition.bounded < goal and not self._over and budget.remaining > 2.0 * cost:
                self.partition.refine()

    @property
    def _over(self) -> bool:
        """Whether no box can be cut, or the limit on boxes is reached."""
        return self.partition.finished or self.partition.bounded >= self.options.branch.branches_per_query

    def _note(self, found: Measured) -> str:
        bounds = f"{found.lower:.6f} <= F <= {found.upper:.6f}, gap {found.gap:.2g}"
        return f"class {self.label}: {bounds}, {self.partition.bounded:,} boxes bounded"

    def save(self) -> None:
        """Keep the partition in the ledger."""
        if self.ledger is not None:
            parts = {"right": self.partition.right, "wrong": self.partition.wrong, "open": self.partition.open_}
            body = {name: packed(np.stack([box.lower, box.upper])) for name, box in parts.items()}
            self.ledger.put(KIND, {str(self.label): {**body, "points": packed(self.partition.points)}})
