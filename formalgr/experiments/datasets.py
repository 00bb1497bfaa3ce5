"""Test pictures with labels from files: .npz with x_test and y_test, or the IDX files of MNIST and its relatives.

In: a file or folder. Out: Pictures. Trust: sound (what does not fit raises InputError; pixels are scaled exactly as
said).
"""

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formalgr.core.errors import InputError
from formalgr.core.seeds import named_generator
from formalgr.graph.network import Network
from formalgr.graph.onnx_file import LARGEST_FILE, read_bytes

IDX = {"test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
       "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")}
"""File names of the parts, as MNIST, Fashion-MNIST and EMNIST (after its prefix) call them."""


@dataclass(frozen=True)
class Pictures:
    """Pixels (n, pixels) float32 in [0, 1], flattened row by row, and labels (n,) int64; `path` is where they lay."""

    pixels: np.ndarray
    labels: np.ndarray
    path: Path

    def __len__(self):
        return len(self.labels)

    def check(self, network: Network) -> None:
        """Raises InputError when pictures or labels do not fit a classifier."""
        if self.pixels.shape[1] != network.graph.inputs:
            raise InputError(
                f"{self.path}: pictures of {self.pixels.shape[1]} pixels, the classifier takes {network.graph.inputs}"
            )
        if self.labels.max() >= network.scores:
            raise InputError(f"{self.path}: label {self.labels.max()}, the classifier has {network.scores} classes")

    def drawn(self, number: int, seed: int) -> "Pictures":
        """`number` of them in random order without repetition; all where there are fewer."""
        order = named_generator(seed, "pictures").permutation(len(self))[:number]
        return Pictures(self.pixels[order], self.labels[order], self.path)


def read_pictures(place: Path, part: str = "test", largest: float = 255.0) -> Pictures:
    """The pictures of a part (test or train) in a .npz file or a folder of IDX files (.gz too), divided by `largest`.

    Raises InputError, naming the file and what is wrong with it.
    """
    if place.is_dir():
        images, labels = (_idx(_named(place, name)) for name in IDX[part])
    elif place.is_file():
        images, labels = _npz(place, part)
    else:
        raise InputError(f"{place}: no such file or folder; name a .npz file or a folder of IDX files")
    if images.ndim < 2 or labels.ndim != 1 or len(images) != len(labels) or not len(labels):
        raise InputError(f"{place}: pictures of shape {list(images.shape)} do not go with labels {list(labels.shape)}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise InputError(f"{place}: labels must be whole numbers >= 0")
    flat = images.reshape(len(images), -1).astype(np.float64) / largest
    if not np.all((flat >= 0.0) & (flat <= 1.0)):
        raise InputError(f"{place}: pixels must lie in [0, {largest:g}]")
    return Pictures(flat.astype(np.float32), labels.astype(np.int64), place)


def _npz(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > LARGEST_FILE:
                raise InputError(f"{path}: holds more than {LARGEST_FILE} bytes, more than formalgr reads")
        with np.load(path, allow_pickle=False) as arrays:
            names = [f"x_{part}", f"y_{part}"]
            if not set(names) <= set(arrays):
                raise InputError(f"{path}: needs the arrays {' and '.join(names)}, has {', '.join(sorted(arrays))}")
            return arrays[names[0]], arrays[names[1]]
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError, TypeError, zlib.error, MemoryError):
        raise InputError(f"{path}: not a .npz file of plain arrays") from None


def _named(folder: Path, name: str) -> Path:
    """The file of an IDX name, with .gz, '.' for '-', or EMNIST's prefix."""
    found = [path for path in sorted(folder.iterdir()) if name in path.name.replace("s.idx", "s-idx")]
    if not found:
        raise InputError(f"{folder}: no file {name} (or .gz) in it")
    return found[0]


def _idx(path: Path) -> np.ndarray:
    """An IDX file of bytes: magic number 0x0000080d for d axes, their sizes, the values."""
    try:
        data = read_bytes(path)
        zeros, kind, axes = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
    except struct.error:
        raise InputError(f"{path}: not an IDX file") from None
    if zeros or kind != 8 or len(data) != 4 + 4 * axes + math.prod(shape):
        raise InputError(f"{path}: not an IDX file of bytes of the size that it states")
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)
