"""A query: a region of inputs and an unsafe set of outputs. Violated when an input of the region has an unsafe output.

In: RationalBox, UnsafeSet. Out: Query, Property. Trust: sound (plain data).
"""

from dataclasses import dataclass

from formalgr.core.box import RationalBox
from formalgr.core.errors import PropertyError
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True)
class Query:
    """HOLDS iff no input of the closed `box` (flattened network input) has its output (flattened) in `unsafe`."""

    box: RationalBox
    unsafe: UnsafeSet


@dataclass(frozen=True)
class Property:
    """What one property file asks: VIOLATED iff some query is violated, so no query at all HOLDS trivially.

    Queries have different boxes, some perhaps empty. `sha256` is that of the uncompressed bytes of the file `path`.
    Raises ValueError when a query has other than `inputs` inputs or `outputs` outputs.
    """

    queries: tuple[Query, ...]
    inputs: int
    outputs: int
    path: str
    sha256: str

    def __post_init__(self):
        for query in self.queries:
            if query.box.inputs != self.inputs or query.unsafe.outputs != self.outputs:
                sizes = f"{query.box.inputs} -> {query.unsafe.outputs}"
                raise ValueError(f"a query over {sizes} in a property over {self.inputs} -> {self.outputs}")

    def check_against(self, inputs: int, outputs: int) -> None:
        """Raises PropertyError unless the property fits a network of so many (flattened) inputs and outputs."""
        if self.inputs != inputs:
            raise PropertyError(f"{self.path} bounds {self.inputs} inputs, network takes {inputs}")
        if self.outputs != outputs:
            raise PropertyError(f"{self.path} speaks of {self.outputs} outputs, network gives {outputs}")
