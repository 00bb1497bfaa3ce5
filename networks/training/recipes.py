"""Hyper-parameters of the shipped networks as values: one frozen recipe per ONNX file. Trust: heuristic."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass

RECIPE_VERSION = 1  # raised when the training code changes what a recipe means, so that files are made again


@dataclass(frozen=True, kw_only=True)
class GeneratorRecipe:
    """One generator: the decoder of a variational autoencoder trained on the pictures of one class.

    `hidden` are the decoder's hidden widths (the encoder mirrors them), `sigma` the standard deviation of the Gaussian
    likelihood of a pixel, `leak` the slope that replaces the flat parts of the final clip to [0, 1] during training,
    `sliced` the weight of the sliced Wasserstein distance, taken between `compared` pictures along `directions`.
    """

    name: str
    label: int
    latent: int
    hidden: tuple[int, ...]
    pixels: int
    slope: float = 0.2
    sigma: float = 0.06
    leak: float = 0.05
    sliced: float = 0.25
    compared: int = 144
    directions: int = 64
    epochs: int = 100
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.sigma and 0 < self.leak < 1 and 0 < self.slope < 1):
            raise ValueError(f"sigma must be positive, leak and slope in (0, 1), got {self} ({self.name})")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of all layers from the latent to the pixels."""
        return (self.latent, *self.hidden, self.pixels)

    @property
    def architecture(self) -> str:
        """The network in one line."""
        return f"{'-'.join(map(str, self.sizes))}, fully connected, LeakyReLU {self.slope:g}, clip to [0, 1]"


@dataclass(frozen=True, kw_only=True)
class PictureRecipe(ABC):
    """One classifier of pictures: a ReLU network trained with noise and small affine changes of the pictures.

    `noise` is the largest standard deviation of pixel noise, `shift` the largest shift in pixels, `rotation` in
    degrees, `zoom` the largest relative change of size, `smoothing` the label smoothing.
    """

    name: str
    hidden: tuple[int, ...]
    pixels: int
    classes: int = 10
    epochs: int = 100
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    noise: float = 0.1
    shift: float = 0.5
    rotation: float = 5.0
    zoom: float = 0.05
    smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.noise, self.shift, self.rotation, self.zoom, self.smoothing) < 0:
            raise ValueError(f"augmentation strengths must be non-negative, got {self} ({self.name})")

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Numbers of values between the layers, from the pixels to the logits."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """The network in one line."""


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(PictureRecipe):
    """A fully connected classifier with the `hidden` widths."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.pixels, *self.hidden, self.classes)

    @property
    def architecture(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, fully connected, ReLU, logits"


@dataclass(frozen=True, kw_only=True)
class ConvolutionalRecipe(PictureRecipe):
    """3x3 convolutions of the given channels without padding or pooling, then fully connected `hidden` layers."""

    channels: tuple[int, ...]

    @property
    def side(self) -> int:
        """Height and width of the square pictures."""
        return math.isqrt(self.pixels)

    @property
    def sizes(self) -> tuple[int, ...]:
        maps = [count * (self.side - 2 * depth) ** 2 for depth, count in enumerate(self.channels, start=1)]
        return (self.pixels, *maps, *self.hidden, self.classes)

    @property
    def architecture(self) -> str:
        kernels = ", ".join(f"conv3x3-{count}" for count in self.channels)
        dense = "-".join(map(str, (*self.hidden, self.classes)))
        return f"{self.side}x{self.side}, {kernels}, fully connected {dense}, {sum(self.sizes[1:-1])} ReLUs, logits"


Recipe = GeneratorRecipe | ClassifierRecipe | ConvolutionalRecipe


def fingerprint(recipe: Recipe) -> str:
    """Equal exactly when kind, every hyper-parameter and RECIPE_VERSION are equal: 16 hexadecimal digits."""
    text = json.dumps([RECIPE_VERSION, type(recipe).__name__, asdict(recipe)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
