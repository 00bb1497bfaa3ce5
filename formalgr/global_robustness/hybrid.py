"""Proven regions and samples together: F(eps) <= m_F + u * q, q bounding how often latents of the open regions fail.

In: Study, eps, alpha. Out: LatentMass. Trust: sound at confidence 1 - alpha, as strong as the weakest local proof.

u is the mass of the open regions, m_F that of the failing ones, both rounded up (down in the lower bound). Regions and
the number of samples are fixed before the first sample is drawn; a ledger keeps the regions that were sampled, whatever
becomes of the partition later.

Masses are those of the prior itself, latents are float32 numbers computed in plain floats. So each latent stands for
an exact one that is proven to lie within `move` of it: robust is what is robust at eps + move, violated what is
violated at eps - move. Boxes are drawn with a chance that is their share of the open mass but for `imbalance`, which q
is moved by.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from formalgr.core.box import Box, outward
from formalgr.core.budget import Budget
from formalgr.core.errors import Refused, UsageError
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.rounding import UNIT_ROUNDOFF, nearest_down
from formalgr.core.seeds import sample_generator
from formalgr.core.verdict import Guarantee, Reason, Verdict
from formalgr.global_robustness.binomial import check_alpha
from formalgr.global_robustness.cover import Cover
from formalgr.global_robustness.frontier import Counts
from formalgr.global_robustness.latent_mass import (
    ClassMass,
    Drawn,
    LatentMass,
    MassOptions,
    Search,
    conclusion,
    mass_radius,
    open_partitions,
    packed,
    unpacked,
    verdict_of,
)
from formalgr.global_robustness.mass import Measure
from formalgr.global_robustness.multiplicity import refutation_alpha
from formalgr.global_robustness.prior import latents_sha256
from formalgr.global_robustness.regions import Measured, weighed
from formalgr.global_robustness.samples import (
    UNIT,
    SampleRecord,
    Unit,
    check_latents,
    surely_wrong,
    unfinished,
)
from formalgr.global_robustness.shift import rounding_of
from formalgr.global_robustness.study import Study
from formalgr.global_robustness.units import Work, within_memory
from formalgr.runs.engines import LOCAL, check_engine
from formalgr.runs.ledger import Ledger
from formalgr.spec.robustness import latent_ball
from formalgr.verify.options import VerifyOptions

STREAM = 1 << 62
"""Added to the class in the keys of these samples: they share no random numbers with samples of the whole prior."""

KIND = "fixed regions"


@dataclass(frozen=True, kw_only=True)
class HybridOptions:
    """`regions` says how far to go with proofs, within `region_seconds` a class; then come `samples` a class.

    Raises UsageError unless samples >= 1, jobs >= 1, seed is in [0, 2^63), alpha in (0, 1), region_seconds >= 0.
    """

    regions: MassOptions = field(default_factory=MassOptions)
    region_seconds: float = 10.0
    alpha: float = 1e-3
    samples: int = 200
    seed: int = 0
    jobs: int = 1
    engine: str = LOCAL
    local: VerifyOptions = field(default_factory=VerifyOptions)

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_engine(self.engine)
        if self.samples < 1 or self.jobs < 1:
            raise UsageError(f"samples and jobs must be >= 1, got {self.samples} and {self.jobs}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be in [0, 2^63), got {self.seed}")
        if not self.region_seconds >= 0.0:
            raise UsageError(f"region_seconds must be >= 0, got {self.region_seconds}")


@dataclass(frozen=True)
class OpenLatents:
    """The prior within disjoint boxes, drawn by index as LatentPrior draws the whole of it."""

    measure: Measure
    boxes: Box

    @property
    def move(self) -> Fraction:
        """How far a latent may lie from the exact one that it stands for: twice what rounding to float32 takes."""
        return 2 * rounding_of(self.measure.prior).distance

    def at(self, seed: int, label: int, indices: Iterable[int]) -> np.ndarray:
        """The latents of class `label` with these indices, (len(indices), latent) float32."""
        return self._points(*self._drawn(seed, label, indices))

    def surely_near(self, seed: int, label: int, indices: Iterable[int]) -> np.ndarray:
        """Whether each of these latents is proven to lie within `move` of the exact one, (len(indices),) bool."""
        box, shares = self._drawn(seed, label, indices)
        points = self._points(box, shares).astype(np.float64)
        return self.measure.surely_within(box, shares, points, nearest_down(self.move))

    def _drawn(self, seed: int, label: int, indices: Iterable[int]) -> tuple[Box, np.ndarray]:
        """A box of the regions for each index, and the share of its mass below the latent on each axis."""
        randoms = [sample_generator(seed, STREAM | label, index) for index in indices]
        shares = np.array([random.uniform(size=1 + self.boxes.inputs) for random in randoms])
        reached = np.cumsum(self.measure.about(self.boxes))
        chosen = np.searchsorted(reached, shares[:, 0] * reached[-1], side="right")
        return self.boxes[np.minimum(chosen, len(self.boxes) - 1)], shares[:, 1:]

    def _points(self, box: Box, shares: np.ndarray) -> np.ndarray:
        return self.measure.within(box, shares).astype(np.float32)

    def imbalance(self) -> float:
        """Upper bound of the total variation distance between the boxes as they are drawn and as they weigh."""
        if not len(self.boxes):
            return 0.0
        reached, exact = np.cumsum(self.measure.about(self.boxes)), self.measure.of(self.boxes)
        drawn, whole = np.diff(reached, prepend=0.0) / reached[-1], exact.total()
        if not whole.lower > 0.0:
            return 1.0
        off = np.maximum(np.abs(drawn - exact.lower / whole.upper), np.abs(drawn - exact.upper / whole.lower))
        # a threshold of the draw, the random number itself and the quotients are rounded
        return min(1.0, float(np.sum(off + 8.0 * UNIT_ROUNDOFF["float64"])))


@dataclass(frozen=True)
class RegionChecker:
    """Callable that checks one unit of samples from the open regions of its class."""

    study: Study
    latents: dict[int, OpenLatents]
    epsilon: Fraction
    options: HybridOptions

    @property
    def gpus(self) -> int:
        """See runs/cluster."""
        return self.options.local.gpus

    def __call__(self, unit: Unit) -> list[SampleRecord]:
        return within_memory(self._records, self, unit)

    def lost(self, unit: Unit, reason: Reason) -> list[SampleRecord]:
        """See units.Checker."""
        return unfinished(unit, reason)

    def _records(self, unit: Unit) -> list[SampleRecord]:
        drawn, seed = self.latents[unit.label], self.options.seed
        latents, move = drawn.at(seed, unit.label, unit.indices), drawn.move
        records = check_latents(self.study, unit, latents, self.epsilon + move, self.options.local)
        sure = drawn.surely_near(seed, unit.label, unit.indices)
        for k, record in enumerate(records):
            if record.verdict is Verdict.HOLDS and not sure[k]:
                records[k] = _open(record)
        violated = [k for k, record in enumerate(records) if record.verdict is Verdict.VIOLATED]
        closer = self._violated(unit, latents, violated, self.epsilon - move) if violated else []
        for k, record in zip(violated, closer, strict=True):
            records[k] = record if sure[k] else _open(record)
        return records

    def _violated(self, unit: Unit, latents: np.ndarray, which: list[int], radius: Fraction) -> list[SampleRecord]:
        """Records of these samples: violated whatever exact latents they stand for, else unknown.

        At a radius below 0 the latents themselves have to be wrong, all around.
        """
        part = replace(unit, indices=tuple(unit.indices[k] for k in which))
        records = check_latents(self.study, part, latents[which], max(radius, Fraction(0)), self.options.local)
        wrong = np.ones(len(which), dtype=bool)
        if radius < 0:
            boxes = outward([latent_ball(latent, -radius) for latent in latents[which]])
            wrong = surely_wrong(self.study.composed(unit.label), self.study.unsafe(unit.label), boxes)
        return [
            record if sure and record.verdict is Verdict.VIOLATED else _open(record)
            for record, sure in zip(records, wrong.tolist(), strict=True)
        ]


def _open(record: SampleRecord) -> SampleRecord:
    """Unknown: the answer depends on what rounding the latent has changed."""
    nothing = {"guarantee": Guarantee.NONE, "stage": None, "misclassified": False, "witness": None}
    reason = record.reason or Reason.NUMERICS
    return replace(record, verdict=Verdict.UNKNOWN, reason=reason, confirmed_float32=None, **nothing)


def hybrid_mass(
    study: Study,
    epsilon: float | str | Fraction,
    options: HybridOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> LatentMass:
    """Bounds of F_c(eps), each at confidence 1 - alpha, from proven regions and samples of what they leave open.

    Any number of latents. Samples that the budget did not reach count as failures above and as robust below. Raises
    UsageError on eps outside [0, 8), Refused when a ledger holds samples of other settings.
    """
    options, budget, radius = options or HybridOptions(), budget or Budget(), mass_radius(epsilon)
    study.check()
    with open_partitions(study, options.regions.directory) as ledger:
        fixed = {}
        for place, label in enumerate(study.classes):
            share = budget.within(min(options.region_seconds, 0.5 * budget.remaining / (len(study.classes) - place)))
            fixed[label] = _fixed(Search(study, label, radius, options.regions, ledger), options, share, progress)
        latents = {k: OpenLatents(Measure(study.prior(k)), one.found.regions.open_) for k, one in fixed.items()}
        checker = RegionChecker(study, latents, radius, options)
        records = _check(checker, ledger, budget, progress)
    level = refutation_alpha(options.alpha, len(study.classes))
    classes = [_bounds(fixed[label], records[label], checker, level) for label in study.classes]
    return conclusion(study, radius, options.regions.delta, options.alpha, classes)


def _fixed(search: Search, options: HybridOptions, budget: Budget, progress: Progress) -> ClassMass:
    """The regions of a class, those of the ledger where it holds samples of them; kept before anything is drawn."""
    settings = {
        "latents": "rounded outward",
        "epsilon": str(search.epsilon),
        "delta": options.regions.delta,
        "alpha": options.alpha,
        "samples": options.samples,
        "seed": options.seed,
    }
    ledger, key = search.ledger, str(search.label)
    stored = None if ledger is None else ledger.get(KIND, key)
    if stored is not None:
        if stored["settings"] != settings:
            sampled = {name: stored["settings"].get(name) for name in settings}
            other = ", ".join(f"{name} = {value}" for name, value in sampled.items() if value != settings[name])
            raise Refused(f"the open regions of class {key} were sampled with {other}; use the same or another --out")
        regions = Cover(**{name: Box(*unpacked(stored[name])) for name in ("failing", "robust", "open_")})
        found = weighed(search.partition.measure, search.epsilon, regions)
        return ClassMass(search.label, found, found.lower, found.upper, None, 0, 0.0, search.partition.why)
    made = search.run(budget, progress)
    if ledger is not None:
        boxes = vars(made.found.regions).items()
        body = {name: packed(np.stack([box.lower, box.upper])) for name, box in boxes}
        ledger.put(KIND, {key: {"settings": settings, **body}})
    return made


def _check(
    checker: RegionChecker, ledger: Ledger | None, budget: Budget, progress: Progress
) -> dict[int, list[SampleRecord]]:
    """Records of all samples by class; decided ones go to the ledger, classes without an open region have none."""
    options = checker.options
    known: dict[tuple[int, int], SampleRecord] = {}
    if ledger is not None:
        read = map(SampleRecord.from_json, ledger.all("sample").values())
        known = {(record.label, record.index): record for record in read}
    units = []
    for label, latents in checker.latents.items():
        for start in range(0, options.samples if len(latents.boxes) else 0, UNIT):
            indices = [k for k in range(start, min(start + UNIT, options.samples)) if (label, k) not in known]
            units += [Unit(label, tuple(indices))] if indices else []
    total = len(known) + sum(len(unit.indices) for unit in units)

    def in_time() -> Iterator[Unit]:
        for unit in units:
            if budget.expired:
                return
            yield unit.within(budget.remaining)

    work = Work(options.jobs, options.engine, options.local.seconds_per_query)
    with closing(work.checked(checker, in_time(), len(units))) as finished:
        for unit, records in finished:
            known.update({(record.label, record.index): record for record in records})
            if ledger is not None:
                decided = [record for record in records if record.verdict is not Verdict.UNKNOWN]
                ledger.put("sample", {f"{one.label}/{one.index}": one.to_json() for one in decided})
            counts = Counter(record.verdict for record in known.values())
            robust, violated, unknown = (counts[one] for one in (Verdict.HOLDS, Verdict.VIOLATED, Verdict.UNKNOWN))
            progress(Tick("samples", total, robust, violated, unknown, f"class {unit.label}"))
    for unit in units:
        for record in unfinished(unit, Reason.TIMEOUT):
            known.setdefault((record.label, record.index), record)
    return {label: [known[key] for key in sorted(known) if key[0] == label] for label in checker.latents}


def _bounds(fixed: ClassMass, records: list[SampleRecord], checker: RegionChecker, level: float) -> ClassMass:
    """The bounds of one class; a refutation is at the level that allows for looking at all classes."""
    options, found, label = checker.options, fixed.found, fixed.label
    verdicts = Counter(record.verdict for record in records)
    parts = (verdicts[one] for one in (Verdict.HOLDS, Verdict.VIOLATED, Verdict.UNKNOWN))
    counts = Counts(len(records), *parts, sum(record.misclassified for record in records))
    off = checker.latents[label].imbalance()
    lower, upper = _lower(found, counts, options.alpha, off), _upper(found, counts, options.alpha, off)
    delta = options.regions.delta
    verdict = None if delta is None else verdict_of(_lower(found, counts, level, off), upper, delta)
    proofs = [record.guarantee for record in records if record.verdict is not Verdict.UNKNOWN]
    latents = checker.latents[label].at(options.seed, label, range(len(records))) if records else np.zeros((0, 0))
    drawn = Drawn(counts, min(proofs, default=Guarantee.FLOAT_SOUND), latents_sha256(latents))
    return replace(fixed, lower=lower, upper=upper, verdict=verdict, drawn=drawn)


def _upper(found: Measured, counts: Counts, alpha: float, off: float) -> float:
    """m_F + u * (CP_upper + off), every step rounded up; never above what is proven without samples."""
    rate = float(np.nextafter(counts.delta_upper(alpha) + off, np.inf)) if counts.samples else 0.0
    total = np.nextafter(np.nextafter(found.open_.upper * rate, np.inf) + found.failing.upper, np.inf)
    return min(found.upper, float(np.nextafter(total + found.beyond, np.inf)))


def _lower(found: Measured, counts: Counts, alpha: float, off: float) -> float:
    """m_F + u * (CP_lower - off), every step rounded down; never below what is proven without samples."""
    rate = max(0.0, float(np.nextafter(counts.delta_lower(alpha) - off, -np.inf))) if counts.samples else 0.0
    total = np.nextafter(found.open_.lower * rate, -np.inf) + found.failing.lower
    return max(found.lower, float(np.nextafter(total, -np.inf)))
