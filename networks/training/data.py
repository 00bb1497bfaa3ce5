"""Pictures in [0, 1] with labels, split into train and test parts. Trust: heuristic.

In: nothing (bundled digits) or a file (MNIST). Out: `Pictures`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPLIT_SEED = 2019  # of the digits' stratified 80/20 split


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


def load_mnist_pictures(path: Path) -> Pictures:
    """MNIST (28x28) with its usual split, divided by 255. `path`: mnist.npz with x_train, y_train, x_test, y_test."""
    if not path.is_file():
        raise FileNotFoundError(f"no MNIST file at {path}: give --data mnist.npz or set FORMALGR_DATA")
    with np.load(path) as arrays:
        missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays)
        if missing:
            raise ValueError(f"{path} lacks the arrays {sorted(missing)}")
        raw = {key: arrays[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    scaled = {key: (raw[key].reshape(len(raw[key]), -1) / 255.0).astype(np.float32) for key in ("x_train", "x_test")}
    return Pictures(
        scaled["x_train"],
        raw["y_train"].astype(np.int64),
        scaled["x_test"],
        raw["y_test"].astype(np.int64),
        "pixel / 255, flattened row by row; the usual 60000/10000 split",
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
