"""Training meant to make classifiers robust: adversarial training and defensive distillation. Trust: heuristic.

In: recipes, pictures, labels. Out: `nn.Sequential`.
"""

import torch
from torch import nn
from torch.nn import functional

from networks.training.models import Loss, Step, train_classifier
from networks.training.recipes import AdversarialRecipe, DistilledRecipe


def adversarial_loss(recipe: AdversarialRecipe, random: torch.Generator) -> Loss:
    """Cross entropy on the worst pictures found (Madry et al. 2018): a random start in the ball, then sign steps."""

    def loss(network: nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        noise = 2.0 * torch.rand(pictures.shape, generator=random, dtype=torch.float32) - 1.0
        worst = (pictures + recipe.epsilon * noise).clamp(0.0, 1.0)
        for _ in range(recipe.steps):
            worst = worst.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(functional.cross_entropy(network(worst), labels), worst)
            moved = worst.detach() + recipe.step * recipe.epsilon * slope.sign()
            worst = moved.clamp(pictures - recipe.epsilon, pictures + recipe.epsilon).clamp(0.0, 1.0)
        return functional.cross_entropy(network(worst), labels)

    return loss


def train_adversarially(
    recipe: AdversarialRecipe, pictures: torch.Tensor, labels: torch.Tensor, step: Step
) -> nn.Sequential:
    """A classifier trained on the worst pictures in a ball of radius epsilon around each, within [0, 1]."""
    return train_classifier(recipe, pictures, labels, step, adversarial_loss)


def distillation_loss(recipe: DistilledRecipe, random: torch.Generator) -> Loss:
    """Cross entropy of the softmax at the temperature with labels, or with the shares of a teacher."""

    def loss(network: nn.Module, pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(network(pictures) / recipe.temperature, targets)

    return loss


def train_distilled(recipe: DistilledRecipe, pictures: torch.Tensor, labels: torch.Tensor, step: Step) -> nn.Sequential:
    """A classifier trained on its teacher's shares; the temperature is 1 afterwards (Papernot et al. 2016, section IV).

    Teacher and student have the same recipe, so `step` is called twice `recipe.epochs` times.
    """
    teacher = train_classifier(recipe, pictures, labels, step, distillation_loss)
    with torch.no_grad():
        shares = functional.softmax(teacher(pictures) / recipe.temperature, dim=1)
    return train_classifier(recipe, pictures, shares, step, distillation_loss)
