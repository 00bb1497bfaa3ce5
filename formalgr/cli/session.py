"""One run of the command line: its arguments, its clock, and the two channels it may write to.

In: a parsed namespace. Out: Session. Trust: sound (stdout gets results only). Imports nothing heavy.
"""

import argparse
import sys
from dataclasses import dataclass

from formalgr.core.budget import Budget
from formalgr.runs.shard import WHOLE


@dataclass(frozen=True)
class Session:
    """The arguments as typed and as parsed, and the budget of the whole run."""

    argv: tuple[str, ...]
    args: argparse.Namespace
    budget: Budget

    def hint(self, text: str) -> None:
        """Write a line for people to stderr, unless --quiet."""
        if not self.args.quiet:
            print(text, file=sys.stderr, flush=True)

    def result(self, text: str) -> None:
        """Write a part of the result to stdout."""
        print(text, flush=True)

    def exit_code(self, word: str) -> int:
        """0, or with --exit-code the code of the verdict's word."""
        if not self.args.exit_code:
            return 0
        from formalgr.report.words import EXIT_CODES

        return EXIT_CODES[word]

    def display(self):
        """The progress display of this run."""
        from formalgr.report.progress import Display

        return Display(quiet=self.args.quiet)


def merge_hint(session: Session) -> None:
    """After a part of the work: how to get the whole."""
    shard = getattr(session.args, "shard", WHOLE)
    if shard != WHOLE:
        session.hint(
            f"this was part {shard}, the rest is unknown here; when all parts are done: "
            "formalgr merge DIR... --out WHOLE, then the same command with --out WHOLE and without --shard"
        )
