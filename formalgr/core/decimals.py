"""Numbers as people and files write them, exactly: 0.1 is one tenth, and so is 1/10.

In: texts. Out: Fractions. Trust: sound. Imports nothing heavy.
"""

import re
import sys
from fractions import Fraction

MAX_DIGITS = 2000
"""Longest number: every float64 written out in full has fewer than 1100 characters."""
MAX_EXPONENT = 5000
"""Largest power of ten that is expanded to an exact rational; float64 ends at 308."""
HUGE = Fraction(sys.float_info.max)
"""Largest number that is read: beyond it no float64 is near."""

_EXPONENT = re.compile(r"[eE]([+-]?[0-9_]+)\s*$")


def written(text: str) -> Fraction:
    """The number that the text writes. Raises ValueError for what is none, or beyond float64 in size or length."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} characters; {MAX_DIGITS} are read")
    exponent = _EXPONENT.search(text)
    if exponent is not None and abs(int(exponent.group(1))) > MAX_EXPONENT:
        raise ValueError(f"a power of ten beyond {MAX_EXPONENT}")
    try:
        value = Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f"{text} is divided by zero") from None
    if abs(value) > HUGE:
        raise ValueError("a number outside the range of float64")
    return value
