"""Certificates taken apart and sealed again, for tests that change them.

In: certificate bytes. Out: their lines, changed certificates. Trust: heuristic (it decides what is tried).
"""

import json
import zlib
from collections.abc import Callable

from formalgr.verify.certificate import sealed


def lines_of(data: bytes) -> list:
    """The claim and the nodes of the proof."""
    payload = zlib.decompress(data.partition(b"\n")[2])
    return [json.loads(line) for line in payload.splitlines()]


def edited(data: bytes, change: Callable[[list], object]) -> bytes:
    """The certificate with its lines changed in place and sealed again."""
    lines = lines_of(data)
    change(lines)
    return sealed(lines)
