"""How the coordinates of a query make the inputs of networks: an exact linear change of coordinates, and back.

In: sparse sums. Out: Wiring. Trust: sound (it is checked that coordinates and inputs determine each other).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

Terms = tuple[tuple[int, Fraction], ...]
"""sum of a * value[k] over the (k, a)."""


@dataclass(frozen=True)
class Wiring:
    """How the coordinates of a query make the inputs of all networks (flattened, one network after the other).

    inputs: every input as a sum over coordinates; coordinates: every coordinate as a sum over inputs; watched: inputs
    that stand behind the outputs. Raises ValueError unless the two determine each other and float64 holds all factors.
    """

    inputs: tuple[Terms, ...]
    coordinates: tuple[Terms, ...]
    watched: tuple[int, ...]

    def __post_init__(self):
        if len(self.inputs) != len(self.coordinates):
            raise ValueError(f"{len(self.coordinates)} coordinates for {len(self.inputs)} inputs")
        for slot, terms in enumerate(self.coordinates):
            total: dict[int, Fraction] = {}
            for index, factor in terms:
                for other, inner in self.inputs[index]:
                    total[other] = total.get(other, Fraction(0)) + factor * inner
            if {k: a for k, a in total.items() if a} != {slot: 1}:
                raise ValueError(f"coordinate {slot} is not what the inputs say it is")
        if any(Fraction(float(a)) != a for terms in self.inputs for _, a in terms):
            raise ValueError("a factor between coordinates and inputs is no float64")

    def inputs_at(self, coordinates: Sequence[Fraction]) -> tuple[Fraction, ...]:
        """The exact inputs at exact coordinates."""
        return tuple(sum((a * coordinates[k] for k, a in terms), Fraction(0)) for terms in self.inputs)

    def coordinates_at(self, inputs: Sequence[Fraction]) -> tuple[Fraction, ...]:
        """The exact coordinates of exact inputs."""
        return tuple(sum((a * inputs[k] for k, a in terms), Fraction(0)) for terms in self.coordinates)


def straight(inputs: int) -> Wiring:
    """The wiring whose coordinates are the inputs."""
    terms = tuple(((k, Fraction(1)),) for k in range(inputs))
    return Wiring(terms, terms, ())
