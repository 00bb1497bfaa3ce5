"""Global (eps, delta)-robustness (Fijalkow & Gupta 2019, Def. 3), fixed number of samples per class.

In: Study, eps, delta, alpha. Out: GlobalCertificate. Trust: sound at confidence 1 - alpha, as strong as the weakest
local proof, which is printed beside it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from formalgr import __version__
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, UsageError
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.verdict import Guarantee, Reason, Semantics, Stage, Verdict
from formalgr.global_robustness.binomial import check_alpha, check_delta
from formalgr.global_robustness.frontier import Counts
from formalgr.global_robustness.multiplicity import GlobalVerdict, overall, refutation_alpha
from formalgr.global_robustness.prior import latents_sha256
from formalgr.global_robustness.samples import UNIT, SampleChecker, SampleRecord, Unit, unfinished
from formalgr.global_robustness.study import Study
from formalgr.runs.ledger import Ledger
from formalgr.runs.workers import run
from formalgr.spec.robustness import radius_of
from formalgr.verify.options import VerifyOptions


@dataclass(frozen=True)
class ClassResult:
    """Bounds of the failure probability F_c(eps) of one class, each valid at confidence 1 - alpha on its own."""

    label: int
    counts: Counts
    delta_lower: float
    delta_upper: float
    verdict: GlobalVerdict
    latents_sha256: str


@dataclass(frozen=True)
class GlobalCertificate:
    """The answer for every class and overall, with all that is needed to produce it again.

    `guarantee` is the weakest level of the local proofs, `semantics` the arithmetic they speak of; `stages` counts
    samples and `seconds` time by stage.
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


@dataclass(frozen=True, kw_only=True)
class CertifyOptions:
    """How to run a study: samples per class, seed, worker processes, directory of the ledger, local check options.

    Raises UsageError unless all three are whole numbers, samples >= 1, jobs >= 1 and seed in [0, 2^63).
    """

    samples: int = 200
    seed: int = 0
    jobs: int = 1
    directory: Path | None = None
    local: VerifyOptions = field(default_factory=VerifyOptions)

    def __post_init__(self):
        for name in ("samples", "jobs", "seed"):
            if not isinstance(getattr(self, name), int):
                raise UsageError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        if self.samples < 1 or self.jobs < 1:
            raise UsageError(f"samples and jobs must be >= 1, got {self.samples} and {self.jobs}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be in [0, 2^63), got {self.seed}")


def certify_class(
    counts: Counts, delta: float, alpha: float, refute_alpha: float
) -> tuple[float, float, GlobalVerdict]:
    """(lower, upper, verdict) of one class: certified iff upper <= delta, refuted iff lower > delta.

    delta = 0 is never certified by sampling (the upper bound is positive). The reported lower bound is at alpha; the
    refutation that feeds the overall verdict is at `refute_alpha`.
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

    The number of samples is fixed beforehand; samples that the budget did not reach count against the claim. With a
    directory, finished samples are kept in its ledger and the same call goes on from them. Raises UsageError on eps,
    delta or alpha outside their domain, ModelError when networks do not fit, Refused when a ledger has other settings.
    """
    check_delta(delta)
    check_alpha(alpha)
    claim = _Claim(study, radius_of(epsilon), float(delta), float(alpha), options or CertifyOptions())
    budget = budget or Budget()
    study.check()
    with _open_ledger(claim) as ledger:
        records = _check_samples(claim, budget, progress, ledger)
    return _conclude(claim, records, budget)


@dataclass(frozen=True)
class _Claim:
    """What is asked: of which study, at which eps, delta and alpha, on which samples."""

    study: Study
    epsilon: Fraction
    delta: float
    alpha: float
    options: CertifyOptions

    @cached_property
    def latents(self) -> dict[int, str]:
        """SHA-256 of the latents of every class."""
        samples, seed = self.options.samples, self.options.seed
        return {
            label: latents_sha256(self.study.prior(label).sample(seed, label, 0, samples))
            for label in self.study.classes
        }

    @property
    def settings(self) -> dict:
        """What the records of a ledger depend on: with one of these changed, they answer another question.

        delta and alpha are among them because choosing them after seeing records would cost confidence.
        """
        study, options = self.study, self.options
        return {
            "formalgr": __version__,
            "networks": {str(k): [source.sha256 for source in study.composed(k).sources] for k in study.classes},
            "between": study.between,
            "label rule": study.label_rule,
            "one-hot": study.one_hot,
            "prior": study.latent_prior,
            "epsilon": str(self.epsilon),
            "delta": self.delta,
            "alpha": self.alpha,
            "samples": options.samples,
            "seed": options.seed,
            "latents": {str(label): digest for label, digest in self.latents.items()},
            "require": options.local.require.name,
            "semantics": options.local.semantics.name,
            "solver": options.local.solver,
        }


@contextmanager
def _open_ledger(claim: _Claim) -> Iterator[Ledger | None]:
    if claim.options.directory is None:
        yield None
        return
    directory = Path(claim.options.directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory} cannot be used as a folder: {error.strerror or error}") from None
    with Ledger(directory / "ledger.sqlite", claim.settings) as ledger:
        yield ledger


def _key(label: int, index: int) -> str:
    return f"{label}/{index}"


def _missing(claim: _Claim, known: Mapping[str, SampleRecord]) -> list[Unit]:
    """Units of the samples that have no record."""
    samples, units = claim.options.samples, []
    for label in claim.study.classes:
        for start in range(0, samples, UNIT):
            indices = range(start, min(start + UNIT, samples))
            open_indices = tuple(index for index in indices if _key(label, index) not in known)
            units += [Unit(label, open_indices)] if open_indices else []
    return units


def _check_samples(claim: _Claim, budget: Budget, progress: Progress, ledger: Ledger | None) -> list[SampleRecord]:
    """Records of all samples, in order; decided ones go to the ledger as soon as their unit is done."""
    study, options = claim.study, claim.options
    checker = SampleChecker(study, claim.epsilon, options.seed, options.local)
    known = {} if ledger is None else {k: SampleRecord.from_json(body) for k, body in ledger.all("sample").items()}
    missing = _missing(claim, known)
    total = options.samples * len(study.classes)

    def report(note: str) -> None:
        counts = Counter(record.verdict for record in known.values())
        progress(
            Tick("samples", total, counts[Verdict.HOLDS], counts[Verdict.VIOLATED], counts[Verdict.UNKNOWN], note)
        )

    def in_time() -> Iterator[Unit]:
        for unit in missing:
            if budget.expired:
                return
            yield replace(unit, budget=Budget(budget.remaining))

    report("starting")
    with closing(run(checker, in_time(), min(options.jobs, max(1, len(missing))))) as finished:
        for unit, records in finished:
            known.update({_key(record.label, record.index): record for record in records})
            if ledger is not None:
                decided = [record for record in records if record.verdict is not Verdict.UNKNOWN]
                ledger.put("sample", {_key(one.label, one.index): one.to_json() for one in decided})
            report(f"class {unit.label}")
    for unit in missing:
        for record in unfinished(unit, Reason.TIMEOUT):
            known.setdefault(_key(record.label, record.index), record)
    return [known[_key(label, index)] for label in study.classes for index in range(options.samples)]


def _conclude(claim: _Claim, records: Sequence[SampleRecord], budget: Budget) -> GlobalCertificate:
    """Counts, bounds and verdicts from the records of a finished or stopped run."""
    study, delta, alpha = claim.study, claim.delta, claim.alpha
    classes, refute_alpha = [], refutation_alpha(alpha, len(study.classes))
    for label in study.classes:
        mine = [record for record in records if record.label == label]
        verdicts = Counter(record.verdict for record in mine)
        counts = Counts(
            len(mine),
            verdicts[Verdict.HOLDS],
            verdicts[Verdict.VIOLATED],
            verdicts[Verdict.UNKNOWN],
            sum(record.misclassified for record in mine),
        )
        lower, upper, verdict = certify_class(counts, delta, alpha, refute_alpha)
        classes.append(ClassResult(label, counts, lower, upper, verdict, claim.latents[label]))
    proofs = [record.guarantee for record in records if record.verdict is not Verdict.UNKNOWN]
    stages = Counter(record.stage.value for record in records if record.stage is not None)
    seconds: Counter = Counter()
    for record in records:
        seconds.update({Stage[name].value: spent for name, spent in record.stage_seconds.items()})
    networks = {source for label in study.classes for source in study.composed(label).sources}
    notes = tuple(sorted({note for label in study.classes for note in study.composed(label).notes}))
    return GlobalCertificate(
        overall([result.verdict for result in classes]),
        claim.epsilon,
        delta,
        alpha,
        min(proofs, default=Guarantee.NONE),
        tuple(classes),
        tuple(records),
        {stage.value: stages[stage.value] for stage in Stage},
        {"total": budget.elapsed, **dict(seconds)},
        claim.options.seed,
        tuple(sorted(networks, key=lambda source: source.path)),
        notes,
        claim.options.local.semantics,
    )
