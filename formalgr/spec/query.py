"""A query: a region of inputs and an unsafe set of outputs. Violated when some input of the region has an unsafe output.

In: RationalBox, UnsafeSet. Out: Query. Trust: sound (plain data).
"""

from dataclasses import dataclass

from formalgr.core.box import RationalBox
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True)
class Query:
    """HOLDS iff no input of the closed `box` (flattened network input) has its output (flattened) in `unsafe`."""

    box: RationalBox
    unsafe: UnsafeSet
