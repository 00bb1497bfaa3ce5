"""Brackets of the largest robust radius: for every latent z a proven L and a replayed U with L < R(z) <= U.

In: Network, latents, UnsafeSet. Out: RadiusBracket per latent. Trust: sound (L is a proof of the pipeline or of the
ladder, U the exact distance of a replayed point; everything else only chooses radii).

R(z) = inf {||z' - z||_inf : z' is classified wrong}; a tie is wrong (STATISTICS section 1). All latents go through one
batched pipeline in rounds. Attacks first pull U down to where a proof may meet it, root bounds give an L for nearly
nothing; then come complete checks at the radii that verify/pace.py chooses, U - tolerance if time allows. A
counterexample found there is an upper end for good and is itself moved closer; a proof is a lower end for good.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from formalgr.attacks.nearest import Balls, MoveCloser
from formalgr.attacks.replay import Replayer
from formalgr.core.box import inward_float32
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Guarantee, Outcome, Verdict
from formalgr.graph.network import Network
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball
from formalgr.spec.unsafe import UnsafeSet
from formalgr.verify.bracket import Known, RadiusBracket, RadiusOptions, exact_latents
from formalgr.verify.ladder import Ladder
from formalgr.verify.pace import Latent, Pace
from formalgr.verify.pipeline import verify_batch

ATTACK_ROUNDS = 7
"""Attacks on smaller and smaller balls: each halves the part of the bracket that attacks alone leave open."""


def radius_brackets(
    network: Network,
    latents: np.ndarray,
    unsafe: UnsafeSet,
    options: RadiusOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
    known: Sequence[Known] | None = None,
) -> tuple[RadiusBracket, ...]:
    """lower < R(z) <= upper for each latent of (number, inputs), in order; see RadiusBracket.

    A spent budget leaves the best brackets so far; `known` is what an earlier run left, one for each latent: what it
    proved is taken over, what it found is replayed, and neither end gets worse. Raises InputError for latents that are
    no finite numbers or lie outside the domain, ModelError when they or the unsafe set do not fit the network.
    """
    run = _Run(network, unsafe, options or RadiusOptions(), budget or Budget())
    states = [Latent(center) for center in exact_latents(latents, network.graph.inputs)]
    for number, state in enumerate(states):
        if run.query(state, Fraction(0)).box.empty:
            raise InputError(f"latent {number} lies outside the domain")

    def report(note: str) -> None:
        done = [state for state in states if not run.pace.open(state)]
        robust = sum(state.lower == run.options.max_epsilon for state in done)
        progress(Tick("brackets", len(states), robust, len(done) - robust, 0, note))

    fresh = states if known is None else run.resume(states, known)
    run.check_centers([state for state in states if state.lower < 0 and state.upper != 0])
    report("centers")
    run.attack([state for state in fresh if run.pace.open(state)])
    report("attack")
    run.climb([state for state in fresh if run.pace.open(state)])
    report("root bounds")
    while run.refine([state for state in states if run.pace.open(state)]):
        report("branch and bound")
    return tuple(state.bracket(run.pace.target(state)) for state in states)


class _Run:
    """The latents of one network and one unsafe set on their way to brackets."""

    def __init__(self, network: Network, unsafe: UnsafeSet, options: RadiusOptions, budget: Budget):
        self.network = network
        self.unsafe = unsafe
        self.options = options
        self.budget = budget
        self.pace = Pace(options, budget)
        self.replayer = Replayer(network)
        self.random = named_generator(options.local.seed, "radius")
        self.closer = MoveCloser()

    def query(self, latent: Latent, radius: Fraction) -> Query:
        """The query of one ball."""
        return Query(latent_ball(latent.center, radius, self.options.domain), self.unsafe)

    def ask(self, latents: list[Latent], radii: Sequence[Fraction], seconds: float = math.inf) -> list[Outcome]:
        """One complete check per latent, all in one batch; every outcome is learnt."""
        local = replace(self.options.local, seconds_per_query=min(seconds, self.options.local.seconds_per_query))
        queries = [self.query(latent, radius) for latent, radius in zip(latents, radii, strict=True)]
        outcomes = verify_batch(self.network, queries, local, self.budget)
        for latent, radius, outcome in zip(latents, radii, outcomes, strict=True):
            latent.learn(radius, outcome, seconds)
        return outcomes

    def resume(self, latents: list[Latent], known: Sequence[Known]) -> list[Latent]:
        """Take over proven radii and replay points; the latents that were not attacked yet."""
        fresh = []
        for latent, earlier in zip(latents, known, strict=True):
            if not earlier.attacked:
                fresh.append(latent)
            latent.raise_lower(earlier.lower, earlier.proof, earlier.proof_seconds)
            if earlier.point is not None:
                found = self.replayer.replay(self.query(latent, self.options.max_epsilon), earlier.point)
                if found is not None:
                    latent.lower_upper(found)
        return fresh

    def check_centers(self, latents: list[Latent]) -> None:
        """Radius 0: wrong centers are done, and so are those that nothing proves."""
        if not latents:
            return
        for latent, outcome in zip(latents, self.ask(latents, [Fraction(0)] * len(latents)), strict=True):
            latent.stuck = outcome.verdict is not Verdict.HOLDS

    def balls(self, latents: list[Latent]) -> Balls:
        """The balls of the largest radius."""
        box = inward_float32([self.query(latent, self.options.max_epsilon).box for latent in latents])
        centers = np.stack([latent.center for latent in latents])
        return Balls(self.network.graph, self.unsafe, box, centers, self.options.domain)

    def attack(self, latents: list[Latent]) -> None:
        """Counterexamples on smaller and smaller balls: each lies halfway between the last miss and the last find."""
        if not latents or self.budget.expired:
            return
        started, balls, tolerance = self.budget.elapsed, self.balls(latents), float(self.options.tolerance)
        missed, nearest = np.zeros(len(latents), dtype=np.float64), np.full(len(latents), np.inf)
        trial, owners, points = np.full(len(latents), float(self.options.max_epsilon)), [], []
        for _ in range(ATTACK_ROUNDS):
            places = np.nonzero(trial - missed > tolerance)[0]
            if not places.size or self.budget.expired:
                break
            part = balls[places].within(trial[places])
            best = self.options.local.pgd.run(part.graph, part.box, self.unsafe, self.random, self.budget)
            hit = best.excess <= 0.0
            missed[places[~hit]] = trial[places[~hit]]
            if np.any(hit):
                points.append(self.closer.along(part[hit], best.points[hit]))
                owners.append(places[hit])
                nearest[places[hit]] = part[hit].distance(points[-1])
            trial = np.where(np.isfinite(nearest), 0.5 * missed + 0.5 * nearest, missed)
        if points:
            self.pull([latents[k] for k in np.concatenate(owners).tolist()], np.concatenate(points))
        for latent in latents:
            latent.spent += (self.budget.elapsed - started) / len(latents)

    def pull(self, latents: list[Latent], points: np.ndarray) -> None:
        """Move unsafe points closer and replay the nearest of each latent; the exact distance of a replayed one counts.

        A latent may come with several points: they lie in different valleys.
        """
        balls = self.balls(latents)
        tried = np.concatenate([self.closer.run(balls, points), points])
        distance = np.concatenate([balls.distance(part) for part in np.split(tried, 2)])
        replayed = set()
        for k in np.argsort(distance, kind="stable").tolist():
            latent = latents[k % len(latents)]
            if id(latent) not in replayed:
                found = self.replayer.replay(self.query(latent, self.options.max_epsilon), tried[k].tolist())
                if found is not None:
                    latent.lower_upper(found)
                    replayed.add(id(latent))

    def climb(self, latents: list[Latent]) -> None:
        """Root bounds at a few radii: what time limits start from. Not where the user asks for another proof."""
        local = self.options.local
        unlimited = math.isinf(min(local.seconds_per_query, self.budget.remaining))
        if not latents or unlimited or local.solver != "auto" or local.require > Guarantee.FLOAT_SOUND:
            return
        started = self.budget.elapsed
        ladder = Ladder(self.network.graph, self.unsafe, self.options.step, local.branch, self.options.domain)
        caps = [self.pace.target(latent) for latent in latents]
        proven = ladder.climb(np.stack([latent.center for latent in latents]), caps, self.budget)
        for latent, (radius, seconds) in zip(latents, proven, strict=True):
            latent.raise_lower(radius, Guarantee.FLOAT_SOUND, seconds)
            latent.spent += (self.budget.elapsed - started) / len(latents)

    def refine(self, latents: list[Latent]) -> bool:
        """One round of complete checks; False when no latent has both a reason and the time for one."""
        batches: dict[float, list[Latent]] = {}
        for latent in latents:
            seconds = None if self.budget.expired else self.pace.seconds(latent, len(latents))
            if seconds is not None:
                batches.setdefault(seconds, []).append(latent)
        for seconds, part in sorted(batches.items()):
            radii = [self.pace.choose(latent, seconds) for latent in part]
            outcomes = self.ask(part, radii, seconds)
            found = [k for k, outcome in enumerate(outcomes) if outcome.verdict is Verdict.VIOLATED]
            if found:
                points = np.stack([outcomes[k].counterexample.inputs for k in found])
                self.pull([part[k] for k in found], points)
        return bool(batches)
