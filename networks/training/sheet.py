"""Contact sheets of pictures. In: pictures in [0, 1]. Out: a PNG file. Trust: heuristic."""

import math
from pathlib import Path

import numpy as np

TILE = 44  # pixels of the PNG per picture, about


def contact_sheet(pictures: np.ndarray, columns: int, split: int, path: Path) -> None:
    """Write `pictures (n, pixels)` as square tiles, `columns` in a row, with a grey line below row number `split`."""
    from PIL import Image

    side = math.isqrt(pictures.shape[1])
    scale = max(1, TILE // side)
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (side + 1) + 1, columns * (side + 1) + 1), 0.3, dtype=np.float64)
    for index, picture in enumerate(pictures):
        top, left = (value * (side + 1) + 1 for value in divmod(index, columns))
        sheet[top : top + side, left : left + side] = picture.reshape(side, side)
    if 0 < split < rows:
        sheet[split * (side + 1)] = 1.0
    pixels = np.kron(np.round(255 * sheet), np.ones((scale, scale))).astype(np.uint8)
    Image.fromarray(pixels).save(path)
