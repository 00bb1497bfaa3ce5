"""Local checks of samples: units of work that any process can do, and their records.

In: Study, eps, sample indices. Out: SampleRecord. Trust: sound (records repeat what the pipeline proved or replayed).
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction

import numpy as np

from formalgr.attacks.replay import Replayer
from formalgr.core.box import Box, outward
from formalgr.core.budget import Budget
from formalgr.core.errors import Refused
from formalgr.core.verdict import Guarantee, Outcome, Reason, Stage, Verdict
from formalgr.global_robustness.study import Study
from formalgr.global_robustness.threshold import Threshold
from formalgr.global_robustness.units import within_memory
from formalgr.graph.network import Network
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball
from formalgr.spec.unsafe import UnsafeSet
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch

UNIT = 100
"""Samples per unit of work: large enough to batch well, small enough to show progress; part of the seeded schedule."""


def effort_seconds(effort: int | None) -> float:
    """Seconds for each sample: 1, 4, 16, ... for effort 1, 2, 3, ...; None is all there is."""
    return math.inf if effort is None else 4.0 ** (effort - 1)


@dataclass(frozen=True)
class Unit:
    """Samples of one class by their indices, to be done within the budget: what is left of the whole run.

    The budget counts from when the unit is handed out, also while a worker starts or takes over from a dead one.
    `effort`: 0 for the cheap stages alone, k for all stages within `effort_seconds(k)` a sample, None for all that the
    options allow.
    """

    label: int
    indices: tuple[int, ...]
    budget: Budget = field(default_factory=Budget)
    effort: int | None = None

    def within(self, seconds: float) -> "Unit":
        """The same unit, handed out now with so many seconds."""
        return replace(self, budget=Budget(seconds))

    def part(self, positions: slice) -> "Unit":
        """The same work for some of its samples."""
        return replace(self, indices=self.indices[positions])

    def __str__(self):
        return f"{len(self.indices)} samples of class {self.label} from {self.indices[0]} on"


@dataclass(frozen=True)
class SampleRecord:
    """The outcome of one sample: enough to count it, to replay its witness and to say how it was decided.

    `witness` is the replayed point z' (exact decimals of rationals as "p/q" where float64 cannot hold them), and
    `misclassified` says that the classifier is wrong at the latent itself, beyond any rounding.
    """

    label: int
    index: int
    verdict: Verdict
    guarantee: Guarantee
    stage: Stage | None
    reason: Reason | None
    misclassified: bool
    stage_seconds: dict
    witness: tuple | None = None
    confirmed_float32: bool | None = None

    def to_json(self) -> dict:
        """Plain values; `from_json` gives the record back."""
        body = {name: getattr(self, name) for name in _NAMES}
        for name in ("verdict", "guarantee", "stage", "reason"):
            body[name] = None if body[name] is None else body[name].name
        body["witness"] = None if self.witness is None else list(self.witness)
        return body

    @classmethod
    def from_json(cls, body: dict) -> "SampleRecord":
        """The record that `to_json` wrote."""
        stage, reason = body["stage"], body["reason"]
        return cls(
            **{
                **body,
                "verdict": Verdict[body["verdict"]],
                "guarantee": Guarantee[body["guarantee"]],
                "stage": None if stage is None else Stage[stage],
                "reason": None if reason is None else Reason[reason],
                "witness": None if body["witness"] is None else tuple(body["witness"]),
            }
        )

    def after(self, earlier: "SampleRecord | None") -> "SampleRecord":
        """This record, with the time of an earlier try added."""
        if earlier is None or not earlier.stage_seconds:
            return self
        return replace(self, stage_seconds=dict(Counter(earlier.stage_seconds) + Counter(self.stage_seconds)))


_NAMES = tuple(one.name for one in fields(SampleRecord))


def unfinished(unit: Unit, reason: Reason) -> list[SampleRecord]:
    """Records of samples that nobody checked: unknown, never dropped."""
    return [
        SampleRecord(unit.label, k, Verdict.UNKNOWN, Guarantee.NONE, None, reason, False, {}) for k in unit.indices
    ]


@dataclass(frozen=True)
class SampleChecker:
    """Callable that checks one unit: draws its latents and runs the local pipeline on their balls.

    What the threshold of its class proves does not get that far.
    """

    study: Study
    epsilon: Fraction
    seed: int
    options: VerifyOptions
    thresholds: Mapping[int, Threshold] = field(default_factory=dict)

    @property
    def gpus(self) -> int:
        """See runs/cluster."""
        return self.options.gpus

    def __call__(self, unit: Unit) -> list[SampleRecord]:
        return within_memory(self._records, self, unit)

    def lost(self, unit: Unit, reason: Reason) -> list[SampleRecord]:
        """See units.Checker."""
        return unfinished(unit, reason)

    def _records(self, unit: Unit) -> list[SampleRecord]:
        latents = self.study.prior(unit.label).at(self.seed, unit.label, unit.indices)
        threshold, options = self.thresholds.get(unit.label), self._options(unit.effort)
        if threshold is None:
            return check_latents(self.study, unit, latents, self.epsilon, options)
        started = unit.budget.elapsed
        proven = threshold.proves(self.study.composed(unit.label), latents)
        spent = {Stage.BOUNDS.name: (unit.budget.elapsed - started) / len(proven)}
        left = replace(unit, indices=tuple(np.array(unit.indices)[~proven].tolist()))
        rest = iter(check_latents(self.study, left, latents[~proven], self.epsilon, options) if left.indices else ())
        shape = Verdict.HOLDS, Guarantee.FLOAT_SOUND, Stage.BOUNDS, None, False, spent
        return [
            SampleRecord(unit.label, index, *shape) if done else next(rest)
            for index, done in zip(unit.indices, proven.tolist(), strict=True)
        ]

    def _options(self, effort: int | None) -> VerifyOptions:
        if effort == 0:
            return self.options.cheap()
        limit = min(effort_seconds(effort), self.options.seconds_per_query)
        return replace(self.options, seconds_per_query=limit)


def check_latents(
    study: Study, unit: Unit, latents: np.ndarray, epsilon: Fraction, options: VerifyOptions
) -> list[SampleRecord]:
    """Records of a unit whose samples are these latents (len(unit.indices), latent)."""
    network, unsafe = study.composed(unit.label), study.unsafe(unit.label)
    queries = [Query(latent_ball(latent, epsilon), unsafe) for latent in latents]
    outcomes = verify_batch(network, queries, options, unit.budget)
    wrong = _proven_wrong(network, unsafe, latents)
    return [
        _record(unit.label, index, outcome, k in wrong)
        for k, (index, outcome) in enumerate(zip(unit.indices, outcomes, strict=True))
    ]


def _proven_wrong(network: Network, unsafe: UnsafeSet, latents: np.ndarray) -> set[int]:
    """Positions of the latents (number, latent) whose own outputs are unsafe beyond any rounding."""
    points = latents.astype(np.float64)
    suspects = np.nonzero(unsafe.excess(network.graph.evaluate(points)) <= 0.0)[0].tolist()
    if not suspects:
        return set()
    queries, replayer = [Query(latent_ball(points[k], 0), unsafe) for k in suspects], Replayer(network)
    surely = surely_wrong(network, unsafe, outward([query.box for query in queries]))
    return {
        k
        for k, query, sure in zip(suspects, queries, surely.tolist(), strict=True)
        if sure or replayer.replay(query, query.box.lower) is not None
    }


def surely_wrong(network: Network, unsafe: UnsafeSet, box: Box) -> np.ndarray:
    """Boxes all of whose outputs are unsafe, by outward-rounded intervals, (batch,) bool."""
    outputs = network.graph.intervals(box.interval(network.graph.input_shape))[-1]
    return unsafe.surely_contains(outputs.reshape((network.graph.outputs,)))


def _record(label: int, index: int, outcome: Outcome, wrong: bool) -> SampleRecord:
    if wrong and outcome.verdict is Verdict.HOLDS:
        raise Refused(f"sample {index} of class {label} is wrong at its latent and was proven robust around it: a bug")
    counterexample = outcome.counterexample
    violated = outcome.verdict is Verdict.VIOLATED
    return SampleRecord(
        label,
        index,
        outcome.verdict,
        outcome.guarantee,
        outcome.stage,
        outcome.reason,
        violated and wrong,
        {stage.name: seconds for stage, seconds in outcome.stage_seconds},
        None if counterexample is None else tuple(_number(x) for x in counterexample.point),
        None if counterexample is None else counterexample.confirmed_float32,
    )


def _number(value: Fraction) -> float | str:
    return float(value) if Fraction(float(value)) == value else str(value)


def witness_point(record: SampleRecord) -> np.ndarray:
    """The witness as float64, (latent,)."""
    return np.array([float(Fraction(x)) for x in record.witness], dtype=np.float64)
