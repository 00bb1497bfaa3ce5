"""Brackets of the largest robust radius: for every latent z a proven L and a replayed U with L < R(z) <= U.

In: Network, latents, UnsafeSet. Out: RadiusBracket per latent. Trust: sound (L is a proof of the pipeline or of the
ladder, U the exact distance of a replayed point; everything else only chooses radii).

R(z) = inf {||z' - z||_inf : z' is classified wrong}; a tie is wrong (docs/statistics.md section 1). All latents go in rounds
through one batched pipeline. Attacks first pull U down to where a proof is likely to meet it; root bounds give L for
nearly nothing; then the complete search is asked for U - tolerance itself. Its cost multiplies with the radius
(six-fold per 0.1 on the digits), so one proof there costs less than a bisection that comes near again and again. Under
a time limit a radius halfway tells how fast the cost grows, and the next one is the largest that the growth lets hope
for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from formalgr.attacks.nearest import Balls, MoveCloser
from formalgr.attacks.replay import Replayer
from formalgr.core.box import Box, inward_float32
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, ModelError, Refused, UsageError
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Counterexample, Guarantee, Outcome, Reason, Verdict
from formalgr.graph.network import Network
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball, radius_of
from formalgr.spec.unsafe import UnsafeSet
from formalgr.verify.ladder import Ladder, rounded_down
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch

TOLERANCE = Fraction(1, 1000)
"""Default tolerance, as a share of the cap."""

ATTACK_ROUNDS = 7
"""Attacks on smaller and smaller balls: each halves the part of the bracket that attacks alone leave open."""

LEAST_SHARE = 1.0 / 16.0
"""A latent is left alone when less than this share of its time is left: no radius that costs so little is news."""

MOST_GROWTH = 16.0
"""Largest believed exponent of cost against radius: few directions of a large latent space matter at once."""

UNPROVEN = Fraction(-1)
"""L of a latent whose center is not proven to be classified right."""


@dataclass(frozen=True)
class RadiusBracket:
    """lower < R <= upper: the closed ball of radius `lower` is proven, `witness` is replayed at distance `upper`.

    lower is -1 where the center itself is not proven; upper is None where no counterexample was found up to the cap
    (then also witness). `guarantee` is the weakest of what was proven and replayed; `reason` says why the bracket is
    wider than asked, None when it is not. Raises Refused when the two ends contradict each other.
    """

    lower: Fraction
    upper: Fraction | None
    witness: Counterexample | None
    guarantee: Guarantee
    reason: Reason | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if (self.upper is None) != (self.witness is None):
            raise ValueError("a bracket has an upper end exactly when it holds a counterexample")
        if self.upper is not None and self.lower >= self.upper:
            raise Refused(f"radius {self.lower} was proven and a counterexample lies at distance {self.upper}: a bug")

    @property
    def misclassified(self) -> bool:
        """Whether the center itself is wrong."""
        return self.upper == 0


@dataclass(frozen=True, kw_only=True)
class RadiusOptions:
    """How far and how fine: radii up to `max_epsilon`, brackets no wider than `tolerance` (default max_epsilon / 1000).

    `local` steers the checks; its seconds_per_query limits each latent, all radii together. Raises UsageError unless
    both radii are > 0.
    """

    max_epsilon: float | str | Fraction = Fraction(1)
    tolerance: float | str | Fraction | None = None
    local: VerifyOptions = field(default_factory=VerifyOptions)

    def __post_init__(self):
        cap = _positive("max_epsilon", self.max_epsilon)
        tolerance = TOLERANCE * cap if self.tolerance is None else _positive("tolerance", self.tolerance)
        object.__setattr__(self, "max_epsilon", cap)
        object.__setattr__(self, "tolerance", tolerance)

    @property
    def step(self) -> Fraction:
        """The grid of radii that are tried: the largest power of two <= tolerance / 16, so that floats hold them."""
        return Fraction(2) ** math.floor(math.log2(self.tolerance / 16))


def _positive(name: str, value: float | str | Fraction) -> Fraction:
    try:
        radius = radius_of(value)
    except UsageError:
        radius = Fraction(0)
    if radius <= 0:
        raise UsageError(f"{name} must be a finite number > 0, got {value}")
    return radius


@dataclass
class _Latent:
    """What is known of one latent, and what its proofs have cost so far: the last two (radius, seconds)."""

    center: np.ndarray
    lower: Fraction = UNPROVEN
    upper: Fraction | None = None
    witness: Counterexample | None = None
    proof: Guarantee = Guarantee.EXACT
    wall: Fraction | None = None
    wall_seconds: float = 0.0
    reason: Reason | None = None
    stuck: bool = False
    first_share: float | None = None
    spent: float = 0.0
    costs: list[tuple[Fraction, float]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def raise_lower(self, radius: Fraction, guarantee: Guarantee) -> None:
        """A proven closed ball: lower ends never fall."""
        if radius > self.lower:
            self.lower, self.proof = radius, guarantee

    def lower_upper(self, found: Counterexample) -> None:
        """A replayed point: upper ends never rise; its distance is exact."""
        ends = zip(found.point, self.center.tolist(), strict=True)
        distance = max((abs(x - Fraction(z)) for x, z in ends), default=Fraction(0))
        if self.upper is None or distance < self.upper:
            self.upper, self.witness = distance, found
            self.wall = None if self.wall is not None and self.wall >= distance else self.wall

    def bracket(self) -> RadiusBracket:
        """The value for the caller."""
        levels = [self.proof] if self.lower >= 0 else []
        if self.witness is not None:
            levels.append(self.witness.guarantee)
        weakest = min(levels, default=Guarantee.NONE)
        return RadiusBracket(self.lower, self.upper, self.witness, weakest, self.reason, self.spent, self.notes)


class _Run:
    """The latents of one network and one unsafe set on their way to brackets."""

    def __init__(self, network: Network, unsafe: UnsafeSet, options: RadiusOptions, budget: Budget):
        self.network = network
        self.unsafe = unsafe
        self.options = options
        self.budget = budget
        self.replayer = Replayer(network)
        self.random = named_generator(options.local.seed, "radius")
        self.closer = MoveCloser()

    def query(self, latent: _Latent, radius: Fraction) -> Query:
        """The query of one ball."""
        return Query(latent_ball(latent.center, radius), self.unsafe)

    def target(self, latent: _Latent) -> Fraction:
        """The least radius whose proof makes the bracket as narrow as asked; the cap without a counterexample."""
        if latent.upper is None:
            return self.options.max_epsilon
        step = self.options.step
        return max(Fraction(0), -((self.options.tolerance - latent.upper) // step) * step)

    def open(self, latent: _Latent) -> bool:
        """Whether the bracket is wider than asked and more can be done for it."""
        return not latent.stuck and latent.lower < self.target(latent)

    # ------------------------------------------------------------ the center

    def check_centers(self, latents: list[_Latent]) -> None:
        """Radius 0: wrong centers are done, and so are those that nothing proves."""
        for latent, outcome in zip(latents, self.ask(latents, [Fraction(0)] * len(latents)), strict=True):
            self.learn(latent, Fraction(0), outcome)
            latent.stuck = outcome.verdict is not Verdict.HOLDS

    # ------------------------------------------------------------ upper ends

    def balls(self, latents: list[_Latent]) -> Balls:
        """The balls of the largest radius."""
        box = inward_float32([latent_ball(latent.center, self.options.max_epsilon) for latent in latents])
        centers = np.stack([latent.center for latent in latents])
        return Balls(self.network.graph, self.unsafe, box, centers)

    def attack(self, latents: list[_Latent]) -> None:
        """Counterexamples on smaller and smaller balls: each lies halfway between the last miss and the last find."""
        if not latents or self.budget.expired:
            return
        started, balls, tolerance = self.budget.elapsed, self.balls(latents), float(self.options.tolerance)
        missed, nearest = np.zeros(len(latents), dtype=np.float64), np.full(len(latents), np.inf)
        trial, points = np.full(len(latents), float(self.options.max_epsilon)), balls.centers.copy()
        for _ in range(ATTACK_ROUNDS):
            places = np.nonzero(trial - missed > tolerance)[0]
            if not places.size or self.budget.expired:
                break
            part = balls[places]
            reach = trial[places][:, None]
            box = Box(np.maximum(part.box.lower, part.centers - reach), np.minimum(part.box.upper, part.centers + reach))
            best = self.options.local.pgd.run(part.graph, box, self.unsafe, self.random, self.budget)
            hit = best.excess <= 0.0
            missed[places[~hit]] = trial[places[~hit]]
            if np.any(hit):
                points[places[hit]] = self.closer.along(part[hit], best.points[hit])
                nearest = np.where(np.any(points != balls.centers, axis=1), balls.distance(points), np.inf)
            trial = np.where(np.isfinite(nearest), 0.5 * missed + 0.5 * nearest, missed)
        found = np.nonzero(np.isfinite(nearest))[0]
        self.pull([latents[k] for k in found.tolist()], points[found])
        for latent in latents:
            latent.spent += (self.budget.elapsed - started) / len(latents)

    def pull(self, latents: list[_Latent], points: np.ndarray) -> None:
        """Move points closer and replay them; the exact distance of a replayed one counts."""
        if not latents:
            return
        near = self.closer.run(self.balls(latents), points)
        for latent, *tried in zip(latents, near.tolist(), points.tolist(), strict=True):
            query = self.query(latent, self.options.max_epsilon)
            replays = (self.replayer.replay(query, point) for point in tried)
            found = next((one for one in replays if one is not None), None)
            if found is not None:
                latent.lower_upper(found)

    # ------------------------------------------------------------ lower ends

    def climb(self, latents: list[_Latent]) -> None:
        """Root bounds at a few radii; not where the user asks for another proof than theirs."""
        local = self.options.local
        if not latents or local.solver != "auto" or local.require > Guarantee.FLOAT_SOUND:
            return
        started = self.budget.elapsed
        ladder = Ladder(self.network.graph, self.unsafe, self.options.step, local.branch)
        caps = [self.target(latent) for latent in latents]
        proven = ladder.climb(np.stack([latent.center for latent in latents]), caps, self.budget)
        for latent, (radius, seconds) in zip(latents, proven, strict=True):
            latent.raise_lower(radius, Guarantee.FLOAT_SOUND)
            latent.costs.append((latent.lower, seconds))
            latent.spent += (self.budget.elapsed - started) / len(latents)

    def ask(self, latents: list[_Latent], radii: Sequence[Fraction], seconds: float = math.inf) -> list[Outcome]:
        """One complete check per latent, all in one batch."""
        local = self.options.local
        local = replace(local, seconds_per_query=min(seconds, local.seconds_per_query))
        queries = [self.query(latent, radius) for latent, radius in zip(latents, radii, strict=True)]
        return verify_batch(self.network, queries, local, self.budget)

    def learn(self, latent: _Latent, radius: Fraction, outcome: Outcome, seconds: float = math.inf) -> None:
        """Take the outcome of a complete check: an end, or a wall that `seconds` or precision did not let it pass."""
        latent.spent += outcome.seconds
        latent.notes = tuple(dict.fromkeys((*latent.notes, *outcome.notes)))
        if outcome.verdict is Verdict.HOLDS:
            latent.raise_lower(radius, outcome.guarantee)
            if radius:
                latent.costs.append((radius, outcome.seconds))
        elif outcome.verdict is Verdict.VIOLATED:
            latent.lower_upper(outcome.counterexample)
        else:
            latent.wall, latent.wall_seconds, latent.reason = radius, seconds, outcome.reason
            latent.stuck = outcome.reason is Reason.TOO_WEAK

    def refine(self, latents: list[_Latent], report: Callable[[], None]) -> None:
        """Complete checks, round by round, until every bracket is narrow enough or its time is up."""
        while not self.budget.expired:
            waiting = [latent for latent in latents if self.open(latent)]
            batches: dict[float, list[_Latent]] = {}
            for latent in waiting:
                seconds = self.allowance(latent, len(waiting))
                if seconds is None or self.blocked(latent, seconds):
                    latent.stuck, latent.reason = True, latent.reason or Reason.TIMEOUT
                else:
                    batches.setdefault(seconds, []).append(latent)
            if not batches:
                return
            for seconds, part in sorted(batches.items()):
                self.check(part, seconds)
                report()

    def check(self, latents: list[_Latent], seconds: float) -> None:
        """One round of complete checks of at most `seconds` each; counterexamples are moved closer."""
        radii = [self.choose(latent, seconds) for latent in latents]
        outcomes = self.ask(latents, radii, seconds)
        found = []
        for latent, radius, outcome in zip(latents, radii, outcomes, strict=True):
            self.learn(latent, radius, outcome, seconds)
            if outcome.verdict is Verdict.VIOLATED:
                found.append((latent, outcome.counterexample.inputs))
        if found:
            self.pull([latent for latent, _ in found], np.stack([point for _, point in found]))

    def allowance(self, latent: _Latent, number: int) -> float | None:
        """Seconds for the next check: half of what is left of the latent's limit and of its part of the run's.

        A power of the root of two, so that latents with like limits share a batch; None when too little is left.
        """
        left = min(self.options.local.seconds_per_query - latent.spent, self.budget.remaining / number)
        if latent.first_share is None:
            latent.first_share = left
        if math.isinf(left):
            return left
        return None if left <= LEAST_SHARE * latent.first_share else 2.0 ** (0.5 * math.floor(2.0 * math.log2(0.5 * left)))

    def wall(self, latent: _Latent, seconds: float) -> Fraction | None:
        """The radius that an earlier check gave up on, unless the new one has far more time."""
        timed = latent.reason is Reason.TIMEOUT and seconds >= 4.0 * latent.wall_seconds
        return None if timed else latent.wall

    def blocked(self, latent: _Latent, seconds: float) -> bool:
        """Whether everything up to the wall is proven already."""
        wall = self.wall(latent, seconds)
        return wall is not None and wall - latent.lower <= self.options.tolerance

    def choose(self, latent: _Latent, seconds: float) -> Fraction:
        """The next radius: the target, or what a check of `seconds` may reach, in (lower, target]."""
        target, step, wall = self.target(latent), self.options.step, self.wall(latent, seconds)
        top = target if wall is None else min(target, (latent.lower + wall) / 2)
        if math.isfinite(seconds):
            least = latent.lower + (top - latent.lower) / 8
            top = min(top, max(least, _affordable(latent, target, seconds)))
        return target if top >= target else max(rounded_down(top, step), latent.lower + step)


def _affordable(latent: _Latent, target: Fraction, seconds: float) -> Fraction:
    """The radius whose proof should take half of `seconds`, by a power law through what is known of the costs.

    A ball of radius r holds (r / s)^p balls of radius s: the exponent is p (at most MOST_GROWTH) until two proofs, or
    one and a check that was given up, tell a better one.
    """
    if not latent.costs or not latent.costs[-1][0]:
        return (latent.lower + target) / 2
    last, dear = latent.costs[-1]
    known = latent.costs[-2:-1] + [(latent.wall, latent.wall_seconds)] * (latent.wall is not None)
    growth = [_growth(last, dear, radius, cost) for radius, cost in known if radius > 0 and radius != last and cost > 0]
    power = min(max(growth, default=len(latent.center)), MOST_GROWTH)
    return last * Fraction((0.5 * seconds / dear) ** (1.0 / power))


def _growth(radius: Fraction, cost: float, other: Fraction, price: float) -> float:
    """The exponent of the power law through two costs, 1 at least."""
    return max(1.0, math.log(price / cost) / math.log(other / radius))


def radius_brackets(
    network: Network,
    latents: np.ndarray,
    unsafe: UnsafeSet,
    options: RadiusOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> tuple[RadiusBracket, ...]:
    """lower < R(z) <= upper for each latent of (number, inputs), in order; see RadiusBracket.

    A spent budget leaves the best brackets so far. Raises InputError for latents that are no finite numbers, ModelError
    when they or the unsafe set do not fit the network.
    """
    run = _Run(network, unsafe, options or RadiusOptions(), budget or Budget())
    states = [_Latent(center) for center in exact_latents(latents, network.graph.inputs)]

    def report(note: str) -> None:
        done = [state for state in states if not run.open(state)]
        robust = sum(state.lower == run.options.max_epsilon for state in done)
        progress(Tick("brackets", len(states), robust, len(done) - robust, 0, note))

    run.check_centers(states)
    report("centers")
    run.attack([state for state in states if run.open(state)])
    report("attack")
    run.climb([state for state in states if run.open(state)])
    report("root bounds")
    run.refine(states, lambda: report("branch and bound"))
    for state in states:
        if state.upper == 0 or state.lower >= run.target(state):
            state.reason = None
        else:
            state.reason = state.reason or Reason.TIMEOUT
    return tuple(state.bracket() for state in states)


def exact_latents(latents: np.ndarray, inputs: int) -> np.ndarray:
    """The latents as float64 (number, inputs), unchanged in value.

    Raises InputError when they are no finite numbers that float64 holds, ModelError when they do not fit `inputs`.
    """
    given = np.asarray(latents)
    if given.ndim != 2 or given.shape[1] != inputs:
        raise ModelError(f"latents must be (number, {inputs}) for this network, got shape {given.shape}")
    if given.dtype.kind not in "fiu":
        raise InputError(f"latents must be real numbers, got {given.dtype}")
    exact = given.astype(np.float64)
    if not np.all(np.isfinite(exact)):
        row = int(np.nonzero(~np.all(np.isfinite(exact), axis=1))[0][0])
        raise InputError(f"latent {row} is not finite")
    if not np.array_equal(exact.astype(given.dtype), given):
        raise InputError(f"latents of type {given.dtype} do not fit float64; give float32 or float64")
    return exact
