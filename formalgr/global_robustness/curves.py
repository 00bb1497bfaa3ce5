"""The whole (eps, delta) frontier of a study: F_c(eps) for all eps of [0, cap] and all classes at once.

In: Study, the largest radius, alpha. Out: StudyFrontier. Trust: sound at confidence 1 - alpha, as strong as the weakest
local proof. Brackets only get tighter; what time did not allow makes the band wider, never wrong.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from formalgr.core.budget import Budget
from formalgr.core.documents import Documented
from formalgr.core.errors import UsageError
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.verdict import Guarantee
from formalgr.global_robustness.band import CountBounds, pointwise, simultaneous
from formalgr.global_robustness.binomial import check_alpha, check_samples
from formalgr.global_robustness.book import FRONTIER, open_ledger, study_settings
from formalgr.global_robustness.bracketing import BracketChecker, BracketRecord, Refinement
from formalgr.global_robustness.frontier import Brackets, Frontier
from formalgr.global_robustness.multiplicity import union_alpha
from formalgr.global_robustness.prior import latents_sha256
from formalgr.global_robustness.study import Study
from formalgr.global_robustness.units import Work
from formalgr.runs.engines import LOCAL, check_engine
from formalgr.runs.ledger import Ledger
from formalgr.runs.shard import WHOLE, Shard
from formalgr.spec.robustness import radius_of
from formalgr.verify.bracket import RadiusOptions
from formalgr.verify.options import VerifyOptions


@dataclass(frozen=True, kw_only=True)
class FrontierOptions:
    """How to run: samples per class, seed, worker processes, directory of the ledger, local check options.

    Brackets are refined until they are as narrow as the wider one of tolerance and `relative` times their upper end.
    radii: radii of interest; what is open there is settled first. classifiers: how many frontiers are shown together,
    on the same latents. shard: only these samples; of the others nothing is known before the ledgers are merged. Raises
    UsageError on values outside their domain.
    """

    samples: int = 1000
    seed: int = 0
    jobs: int = 1
    directory: Path | None = None
    tolerance: float | str | Fraction = Fraction(1, 1000)
    relative: float | str | Fraction = Fraction(1, 20)
    radii: Sequence[float | str | Fraction] = ()
    classifiers: int = 1
    local: VerifyOptions = field(default_factory=lambda: VerifyOptions(seconds_per_query=1.0))
    shard: Shard = WHOLE
    engine: str = LOCAL

    def __post_init__(self) -> None:
        for name in ("samples", "jobs", "classifiers"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise UsageError(f"{name} must be a whole number >= 1, got {getattr(self, name)!r}")
        check_samples(self.samples)
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be in [0, 2^63), got {self.seed}")
        check_engine(self.engine)
        object.__setattr__(self, "radii", tuple(map(radius_of, self.radii)))


@dataclass(frozen=True, eq=False)
class ClassFrontier:
    """One class: its records in order, the band that holds for all classes and radii at once, bounds at one radius."""

    label: int
    records: tuple[BracketRecord, ...]
    band: Frontier
    pointwise: Frontier
    latents_sha256: str

    @property
    def closed(self) -> int:
        """Brackets that are as narrow as asked."""
        return sum(one.reason is None for one in self.records)


@dataclass(frozen=True, eq=False)
class StudyFrontier(Documented):
    """Every class with its band. All bands, both sides, all radii, all classes (and `classifiers` such frontiers on the
    same latents) hold together at confidence 1 - alpha; pointwise bounds are one side at one radius of one class.
    """

    classes: tuple[ClassFrontier, ...]
    max_epsilon: Fraction
    alpha: float
    options: FrontierOptions
    study: Study
    seconds: float

    @cached_property
    def guarantee(self) -> Guarantee:
        """The weakest level of all ends."""
        levels = [one.guarantee for part in self.classes for one in part.records]
        return min((level for level in levels if level is not Guarantee.NONE), default=Guarantee.NONE)


def frontier(
    study: Study,
    max_epsilon: float | str | Fraction,
    alpha: float = 1e-3,
    options: FrontierOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> StudyFrontier:
    """Bounds of F_c(eps), the probability that a latent's ball of radius eps holds a wrong point, for all eps <= cap.

    The number of samples is fixed beforehand. Stopped by the budget or by hand, what is known is kept in the ledger of
    the directory, and the same call goes on from it. Raises like certify.
    """
    check_alpha(alpha)
    options, budget = options or FrontierOptions(), budget or Budget()
    limits = RadiusOptions(
        max_epsilon=max_epsilon, tolerance=options.tolerance, relative=radius_of(options.relative), local=options.local
    )
    beyond = [radius for radius in options.radii if radius > limits.max_epsilon]
    if beyond:
        cap = float(limits.max_epsilon)
        raise UsageError(f"epsilon = {float(beyond[0]):g} lies beyond the largest radius, {cap:g}")
    study.check()
    latents = {c: study.prior(c).sample(options.seed, c, 0, options.samples) for c in study.classes}
    digests = {label: latents_sha256(points) for label, points in latents.items()}
    settings = {
        **study_settings(study, options.local),
        "max epsilon": str(limits.max_epsilon),
        "alpha": alpha,
        "samples": options.samples,
        "seed": options.seed,
        "classifiers": options.classifiers,
        "radii": [str(radius) for radius in options.radii],  # bounds at one radius hold for one chosen beforehand
        "latents": {str(label): digest for label, digest in digests.items()},
        "rule": FRONTIER,
    }
    with open_ledger(options.directory, settings) as ledger:
        records = _bracket(study, limits, options, budget, (progress, ledger))
    side = side_alpha(alpha, options.classifiers, len(study.classes))
    bands = simultaneous(options.samples, side), pointwise(options.samples, alpha)
    return StudyFrontier(
        tuple(_class(c, records[c], bands, limits.max_epsilon, digests[c]) for c in study.classes),
        limits.max_epsilon,
        alpha,
        options,
        study,
        budget.elapsed,
    )


def side_alpha(alpha: float, classifiers: int, classes: int) -> float:
    """The level of each side of one class's band: all hold together; classifiers share latents, classes do not."""
    return union_alpha(union_alpha(alpha, classifiers, independent=False), classes) / 2.0


def _class(
    label: int, records: Sequence[BracketRecord], bands: Sequence[CountBounds], cap: Fraction, digest: str
) -> ClassFrontier:
    brackets = Brackets.of(((one.lower, one.upper) for one in records), cap)
    return ClassFrontier(label, tuple(records), *(Frontier(brackets, bounds) for bounds in bands), digest)


def _bracket(
    study: Study, limits: RadiusOptions, options: FrontierOptions, budget: Budget,
    channels: tuple[Progress, Ledger | None],
) -> dict[int, list[BracketRecord]]:
    """Rounds of refinement until every bracket is closed, or the time is over."""
    progress, ledger = channels
    number = range(options.samples)
    records = {label: [BracketRecord(label, k) for k in number] for label in study.classes}
    for body in ({} if ledger is None else ledger.all("bracket")).values():
        one = BracketRecord.from_json(body)
        records[one.label][one.index] = one
    work = Refinement(records, limits, options.radii, budget, options.shard)

    def report(note: str) -> None:
        found = [one for part in work.records.values() for one in part]
        robust = sum(one.reason is None and one.upper is None for one in found)
        closed = sum(one.reason is None for one in found)
        progress(Tick("brackets", options.samples * len(work.records), robust, closed - robust, 0, note))

    report("starting")
    checker = BracketChecker(study, options.seed, limits)
    workers = Work(options.jobs, options.engine, options.local.seconds_per_query)
    with closing(workers.checked(checker, work)) as finished:
        for unit, made in finished:
            learnt = work.take(unit, made)
            if ledger is not None:
                ledger.put("bracket", {f"{one.label}/{one.index}": one.to_json() for one in learnt})
            report(f"class {unit.label}")
    return work.records


def frontiers(
    studies: Mapping[str, Study],
    max_epsilon: float | str | Fraction,
    alpha: float = 1e-3,
    options: FrontierOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> list[StudyFrontier]:
    """The frontier of every study, all of which hold together at confidence 1 - alpha, with an equal share of the time.

    Sample i of class c has the same seed in all of them: the same latent where latents have the same size and prior, so
    that samples are compared pair by pair. The ledger of each lies in a folder of its name. Raises UsageError for
    studies of different classes.
    """
    options, budget, results = options or FrontierOptions(), budget or Budget(), []
    if len({study.classes for study in studies.values()}) != 1:
        raise UsageError("frontiers are compared on the same classes; give --class")
    for number, (name, study) in enumerate(studies.items()):
        own = replace(options, classifiers=len(studies))
        if len(studies) > 1 and options.directory is not None:
            own = replace(own, directory=Path(options.directory) / name)
        share = budget.within(budget.remaining / (len(studies) - number))
        results.append(frontier(study, max_epsilon, alpha, own, share, progress))
    return results
