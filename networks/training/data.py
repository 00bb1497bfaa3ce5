"""Pictures in [0, 1] with labels, split into train and test parts. Trust: heuristic.

In: nothing (bundled digits) or a file or folder (MNIST and its relatives). Out: `Pictures`.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from formalgr.experiments.datasets import read_pictures

SPLIT_SEED = 2019  # of the digits' stratified 80/20 split, of halves and of moved copies
HALVES = ("a", "b")
MOVED = "moved copies"


@dataclass(frozen=True)
class Pictures:
    """Float32 pictures in [0, 1], flattened row by row: `train_x (n, pixels)`, `train_y (n,)`; the same for test."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    preprocessing: str
    sha256: str

    def __post_init__(self) -> None:
        for part in (self.train_x, self.test_x):
            if part.dtype != np.float32 or part.ndim != 2 or part.min() < 0 or part.max() > 1:
                raise ValueError(f"pictures must be float32 rows in [0, 1], got {part.dtype} {part.shape}")

    def of_class(self, label: int) -> np.ndarray:
        """The train pictures of one class: `(n, pixels)`."""
        return self.train_x[self.train_y == label]


def load_digits_pictures() -> Pictures:
    """The 1797 digits (8x8) bundled with scikit-learn, divided by 16, split 80/20 stratified with a fixed seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    scaled = (pixels / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        scaled, labels.astype(np.int64), test_size=0.2, stratify=labels, random_state=SPLIT_SEED
    )
    preprocessing = f"pixel / 16, flattened row by row; stratified 80/20 split, random_state={SPLIT_SEED}"
    return Pictures(train_x, train_y, test_x, test_y, preprocessing, hashlib.sha256(scaled.tobytes()).hexdigest())


def load_pictures(place: Path, name: str = "mnist") -> Pictures:
    """A data set of 28x28 pictures, divided by 255: `name`.npz or a folder `name` of IDX files in `place`, or `place`.

    Raises formalgr's InputError, naming the file, when there is none or it does not fit.
    """
    inside = [place / f"{name}.npz", place / name]
    path = next((one for one in inside if one.exists()), place)
    train, test = read_pictures(path, "train"), read_pictures(path, "test")
    told = f"pixel / 255, flattened row by row; the usual {len(train)}/{len(test)} split"
    return Pictures(train.pixels, train.labels, test.pixels, test.labels, told, _sha256(path))


def _sha256(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder in order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def moved_copies(data: Pictures, copies: int = 3) -> Pictures:
    """The train part and `copies` randomly moved copies of it: the source paper's augmented set, 4 times as large.

    Rotation and shear up to 20 degrees, shift up to a fifth of the side; drawn with a fixed seed.
    """
    random = torch.Generator().manual_seed(SPLIT_SEED)
    pictures = torch.from_numpy(data.train_x)
    parts = [data.train_x] + [_moved(pictures, random) for _ in range(copies)]
    told = f"{data.preprocessing}; train part and {copies} {MOVED} (rotation 20, shear 20 degrees, shift 0.2)"
    return replace(
        data, train_x=np.concatenate(parts), train_y=np.tile(data.train_y, copies + 1), preprocessing=told
    )


def _moved(pictures: torch.Tensor, random: torch.Generator) -> np.ndarray:
    count, side = len(pictures), math.isqrt(pictures.shape[1])

    def uniform(bound: float, *shape: int) -> torch.Tensor:
        return bound * (2.0 * torch.rand(*shape, generator=random, dtype=torch.float32) - 1.0)

    angle, shear = torch.deg2rad(uniform(20.0, count)), torch.deg2rad(uniform(20.0, count))
    turn = torch.stack([angle.cos(), -(angle + shear).sin(), angle.sin(), (angle + shear).cos()], dim=1)
    maps = torch.cat([turn.reshape(count, 2, 2), uniform(0.4, count, 2, 1)], dim=2)  # a side is 2 long in the grid
    parts = []
    for rows in torch.arange(count).split(4096):
        grid = functional.affine_grid(maps[rows], [len(rows), 1, side, side], align_corners=False)
        moved = functional.grid_sample(pictures[rows].reshape(-1, 1, side, side), grid, align_corners=False)
        parts.append(moved.reshape(len(rows), -1).clamp(0.0, 1.0).numpy())
    return np.concatenate(parts)


def half_of(data: Pictures, half: str) -> Pictures:
    """Half a or b of the train pictures, every class split evenly by a fixed permutation; the test part stays whole."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(data.train_y))
    rank = np.empty(len(order), dtype=np.int64)
    for label in np.unique(data.train_y):
        mine = order[data.train_y[order] == label]
        rank[mine] = np.arange(len(mine))
    rows = np.nonzero(rank % 2 == HALVES.index(half))[0]
    told = f"{data.preprocessing}; half {half} of the train part, split with seed {SPLIT_SEED}"
    return replace(data, train_x=data.train_x[rows], train_y=data.train_y[rows], preprocessing=told)
