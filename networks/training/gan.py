"""Generators trained against a discriminator, as in the source paper. Trust: heuristic.

In: recipes and pictures of one class. Out: `nn.Sequential`.
"""

import torch
from torch import nn
from torch.nn import functional

from networks.training.models import Step, batches, dense, leaky_clip
from networks.training.recipes import GanRecipe


def discriminator(recipe: GanRecipe) -> nn.Sequential:
    """Pictures `(batch, pixels)` -> logit of being data; dropout after every hidden layer."""
    layers: list[nn.Module] = []
    for rows, out in zip((recipe.pixels, *recipe.discriminator), recipe.discriminator, strict=False):
        layers += [nn.Linear(rows, out), nn.LeakyReLU(recipe.slope), nn.Dropout(recipe.dropout)]
    return nn.Sequential(*layers, nn.Linear(recipe.discriminator[-1], 1))


def train_gan(recipe: GanRecipe, pictures: torch.Tensor, step: Step) -> nn.Sequential:
    """A generator of pictures like `pictures (n, pixels)` in [0, 1], in the recipe's range, latent prior N(0, I).

    Goodfellow et al. 2014, with the generator's loss -log D(G(z)) and one-sided label smoothing, by Adam.
    """
    torch.manual_seed(recipe.seed)
    random = torch.Generator().manual_seed(recipe.seed + 1)
    low, high = recipe.range
    data = low + (high - low) * pictures
    generator, judge = dense(recipe.sizes, recipe.slope), discriminator(recipe)
    options = {"lr": recipe.learning_rate, "betas": (recipe.momentum, 0.999)}
    makes = torch.optim.Adam(generator.parameters(), **options)
    judges = torch.optim.Adam(judge.parameters(), **options)

    def drawn(number: int) -> torch.Tensor:
        latents = torch.randn(number, recipe.latent, generator=random, dtype=torch.float32)
        values = generator(latents)
        return torch.tanh(values) if recipe.output == "tanh" else leaky_clip(values, recipe.leak)

    def loss(rows: torch.Tensor, target: float) -> torch.Tensor:
        logits = judge(rows)
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    for _ in range(recipe.epochs):
        for rows in batches(len(data), recipe.batch, random):
            fake = drawn(len(rows))
            judges.zero_grad()
            (loss(data[rows], recipe.real) + loss(fake.detach(), 0.0)).backward()
            judges.step()
            makes.zero_grad()
            loss(fake, 1.0).backward()
            makes.step()
        step()
    end = nn.Tanh() if recipe.output == "tanh" else nn.Hardtanh(0.0, 1.0)
    return nn.Sequential(*generator, end).eval()
