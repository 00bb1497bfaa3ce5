"""L0 radius: how many pixels may change, each to any value of its range, before the label can change?

In: Network, labelled images, a domain. Out: L0Bracket for each image. Trust: sound (lower ends are proofs, upper ends
replayed points).

d_m(x) is the largest k such that no change of at most k pixels within the domain changes the label (Ruan et al. 2018,
arXiv 1804.05805, who look at the values 0 and 1 only); a tie counts as a change, and d_m of a misclassified image is
undefined. Attacks come first, then proofs for k = 1, 2, .. on all images in turn: ends only move towards each other.
What pixel sets leave open is asked of a MILP with a binary for every pixel, where the network is small.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from formalgr.attacks.pixel import PixelAttack, PixelRanges
from formalgr.attacks.replay import Replayer
from formalgr.core.box import Box, RationalBox, outward
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, ModelError, Refused, UsageError
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.rounding import SOLVER_MARGIN
from formalgr.core.verdict import Counterexample, Guarantee, Reason, Verdict
from formalgr.graph.graph import Graph
from formalgr.graph.network import Network
from formalgr.search.pixel_program import nearest_change, pixel_programs, small
from formalgr.search.pixel_sets import PixelProblem, PixelSearch, SetOptions
from formalgr.solvers.base import Answer, Status
from formalgr.solvers.child import warm_child
from formalgr.spec.query import Query
from formalgr.spec.robustness import wrong_label
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch

SEARCH_SHARE = 0.5
"""Of the time of an image, what pixel sets get where a MILP could be asked after them."""

UNPROVEN = -1
"""Lower end where not even the image itself is proven to get its label."""


@dataclass(frozen=True)
class L0Bracket:
    """lower <= d_m <= upper: no change of `lower` pixels changes the label, `witness` changes it with upper + 1 pixels.

    Without a witness `upper` is the number of pixels. lower -1: the image itself is not proven right; both ends None:
    it is misclassified, and d_m is undefined. `changed` are the pixels of the witness, `proof` the weakest level of the
    proofs. reason: why the bracket is open. Raises Refused when the ends contradict each other.
    """

    lower: int | None
    upper: int | None
    witness: Counterexample | None = None
    changed: tuple[int, ...] = ()
    reason: Reason | None = None
    proof: Guarantee = Guarantee.FLOAT_SOUND
    seconds: float = 0.0
    pieces: int = 0

    def __post_init__(self):
        if (self.lower is None) != (self.upper is None):
            raise ValueError("a bracket has both ends or, for a misclassified image, none")
        if self.lower is not None and self.lower > self.upper:
            raise Refused(f"{self.lower} changes were proven safe and a replayed point has {len(self.changed)}: a bug")

    @property
    def misclassified(self) -> bool:
        """Whether the image itself is wrong: d_m is undefined."""
        return self.lower is None

    @property
    def exact(self) -> bool:
        """Whether d_m is known."""
        return self.lower is not None and self.lower == self.upper

    @property
    def guarantee(self) -> Guarantee:
        """The weaker level of the two ends."""
        levels = [self.proof] if self.lower is not None and self.lower >= 0 else []
        levels += [] if self.witness is None else [self.witness.guarantee]
        return min(levels, default=Guarantee.NONE)

    def proven(self, changes: int) -> "L0Bracket":
        """The same with a proof for so many changes; a bound once proven stays."""
        return replace(self, lower=max(self.lower, changes))

    def flipped(self, witness: Counterexample, changed: tuple[int, ...]) -> "L0Bracket":
        """The same with a replayed point that changes these pixels, where it changes fewer than the one known."""
        if len(changed) > self.upper:
            return self
        return replace(self, upper=len(changed) - 1, witness=witness, changed=changed)


@dataclass(frozen=True, kw_only=True)
class L0Options:
    """`max_changes`: nothing beyond so many changes is proven (None: no limit); `seconds_per_image` limits proofs.

    `local` steers what boxes of few pixels get; with its `complete` False no MILP is asked about all pixels either.
    Raises UsageError unless max_changes >= 1 and the limit is > 0.
    """

    max_changes: int | None = None
    seconds_per_image: float = 10.0
    attack: PixelAttack = field(default_factory=PixelAttack)
    sets: SetOptions = field(default_factory=SetOptions)
    local: VerifyOptions = field(default_factory=VerifyOptions)
    rule: str = "argmax"

    def __post_init__(self):
        if self.max_changes is not None and self.max_changes < 1:
            raise UsageError(f"the largest number of changes must be >= 1, got {self.max_changes}")
        if not self.seconds_per_image > 0:
            raise UsageError(f"the limit of an image must be > 0 seconds, got {self.seconds_per_image}")


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """images (n, inputs) float64 within `domain`, labels (n,), coordinates (pixels, channels): the inputs of a pixel.

    Raises InputError for an image that is not finite or lies outside the domain, naming it.
    """

    images: np.ndarray
    labels: Sequence[int]
    domain: RationalBox
    coordinates: np.ndarray

    def __post_init__(self):
        if self.images.ndim != 2 or self.images.shape[1] != self.domain.inputs:
            raise ModelError(f"images must be (number, {self.domain.inputs}), got shape {list(self.images.shape)}")
        if len(self.labels) != len(self.images):
            raise InputError(f"{len(self.images)} images with {len(self.labels)} labels")
        if self.domain.empty:
            raise UsageError("the domain is empty: a lower bound lies above its upper bound")
        for index, image in enumerate(self.images):
            if not np.all(np.isfinite(image)):
                raise InputError(f"image {index} is not finite")
            for place, (low, value, high) in enumerate(
                zip(self.domain.lower, image.tolist(), self.domain.upper, strict=True)
            ):
                if not low <= value <= high:
                    raise InputError(
                        f"image {index} lies outside the domain: input {place} is {value:g}, allowed "
                        f"{float(low):g} .. {float(high):g}; scale the images or give another domain"
                    )

    @property
    def pixels(self) -> int:
        """Number of pixels of an image."""
        return len(self.coordinates)


def uniform_domain(low: str | float | Fraction, high: str | float | Fraction, inputs: int) -> RationalBox:
    """The same range for every input. Raises UsageError unless both ends are finite numbers."""
    try:
        ends = [Fraction(end) if isinstance(end, (int, Fraction)) else Fraction(str(end)) for end in (low, high)]
    except (ValueError, OverflowError, ZeroDivisionError):
        raise UsageError(f"the domain of a pixel needs two finite bounds, got {low} and {high}") from None
    return RationalBox((ends[0],) * inputs, (ends[1],) * inputs)


def pixel_coordinates(shape: Sequence[int], channels: str | None = None) -> np.ndarray:
    """The inputs of every pixel, (pixels, channels), of an input of `shape` whose first axis is that of one example.

    `channels` first or last: a pixel is all channels at one place; None: every input is a pixel of its own. Raises
    UsageError where the shape has no such axis.
    """
    inputs = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int64)
    if channels is None:
        return inputs[:, None]
    if channels not in ("first", "last"):
        raise UsageError(f"channels must be first or last, got {channels!r}")
    if len(shape) < 3 or shape[0] != 1:
        raise UsageError(f"an input of shape {list(shape)} has no channel axis: leave --channels out")
    if channels == "first":
        return inputs.reshape(shape[1], -1).T.copy()
    return inputs.reshape(-1, shape[-1])


def l0_brackets(
    network: Network,
    given: LabelledImages,
    options: L0Options | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> tuple[L0Bracket, ...]:
    """lower <= d_m <= upper for every image. Raises UsageError or ModelError where question and network do not fit."""
    options = options or L0Options()
    if given.domain.inputs != network.graph.inputs:
        raise ModelError(f"the network takes {network.graph.inputs} inputs, images have {given.domain.inputs}")
    if options.max_changes is not None and options.max_changes > given.pixels:
        raise UsageError(f"at most {given.pixels} pixels can change, got {options.max_changes} changes")
    run = _Run(network, given, options, budget or Budget(), progress)
    run.attack()
    changes = 1
    while run.prove(changes):
        changes += 1
    return tuple(run.brackets)


class _Run:
    """The images of one call and what is known of each."""

    def __init__(self, network: Network, given: LabelledImages, options: L0Options, budget: Budget, progress: Progress):
        self._network, self._given, self._options = network, given, options
        self._budget, self._progress = budget, progress
        self._replayer = Replayer(network)
        self._unsafe = {
            label: wrong_label(label, network.scores, options.rule) for label in sorted(set(map(int, given.labels)))
        }
        self._searches = {
            label: PixelSearch(network.graph, unsafe, options.sets) for label, unsafe in self._unsafe.items()
        }
        self._programs = options.local.complete and small(network.graph)
        box = outward([given.domain])
        # a bound that float64 does not hold is rounded outward in proofs; attacks stay inside, since replays clip
        self._lower, self._upper = np.minimum(box.lower[0], given.images), np.maximum(box.upper[0], given.images)
        self.brackets = [self._start(index) for index in range(len(given.images))]
        self._tick()

    def _label(self, index: int) -> int:
        return int(self._given.labels[index])

    def _start(self, index: int) -> L0Bracket:
        """What evaluation at the image itself says."""
        pixels, image = self._given.pixels, self._given.images[index]
        exact = tuple(map(Fraction, image.tolist()))
        here = Query(RationalBox(exact, exact), self._unsafe[self._label(index)])
        if self._searches[self._label(index)].right_at(image):
            return L0Bracket(0, pixels)
        if self._replayer.replay(here, exact) is not None:
            return L0Bracket(None, None)
        return L0Bracket(UNPROVEN, pixels, reason=Reason.NUMERICS)

    def _tick(self, note: str = "") -> None:
        exact = sum(bracket.exact for bracket in self.brackets)
        wrong = sum(bracket.misclassified for bracket in self.brackets)
        self._progress(Tick("images", len(self.brackets), exact, wrong, note=note))

    def attack(self) -> None:
        """Upper ends by attacks on all images of a label at once."""
        for label, unsafe in self._unsafe.items():
            mine = [k for k, bracket in enumerate(self.brackets) if bracket.lower is not None]
            mine = [k for k in mine if self._label(k) == label]
            if not mine:
                continue
            ranges = PixelRanges(
                self._given.images[mine], self._lower[mine], self._upper[mine], self._given.coordinates
            )
            made = self._options.attack.run(self._network.graph, ranges, unsafe, self._budget)
            for k, point, found in zip(mine, made.points, made.found, strict=True):
                if found:
                    self._replay(k, point.tolist())
            self._tick("attacks")

    def _replay(self, index: int, point: Sequence[float | Fraction]) -> bool:
        """Whether the point is a counterexample; if so the bracket knows it."""
        query = Query(self._given.domain, self._unsafe[self._label(index)])
        found = self._replayer.replay(query, point)
        if found is None:
            return False
        image = map(Fraction, self._given.images[index].tolist())
        differs = np.array([x != y for x, y in zip(found.point, image, strict=True)])
        changed = np.nonzero(np.any(differs[self._given.coordinates], axis=1))[0]
        self.brackets[index] = self.brackets[index].flipped(found, tuple(changed.tolist()))
        return True

    def prove(self, changes: int) -> bool:
        """Try to prove so many changes on the images where one fewer is proven; whether any image goes on."""
        most = self._given.pixels if self._options.max_changes is None else self._options.max_changes
        going = False
        for index, bracket in enumerate(self.brackets):
            if bracket.lower != changes - 1 or bracket.exact or bracket.reason is not None or changes > most:
                continue
            self.brackets[index] = bracket = self._tried(index, changes)
            going |= bracket.reason is None and not bracket.exact
            self._tick(f"{changes} changes")
        return going

    def _decide(self, index: int, boxes: Sequence[Box], budget: Budget) -> Reason | None:
        """Ask about boxes of few free pixels with every stage; None when all are decided. A violation is replayed."""
        ends = [tuple(tuple(map(Fraction, end[0].tolist())) for end in (box.lower, box.upper)) for box in boxes]
        domain = self._given.domain
        queries = [
            Query(RationalBox(*end).within(domain.lower, domain.upper), self._unsafe[self._label(index)])
            for end in ends
        ]
        outcomes = verify_batch(self._network, queries, self._options.local, budget)
        for outcome in outcomes:
            if outcome.counterexample is not None:
                return None if self._replay(index, outcome.counterexample.point) else Reason.NUMERICS
            if outcome.verdict is Verdict.UNKNOWN:
                return outcome.reason
        weakest = min(outcome.guarantee for outcome in outcomes)
        self.brackets[index] = replace(self.brackets[index], proof=min(self.brackets[index].proof, weakest))
        return None

    def _solved(self, index: int, problem: PixelProblem, changes: int, budget: Budget) -> Reason | None:
        """Ask a MILP about the whole L0 ball; None when it is decided. A violation is replayed."""
        graph, deadline = self._network.graph, Budget(budget.remaining)  # a solver's time passes in another process
        with warm_child("highs") as solver:
            for program in pixel_programs(graph, self._unsafe[self._label(index)], problem, changes):
                answer = solver.solve(program, deadline)
                if answer.bound is None or not answer.bound > SOLVER_MARGIN:
                    if answer.point is not None:
                        point = np.array([answer.point[k] for k in program.inputs], dtype=np.float64)
                        if self._replay(index, nearest_change(problem, point, changes).tolist()):
                            return None
                    return _why_open(graph, answer, deadline)
                bracket = self.brackets[index]
                self.brackets[index] = replace(bracket, proof=min(bracket.proof, Guarantee.SOLVER))
        return None

    def _tried(self, index: int, changes: int) -> L0Bracket:
        bracket, image = self.brackets[index], self._given.images[index]
        left = self._options.seconds_per_image - bracket.seconds
        if self._budget.expired or left <= 0:
            return replace(bracket, reason=Reason.TIMEOUT)
        budget = self._budget.within(left)
        problem = PixelProblem(image, self._lower[index], self._upper[index], self._given.coordinates)
        first = budget.within(SEARCH_SHARE * left) if self._programs else budget
        result = self._searches[self._label(index)].run(problem, changes, first)
        reason = result.reason
        if result.point is not None and not self._replay(index, result.point.tolist()):
            reason = Reason.NUMERICS
        if result.boxes:
            reason = self._decide(index, result.boxes, budget)
        if reason is not None and self._programs and not budget.expired:
            reason = self._solved(index, problem, changes, budget)
        bracket = self.brackets[index]
        if reason is None and bracket.upper >= changes:
            bracket = bracket.proven(changes)
        spent = {"seconds": bracket.seconds + budget.elapsed, "pieces": bracket.pieces + result.pieces}
        return replace(bracket, reason=None if bracket.exact else reason, **spent)


def _why_open(graph: Graph, answer: Answer, deadline: Budget) -> Reason:
    """Why a MILP of all pixels did not decide."""
    if answer.status in (Status.OPTIMAL, Status.FEASIBLE) and not graph.exact:
        return Reason.RELAXATION
    if answer.status is Status.OPTIMAL:
        return Reason.NUMERICS
    return Reason.TIMEOUT if deadline.expired else Reason.SOLVER
