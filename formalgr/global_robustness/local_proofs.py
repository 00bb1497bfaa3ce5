"""Certificates of the local checks behind a global one: which samples get one, and how they are made.

In: Study, GlobalCertificate, a choice. Out: ClassProofs. Trust: sound in which samples are chosen (by a rule that
anybody can repeat); a certificate is worth what the checker says of it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction

from formalgr.attacks.replay import Replayer
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, UsageError
from formalgr.core.progress import CERTIFICATES, Progress, Tick, silent
from formalgr.core.verdict import Semantics, Verdict
from formalgr.global_robustness.certify import GlobalCertificate
from formalgr.global_robustness.samples import SampleRecord
from formalgr.global_robustness.study import Study
from formalgr.runs.workers import run
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball
from formalgr.verify.certificate import Certifier, accepts, model_bytes
from formalgr.verify.checker import Checker, Unreadable
from formalgr.verify.checker.reading import read

UNIT = 20
"""Certificates made at a time: what a stopped run loses."""


@dataclass(frozen=True)
class Choice:
    """Which of the decided samples get a certificate: `number` of each class, all of them where it is None."""

    number: int | None

    @classmethod
    def of(cls, text: str) -> "Choice":
        """The choice that `all` or `sample:K` stands for. Raises UsageError for anything else."""
        if text == "all":
            return cls(None)
        word, _, number = text.partition(":")
        if word != "sample" or not (number.isascii() and number.isdecimal()) or int(number) < 1:
            raise UsageError(f"local certificates are kept for 'all' or 'sample:K' with K >= 1, got {text!r}")
        return cls(int(number))

    def __str__(self):
        return "all" if self.number is None else f"sample:{self.number}"

    def among(self, seed: int, label: int, decided: Sequence[int]) -> tuple[int, ...]:
        """The samples chosen among the decided ones of a class, ascending: those with the smallest SHA-256 of
        "seed/class/index".
        """
        def rank(index: int) -> str:
            return hashlib.sha256(f"{seed}/{label}/{index}".encode()).hexdigest()

        return tuple(sorted(decided if self.number is None else sorted(decided, key=rank)[: self.number]))


@dataclass(frozen=True)
class ClassProofs:
    """The ONNX file that a class's certificates speak of, and the certificate of every chosen sample by its index: the
    checker has accepted it. None where none was found within the effort.
    """

    model: bytes
    certificates: Mapping[int, bytes | None]


@dataclass(frozen=True)
class _Wanted:
    """Samples of one class, to be certified within the budget; a violated one with its replayed point."""

    label: int
    records: tuple[SampleRecord, ...]
    budget: Budget


@dataclass(frozen=True)
class _Prover:
    """Callable that certifies some samples; certificates are about the `models` of the classes."""

    study: Study
    models: Mapping[int, bytes]
    epsilon: Fraction
    seed: int
    _makers: dict = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, wanted: _Wanted) -> list[bytes | None]:
        label, records = wanted.label, wanted.records
        latents = self.study.prior(label).at(self.seed, label, [record.index for record in records])
        queries = [Query(latent_ball(latent, self.epsilon), self.study.unsafe(label)) for latent in latents]
        if label not in self._makers:
            self._makers[label] = Certifier(self.models[label]), Checker(self.models[label])
        certifier, checker = self._makers[label]
        robust = [k for k, record in enumerate(records) if record.witness is None]
        proofs = dict(zip(robust, certifier.each_holds([queries[k] for k in robust], wanted.budget), strict=True))
        replayer = Replayer(self.study.composed(label))
        for k, record in enumerate(records):
            if record.witness is not None:
                found = replayer.replay(queries[k], [Fraction(x) for x in record.witness])
                proofs[k] = None if found is None else certifier.violated([queries[k]], found)
        # a certificate that does not check would take the global one with it
        return [data if data and accepts(checker, data) else None for _, data in sorted(proofs.items())]


def composed_models(study: Study, semantics: Semantics) -> dict[int, bytes]:
    """The composed ONNX file of every class, which the checker's own reader understands.

    Raises InputError where it does not, and where a class has no such file; UsageError for float32 semantics.
    """
    if semantics is not Semantics.REAL:
        raise UsageError("local certificates speak of the networks over the reals: not with float32 semantics")
    models = {}
    for label in study.classes:
        models[label] = model_bytes(study.composed(label))
        try:
            read(models[label])
        except Unreadable as error:
            raise InputError(f"class {label} has no local certificates: {error}") from None
    return models


def local_proofs(
    certificate: GlobalCertificate,
    study: Study,
    choice: Choice,
    jobs: int = 1,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> dict[int, ClassProofs]:
    """The certificates of the chosen samples by class. Raises what `composed_models` raises."""
    budget, models = budget or Budget(), composed_models(study, certificate.semantics)
    chosen: dict[int, list[SampleRecord]] = {}
    for label in study.classes:
        records = {record.index: record for record in certificate.records if record.label == label}
        decided = [index for index, record in records.items() if record.verdict is not Verdict.UNKNOWN]
        chosen[label] = [records[index] for index in choice.among(certificate.seed, label, decided)]
    found: dict[int, dict[int, bytes | None]] = {k: {one.index: None for one in mine} for k, mine in chosen.items()}
    total = sum(map(len, chosen.values()))

    def units() -> Iterator[_Wanted]:
        for label, records in chosen.items():
            for start in range(0, len(records), UNIT):
                if not budget.expired:
                    yield _Wanted(label, tuple(records[start : start + UNIT]), budget)

    prover, made, missed = _Prover(study, models, certificate.epsilon, certificate.seed), 0, 0
    with closing(run(prover, units(), max(1, min(jobs, total // UNIT)))) as finished:
        for wanted, proofs in finished:
            found[wanted.label] |= zip((record.index for record in wanted.records), proofs, strict=True)
            missed += proofs.count(None)
            made += len(proofs) - proofs.count(None)
            progress(Tick(CERTIFICATES, total, made, 0, missed, f"class {wanted.label}"))
    return {label: ClassProofs(models[label], found[label]) for label in study.classes}
