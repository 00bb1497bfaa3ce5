"""Brackets of the robust radius of many samples: units of work for any process, and which of them come next.

In: Study, sample indices, what is known of them. Out: BracketRecord. Trust: sound (both ends repeat what was proven and
replayed; a record never loses an end that it had; the order only costs time).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from formalgr.core.budget import Budget
from formalgr.core.verdict import Guarantee, Reason, Verdict
from formalgr.global_robustness.study import Study
from formalgr.global_robustness.units import within_memory
from formalgr.runs.shard import WHOLE, Shard
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball
from formalgr.verify.bracket import UNPROVEN, Known, RadiusBracket, RadiusOptions
from formalgr.verify.pipeline import verify_batch
from formalgr.verify.radius import radius_brackets

UNIT = 50
"""Samples per unit of work."""

FIRST_SECONDS = 0.05
"""Of a sample's time in the first round, besides attacks and root bounds; each later round allows four times that."""

SMALL = (Fraction(1, 2), Fraction(1, 4), Fraction(1, 8))
"""Radii that are tried on all samples first, as shares of the cap: many of them are proven there at once."""


@dataclass(frozen=True)
class BracketRecord:
    """lower < R <= upper of one sample; `point` is the replayed point at distance `upper`, None where there is none.

    `guarantee` is the weakest of what was proven and replayed; `reason` says why the bracket is wider than asked.
    """

    label: int
    index: int
    lower: Fraction = UNPROVEN
    upper: Fraction | None = None
    point: tuple[Fraction, ...] | None = None
    guarantee: Guarantee = Guarantee.NONE
    reason: Reason | None = Reason.TIMEOUT
    confirmed_float32: bool | None = None
    seconds: float = 0.0
    proof_seconds: float = 0.0
    attacked: bool = False

    @property
    def known(self) -> Known:
        """What another run may start from."""
        proof = self.guarantee if self.lower >= 0 else Guarantee.NONE
        return Known(self.lower, proof, self.point, self.proof_seconds, self.attacked)

    def tightened(self, other: "BracketRecord") -> "BracketRecord":
        """The better end of both, each of which holds; the reason of the later one, `other`."""
        nearer = other if self.upper is None or (other.upper is not None and other.upper < self.upper) else self
        levels = [one.guarantee for one in (self, other) if one.guarantee is not Guarantee.NONE]
        return replace(
            other,
            lower=max(self.lower, other.lower),
            proof_seconds=other.proof_seconds if other.lower > self.lower else self.proof_seconds,
            upper=nearer.upper,
            point=nearer.point,
            confirmed_float32=nearer.confirmed_float32,
            guarantee=min(levels, default=Guarantee.NONE),
            seconds=self.seconds + other.seconds,
            attacked=self.attacked or other.attacked,
        )

    def to_json(self) -> dict:
        """Plain values; `from_json` gives the record back."""
        body = dict(vars(self))
        body["lower"], body["upper"] = str(self.lower), None if self.upper is None else str(self.upper)
        body["point"] = None if self.point is None else [str(x) for x in self.point]
        body["guarantee"], body["reason"] = self.guarantee.name, None if self.reason is None else self.reason.name
        return body

    @classmethod
    def from_json(cls, body: Mapping) -> "BracketRecord":
        """The record that `to_json` wrote."""
        return cls(**{
            **body,
            "lower": Fraction(body["lower"]),
            "upper": None if body["upper"] is None else Fraction(body["upper"]),
            "point": None if body["point"] is None else tuple(map(Fraction, body["point"])),
            "guarantee": Guarantee[body["guarantee"]],
            "reason": None if body["reason"] is None else Reason[body["reason"]],
        })


@dataclass(frozen=True)
class BracketUnit:
    """Samples of one class with what is known of them, to be bracketed within `seconds` each.

    `at`: only this radius is asked about, with every stage. The budget is what is left of the whole run.
    """

    label: int
    indices: tuple[int, ...]
    known: tuple[Known, ...]
    seconds: float
    at: Fraction | None = None
    budget: Budget = field(default_factory=Budget)

    def part(self, positions: slice) -> "BracketUnit":
        """The same work for some of its samples."""
        return replace(self, indices=self.indices[positions], known=self.known[positions])

    def __str__(self):
        return f"{len(self.indices)} samples of class {self.label} from {self.indices[0]} on"


@dataclass(frozen=True)
class BracketChecker:
    """Callable that brackets one unit."""

    study: Study
    seed: int
    options: RadiusOptions

    @property
    def gpus(self) -> int:
        """See runs/cluster."""
        return self.options.local.gpus

    def __call__(self, unit: BracketUnit) -> list[BracketRecord]:
        return within_memory(self._records, self, unit)

    def lost(self, unit: BracketUnit, reason: Reason) -> list[BracketRecord]:
        """See units.Checker."""
        return [BracketRecord(unit.label, index, reason=reason) for index in unit.indices]

    def _records(self, unit: BracketUnit) -> list[BracketRecord]:
        latents = self.study.prior(unit.label).at(self.seed, unit.label, unit.indices)
        local = replace(self.options.local, seconds_per_query=unit.seconds)
        if unit.at is not None:
            return self._decided(unit, latents, local)
        brackets = radius_brackets(
            self.study.composed(unit.label),
            latents,
            self.study.unsafe(unit.label),
            replace(self.options, local=local),
            unit.budget,
            known=unit.known,
        )
        return [_record(unit.label, index, bracket) for index, bracket in zip(unit.indices, brackets, strict=True)]

    def _decided(self, unit: BracketUnit, latents, local) -> list[BracketRecord]:
        """What a complete check at one radius says: an end of the bracket, lower or upper."""
        unsafe = self.study.unsafe(unit.label)
        queries = [Query(latent_ball(latent, unit.at), unsafe) for latent in latents]
        outcomes = verify_batch(self.study.composed(unit.label), queries, local, unit.budget)
        records = []
        for index, latent, outcome in zip(unit.indices, latents.tolist(), outcomes, strict=True):
            record = BracketRecord(unit.label, index, guarantee=outcome.guarantee, seconds=outcome.seconds)
            if outcome.verdict is Verdict.HOLDS:
                record = replace(record, lower=unit.at, proof_seconds=outcome.seconds)
            elif outcome.verdict is Verdict.VIOLATED:
                found = outcome.counterexample
                distance = max(abs(x - Fraction(z)) for x, z in zip(found.point, latent, strict=True))
                record = replace(
                    record, upper=distance, point=found.point, confirmed_float32=found.confirmed_float32
                )
            records.append(record)
        return records


def _record(label: int, index: int, bracket: RadiusBracket) -> BracketRecord:
    witness = bracket.witness
    return BracketRecord(
        label,
        index,
        bracket.lower,
        bracket.upper,
        None if witness is None else witness.point,
        bracket.guarantee,
        bracket.reason,
        None if witness is None else witness.confirmed_float32,
        bracket.seconds,
        bracket.proof_seconds,
        True,
    )


class Refinement(Iterator[BracketUnit]):
    """Which samples to bracket next. It may have none now and more after `take` (runs.pool asks again).

    First all of them are checked cheaply at the radii of interest and at parts of the cap; then what is open at the
    radii of interest gets more and more time; then the brackets that are wider than asked do.
    """

    def __init__(
        self,
        records: Mapping[int, Sequence[BracketRecord]],
        options: RadiusOptions,
        radii: Sequence[Fraction],
        budget: Budget,
        shard: Shard = WHOLE,
    ):
        self.records = {label: list(found) for label, found in records.items()}
        self._options = options
        self._radii = sorted(set(radii))
        self._budget = budget
        self._shard = shard
        self._waiting: set[tuple[int, int]] = set()
        self._seconds: dict[tuple, float] = {}  # what each (class, index, radius) was last allowed; None: the bracket

    def take(self, unit: BracketUnit, records: Iterable[BracketRecord]) -> list[BracketRecord]:
        """Learn what became of a unit; the records as they stand now."""
        mine = self.records[unit.label]
        for record in records:
            mine[record.index] = self._settled(mine[record.index].tightened(record))
            self._waiting.discard((unit.label, record.index))
            self._seconds[unit.label, record.index, unit.at] = unit.seconds
        return [mine[index] for index in unit.indices]

    def _settled(self, record: BracketRecord) -> BracketRecord:
        """Without a reason once the bracket is as narrow as asked, whichever check made it so."""
        options, upper = self._options, record.upper
        target = options.max_epsilon if upper is None else max(Fraction(0), upper - options.allowed(upper))
        return replace(record, reason=None) if upper == 0 or record.lower >= target else record

    def __next__(self) -> BracketUnit:
        if not self._budget.expired:
            cap = self._options.max_epsilon
            stages = (
                lambda: self._untried(self._radii),
                *(lambda share=share: self._untried([share * cap]) for share in SMALL),
                lambda: self._open_at(self._radii),
                self._wide,
            )
            for candidates in stages:
                unit = self._unit(candidates())
                if unit is not None:
                    self._waiting |= {(unit.label, index) for index in unit.indices}
                    return replace(unit, budget=Budget(self._budget.remaining))
        raise StopIteration

    def _untried(self, radii: Sequence[Fraction]) -> Iterator[tuple]:
        return (one for one in self._open_at(radii) if one[0] <= FIRST_SECONDS)

    def _open_at(self, radii: Sequence[Fraction]) -> Iterator[tuple]:
        """(seconds of the next try, radius, class, index) of samples neither proven nor violated at a radius."""
        for label, k, one in self._idle():
            for radius in radii:
                if one.lower < radius and (one.upper is None or one.upper > radius):
                    yield self._next(label, k, radius), radius, label, k

    def _wide(self) -> Iterator[tuple]:
        """The same of samples whose brackets are wider than asked for lack of time.

        Where attacks found nothing the next question is about the cap itself; else the bracket's pace chooses (None).
        """
        for label, k, one in self._idle():
            if one.reason is Reason.TIMEOUT:
                radius = self._options.max_epsilon if one.attacked and one.upper is None else None
                yield self._next(label, k, radius), radius, label, k

    def _idle(self) -> Iterator[tuple[int, int, BracketRecord]]:
        """Samples of this shard that nobody works on and whose brackets are not closed."""
        for label, found in self.records.items():
            for k, one in enumerate(found):
                if self._shard.holds(k) and one.reason is not None and (label, k) not in self._waiting:
                    yield label, k, one

    def _next(self, label: int, index: int, radius: Fraction | None) -> float:
        """Seconds of the next try: four times those of the last one."""
        last = self._seconds.get((label, index, radius))
        return FIRST_SECONDS if last is None else 4.0 * last

    def _unit(self, candidates: Iterable[tuple]) -> BracketUnit | None:
        """Those with the least time so far, of one class and one radius."""
        limit = self._options.local.seconds_per_query
        possible = [one for one in candidates if one[0] < 4.0 * limit]
        if not possible:
            return None
        seconds, radius, label = min((one[:3] for one in possible), key=lambda one: (one[0], one[1] or 0, one[2]))
        indices = tuple(one[3] for one in possible if one[:3] == (seconds, radius, label))[:UNIT]
        known = tuple(self.records[label][k].known for k in indices)
        return BracketUnit(label, indices, known, min(seconds, limit), radius)
