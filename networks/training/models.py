"""Torch networks made from recipes, and their training. Trust: heuristic.

In: recipes and pictures. Out: `nn.Sequential`.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from networks.training.recipes import ConvolutionalRecipe, GeneratorRecipe, PictureRecipe

Step = Callable[[], None]  # called after every epoch
Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]  # of a network on pictures and their targets
MakeLoss = Callable[[PictureRecipe, torch.Generator], Loss]


def dense(sizes: tuple[int, ...], slope: float) -> nn.Sequential:
    """Linear layers of the given widths with LeakyReLU(slope) between them (ReLU if slope is 0)."""
    layers: list[nn.Module] = []
    for rows, out in zip(sizes[:-2], sizes[1:-1], strict=True):
        layers += [nn.Linear(rows, out), nn.LeakyReLU(slope) if slope else nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def convolutional(recipe: ConvolutionalRecipe) -> nn.Sequential:
    """The recipe's convolutions and fully connected layers with ReLU between them, on flattened pictures."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, recipe.side, recipe.side))]
    for before, after in zip((1, *recipe.channels), recipe.channels, strict=False):
        layers += [nn.Conv2d(before, after, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), *dense(recipe.sizes[len(recipe.channels) :], 0.0))


def batches(count: int, size: int, random: torch.Generator) -> Iterator[torch.Tensor]:
    """Index batches that go once through range(count) in random order."""
    yield from torch.randperm(count, generator=random).split(size)


def leaky_clip(values: torch.Tensor, leak: float) -> torch.Tensor:
    """Clip to [0, 1] whose flat parts have slope `leak`, so that a pixel outside can be trained back."""
    inside = values.clamp(0.0, 1.0)
    return inside + leak * (values - inside)


def optimiser_and_schedule(
    parameters: list[nn.Parameter], recipe: GeneratorRecipe | PictureRecipe, count: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW and a learning rate that rises for 5 % of all steps and then falls to zero along a cosine."""
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * math.ceil(count / recipe.batch)

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (0.05 * steps))
        return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / steps)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def sliced_distance(drawn: torch.Tensor, data: torch.Tensor, directions: int, random: torch.Generator) -> torch.Tensor:
    """Squared sliced 2-Wasserstein distance of two point clouds `(n, pixels)`, times `pixels`: a scalar.

    Bonneel et al. 2015, section 3: the mean over random directions of the distance of the sorted projections. The
    directions are random combinations of the data's deviations from their mean: along arbitrary ones a generator
    could make up for missing variety by speckle.
    """
    weights = torch.randn(len(data), directions, generator=random, dtype=torch.float32)
    axes = (data - data.mean(0)).T @ weights
    axes = axes / axes.norm(dim=0)
    gaps = (drawn @ axes).sort(0).values - (data @ axes).sort(0).values
    return gaps.square().mean() * drawn.shape[1]


def autoencoder_loss(
    encoder: nn.Sequential,
    decoder: nn.Sequential,
    target: torch.Tensor,
    recipe: GeneratorRecipe,
    random: torch.Generator,
) -> torch.Tensor:
    """The negative evidence bound of pictures `target (batch, pixels)`: a scalar.

    Kingma and Welling 2014, eq. 10 with Gaussian pixels of standard deviation sigma; the prior is N(0, I).
    """
    mean, log_deviation = encoder(target).chunk(2, dim=1)
    noise = torch.randn(mean.shape, generator=random, dtype=torch.float32)
    drawn = leaky_clip(decoder(mean + log_deviation.exp() * noise), recipe.leak)
    misfit = (drawn - target).square().sum(1) / (2.0 * recipe.sigma**2)
    divergence = 0.5 * (mean.square() + (2.0 * log_deviation).exp() - 1.0 - 2.0 * log_deviation).sum(1)
    return (misfit + divergence).mean()


def train_generator(recipe: GeneratorRecipe, pictures: torch.Tensor, step: Step) -> nn.Sequential:
    """A decoder fitted to `pictures (n, pixels)` with latent prior N(0, I), ending in the hard clip to [0, 1].

    Every step minimises the autoencoder loss of a batch plus `sliced` times the sliced Wasserstein distance between
    pictures drawn from the prior and pictures drawn from the data: the first gives a smooth latent space, the second
    makes free samples as varied and as bright as the data.
    """
    torch.manual_seed(recipe.seed)
    random = torch.Generator().manual_seed(recipe.seed + 1)
    encoder = dense((*recipe.sizes[:0:-1], 2 * recipe.latent), recipe.slope)
    decoder = dense(recipe.sizes, recipe.slope)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser, schedule = optimiser_and_schedule(parameters, recipe, len(pictures))
    compared = min(recipe.compared, len(pictures))
    for _ in range(recipe.epochs):
        for rows in batches(len(pictures), recipe.batch, random):
            others = pictures[torch.randperm(len(pictures), generator=random)[:compared]]
            latents = torch.randn(compared, recipe.latent, generator=random, dtype=torch.float32)
            free = leaky_clip(decoder(latents), recipe.leak)
            distance = sliced_distance(free, others, recipe.directions, random) / (2.0 * recipe.sigma**2)
            loss = autoencoder_loss(encoder, decoder, pictures[rows], recipe, random) + recipe.sliced * distance
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 100.0)
            optimiser.step()
            schedule.step()
        step()
    return nn.Sequential(*decoder, nn.Hardtanh(0.0, 1.0)).eval()


def augmented(pictures: torch.Tensor, recipe: PictureRecipe, random: torch.Generator) -> torch.Tensor:
    """Pictures `(batch, pixels)` after a small random affine map and pixel noise of random strength, in [0, 1]."""
    if not (recipe.noise or recipe.shift or recipe.rotation or recipe.zoom):
        return pictures
    count, side = len(pictures), math.isqrt(recipe.pixels)

    def uniform(bound: float, *shape: int) -> torch.Tensor:
        return bound * (2.0 * torch.rand(*shape, generator=random, dtype=torch.float32) - 1.0)

    angle, size = torch.deg2rad(uniform(recipe.rotation, count)), 1.0 + uniform(recipe.zoom, count)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(count, 2, 2)
    shift = uniform(2.0 * recipe.shift / side, count, 2, 1)
    grid = functional.affine_grid(
        torch.cat([turn * size[:, None, None], shift], dim=2), [count, 1, side, side], align_corners=False
    )
    moved = functional.grid_sample(pictures.reshape(count, 1, side, side), grid, align_corners=False)
    strength = recipe.noise * torch.rand(count, 1, generator=random, dtype=torch.float32)
    noise = torch.randn(count, recipe.pixels, generator=random, dtype=torch.float32)
    return (moved.reshape(count, -1) + strength * noise).clamp(0.0, 1.0)


def plain_loss(recipe: PictureRecipe, random: torch.Generator) -> Loss:
    """Cross entropy on pictures changed a little."""

    def loss(network: nn.Module, pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = network(augmented(pictures, recipe, random))
        return functional.cross_entropy(logits, targets, label_smoothing=recipe.smoothing)

    return loss


def train_classifier(
    recipe: PictureRecipe, pictures: torch.Tensor, targets: torch.Tensor, step: Step, make_loss: MakeLoss = plain_loss
) -> nn.Sequential:
    """A ReLU network from `pictures (n, pixels)` to logits `(n, classes)` that minimises the loss on `targets`."""
    torch.manual_seed(recipe.seed)
    random = torch.Generator().manual_seed(recipe.seed + 1)
    network = convolutional(recipe) if isinstance(recipe, ConvolutionalRecipe) else dense(recipe.sizes, 0.0)
    optimiser, schedule = optimiser_and_schedule(list(network.parameters()), recipe, len(pictures))
    loss_of = make_loss(recipe, random)
    for _ in range(recipe.epochs):
        for rows in batches(len(pictures), recipe.batch, random):
            loss = loss_of(network, pictures[rows], targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        step()
    return network.eval()
