"""Many pictures in one: grids and strips as PNG, an animation as GIF.

In: images with titles. Out: PNG and GIF files. Trust: heuristic (they show, they do not prove).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formalgr.report.files import write_whole
from formalgr.report.pairs import image_of
from formalgr.report.pictures import grey_range

TILE = 84
"""Least pixels of a tile's height: small images are enlarged by a whole number."""

GAP, LINE = 5, 15
"""Pixels between tiles, and of a line of text."""

FRAME_MILLISECONDS = 80


@dataclass(frozen=True)
class Tile:
    """One generator output (any shape) and what is written above it; `good` False writes it in red. None: empty.

    `own_scale`: it is no picture like the others, and has a grey scale of its own.
    """

    image: np.ndarray | None
    title: str = ""
    good: bool = True
    own_scale: bool = False


def grid(path: str | Path, tiles: Sequence[Tile], columns: int, title: str) -> Path:
    """Tiles in reading order, at most `columns` in a row; without any, the picture says that there are none."""
    picture = _painted(tiles, columns, title if tiles else f"{title}: none", _scale(tiles))
    return write_whole(path, lambda place: picture.save(place, format="PNG"))


def animation(path: str | Path, frames: Sequence[Sequence[Tile]], titles: Sequence[str]) -> Path:
    """A GIF of frames, each a row of tiles below its title; all frames have the same number of tiles."""
    scale = _scale([tile for frame in frames for tile in frame])
    drawn = [_painted(frame, len(frame), title, scale) for frame, title in zip(frames, titles, strict=True)]
    options = {"save_all": True, "append_images": drawn[1:], "duration": FRAME_MILLISECONDS, "loop": 0}
    return write_whole(path, lambda place: drawn[0].save(place, format="GIF", **options))


def _scale(tiles: Sequence[Tile]) -> tuple[float, float]:
    """The grey scale that pictures share."""
    shown = [np.ravel(tile.image) for tile in tiles if tile.image is not None and not tile.own_scale]
    return grey_range(np.concatenate(shown)) if shown else (0.0, 1.0)


def _painted(tiles: Sequence[Tile], columns: int, title: str, scale: tuple[float, float]):
    """The picture of a grid: the title, then rows of tiles with their titles above them."""
    from PIL import Image, ImageDraw, ImageFont

    images = [None if tile.image is None else _pixels(tile.image, None if tile.own_scale else scale) for tile in tiles]
    sizes = [image.shape[:2] for image in images if image is not None]
    tall, wide = np.max(sizes, axis=0).tolist() if sizes else (TILE, TILE)
    columns = max(1, min(columns, len(tiles)))
    font, head = ImageFont.load_default(11), ImageFont.load_default(12)
    width = max(columns * (wide + GAP) + GAP, round(head.getlength(title)) + 2 * GAP)
    rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (width, 2 * GAP + LINE + rows * (tall + LINE + GAP)), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP, GAP - 2), title, fill="black", font=head)
    for k, (tile, image) in enumerate(zip(tiles, images, strict=True)):
        left, top = GAP + k % columns * (wide + GAP), GAP + LINE + k // columns * (tall + LINE + GAP)
        pen.text((left, top), tile.title, fill="black" if tile.good else "#c00000", font=font)
        if image is not None:
            canvas.paste(Image.fromarray(image), (left, top + LINE))
    return canvas


def _pixels(values: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    """A generator output on a grey scale (None: its own), enlarged, as bytes (height, width) or (height, width, 3)."""
    image, (low, high) = image_of(values), scale or grey_range(values)
    times = max(1, -(-TILE // image.shape[0]))
    grey = np.clip((image - low) / (high - low), 0.0, 1.0)
    enlarged = np.repeat(np.repeat(grey, times, axis=0), times, axis=1)
    return np.round(255.0 * enlarged).astype(np.uint8)
