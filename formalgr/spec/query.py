"""A query: a region of inputs and an unsafe set of outputs. Violated when an input of the region has an unsafe output.

In: RationalBox, UnsafeSet. Out: Query, Property, Declared. Trust: sound (plain data).
"""

import math
from dataclasses import dataclass

from formalgr.core.box import RationalBox
from formalgr.core.errors import PropertyError
from formalgr.core.verdict import Semantics
from formalgr.graph.wiring import Wiring
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True)
class Query:
    """HOLDS iff no input of the closed `box` (flattened network input) has its output (flattened) in `unsafe`."""

    box: RationalBox
    unsafe: UnsafeSet


@dataclass(frozen=True)
class Tensor:
    """A declared input or output of a network: its name, element type (real, float32, ...) and shape."""

    name: str
    element: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Declared:
    """A network that a VNN-LIB 2.0 file declares; `same_as`: (equal-to or isomorphic-to, name of another one)."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    same_as: tuple[str, str] | None = None


@dataclass(frozen=True)
class Property:
    """What one property file asks: VIOLATED iff some query is violated, so no query at all HOLDS trivially.

    `inputs` and `outputs` count those of all networks together, flattened, in the order of their declaration. With a
    `wiring` the queries are about product(networks, wiring), without about the one network. `networks`: what a file of
    VNN-LIB 2.0 declares, () for 1.0. Queries have different boxes, some perhaps empty. `sha256` is that of the
    uncompressed bytes of the file `path`. Raises ValueError when a query has other sizes.
    """

    queries: tuple[Query, ...]
    inputs: int
    outputs: int
    path: str
    sha256: str
    networks: tuple[Declared, ...] = ()
    wiring: Wiring | None = None

    def __post_init__(self) -> None:
        outputs = self.outputs + (0 if self.wiring is None else len(self.wiring.watched))
        for query in self.queries:
            if query.box.inputs != self.inputs or query.unsafe.outputs != outputs:
                sizes = f"{query.box.inputs} -> {query.unsafe.outputs}"
                raise ValueError(f"a query over {sizes} in a property over {self.inputs} -> {outputs}")

    @property
    def semantics(self) -> Semantics:
        """FLOAT32 where an input or output is declared so, else REAL: what a verdict shall speak of."""
        tensors = (tensor for network in self.networks for tensor in (*network.inputs, *network.outputs))
        return Semantics.FLOAT32 if any(tensor.element == "float32" for tensor in tensors) else Semantics.REAL

    def check_against(self, inputs: int, outputs: int) -> None:
        """Raises PropertyError unless the property fits networks of so many (flattened) inputs and outputs."""
        if self.inputs != inputs:
            raise PropertyError(f"{self.path} bounds {self.inputs} inputs, network takes {inputs}")
        if self.outputs != outputs:
            raise PropertyError(f"{self.path} speaks of {self.outputs} outputs, network gives {outputs}")
