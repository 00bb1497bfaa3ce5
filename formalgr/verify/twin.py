"""How far an output can change between two inputs of a domain that lie close together, as a bracket at any time.

In: Network, domain, delta. Out: PairBracket. Trust: sound (the lower end is a replayed pair, the upper end the
largest of bounds over parts that cover all pairs).

Katz et al. 2017 (Towards Proving the Adversarial Robustness of Deep Neural Networks): a network is (delta,
epsilon)-globally robust on D when |f_l(x) - f_l(x')| < epsilon for all outputs l and all x, x' of D with
||x - x'||_inf <= delta. The difference d = x' - x is a variable of its own (search/pair_search.py). Pairs come from
attacks on the two copies as one network (graph/product) and from the search. x and x' may be exchanged: one sign
suffices for them. The same search brackets the largest margin of a label that a pair breaks (search/aims.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np

from formalgr.attacks.gradient import gradient
from formalgr.attacks.replay import Replayer
from formalgr.core.box import Box, RationalBox, inward_float32, outward
from formalgr.core.budget import Budget
from formalgr.core.errors import ModelError, Unbounded, UsageError
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.rounding import nearest_up
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Guarantee, Reason
from formalgr.graph.network import Network
from formalgr.graph.product import product
from formalgr.graph.wiring import Wiring
from formalgr.search.aims import Aim, Margin, growth_of_outputs, margin_of
from formalgr.search.pair_search import PairSearch
from formalgr.spec.query import Query
from formalgr.spec.robustness import radius_of, wrong_label
from formalgr.verify.options import VerifyOptions

NUDGE = Fraction(1, 2**30)
"""A pair is measured in floats and then replayed: asked for a little less, so that a rounding does not keep the replay
from confirming it."""

SPARE = 1e-12
"""Parts are settled this share below what the tolerance allows, so that no rounding leaves the bracket too wide."""

ROUNDINGS = 1024
"""What bounds lose to roundings is some tens of times what an evaluation loses: an upper end below so many of its
roundings cannot fall, as where a network is constant."""

ATTACK_SHARE = 0.1
"""Of the time, what attacks may take."""

STEPS_BEFORE_ATTACK = 8
"""Steps of the search before the attack: they show good pairs themselves, and easy questions end with them."""

ATTEMPTS = 12
"""Attacks on a margin: after a hit halfway up to the bound, after a miss halfway down to the best pair."""


@dataclass(frozen=True, kw_only=True)
class TwinOptions:
    """Brackets no wider than `tolerance` times their upper end, from at most `parts` parts and linear programs.

    An upper end that is nothing but roundings is narrow enough. With `epsilon` the bracket need only decide whether
    every change is below it, however wide it is. `label_rule`: which output is the label of a margin. Raises UsageError
    for a tolerance outside (0, 1).
    """

    tolerance: float = 0.1
    epsilon: Fraction | None = None
    label_rule: str = "argmax"
    parts: int = 1 << 24
    local: VerifyOptions = field(default_factory=VerifyOptions)

    def __post_init__(self):
        if not 0.0 < self.tolerance < 1.0:
            raise UsageError(f"tolerance must be in (0, 1), got {self.tolerance}")


@dataclass(frozen=True)
class PairBracket:
    """lower <= the aim <= upper: the largest change of an output, or the largest margin that is broken.

    `first` and `second` are a pair that shows `lower` by output `label`, the one that changes or that takes over (None
    where no pair was found). `reason` says why the bracket is wider than asked, None when it is not; `parts` counts the
    parts of the domain that were bounded, `programs` the linear programs.
    """

    lower: Fraction
    upper: Fraction
    label: int | None
    first: tuple[Fraction, ...] | None
    second: tuple[Fraction, ...] | None
    reason: Reason | None
    parts: int
    programs: int
    guarantee: Guarantee = Guarantee.FLOAT_SOUND


def change_bracket(
    network: Network,
    domain: RationalBox,
    delta: float | str | Fraction,
    options: TwinOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> PairBracket:
    """The largest change of an output over all pairs of the domain at most `delta` apart; a spent budget leaves the
    best bracket so far.

    Raises UsageError for delta 0 or an empty domain, ModelError when the domain does not fit the network or an operator
    is neither linear, nor an activation, nor a maximum, Unbounded when an output has no finite bounds.
    """
    return _bracket(network, domain, delta, growth_of_outputs(network.graph.outputs), (options, budget, progress))


def margin_bracket(
    network: Network,
    label: int,
    domain: RationalBox,
    delta: float | str | Fraction,
    options: TwinOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> PairBracket:
    """The largest margin of the label at a point of the domain that has one without the label within `delta`, there.

    A point of the domain whose margin (its output minus the largest other one) exceeds the upper end keeps the label on
    its whole closed ball, as far as the domain reaches. Raises like change_bracket, UsageError for an unknown label.
    """
    rule = (options or TwinOptions()).label_rule
    wrong_label(label, network.scores, rule)  # refuses labels and rules that there are not
    aim = margin_of(label, network.graph.outputs, rule)
    return _bracket(network, domain, delta, aim, (options, budget, progress))


def _bracket(network: Network, domain: RationalBox, delta: float | str | Fraction, aim: Aim, how: tuple) -> PairBracket:
    options, budget, progress = how
    twin = _Twin(network, domain, radius_of(delta), aim, options or TwinOptions(), budget or Budget())
    steps = 0
    while twin.refine():
        steps += 1
        if steps == STEPS_BEFORE_ATTACK:
            twin.attack()
        ends = f"{float(twin.lower):.4g} .. {float(twin.upper):.4g}"
        progress(Tick("bracket", 1, note=f"{ends} after {twin.work} parts and programs"))
    return twin.bracket()


class _Twin:
    """Both ends as they move."""

    def __init__(self, network: Network, domain: RationalBox, delta: Fraction, aim: Aim, options: TwinOptions, budget):
        if domain.inputs != network.graph.inputs:
            raise ModelError(f"the domain bounds {domain.inputs} inputs, network takes {network.graph.inputs}")
        if domain.empty or delta == 0:
            raise UsageError("the domain is empty: it has no pairs" if domain.empty else "delta must be > 0")
        self.network, self.domain, self.aim, self.options, self.budget = network, domain, aim, options, budget
        self.pairs = product([network, network], _differences(domain.inputs))
        reach = [min(delta, high - low) for low, high in zip(domain.lower, domain.upper, strict=True)]
        self.box = RationalBox((*domain.lower, *(-r for r in reach)), (*domain.upper, *reach))
        self.replayer = Replayer(self.pairs)
        memory = options.local.branch.memory_bytes
        self.search = PairSearch(network.graph, outward([domain]), nearest_up(delta), aim, memory)
        self.lower, self.found = Fraction(0), None

    @property
    def work(self) -> int:
        """Parts bounded and programs solved."""
        return self.search.bounded + self.search.solved

    @property
    def upper(self) -> Fraction:
        """The largest bound of all parts."""
        return Fraction(max(0.0, self.search.upper))

    @property
    def enough(self) -> float:
        """A bound that needs no more work."""
        epsilon = self.options.epsilon
        if epsilon is not None:
            return float(epsilon) * (1.0 - SPARE)
        return max(float(self.lower) / (1.0 - self.options.tolerance) * (1.0 - SPARE), self.noise)

    @cached_property
    def noise(self) -> float:
        """What roundings may leave of an upper end."""
        box = outward([self.domain])
        ends = np.concatenate([box.lower, box.center, box.upper])
        outputs = self.network.graph.intervals(Box(ends, ends).interval(self.network.graph.input_shape))[-1]
        return ROUNDINGS * float(np.max(outputs.upper - outputs.lower))

    @property
    def narrow(self) -> bool:
        """Whether the bracket is as narrow as asked, or decides what is asked."""
        epsilon = self.options.epsilon
        if epsilon is not None:
            return self.upper < epsilon or self.lower >= epsilon
        gap = self.upper - self.lower
        return gap <= Fraction(self.options.tolerance) * self.upper or self.upper <= self.noise

    def refine(self) -> bool:
        """One step of the search; False when it is enough, or too much."""
        started = self.search.bounded > 0
        if started and (self.narrow or self.budget.expired or self.work >= self.options.parts or not self.search.open):
            return False
        first, moves = self.search.step(self.enough, self.budget)
        if not self.search.upper < np.inf:
            raise Unbounded("an output has no finite bounds over the domain; give a smaller one")
        self.learn_best(first, moves)
        return True

    def attack(self) -> None:
        """Gradient ascent on every row of the aim."""
        random, box = named_generator(self.options.local.seed, "twin"), inward_float32([self.box])
        budget, rows = self.budget.within(ATTACK_SHARE * self.budget.remaining), range(len(self.aim.matrix))
        attempts = [[row] for row in rows] if not isinstance(self.aim, Margin) else [list(rows)] * ATTEMPTS
        most = self.upper
        for rows in attempts:
            if budget.expired or self.narrow:
                break
            # a change is asked for out of reach, so that the attack gets as near as it can
            value = (self.lower + most) / 2 if isinstance(self.aim, Margin) else 2 * self.upper + 1
            unsafe, before = self.aim.reached_by(value, rows), self.lower
            best = self.options.local.pgd.run(self.pairs.graph, box, unsafe, random, budget)
            self.learn_best(*np.split(best.points, 2, axis=1))
            most = value if self.lower == before else self.upper

    def learn_best(self, first: np.ndarray, moves: np.ndarray) -> None:
        """Take the best of the pairs (x, x + d), pulled into the domain, as the lower end if it is a better one."""
        if not len(first):
            return
        low, high = (np.array([float(x) for x in end]) for end in (self.domain.lower, self.domain.upper))
        first = np.clip(first, low, high)
        if isinstance(self.aim, Margin):
            first = np.clip(np.concatenate([first, self.broken(first)]), low, high)
            moves = np.concatenate([moves, moves])
        second = np.clip(first + moves, low, high)
        first = np.clip(second - moves, low, high)
        ends = [np.concatenate(pair) for pair in ((first, second), (second, first))]
        outputs = [self.network.graph.evaluate(end).reshape(len(end), -1) for end in ends]
        values, rows = self.aim.values(*outputs)
        best = int(np.argmax(values))
        if np.isfinite(values[best]):
            self.learn(ends[0][best].tolist(), ends[1][best].tolist(), Fraction(float(values[best])), int(rows[best]))

    def broken(self, points: np.ndarray) -> np.ndarray:
        """The points moved to just where the row that is nearest to 0 changes its sign, by its gradient."""
        graph = self.network.graph
        values = graph.values(points)
        rows = values[-1].reshape(len(points), -1) @ self.aim.matrix.T
        row = np.argmin(rows, axis=1)
        slope = gradient(graph, values, self.aim.matrix[row])
        size = np.sum(np.abs(slope), axis=1)
        step = rows[np.arange(len(row)), row] * (1.0 + 1e-6) / np.where(size > 0.0, size, np.inf)
        return points - np.where(step > 0.0, step * (1.0 + 1e-9) + 1e-12, 0.0)[:, None] * np.sign(slope)

    def learn(self, first: Sequence[float], second: Sequence[float], value: Fraction, row: int) -> None:
        """Take the pair as the lower end if a replay confirms that it is a better one."""
        value *= 1 - NUDGE
        if value <= self.lower:
            return
        exact, other = self.domain.project(first), self.domain.project(second)
        coordinates = (*exact, *(b - a for a, b in zip(exact, other, strict=True)))
        replayed = self.replayer.replay(Query(self.box, self.aim.reached_by(value, [row])), coordinates)
        if replayed is not None:
            self.lower, self.found = value, (self.aim.names[row], replayed)

    def bracket(self) -> PairBracket:
        """The value for the caller."""
        reason = None
        if not self.narrow:
            reason = Reason.TIMEOUT if self.budget.expired else Reason.BRANCH_LIMIT
            reason = reason if self.search.open else Reason.NUMERICS
        work = self.search.bounded, self.search.solved
        if self.found is None:
            return PairBracket(self.lower, self.upper, None, None, None, reason, *work)
        (label, replayed), inputs = self.found, self.domain.inputs
        first, difference = replayed.point[:inputs], replayed.point[inputs:]
        second = tuple(x + d for x, d in zip(first, difference, strict=True))
        return PairBracket(self.lower, self.upper, label, first, second, reason, *work)


def _differences(inputs: int) -> Wiring:
    """Coordinates (x, d) of the inputs (x, x + d)."""
    one, near = Fraction(1), range(inputs)
    return Wiring(
        tuple(((k, one),) for k in near) + tuple(((k, one), (inputs + k, one)) for k in near),
        tuple(((k, one),) for k in near) + tuple(((k, -one), (inputs + k, one)) for k in near),
        (),
    )
