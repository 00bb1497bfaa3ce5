"""How far an output can change between two inputs of a domain that lie close together, as a bracket at any time.

In: Network, domain, delta. Out: ChangeBracket. Trust: sound (the lower end is a replayed pair, the upper end the
largest of bounds over parts that cover the domain).

Katz et al. 2017 (Towards Proving the Adversarial Robustness of Deep Neural Networks): a network is (delta,
epsilon)-globally robust on D when |f_l(x) - f_l(x')| < epsilon for all outputs l and all x, x' of D with
||x - x'||_inf <= delta. The difference d = x' - x is a variable of its own: over a part of all (x, d) every activation
of both copies has a range, and the change is bounded as a network of d (bounds/difference). The parts with the largest
bounds are halved; where units become stable their difference becomes exact. Pairs come from attacks on the two copies
as one network (graph/product). x and x' may be exchanged: one sign suffices for them.
"""

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from formalgr.attacks.replay import Replayer
from formalgr.bounds.difference import largest_changes
from formalgr.core.box import RationalBox, inward_float32, outward
from formalgr.core.budget import Budget
from formalgr.core.errors import ModelError, Unbounded, UsageError
from formalgr.core.linear import Interval
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Guarantee, Reason
from formalgr.graph.network import Network
from formalgr.graph.product import product
from formalgr.graph.wiring import Wiring
from formalgr.search.choose import bounder_of
from formalgr.spec.query import Query
from formalgr.spec.robustness import radius_of
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.verify.options import VerifyOptions

NUDGE = Fraction(1, 2**30)
"""The change of a pair is measured in floats and then replayed: asked for a little less, so that a rounding does not
keep the replay from confirming it."""

BATCH = 32
"""Parts that are halved at once."""

ATTACK_SHARE = 0.25
"""Of the time, what attacks may take."""


@dataclass(frozen=True, kw_only=True)
class TwinOptions:
    """Brackets no wider than `tolerance` times their upper end, from at most `parts` parts of the domain.

    With `epsilon` the bracket need only decide whether every change is below it.
    """

    tolerance: float = 0.1
    epsilon: Fraction | None = None
    parts: int = 1 << 20
    local: VerifyOptions = field(default_factory=VerifyOptions)

    def __post_init__(self):
        if not 0.0 < self.tolerance < 1.0:
            raise UsageError(f"tolerance must be in (0, 1), got {self.tolerance}")


@dataclass(frozen=True)
class ChangeBracket:
    """lower <= largest change of an output <= upper; `first` and `second` are a pair whose output `label` changes by
    at least `lower` (None where no change was found). `reason` says why the bracket is wider than asked, None when it
    is not; `parts` counts the parts of the domain that were bounded."""

    lower: Fraction
    upper: Fraction
    label: int | None
    first: tuple[Fraction, ...] | None
    second: tuple[Fraction, ...] | None
    reason: Reason | None
    parts: int
    guarantee: Guarantee = Guarantee.FLOAT_SOUND


def change_bracket(
    network: Network,
    domain: RationalBox,
    delta: float | str | Fraction,
    options: TwinOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> ChangeBracket:
    """The bracket over all pairs of the domain at most `delta` apart; a spent budget leaves the best one so far.

    Raises UsageError for delta 0 or an empty domain, ModelError when the domain does not fit the network or an operator
    is neither linear nor an activation, Unbounded when an output has no finite bounds.
    """
    twin = _Twin(network, domain, radius_of(delta), options or TwinOptions(), budget or Budget())
    twin.attack()
    while twin.refine():
        ends = f"{float(twin.lower):.4g} .. {float(twin.upper):.4g}"
        progress(Tick("parts", twin.options.parts, twin.bounded, note=ends))
    return twin.bracket()


class _Twin:
    """Both ends as they move, and the parts of all (x, d) with their bounds, the largest first."""

    def __init__(self, network: Network, domain: RationalBox, delta: Fraction, options: TwinOptions, budget: Budget):
        if domain.inputs != network.graph.inputs:
            raise ModelError(f"the domain bounds {domain.inputs} inputs, network takes {network.graph.inputs}")
        if domain.empty or delta == 0:
            raise UsageError("the domain is empty: it has no pairs" if domain.empty else "delta must be > 0")
        self.network, self.domain, self.options, self.budget = network, domain, options, budget
        self.outputs = network.graph.outputs
        self.pairs = product([network, network], _differences(domain.inputs))
        reach = [min(delta, high - low) for low, high in zip(domain.lower, domain.upper, strict=True)]
        self.box = RationalBox((*domain.lower, *(-r for r in reach)), (*domain.upper, *reach))
        self.replayer = Replayer(self.pairs)
        self.bounder = bounder_of(network.graph, options.local.branch.memory_bytes)
        self.lower, self.found, self.bounded = Fraction(0), None, 0
        self.stack: list[tuple[float, int, RationalBox]] = []
        self._push([(self.box, math.inf)])

    def _copies(self, part: RationalBox) -> tuple[RationalBox, RationalBox, RationalBox]:
        """Where x, x' = x + d and d lie for (x, d) in the part and x' in the domain; empty where there is no x'."""
        inputs = self.domain.inputs
        first = RationalBox(part.lower[:inputs], part.upper[:inputs])
        low, high = (tuple(map(sum, zip(e[:inputs], e[inputs:], strict=True))) for e in (part.lower, part.upper))
        second = self.domain.within(low, high)
        least = [a - b for a, b in zip(second.lower, first.upper, strict=True)]
        most = [b - a for a, b in zip(first.lower, second.upper, strict=True)]
        return first, second, RationalBox(part.lower[inputs:], part.upper[inputs:]).within(least, most)

    def _push(self, parts: list[tuple[RationalBox, float]]) -> None:
        """Bound the changes over parts of all (x, d); they are no larger than those over the part each comes from.

        By sectors of the difference, and by the outputs of the copies alone, which is better where d hardly varies.
        """
        graph = self.network.graph
        copies = [(*self._copies(part), part, bound) for part, bound in parts]
        copies = [one for one in copies if not one[1].empty]
        if not copies:
            return
        firsts, seconds, moves, parts, known = zip(*copies, strict=True)
        hulls = [
            RationalBox(tuple(map(min, a.lower, b.lower)), tuple(map(max, a.upper, b.upper)))
            for a, b in zip(firsts, seconds, strict=True)
        ]
        bounds = self.bounder.node_bounds(graph, outward(hulls))
        sectors = largest_changes(graph, bounds, outward(moves))
        here, there = (self._outputs(boxes) for boxes in (firsts, seconds))
        apart = np.maximum(there.upper - here.lower, here.upper - there.lower)
        worst = np.max(np.minimum(sectors, np.nextafter(apart, np.inf)), axis=1)
        if not np.all(np.isfinite(worst)):
            raise Unbounded("an output has no finite bounds over the domain; give a smaller one")
        for part, before, after in zip(parts, known, worst.tolist(), strict=True):
            self.bounded += 1
            heapq.heappush(self.stack, (-min(before, after), self.bounded, part))

    def _outputs(self, boxes: Sequence[RationalBox]) -> Interval:
        """Bounds of the outputs over boxes of inputs, (batch, outputs)."""
        graph = self.network.graph
        return self.bounder.node_bounds(graph, outward(boxes)).output.reshape((self.outputs,))

    @property
    def upper(self) -> Fraction:
        """The largest bound of all parts."""
        return Fraction(max(0.0, -self.stack[0][0]))

    def unsafe(self, epsilon: Fraction, labels: Iterable[int]) -> UnsafeSet:
        """Output l of the second copy is at least epsilon above that of the first, for one of the labels."""
        polytopes = []
        for label in labels:
            row = [Fraction(0)] * (2 * self.outputs)
            row[label], row[self.outputs + label] = Fraction(1), Fraction(-1)
            polytopes.append(Polytope((tuple(row),), (-epsilon,), (False,)))
        return UnsafeSet(tuple(polytopes), 2 * self.outputs)

    def attack(self) -> None:
        """Gradient ascent on the change of every output."""
        random, box = named_generator(self.options.local.seed, "twin"), inward_float32([self.box])
        budget = self.budget.within(ATTACK_SHARE * self.budget.remaining)
        for label in range(self.outputs):
            if budget.expired:
                break
            unsafe = self.unsafe(2 * self.upper + 1, [label])  # out of reach: the attack gets as near as it can
            best = self.options.local.pgd.run(self.pairs.graph, box, unsafe, random, budget)
            self.learn([Fraction(x) for x in best.points[0].tolist()])

    def learn(self, point: Sequence[Fraction]) -> None:
        """Take the pair of a point (x, d), pulled into the domain, as the lower end if it is a better one."""
        inputs = self.domain.inputs
        first = self.domain.project(point[:inputs])
        second = self.domain.project([x + d for x, d in zip(first, point[inputs:], strict=True)])
        first = self.domain.project([y - d for y, d in zip(second, point[inputs:], strict=True)])
        scores = self.network.graph.evaluate(np.array([first, second], dtype=np.float64))
        change = scores[1] - scores[0]
        label = int(np.argmax(np.abs(change)))
        if change[label] < 0.0:
            first, second = second, first
        size = Fraction(abs(float(change[label]))) * (1 - NUDGE)
        if size <= self.lower:
            return
        coordinates = (*first, *(b - a for a, b in zip(first, second, strict=True)))
        replayed = self.replayer.replay(Query(self.box, self.unsafe(size, [label])), coordinates)
        if replayed is not None:
            self.lower, self.found = size, (label, replayed)

    @property
    def narrow(self) -> bool:
        """Whether the bracket is as narrow as asked, or decides what is asked."""
        epsilon = self.options.epsilon
        if epsilon is not None and (self.upper < epsilon or self.lower >= epsilon):
            return True
        return self.upper - self.lower <= Fraction(self.options.tolerance) * self.upper

    def refine(self) -> bool:
        """Halve the parts with the largest bounds along their widest axes; False when it is enough, or too much."""
        if self.narrow or self.budget.expired or self.bounded >= self.options.parts:
            return False
        halves = []
        for _ in range(min(len(self.stack), BATCH)):
            bound, _, part = heapq.heappop(self.stack)
            widths = [high - low for low, high in zip(part.lower, part.upper, strict=True)]
            axis = max(range(len(widths)), key=widths.__getitem__)
            middle = part.lower[axis] + widths[axis] / 2
            halves += [(_cut(part, end, axis, middle), -bound) for end in ("lower", "upper")]
        self._push(halves)
        return True

    def bracket(self) -> ChangeBracket:
        """The value for the caller."""
        reason = None
        if not self.narrow:
            reason = Reason.BRANCH_LIMIT if self.bounded >= self.options.parts else Reason.TIMEOUT
        if self.found is None:
            return ChangeBracket(self.lower, self.upper, None, None, None, reason, self.bounded)
        (label, replayed), inputs = self.found, self.domain.inputs
        first, difference = replayed.point[:inputs], replayed.point[inputs:]
        second = tuple(x + d for x, d in zip(first, difference, strict=True))
        return ChangeBracket(self.lower, self.upper, label, first, second, reason, self.bounded)


def _cut(box: RationalBox, end: str, axis: int, value: Fraction) -> RationalBox:
    """The box with another lower or upper end on one axis."""
    ends = list(getattr(box, end))
    ends[axis] = value
    return replace(box, **{end: tuple(ends)})


def _differences(inputs: int) -> Wiring:
    """Coordinates (x, d) of the inputs (x, x + d)."""
    one, near = Fraction(1), range(inputs)
    return Wiring(
        tuple(((k, one),) for k in near) + tuple(((k, one), (inputs + k, one)) for k in near),
        tuple(((k, one),) for k in near) + tuple(((k, -one), (inputs + k, one)) for k in near),
        (),
    )
