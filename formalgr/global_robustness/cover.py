"""Which latents lie within eps of something: unions of enlarged boxes, cut into disjoint boxes.

In: boxes proven wrong, boxes where nothing is proven, eps. Out: disjoint boxes of latents that surely fail, are surely
robust, or neither. Trust: sound: cuts lie on faces, and faces are enlarged with directed rounding.

If all latents outside `wrong` and `open_` are right, then the ball of z holds a wrong point when z lies in a wrong box
enlarged by eps, and none when it lies in no enlarged box of either kind. A cell inside an enlarged wrong box fails; one
that meets none at all is robust; any other one is halved at the median of the faces that cross it (Overmars & Yap 1991
halve likewise).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from formalgr.core.box import Box
from formalgr.core.rounding import nearest_down, nearest_up

SLIVER = 2.0**-32
"""Cells thinner than this are left undecided: faces of both kinds that mean one place differ by a rounding."""


def enlarged(box: Box, epsilon: Fraction, outward: bool) -> Box:
    """Boxes around (outward) or within the closed {z : |z - x| <= epsilon for some x in box}, empty ones left out."""
    if epsilon == 0:
        return box
    if outward:
        reach = nearest_up(epsilon)
        return Box(np.nextafter(box.lower - reach, -np.inf), np.nextafter(box.upper + reach, np.inf))
    reach = nearest_down(epsilon)
    lower, upper = np.nextafter(box.lower - reach, np.inf), np.nextafter(box.upper + reach, -np.inf)
    real = np.all(lower <= upper, axis=1)
    return Box(lower[real], upper[real])


@dataclass(frozen=True)
class Cover:
    """Disjoint boxes, which together are the whole: surely failing, surely robust, neither."""

    failing: Box
    robust: Box
    open_: Box


MOST_PAIRS = 1 << 20
"""Pairs of a cell and an enlarged box that are cut at once; about 150 bytes each in the plane."""


@dataclass
class _Cells:
    """Boxes not yet settled; blocked: inside an enlarged open box, so that they cannot become robust any more."""

    lower: np.ndarray
    upper: np.ndarray
    blocked: np.ndarray

    def __len__(self):
        return len(self.blocked)

    def __getitem__(self, index) -> "_Cells":
        return _Cells(self.lower[index], self.upper[index], self.blocked[index])

    def box(self, which: np.ndarray) -> Box:
        """Some of them."""
        return Box(self.lower[which], self.upper[which])


@dataclass
class _Pairs:
    """Cells and the enlarged boxes that meet their interior, by index."""

    cell: np.ndarray
    box: np.ndarray

    def __getitem__(self, index) -> "_Pairs":
        return _Pairs(self.cell[index], self.box[index])


@dataclass
class _Sorter:
    """Enlarged boxes; the first `wrong` of them are proven wrong. Pieces of the answer as they are found."""

    boxes: Box
    wrong: int
    pieces: dict[str, list[Box]] = field(default_factory=lambda: {"failing": [], "robust": [], "open_": []})

    def meeting(self, cells: _Cells, pairs: _Pairs) -> _Pairs:
        """The pairs whose interiors meet."""
        low, high = cells.lower[pairs.cell], cells.upper[pairs.cell]
        return pairs[np.all((self.boxes.lower[pairs.box] < high) & (self.boxes.upper[pairs.box] > low), axis=1)]

    def settle(self, cells: _Cells, pairs: _Pairs) -> tuple[_Cells, _Pairs]:
        """Put away the cells that are decided; what is left, renumbered."""
        number = len(cells)
        low, high = cells.lower[pairs.cell], cells.upper[pairs.cell]
        inside = np.all((self.boxes.lower[pairs.box] <= low) & (self.boxes.upper[pairs.box] >= high), axis=1)
        by_wrong = pairs.box < self.wrong
        failing, blocked, touched = np.zeros((3, number), dtype=bool)
        failing[pairs.cell[inside & by_wrong]] = True
        blocked[pairs.cell[inside & ~by_wrong]] = True
        blocked |= cells.blocked
        pairs = pairs[(by_wrong | ~blocked[pairs.cell]) & ~failing[pairs.cell]]
        touched[pairs.cell] = True
        thin = np.any(cells.upper - cells.lower < SLIVER, axis=1)
        self.put("failing", cells.box(failing))
        self.put("robust", cells.box(~failing & ~blocked & ~touched))
        left = ~failing & touched & ~thin
        self.put("open_", cells.box(~failing & ~left & (blocked | touched)))
        number = np.cumsum(left) - 1
        pairs = pairs[left[pairs.cell]]
        return _Cells(cells.lower, cells.upper, blocked)[left], _Pairs(number[pairs.cell], pairs.box)

    def put(self, kind: str, box: Box) -> None:
        """Keep a piece of the answer."""
        if len(box):
            self.pieces[kind].append(box)

    def cut(self, cells: _Cells, pairs: _Pairs) -> tuple[_Cells, _Pairs]:
        """Both parts of every cell, cut at the median of the faces on the axis where most faces cross it."""
        number, axes = cells.lower.shape
        faces = np.stack([self.boxes.lower[pairs.box], self.boxes.upper[pairs.box]])
        crossing = (faces > cells.lower[pairs.cell]) & (faces < cells.upper[pairs.cell])
        _, pair, axis = np.nonzero(crossing)
        owner, value = pairs.cell[pair], faces[crossing]
        counts = np.bincount(owner * axes + axis, minlength=number * axes).reshape(number, axes)
        chosen = np.argmax(counts, axis=1)
        mine = axis == chosen[owner]
        owner, value = owner[mine], value[mine]
        order = np.lexsort((value, owner))
        each = counts[np.arange(number), chosen]
        place = np.cumsum(each) - each + each // 2
        middle = value[order][place]
        here = chosen[:, None] == np.arange(axes)[None, :]
        lower = np.concatenate([cells.lower, np.where(here, middle[:, None], cells.lower)])
        upper = np.concatenate([np.where(here, middle[:, None], cells.upper), cells.upper])
        halves = _Cells(lower, upper, np.tile(cells.blocked, 2))
        both = _Pairs(np.concatenate([pairs.cell, pairs.cell + number]), np.tile(pairs.box, 2))
        return halves, self.meeting(halves, both)


def cover(whole: Box, wrong: Box, open_: Box, epsilon: Fraction, most_pairs: int = MOST_PAIRS) -> Cover:
    """The box `whole` (batch 1) cut into boxes; all latents of `whole` enlarged by eps in neither kind are right."""
    wrong, open_ = enlarged(wrong, epsilon, outward=False), enlarged(open_, epsilon, outward=True)
    sorter = _Sorter(joined([wrong, open_]), len(wrong))
    cells = _Cells(whole.lower, whole.upper, np.zeros(1, dtype=bool))
    number = len(sorter.boxes)
    pairs = sorter.meeting(cells, _Pairs(np.zeros(number, dtype=np.int64), np.arange(number, dtype=np.int64)))
    stack = [sorter.settle(cells, pairs)]
    while stack:
        cells, pairs = stack.pop()
        if len(cells) > 1 and len(pairs.cell) > most_pairs:
            half = len(cells) // 2
            first = pairs.cell < half
            stack.append((cells[:half], pairs[first]))
            stack.append((cells[half:], _Pairs(pairs.cell[~first] - half, pairs.box[~first])))
        elif len(cells):
            stack.append(sorter.settle(*sorter.cut(cells, pairs)))
    parts = {kind: joined(pieces, whole.inputs) for kind, pieces in sorter.pieces.items()}
    return Cover(**parts)


def joined(parts: Sequence[Box], inputs: int | None = None) -> Box:
    """One batch of several; without any an empty batch over so many inputs."""
    if not parts:
        return Box(np.zeros((0, inputs), dtype=np.float64), np.zeros((0, inputs), dtype=np.float64))
    return Box(*(np.concatenate([getattr(part, end) for part in parts]) for end in ("lower", "upper")))
