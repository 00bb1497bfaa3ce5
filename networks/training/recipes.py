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

    @property
    def range(self) -> tuple[float, float]:
        """Values of black and white."""
        return 0.0, 1.0


@dataclass(frozen=True, kw_only=True)
class GanRecipe:
    """The source paper's generator of one class, trained against a discriminator (Fijalkow and Gupta 2019, their code).

    `output` tanh gives pictures in [-1, 1] as in the paper; clip gives them in [0, 1], piecewise linear, `leak` being
    the slope that replaces the flat parts in training. `real` is the label of data before the discriminator.
    """

    name: str
    label: int
    pixels: int
    output: str
    latent: int = 10
    hidden: tuple[int, ...] = (256, 512, 1024)
    discriminator: tuple[int, ...] = (1024, 512, 256)
    slope: float = 0.2
    dropout: float = 0.3
    leak: float = 0.05
    real: float = 0.9
    epochs: int = 100
    batch: int = 128
    learning_rate: float = 2e-4
    momentum: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.output not in ("tanh", "clip"):
            raise ValueError(f"output must be tanh or clip, got {self.output!r} ({self.name})")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of all layers from the latent to the pixels."""
        return (self.latent, *self.hidden, self.pixels)

    @property
    def architecture(self) -> str:
        """The network in one line."""
        end = "tanh" if self.output == "tanh" else "clip to [0, 1]"
        return f"{'-'.join(map(str, self.sizes))}, fully connected, LeakyReLU {self.slope:g}, {end}"

    @property
    def range(self) -> tuple[float, float]:
        """Values of black and white."""
        return (-1.0, 1.0) if self.output == "tanh" else (0.0, 1.0)


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
class AdversarialRecipe(ClassifierRecipe):
    """Trained on the worst pictures that `steps` steps of projected gradient ascent find (Madry et al. 2018).

    The perturbation is at most `epsilon` per pixel, a step `step` times epsilon.
    """

    epsilon: float = 0.1
    steps: int = 7
    step: float = 0.35


@dataclass(frozen=True, kw_only=True)
class DistilledRecipe(ClassifierRecipe):
    """Trained on the softmax shares of a teacher of the same shape, both at `temperature` (Papernot et al. 2016)."""

    temperature: float = 20.0


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


AnyGenerator = GeneratorRecipe | GanRecipe
Recipe = AnyGenerator | PictureRecipe


def fingerprint(recipe: Recipe) -> str:
    """Equal exactly when kind, every hyper-parameter and RECIPE_VERSION are equal: 16 hexadecimal digits."""
    text = json.dumps([RECIPE_VERSION, type(recipe).__name__, asdict(recipe)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
