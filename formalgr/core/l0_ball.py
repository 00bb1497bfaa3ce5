"""L0 balls: inputs that differ from a point in a few pixels only, by any amounts within a box.

In: a point, ranges, sets of pixels and how many of each may change. Out: L0Ball. Trust: sound.

A linear form is smallest over {x in a box : at most k pixels of x differ from x0} at the k pixels with the largest
gains: its minimum is that over the convex hull of this set, and costs a partial sort of each row.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from formalgr.core.arrays import Array, namespace
from formalgr.core.box import Box
from formalgr.core.linear import AffineForm, Interval, LinearForm, check_bounds
from formalgr.core.region import Region
from formalgr.core.rounding import NEGLIGIBLE, STEP_SLACK, dtype_name, gamma, underflow

FEW_GENERATORS = 8
"""Free inputs up to which affine forms of them are worth their cost."""

SORTED_FROM = 12
"""Changes in one part from which sorting its gains is cheaper than taking the largest so many times."""


@dataclass(frozen=True)
class L0Ball(Region):
    """Batch of {x in `box` : for every part j at most budgets[j] of its pixels differ from `base`; no others do}.

    base (batch, inputs) lies in the box; parts (batch, pixels) is the part of every pixel, -1 for none; coordinates
    (pixels, channels) are the inputs of every pixel. Raises ValueError when base lies outside the box.
    """

    box: Box
    base: Array
    parts: Array
    budgets: tuple[int, ...]
    coordinates: Array

    def __post_init__(self):
        xp = namespace(self.base)
        if not bool(xp.all((self.box.lower <= self.base) & (self.base <= self.box.upper))):
            raise ValueError("the base of an L0 ball lies outside its box")

    def __len__(self):
        return self.base.shape[0]

    def __getitem__(self, index) -> "L0Ball":
        return replace(self, box=self.box[index], base=self.base[index], parts=self.parts[index])

    @cached_property
    def hull(self) -> Box:
        """The smallest boxes around the balls."""
        xp = namespace(self.base)
        free = xp.zeros(self.base.shape, dtype=xp.bool)
        free[:, self.coordinates] = (self.parts >= 0)[:, :, None]
        return Box(xp.where(free, self.box.lower, self.base), xp.where(free, self.box.upper, self.base))

    def interval(self, shape) -> Interval:
        return self.hull.interval(shape)

    @cached_property
    def boxed(self) -> bool:
        """Whether every ball is its hull: no part holds more pixels than may change."""
        xp = namespace(self.base)
        return all(bool(xp.all(xp.sum(self.parts == j, axis=1) <= b)) for j, b in enumerate(self.budgets))

    def affine(self, shape) -> AffineForm | None:
        """Affine forms with one generator for each free input, where the balls are boxes of few free inputs."""
        channels, most = self.coordinates.shape[1], sum(self.budgets)
        if not self.boxed or most * channels > FEW_GENERATORS:
            return None
        xp = namespace(self.base)
        center, radius = self.hull.center, self.hull.radius
        batch, inputs = self.base.shape
        pixels = xp.argsort(-self.parts, axis=1, stable=True)[:, :most]
        chosen = xp.reshape(self.coordinates[pixels], (batch, -1, 1))
        generators = xp.where(chosen == xp.arange(inputs)[None, None, :], radius[:, None, :], 0.0 * radius[:, None, :])
        center = xp.reshape(center, (batch, *shape))
        return AffineForm(xp.reshape(generators, (batch, most * channels, *shape)), center, 0.0 * center)

    def gains(self, form: LinearForm):
        """What changing each pixel alone takes off every row at most, (batch, rows, pixels), <= 0; 0 if in no part."""
        xp = namespace(self.base)
        coefficients = form.flat()
        down, up = self.hull.lower - self.base, self.hull.upper - self.base
        each = xp.minimum(coefficients * down[:, None, :], coefficients * up[:, None, :])
        if self.coordinates.shape[1] == 1:
            return each[:, :, self.coordinates[:, 0]]
        return xp.sum(each[:, :, self.coordinates], axis=3)

    def of_part(self, gains, part: int):
        """The gains of the pixels of one part, the others 0."""
        if len(self.budgets) == 1:
            return gains
        return namespace(gains).where((self.parts == part)[:, None, :], gains, 0.0 * gains[:1, :1, :1])

    def minimum(self, form: LinearForm):
        xp, dtype = namespace(self.base), dtype_name(self.base)
        coefficients, gains = form.flat(), self.gains(form)
        taken = 0.0
        for part, budget in enumerate(self.budgets):
            taken = taken + smallest(self.of_part(gains, part), budget)[0]
        middle = xp.matmul(coefficients, self.base[:, :, None])[..., 0]
        size = xp.abs(self.base) + NEGLIGIBLE[dtype]
        scale = xp.matmul(xp.abs(coefficients), size[:, :, None])[..., 0] - taken + xp.abs(form.constant)
        terms = 2 * self.base.shape[1] + 16
        error = form.error * STEP_SLACK + gamma(terms, dtype) * scale + underflow(terms, dtype)
        least = middle + taken + form.constant - error
        check_bounds(least, error, "a linear form")
        return least

    def minimiser(self, form: LinearForm):
        """The point of each ball where each row is smallest, (batch, rows, inputs)."""
        xp = namespace(self.base)
        coefficients, gains = form.flat(), self.gains(form)
        changed = xp.zeros(gains.shape, dtype=xp.bool)
        for part, budget in enumerate(self.budgets):
            mine = self.of_part(gains, part)
            rank = xp.argsort(xp.argsort(mine, axis=-1, stable=True), axis=-1)
            changed = changed | ((rank < budget) & (mine < 0.0))
        free = xp.zeros(coefficients.shape, dtype=xp.bool)
        free[:, :, self.coordinates] = changed[..., None]
        corner = xp.where(coefficients > 0.0, self.hull.lower[:, None, :], self.hull.upper[:, None, :])
        return xp.where(free, corner, self.base[:, None, :])


def smallest(gains, count: int) -> tuple:
    """(sum of the `count` smallest entries <= 0 of the last axis, the last one taken), both without the last axis."""
    xp = namespace(gains)
    pixels = gains.shape[-1]
    if count >= pixels:
        return xp.sum(gains, axis=-1), xp.max(gains, axis=-1)
    if count == 1:
        least = xp.min(gains, axis=-1)
        return least, least
    if count >= SORTED_FROM:
        ordered = xp.sort(gains, axis=-1)
        return xp.sum(ordered[..., :count], axis=-1), ordered[..., count - 1]
    places, total = xp.arange(pixels), 0.0
    for _ in range(count):
        best = xp.argmin(gains, axis=-1)[..., None]
        least = xp.take_along_axis(gains, best, axis=-1)[..., 0]
        total = total + least
        gains = xp.where(places == best, 0.0 * gains[..., :1], gains)
    return total, least
