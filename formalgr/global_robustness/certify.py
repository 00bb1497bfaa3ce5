"""Global (eps, delta)-robustness (Fijalkow & Gupta 2019, Def. 3): sequential, or a fixed number of samples per class.

In: Study, eps, delta, alpha. Out: GlobalCertificate. Trust: sound at confidence 1 - alpha, as strong as the weakest
local proof, which is printed beside it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from formalgr.core.budget import Budget
from formalgr.core.documents import Documented
from formalgr.core.errors import UsageError
from formalgr.core.progress import Progress, silent
from formalgr.core.verdict import Guarantee, Reason, Semantics, Stage, Verdict
from formalgr.global_robustness.binomial import check_alpha, check_delta, check_samples
from formalgr.global_robustness.book import FIXED, Book, counts_of, open_ledger, study_settings
from formalgr.global_robustness.deciding import ClassProgress, Schedule
from formalgr.global_robustness.frontier import Counts
from formalgr.global_robustness.multiplicity import GlobalVerdict, overall, refutation_alpha
from formalgr.global_robustness.prior import latents_sha256
from formalgr.global_robustness.samples import UNIT, SampleChecker, SampleRecord, Unit, unfinished
from formalgr.global_robustness.sequential import CertifyRule, SequentialTest, anytime_interval, sequential_test
from formalgr.global_robustness.shift import Shift, rounding_of
from formalgr.global_robustness.study import Study
from formalgr.global_robustness.threshold import FirstStage, Threshold
from formalgr.global_robustness.units import Work
from formalgr.runs.engines import LOCAL, check_engine
from formalgr.runs.shard import WHOLE, Shard
from formalgr.spec.robustness import radius_of
from formalgr.verify.options import VerifyOptions
from formalgr.verify.twin import TwinOptions

SAMPLES = 200
"""Samples per class where their number is fixed and nobody says it."""

MOST = 10_000
"""The most samples per class of a sequential run where nobody says another number."""


@dataclass(frozen=True)
class ClassResult:
    """Bounds of the failure probability F_c(eps) of one class, each valid at confidence 1 - alpha on its own.

    After a sequential decision both bounds hold together, whenever one stops; `decided_at` is then the number of
    samples that decided. Verdicts come from the rule of the certificate, not from the bounds.
    """

    label: int
    counts: Counts
    delta_lower: float
    delta_upper: float
    verdict: GlobalVerdict
    latents_sha256: str
    decided_at: int | None = None


@dataclass(frozen=True)
class GlobalCertificate(Documented):
    """The answer for every class and overall, with all that is needed to produce it again.

    `guarantee` is the weakest level of the local proofs, `semantics` the arithmetic they speak of; `stages` counts
    samples and `seconds` time by stage. `rule` certifies (None: Clopper-Pearson, for a fixed number of samples) with at
    most `most` samples per class. `rounding` leads from the sampled float32 latents to those of the prior itself.
    """

    verdict: GlobalVerdict
    epsilon: Fraction
    delta: float
    alpha: float
    guarantee: Guarantee
    classes: tuple[ClassResult, ...]
    records: tuple[SampleRecord, ...]
    stages: dict
    seconds: dict
    seed: int
    sources: tuple
    notes: tuple[str, ...] = ()
    semantics: Semantics = Semantics.REAL
    rule: CertifyRule | None = None
    most: int = 0
    rounding: Shift = field(default_factory=Shift)


@dataclass(frozen=True, kw_only=True)
class CertifyOptions:
    """How to run a study: samples per class, seed, worker processes, directory of the ledger, local check options.

    sequential: stop as soon as a class is decided, `samples` (10000) being the most it may take; else `samples` (200)
    are checked, all of them. None: sequential unless samples are given. shard: of a number that is fixed, only these
    units; the others are unknown here and known once the ledgers are merged. first: what one margin proves at once for
    many samples comes before their own checks. Raises UsageError unless all numbers are whole, samples >= 1, jobs >= 1
    and seed in [0, 2^63), for an unknown engine, for a part of a sequential run, or where `first` cannot give the
    proofs that `local` asks for.
    """

    samples: int | None = None
    seed: int = 0
    jobs: int = 1
    directory: Path | None = None
    local: VerifyOptions = field(default_factory=VerifyOptions)
    sequential: bool | None = None
    rule: CertifyRule = CertifyRule.SPENDING
    shard: Shard = WHOLE
    engine: str = LOCAL
    first: FirstStage | None = None

    def __post_init__(self) -> None:
        local = self.local
        if self.first is not None and (
            local.semantics is not Semantics.REAL or local.require > Guarantee.FLOAT_SOUND or local.solver != "auto"
        ):
            raise UsageError("a margin proves float-sound, over the reals, and without the solver that was asked for")
        if self.sequential is None:
            object.__setattr__(self, "sequential", self.samples is None)
        if self.sequential and self.shard != WHOLE:
            raise UsageError("a sequential run stops where all its samples decide: no shard knows; shards take -n N")
        check_engine(self.engine)
        if self.samples is None:
            object.__setattr__(self, "samples", MOST if self.sequential else SAMPLES)
        for name in ("samples", "jobs", "seed"):
            if not isinstance(getattr(self, name), int):
                raise UsageError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        if self.samples < 1 or self.jobs < 1:
            raise UsageError(f"samples and jobs must be >= 1, got {self.samples} and {self.jobs}")
        check_samples(self.samples)
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be in [0, 2^63), got {self.seed}")


def certify_class(
    counts: Counts, delta: float, alpha: float, refute_alpha: float
) -> tuple[float, float, GlobalVerdict]:
    """(lower, upper, verdict) of one class: certified iff upper <= delta, refuted iff lower > delta.

    For a number of samples that was fixed beforehand. delta = 0 is never certified by sampling (the upper bound is
    positive). The reported lower bound is at alpha; the refutation that feeds the overall verdict is at `refute_alpha`.
    """
    upper, lower = counts.delta_upper(alpha), counts.delta_lower(alpha)
    if upper <= delta:
        return lower, upper, GlobalVerdict.CERTIFIED
    if counts.delta_lower(refute_alpha) > delta:
        return lower, upper, GlobalVerdict.REFUTED
    return lower, upper, GlobalVerdict.UNDECIDED


def certify(
    study: Study,
    epsilon: float | str | Fraction,
    delta: float,
    alpha: float = 1e-3,
    options: CertifyOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> GlobalCertificate:
    """Whether every class c has P_z(C(G_c(z')) = c on the eps-ball around z) >= 1 - delta, at confidence 1 - alpha.

    Sequential, or with a number of samples fixed beforehand, of which those that the budget did not reach count against
    the claim. With a directory, finished samples are kept in its ledger and the same call goes on from them. Raises
    UsageError on eps, delta or alpha outside their domain, ModelError when networks do not fit, Refused when a ledger
    has other settings.
    """
    check_delta(delta)
    check_alpha(alpha)
    claim = _Claim(study, radius_of(epsilon), float(delta), float(alpha), options or CertifyOptions())
    budget = budget or Budget()
    study.check()
    if claim.options.first is not None:
        claim = claim.with_thresholds(budget, progress)
    with open_ledger(claim.options.directory, claim.settings) as ledger:
        book = Book(ledger, progress, len(study.classes) * claim.expected)
        results = (_decide if claim.options.sequential else _count)(claim, budget, book)
    return _conclude(claim, results, budget)


@dataclass(frozen=True)
class _Claim:
    """What is asked: of which study, at which eps, delta and alpha, on which samples."""

    study: Study
    epsilon: Fraction
    delta: float
    alpha: float
    options: CertifyOptions
    thresholds: Mapping[int, Threshold] = field(default_factory=dict)

    def with_thresholds(self, budget: Budget, progress: Progress) -> "_Claim":
        """The same with the first stage's proofs."""
        study, twin = self.study, TwinOptions(label_rule=self.study.label_rule, local=self.options.local)
        made = {
            label: self.options.first.threshold(study.composed(label), label, self.epsilon, twin, (budget, progress))
            for label in study.classes
        }
        return replace(self, thresholds=made)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the networks and of the first stage."""
        told = [
            f"class {label}: latents of [{float(one.box.lower[0]):g}, {float(one.box.upper[0]):g}] with a margin above "
            f"{one.margin:.4g} keep their label"
            for label, one in self.thresholds.items()
        ]
        return (*self.study.notes, *told)

    @property
    def refute_alpha(self) -> float:
        """The level of each class's refutation: one of them decides."""
        return refutation_alpha(self.alpha, len(self.study.classes))

    @cached_property
    def test(self) -> SequentialTest:
        """The sequential test of every class, fixed before sampling."""
        options = self.options
        return sequential_test(self.delta, self.alpha, options.samples, options.rule, self.refute_alpha)

    @property
    def expected(self) -> int:
        """Samples of a class: all of them, or as many as certify where none fails."""
        if not self.options.sequential:
            return self.options.samples
        enough = self.test.certify_at >= 0
        return int(enough.argmax()) if enough.any() else UNIT

    def latents(self, label: int, number: int) -> str:
        """SHA-256 of the first latents of a class."""
        return latents_sha256(self.study.prior(label).sample(self.options.seed, label, 0, number))

    @property
    def settings(self) -> dict:
        """What the records of a ledger depend on: with one of these changed, they answer another question.

        delta and alpha are among them because choosing them after seeing records would cost confidence.
        """
        options, first = self.options, min(self.options.samples, UNIT)
        return {
            **study_settings(self.study, options.local),
            "epsilon": str(self.epsilon),
            "delta": self.delta,
            "alpha": self.alpha,
            "samples": options.samples,
            "rule": options.rule.value if options.sequential else FIXED,
            "seed": options.seed,
            "latents": {str(label): self.latents(label, first) for label in self.study.classes},
        }

    def check(self, units: Iterator[Unit], number: int, take: Callable) -> None:
        """Check units of work, at most `number` at a time being of use; `take` learns each one's records."""
        options = self.options
        checker = SampleChecker(self.study, self.epsilon, options.seed, options.local, self.thresholds)
        work = Work(options.jobs, options.engine, options.local.seconds_per_query)
        with closing(work.checked(checker, units, number)) as finished:
            for unit, records in finished:
                take(unit, records)


def _missing(claim: _Claim, book: Book) -> tuple[list[Unit], list[Unit]]:
    """Units of the samples that have no record: those of this shard, and those of the others."""
    samples, mine, theirs = claim.options.samples, [], []
    starts = [(label, start) for label in claim.study.classes for start in range(0, samples, UNIT)]
    for number, (label, start) in enumerate(starts):
        indices = range(start, min(start + UNIT, samples))
        open_indices = tuple(index for index in indices if (label, index) not in book.known)
        if open_indices:
            (mine if claim.options.shard.holds(number) else theirs).append(Unit(label, open_indices))
    return mine, theirs


def _count(claim: _Claim, budget: Budget, book: Book) -> list[tuple[ClassResult, list[SampleRecord]]]:
    """Check all samples; decided ones go to the ledger as soon as their unit is done."""
    missing, elsewhere = _missing(claim, book)

    def in_time() -> Iterator[Unit]:
        for unit in missing:
            if budget.expired:
                return
            yield unit.within(budget.remaining)

    claim.check(in_time(), len(missing), book.take)
    for units, reason in ((missing, Reason.TIMEOUT), (elsewhere, Reason.ELSEWHERE)):
        for record in (one for unit in units for one in unfinished(unit, reason)):
            book.known.setdefault((record.label, record.index), record)
    results = []
    for label in claim.study.classes:
        records = book.prefix(label, claim.options.samples)
        counts = counts_of(records)
        lower, upper, verdict = certify_class(counts, claim.delta, claim.alpha, claim.refute_alpha)
        latents = claim.latents(label, len(records))
        results.append((ClassResult(label, counts, lower, upper, verdict, latents), records))
    return results


def _decide(claim: _Claim, budget: Budget, book: Book) -> list[tuple[ClassResult, list[SampleRecord]]]:
    """Check samples until every class is decided, or nothing more can decide it."""
    options = claim.options
    limit = options.local.seconds_per_query
    classes = {label: ClassProgress(label, claim.test, limit) for label in claim.study.classes}
    schedule = Schedule(classes, budget)
    for record in book.known.values():
        classes[record.label].take(record, None)

    def take(unit: Unit, records: list[SampleRecord]) -> None:
        schedule.take(unit, records)
        book.take(unit, records)

    claim.check(schedule, options.jobs, take)
    results = []
    for label, one in classes.items():
        seen, decision = one.seen, one.decision
        interval = anytime_interval(one.not_proven[:seen], one.violated[:seen], claim.alpha)
        records = book.prefix(label, seen)
        results.append((
            ClassResult(
                label, counts_of(records), interval.lower, interval.upper, decision.verdict,
                claim.latents(label, seen), decision.at if one.decided else None,
            ),
            records,
        ))
    return results


def _conclude(
    claim: _Claim, results: Sequence[tuple[ClassResult, list[SampleRecord]]], budget: Budget
) -> GlobalCertificate:
    """The overall verdict, what the local proofs are worth, and what was done."""
    study, options = claim.study, claim.options
    records = [record for _, mine in results for record in mine]
    proofs = [record.guarantee for record in records if record.verdict is not Verdict.UNKNOWN]
    stages = Counter(record.stage.value for record in records if record.stage is not None)
    seconds: Counter = Counter()
    for record in records:
        seconds.update({Stage[name].value: spent for name, spent in record.stage_seconds.items()})
    return GlobalCertificate(
        overall([result.verdict for result, _ in results]),
        claim.epsilon,
        claim.delta,
        claim.alpha,
        min(proofs, default=Guarantee.NONE),
        tuple(result for result, _ in results),
        tuple(records),
        {stage.value: stages[stage.value] for stage in Stage},
        {"total": budget.elapsed, **dict(seconds)},
        options.seed,
        study.sources,
        claim.notes,
        options.local.semantics,
        options.rule if options.sequential else None,
        options.samples,
        rounding_of(study.prior(study.classes[0])),
    )
