"""A network over a box with every stable unit eliminated: what is left is a small lower-triangular system of units.

In: rows over inputs and earlier units. Out: Block, FoldedSystem. Trust: sound (plain data; each row carries its error
radius).

Every continuous piecewise linear f is a line plus hinges: f(x) = s_0 x + t_0 + sum_k (s_k - s_{k-1}) max(x - b_k, 0).
Two hinges with opposite steps are one clipped unit min(max(x - b_k, 0), b_{k+1} - b_k), whose relaxation is tighter
than the sum of theirs. A unit that is linear over the box is eliminated; the others become symbols y of the system, in
the order of the network, so that each depends on the inputs z and on earlier symbols only.
"""

from dataclasses import dataclass, field

from formalgr.core.arrays import Array, namespace
from formalgr.core.rounding import NEGLIGIBLE, dtype_name


@dataclass(frozen=True)
class Block:
    """Rows weights . (z, y) + constant + e with |e| <= radius, for every input of the box that the system was made for.

    weights (batch, rows, inputs + symbols so far), constant and radius (batch, rows). As units the rows stand for
    y = min(max(row, 0), cap), cap > 0 (batch, rows), infinite for a ReLU; None: all are. Padding rows are
    0 . (z, y) - 1, so that their symbol is 0.
    """

    weights: Array
    constant: Array
    radius: Array
    cap: Array = None

    @property
    def rows(self) -> int:
        """Number of rows, padding included."""
        return self.weights.shape[1]

    def __getitem__(self, index) -> "Block":
        cap = None if self.cap is None else self.cap[index]
        return Block(self.weights[index], self.constant[index], self.radius[index], cap)

    def unstable(self, bounds: tuple):
        """Units that are not linear where their rows lie within bounds (lower, upper), (batch, rows) bool."""
        lower, upper = bounds
        bent = (lower < 0.0) & (upper > 0.0)
        return bent if self.cap is None else bent | ((lower < self.cap) & (upper > self.cap))

    def values(self, row):
        """The units' values where their rows have the value `row` (batch, rows)."""
        positive = namespace(row).maximum(row, 0.0 * row)
        return positive if self.cap is None else namespace(row).minimum(positive, self.cap)


@dataclass(frozen=True)
class FoldedSystem:
    """Blocks of units, each over the symbols of the blocks before; output rows over all symbols.

    `reach` (batch, inputs + symbols) bounds |z_i| and |y_j| over the box; `sizes` holds for every block, and for the
    output rows last, an upper bound (up to relative SLACK) of |weights| . reach + |constant|, (batch, rows).
    """

    inputs: int
    blocks: tuple[Block, ...]
    outputs: Block | None
    reach: Array
    sizes: tuple = field(default=())

    @property
    def units(self) -> int:
        """Number of symbols besides the inputs, padding included."""
        return sum(block.rows for block in self.blocks)

    def __getitem__(self, index) -> "FoldedSystem":
        return FoldedSystem(
            self.inputs,
            tuple(block[index] for block in self.blocks),
            None if self.outputs is None else self.outputs[index],
            self.reach[index],
            tuple(size[index] for size in self.sizes),
        )


def size_of(block: Block, reach):
    """|weights| . reach + |constant| of every row, (batch, rows), plus `floor_of`; `reach` may know more symbols."""
    xp = namespace(block.weights)
    used = reach[:, : block.weights.shape[2], None]
    return xp.matmul(xp.abs(block.weights), used)[..., 0] + xp.abs(block.constant) + floor_of(reach)


def floor_of(reach):
    """What a size must hold besides, so that gamma_n times it covers n underflows in every coefficient, (batch, 1)."""
    return NEGLIGIBLE[dtype_name(reach)] * (1.0 + namespace(reach).sum(reach, axis=1)[:, None])
