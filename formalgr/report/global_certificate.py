"""Global certificates as files: all that a stranger needs to repeat the statistics, and the check that does so.

In: GlobalCertificate; bytes. Out: bytes; what is proven. Trust: sound: the check draws the latents again from the seed,
counts again, proves the tail inequalities in ball arithmetic, and replays every counterexample whose networks it finds.
What it takes over is said: that the samples called robust were proven so (each has its level and stage), unless their
local certificates are there, which are checked with it.

One JSON value a line: what is asked, one line a class, and the SHA-256 of everything before it, so that a flipped byte
is seen at once; a file that was changed and signed again has to get past the recomputation.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np

from formalgr.core.budget import Budget
from formalgr.core.decimals import written
from formalgr.core.errors import Refused
from formalgr.core.progress import Progress, silent
from formalgr.core.verdict import Guarantee, Stage, Verdict
from formalgr.global_robustness.binomial import check_alpha, check_delta
from formalgr.global_robustness.certify import ClassResult, GlobalCertificate
from formalgr.global_robustness.local_proofs import Choice, local_proofs
from formalgr.global_robustness.multiplicity import GlobalVerdict, overall, refutation_alpha
from formalgr.global_robustness.recheck import (
    anytime_bound_holds,
    lower_bound_holds,
    mixture_stop_holds,
    spending_holds,
    upper_bound_holds,
)
from formalgr.global_robustness.samples import SampleRecord
from formalgr.global_robustness.sequential import CertifyRule, spending_boundary
from formalgr.global_robustness.study import Study
from formalgr.report.files import write_whole
from formalgr.report.local_certificates import LocalPart, archive_of, check_archive, write_archive
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

SCHEMA = "formalgr.global-certificate/1"

LARGEST_BOUNDARY = 1 << 30
"""Steps of the recursion of a sequential rule that a check repeats: minutes."""

VERDICTS = {Verdict.HOLDS: "r", Verdict.VIOLATED: "v", Verdict.UNKNOWN: "u"}
STAGES = {None: "-", Stage.ATTACK: "a", Stage.BOUNDS: "b", Stage.BRANCH: "c", Stage.MILP: "m", Stage.SMT: "z"}


# ---- writing


def certificate_bytes(certificate: GlobalCertificate, study: Study, local: LocalPart | None = None) -> bytes:
    """The certificate as a file, referring to the local certificates where there are some."""
    head = {
        "schema": SCHEMA,
        "verdict": certificate.verdict.value,
        "epsilon": str(certificate.epsilon),
        "delta": certificate.delta,
        "alpha": certificate.alpha,
        "rule": None if certificate.rule is None else certificate.rule.value,
        "most": certificate.most,
        "seed": certificate.seed,
        "guarantee": GUARANTEES[certificate.guarantee],
        "semantics": certificate.semantics.value,
        "classes": list(study.classes),
    }
    lines = [_class_line(certificate, one, study) for one in certificate.classes]
    if local is not None:
        head["local"] = local.head()
        for line in lines:
            line["local"] = local.of(line["class"])
    return signed([head, networks_line(study), *lines])


def write_certificate(
    path: str | Path,
    certificate: GlobalCertificate,
    study: Study,
    choice: Choice | None = None,
    jobs: int = 1,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> Path:
    """Write the certificate, and the archive of its local ones beside it where a choice of samples is given.

    Raises what `local_proofs` raises, InputError where a file cannot be written.
    """
    local = None
    if choice is not None:
        proofs = local_proofs(certificate, study, choice, jobs, budget, progress)
        local = write_archive(archive_of(path), choice, proofs)
    content = certificate_bytes(certificate, study, local)
    return write_whole(path, lambda place: place.write_bytes(content))


def _class_line(certificate: GlobalCertificate, result: ClassResult, study: Study) -> dict:
    records = [record for record in certificate.records if record.label == result.label]
    counts = result.counts
    return {
        "class": result.label,
        "latent": study.prior(result.label).latent,
        "latents_sha256": result.latents_sha256,
        "samples": counts.samples,
        "robust": counts.robust,
        "violated": counts.violated,
        "unknown": counts.unknown,
        "misclassified": counts.misclassified,
        "delta_lower": result.delta_lower,
        "delta_upper": result.delta_upper,
        "verdict": result.verdict.value,
        "decided_at": result.decided_at,
        "evidence": "".join(VERDICTS[record.verdict] for record in records),
        "levels": "".join(LEVELS[record.guarantee] for record in records),
        "stages": "".join(STAGES[record.stage] for record in records),
        "wrong_at_latent": [record.index for record in records if record.misclassified],
        "witnesses": {str(record.index): _exact(record) for record in records if record.witness is not None},
    }


def _exact(record: SampleRecord) -> list[str]:
    return [str(Fraction(x)) for x in record.witness]


# ---- checking


def check_global(data: bytes, archive: Path | None = None, progress: Progress = silent) -> tuple[str, str]:
    """(what is proven, what is taken over). Raises Refused, saying what is wrong, where anything does not fit.

    `archive`: where the local certificates lie that it may refer to.
    """
    try:
        head, networks, *lines = lines_of(data)
        claims = [_Claim(head, networks, line) for line in lines]
        levels = {level for claim in claims for level in claim.check()}
        require([line["class"] for line in lines] == head["classes"], "a class is missing or out of order")
        verdict = overall([GlobalVerdict(line["verdict"]) for line in lines])
        require(head["verdict"] == verdict.value, "the overall verdict does not follow from the classes'")
        weakest = GUARANTEES[min(levels, default=Guarantee.NONE)]
        require(head["guarantee"] == weakest, f"the weakest local proof is {weakest}, not {head['guarantee']}")
        radius = written(head["epsilon"])
        points = {line["class"]: {int(k): (point, radius) for k, point in line["witnesses"].items()} for line in lines}
        study = study_named(networks)
        replayed = replay(study, head["seed"], points)
        balls = {claim.line["class"]: claim.latents for claim in claims}
        local = check_archive(archive, head, networks, lines, balls, study, progress)
    except Refused:
        raise
    except MALFORMED as error:
        raise Refused(f"the certificate is malformed ({type(error).__name__}: {error})") from None
    taken_over = assumed(head["guarantee"], replayed)
    return _sentence(head, lines), taken_over if local is None else local.assumed(taken_over)


class _Claim:
    """What one class's line claims, to be recomputed."""

    def __init__(self, head: dict, networks: dict, line: dict):
        self.head = head
        self.line = line
        self.who = f"class {line['class']}: "
        self.delta, self.alpha = head["delta"], head["alpha"]
        check_delta(self.delta)
        check_alpha(self.alpha)
        self.refute_alpha = refutation_alpha(self.alpha, len(head["classes"]))
        evidence = line["evidence"]
        require(set(evidence) <= set("rvu"), self.who + "unknown evidence")
        self.latents = latents_of(networks, head, line, len(evidence))
        self.not_proven = np.array([mark != "r" for mark in evidence], dtype=bool)
        self.violated = np.array([mark == "v" for mark in evidence], dtype=bool)

    def check(self) -> set[Guarantee]:
        """Latents, counts, witnesses, bounds and verdict; the levels of the local proofs. Raises Refused."""
        line, number = self.line, len(self.line["evidence"])
        counts = [number, *(line["evidence"].count(mark) for mark in "rvu"), len(line["wrong_at_latent"])]
        stated = [line[name] for name in ("samples", "robust", "violated", "unknown", "misclassified")]
        require(counts == stated, self.who + f"the evidence counts {counts}, the certificate says {stated}")
        self._witnesses()
        require(number <= self.head["most"], self.who + "more samples than were allowed")
        (self._fixed if self.head["rule"] is None else self._sequential)()
        return self._levels()

    def _levels(self) -> set[Guarantee]:
        names = {mark: level for level, mark in LEVELS.items()}
        levels = [names[mark] for mark in self.line["levels"]]
        require(len(levels) == len(self.violated) == len(self.line["stages"]), self.who + "levels are missing")
        known = {level for level, mark in zip(levels, self.line["evidence"], strict=True) if mark != "u"}
        require(Guarantee.NONE not in known, self.who + "a decided sample has no level")
        return known

    def _witnesses(self) -> None:
        """Every violated sample has its point, in the closed ball, exactly."""
        epsilon = written(self.head["epsilon"])
        points = self.line["witnesses"]
        wanted = {str(k) for k in np.nonzero(self.violated)[0].tolist()}
        require(set(points) == wanted, self.who + "a violated sample has no counterexample, or another one has")
        for index, point in points.items():
            latent = self.latents[int(index)].tolist()
            inside = len(point) == len(latent) and all(
                abs(written(x) - Fraction(z)) <= epsilon for x, z in zip(point, latent, strict=True)
            )
            require(inside, self.who + f"the counterexample of sample {index} lies outside its ball")
        wrong = self.line["wrong_at_latent"]
        require(len(set(wrong)) == len(wrong) and {str(k) for k in wrong} <= wanted, self.who + "wrong centers")

    def _fixed(self) -> None:
        """Clopper-Pearson: both bounds, and the verdict from them."""
        line, n = self.line, len(self.violated)
        failures, violated = int(np.sum(self.not_proven)), int(np.sum(self.violated))
        require(n == self.head["most"], self.who + "the number of samples was not kept")
        require(upper_bound_holds(failures, n, line["delta_upper"], self.alpha), self.who + "upper bound not proven")
        require(lower_bound_holds(violated, n, line["delta_lower"], self.alpha), self.who + "lower bound not proven")
        if line["verdict"] == GlobalVerdict.CERTIFIED.value:
            require(line["delta_upper"] <= self.delta, self.who + "the upper bound exceeds delta")
        elif line["verdict"] == GlobalVerdict.REFUTED.value:
            holds = lower_bound_holds(violated, n, self.delta, self.refute_alpha) and line["delta_lower"] > self.delta
            require(holds, self.who + "the refutation is not proven")

    def _sequential(self) -> None:
        """The stop of the rule that was fixed beforehand, and the interval."""
        line, at = self.line, self.line["decided_at"]
        if line["verdict"] != GlobalVerdict.UNDECIDED.value:
            require(type(at) is int and 0 <= at <= len(self.violated), self.who + "decided after no such sample")
            certified = line["verdict"] == GlobalVerdict.CERTIFIED.value
            require((self._certified if certified else self._refuted)(at), self.who + "the stop is not proven")
        lower, upper = line["delta_lower"], line["delta_upper"]
        require({type(lower), type(upper)} <= {int, float}, self.who + "a bound is no number")
        failures, successes = np.cumsum(self.not_proven), np.cumsum(~self.violated)
        for counts, end in ((failures, Fraction(upper)), (successes, 1 - Fraction(lower))):
            require(end >= 1 or anytime_bound_holds(counts, end, self.alpha), self.who + "the bounds are not proven")

    def _certified(self, at: int) -> bool:
        failures = int(np.sum(self.not_proven[:at]))
        if self.delta == 1.0:
            return True
        if CertifyRule(self.head["rule"]) is CertifyRule.MIXTURE:
            return mixture_stop_holds(failures, at, self.delta, self.alpha, True)
        most = self.head["most"]
        require(most * (most * self.delta + 2.0) <= LARGEST_BOUNDARY, self.who + "too many samples were allowed")
        boundary, _ = spending_boundary(self.delta, self.alpha, most)
        return failures <= boundary[at] and spending_holds(boundary, self.delta, self.alpha)

    def _refuted(self, at: int) -> bool:
        violated = int(np.sum(self.violated[:at]))
        if self.delta == 0.0:
            return violated >= 1
        return mixture_stop_holds(violated, at, self.delta, self.refute_alpha, False)


def _sentence(head: dict, classes: list[dict]) -> str:
    samples = sum(line["samples"] for line in classes)
    return (
        f"{head['verdict'].upper()} at confidence {1.0 - head['alpha']:.10g}: ({head['epsilon']}, {head['delta']:g})-"
        f"robustness of {len(classes)} classes from {samples} samples; latents, counts and tail inequalities recomputed"
    )
