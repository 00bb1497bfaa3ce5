"""Shards: which part of a long run one of several machines does, without any software between them.

In: i/N as typed. Out: Shard. Trust: sound (the shards of N hold every unit of work once). Imports nothing heavy.
"""

from dataclasses import dataclass

from formalgr.core.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1. Raises UsageError unless 1 <= number <= count."""

    number: int = 1
    count: int = 1

    def __post_init__(self):
        if not 1 <= self.number <= self.count:
            raise UsageError(f"shard i/N needs 1 <= i <= N, got {self}")

    def holds(self, unit: int) -> bool:
        """Whether unit number `unit`, from 0 on, is of this part."""
        return unit % self.count == self.number - 1

    def __str__(self):
        return f"{self.number}/{self.count}"


WHOLE = Shard()
"""Everything."""


def parse_shard(text: str) -> Shard:
    """The shard of i/N. Raises UsageError."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise UsageError(f"a shard is i/N, such as 2/8, got {text!r}")
    return Shard(int(number), int(count))
