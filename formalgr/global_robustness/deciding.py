"""One (eps, delta) with as few local proofs as possible: which samples to check next, and how hard.

In: a SequentialTest per class, records as they come. Out: Units, ClassProgress. Trust: sound (what decides is
SequentialTest.decide on all records; which samples are checked when, and how hard, only costs time).

Cheap stages run on new samples of every class that is undecided, in one queue. The complete engine gets a sample only
where the answer can still decide: where proofs alone, or counterexamples alone, would close the gap of the test.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from formalgr.core.budget import Budget
from formalgr.core.verdict import Reason, Verdict
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.global_robustness.samples import UNIT, SampleRecord, Unit, effort_seconds
from formalgr.global_robustness.sequential import Decision, SequentialTest

LEAST_UNIT = 20
"""New samples are checked at least so many at a time: smaller batches cost as much."""


class ClassProgress:
    """What is known of one class, sample by sample, and what it still takes to decide it.

    `seconds_per_sample`: what the options allow; a sample that stays unknown after that is given up.
    """

    def __init__(self, label: int, test: SequentialTest, seconds_per_sample: float):
        self.label = label
        self.test = test
        self.not_proven = np.ones(test.most, dtype=bool)
        self.violated = np.zeros(test.most, dtype=bool)
        self._answered, self._waiting, self._given_up = np.zeros((3, test.most), dtype=bool)
        self._efforts = np.zeros(test.most, dtype=np.int64)  # the next one for each sample
        self._seconds = seconds_per_sample
        self._decision: Decision | None = None

    @property
    def seen(self) -> int:
        """The length of the prefix of samples that have an answer, be it unknown."""
        return len(self._answered) if np.all(self._answered) else int(np.argmin(self._answered))

    @property
    def waiting(self) -> int:
        """How many samples are being checked."""
        return int(np.sum(self._waiting))

    @property
    def decision(self) -> Decision:
        """What the prefix says."""
        if self._decision is None:
            self._decision = self.test.decide(self.not_proven[: self.seen], self.violated[: self.seen])
        return self._decision

    @property
    def decided(self) -> bool:
        """Whether the verdict stands."""
        return self.decision.verdict is not GlobalVerdict.UNDECIDED

    def take(self, record: SampleRecord, effort: int | None) -> None:
        """Learn one record and the effort that it took."""
        index, self._decision = record.index, None
        self._answered[index], self._waiting[index] = True, False
        self.not_proven[index] = record.verdict is not Verdict.HOLDS
        self.violated[index] = record.verdict is Verdict.VIOLATED
        if effort is not None:
            self._efforts[index] = effort + 1
        timed = record.reason is Reason.TIMEOUT and effort_seconds(effort) < self._seconds
        self._given_up[index] = record.verdict is Verdict.UNKNOWN and effort != 0 and not timed

    def wanted(self) -> Unit | None:
        """The next unit of the class; None where nothing more can decide, or nothing but what is being checked."""
        if self.decided:
            return None
        open_ones = self._open_ones()
        if open_ones.size:
            return self._unit(open_ones, int(self._efforts[open_ones[0]]))
        size = self._size()
        fresh = np.nonzero(~(self._answered | self._waiting))[0]
        return self._unit(fresh[:size], 0) if fresh.size and size else None

    def _unit(self, indices: np.ndarray, effort: int) -> Unit:
        self._waiting[indices] = True
        return Unit(self.label, tuple(indices.tolist()), effort=effort)

    def _open_ones(self) -> np.ndarray:
        """Unknown samples whose answers, all of one kind, would decide without new samples: the least tried of them."""
        seen = self.seen
        not_proven, violated, given_up = (x[:seen] for x in (self.not_proven, self.violated, self._given_up))
        unknown = not_proven & ~violated & ~given_up
        if not np.any(unknown):
            return np.zeros(0, dtype=np.int64)
        proofs = self.test.decide(not_proven, violated | given_up).to_certify
        failures = self.test.decide(not_proven & ~given_up, violated).to_refute
        gap = proofs or failures
        if gap is None:
            return np.zeros(0, dtype=np.int64)
        candidates = np.nonzero((unknown & ~self._waiting[:seen])[: gap.at])[0]
        efforts = self._efforts[candidates]
        return candidates[efforts == np.min(efforts, initial=np.max(efforts, initial=0))][: min(UNIT, gap.missing)]

    def _size(self) -> int:
        """New samples after which the test may decide, the share of failures so far telling how; 0: it never will.

        It certifies soonest when all of them are robust, and refutes soonest when all of them are violated.
        """
        seen, test = self.seen, self.test
        violated = int(np.sum(self.violated[:seen]))
        lost = violated + int(np.sum(self._given_up[:seen]))
        times = np.arange(seen, test.most + 1)
        certify = np.nonzero(test.certify_at[times] >= lost)[0]
        refute = np.nonzero(test.refute_at[times] <= violated + times - seen)[0]
        likely, other = (certify, refute) if violated <= test.delta * seen else (refute, certify)
        enough = likely if likely.size else other
        if not enough.size:
            return 0
        return min(UNIT, max(LEAST_UNIT, int(enough[0]) - self.waiting))


class Schedule(Iterator[Unit]):
    """The units to check next; it may have none now and more after `take` (runs.pool asks again)."""

    def __init__(self, classes: Mapping[int, ClassProgress], budget: Budget):
        self.classes = classes
        self._budget = budget

    def __next__(self) -> Unit:
        if not self._budget.expired:
            for one in sorted(self.classes.values(), key=lambda one: (one.waiting, one.seen)):
                unit = one.wanted()
                if unit is not None:
                    return unit.within(self._budget.remaining)
        raise StopIteration

    def take(self, unit: Unit, records: Iterable[SampleRecord]) -> None:
        """Learn what became of a unit."""
        for record in records:
            self.classes[unit.label].take(record, unit.effort)
