"""The words for verdicts and guarantee levels: the one place that says sat, unsat, unknown, timeout.

In: enums. Out: strings and exit codes. Trust: sound (a total map).
"""

from formalgr.core.verdict import Guarantee, Outcome, Reason, Stage, Verdict

EXIT_CODES = {"unsat": 0, "certified": 0, "sat": 10, "refuted": 10, "unknown": 11, "undecided": 11, "timeout": 12}
"""What --exit-code returns for a verdict."""

GUARANTEES = {
    Guarantee.EXACT: "exact",
    Guarantee.FLOAT_SOUND: "float-sound",
    Guarantee.SOLVER: "solver",
    Guarantee.STATISTICAL: "statistical",
    Guarantee.NONE: "none",
}

VERDICTS = {"sat": Verdict.VIOLATED, "unsat": Verdict.HOLDS}
"""What a decisive word means where one is read: the verdict that is expected of an instance."""

MEANINGS = {
    Guarantee.EXACT: "checked in exact rational arithmetic",
    Guarantee.FLOAT_SOUND: "proven with every rounding error bounded, or a replayed point",
    Guarantee.SOLVER: "rests on a floating-point solver within its tolerances",
    Guarantee.STATISTICAL: "holds at the stated confidence",
    Guarantee.NONE: "nothing is proven",
}

STAGES = {
    Stage.ATTACK: "attack",
    Stage.BOUNDS: "bounds",
    Stage.BRANCH: "branch and bound",
    Stage.MILP: "MILP",
    Stage.SMT: "SMT",
}


WORDS = {**{verdict: word for word, verdict in VERDICTS.items()}, Verdict.UNKNOWN: "unknown"}
"""A verdict's word where it does not matter why it is unknown."""


def verdict_word(outcome: Outcome) -> str:
    """sat for VIOLATED, unsat for HOLDS, timeout for UNKNOWN because of the time limit, else unknown."""
    if outcome.verdict is Verdict.VIOLATED:
        return "sat"
    if outcome.verdict is Verdict.HOLDS:
        return "unsat"
    return "timeout" if outcome.reason is Reason.TIMEOUT else "unknown"


def guarantee_of(word: str) -> Guarantee:
    """The guarantee level of a word. Raises ValueError for a word that names none."""
    for level, name in GUARANTEES.items():
        if name == word:
            return level
    raise ValueError(f"unknown guarantee {word!r}; choose from {', '.join(GUARANTEES.values())}")
