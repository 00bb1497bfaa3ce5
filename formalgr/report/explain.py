"""Why a verdict came from the stage it came from, and why one is unknown: sentences for `--explain`.

In: Outcome, GlobalCertificate. Out: lines of text. Trust: sound (they repeat what the outcome says; advice is advice).
"""

from collections import Counter
from collections.abc import Iterable

from formalgr.core.verdict import Outcome, Reason, Stage, Verdict
from formalgr.global_robustness.certify import GlobalCertificate
from formalgr.report.words import GUARANTEES, MEANINGS, STAGES, verdict_word

ORDER = (Stage.ATTACK, Stage.BOUNDS, Stage.BRANCH, Stage.MILP, Stage.SMT)

HOLDS = {
    Stage.BOUNDS: "linear bounds over the whole region exclude every unsafe output: nothing had to be split",
    Stage.BRANCH: "the region was cut into boxes (or units into their phases) until bounds excluded the unsafe outputs "
    "of every part",
    Stage.MILP: "a mixed integer program of the network has no point with an unsafe output, by its dual bound",
    Stage.SMT: "z3 found no point with an unsafe output in exact arithmetic",
}
VIOLATED = {
    Stage.ATTACK: "a search (a few points, then projected gradient) came upon it, before bounds were asked or between "
    "their rounds",
    Stage.BOUNDS: "a point that the bounds of the whole region pointed to is unsafe",
    Stage.BRANCH: "a point that the bounds of a part of the region pointed to is unsafe",
    Stage.MILP: "the mixed integer program returned it",
    Stage.SMT: "z3 returned it",
}
ADVICE = {
    Reason.TIMEOUT: "allow more time (--timeout, --per-sample-timeout), or ask about a smaller region",
    Reason.BRANCH_LIMIT: "only cheap stages were allowed; ask with all of them",
    Reason.NUMERICS: "the margin is so near 0 that float64 cannot tell its sign: move the threshold, or --solver z3",
    Reason.UNBOUNDED: "keep the region away from where an operator has no value (a quotient by 0, a root below 0)",
    Reason.RELAXATION: "curved operators are bounded, never encoded exactly: a smaller region gives tighter bounds",
    Reason.SOLVER: "another --solver, or auto, which tries all stages",
    Reason.FLOAT32_MARGIN: "--semantics real asks about real numbers, whose verdict may be decided",
    Reason.FLOAT32_DIFFERS: "--semantics real says sat; float32 evaluation seems to round the violation away",
    Reason.TOO_WEAK: "lower --require, or leave more time to the stages that prove more",
    Reason.MEMORY: "raise --memory-limit, use fewer --jobs, or ask about a smaller region",
    Reason.CRASHED: "raise --memory-limit or use fewer --jobs; one that still crashes is worth a report",
    Reason.ELSEWHERE: "`formalgr merge` joins the ledgers of all shards",
    Reason.INTERRUPTED: "the same command with --out goes on from there",
}


def explained(outcome: Outcome) -> list[str]:
    """What each stage did, why the deciding one decided, and what would help where none did."""
    lines = [f"explanation of {verdict_word(outcome)}:", *_stages(dict(outcome.stage_seconds), outcome)]
    if outcome.did:
        lines.append(f"  how it was bounded: {outcome.did}")
    if outcome.reason is not None:
        return [*lines, f"  why unknown: {outcome.reason.value}", f"  what may help: {ADVICE[outcome.reason]}"]
    lines.append(f"  trust: {GUARANTEES[outcome.guarantee]}, {MEANINGS[outcome.guarantee]}")
    return lines


def _stages(seconds: dict[Stage, float], outcome: Outcome) -> Iterable[str]:
    """A line for every stage, in their order: cheapest first."""
    if outcome.stage is None and outcome.verdict is not Verdict.UNKNOWN:
        yield "  no stage was needed: the region or the unsafe set is empty, or any point will do"
        return
    meanings = HOLDS if outcome.verdict is Verdict.HOLDS else VIOLATED
    for stage in ORDER:
        spent = f" in {seconds[stage]:.2f} s" if stage in seconds else ""
        if stage is outcome.stage:
            yield f"  {STAGES[stage]}: decided{spent}: {meanings.get(stage, 'the verdict came from here')}"
        elif stage in seconds:
            yield f"  {STAGES[stage]}: left it open{spent}"
    if outcome.stage is not None and outcome.stage is not ORDER[-1]:
        yield "  later stages cost more and were not asked"


def study_explained(certificate: GlobalCertificate) -> list[str]:
    """How many samples each stage decided and why, and why the others are unknown."""
    records, lines = certificate.records, ["explanation of the local verdicts:"]
    for stage in ORDER:
        held = sum(one.stage is stage and one.verdict is Verdict.HOLDS for one in records)
        found = sum(one.stage is stage and one.verdict is Verdict.VIOLATED for one in records)
        if held:
            lines.append(f"  {STAGES[stage]} proved {held}: {HOLDS.get(stage, 'the proof came from here')}")
        if found:
            lines.append(f"  {STAGES[stage]} refuted {found}: {VIOLATED[stage]}")
    unknown = Counter(one.reason for one in records if one.reason is not None)
    for reason, number in unknown.most_common():
        lines.append(f"  {number} unknown, which count against the claim: {reason.value}; {ADVICE[reason]}")
    return lines
