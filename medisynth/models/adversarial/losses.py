"""Adversarial losses, and the penalties on the discriminator's gradient."""

from collections.abc import Callable
from typing import Literal

import torch
from torch.nn.functional import softplus

Loss = Literal["logistic", "relativistic"]


def discriminator_loss(
    kind: Loss, on_real: torch.Tensor, on_synthetic: torch.Tensor
) -> torch.Tensor:
    """Loss of the discriminator, to be minimised.

    Args:
        kind: "logistic" judges each image by itself (Goodfellow et al. 2014, arXiv:1406.2661);
            "relativistic" judges whether a real image is more real than a synthetic one (Huang et
            al. 2024, arXiv:2501.05441).
        on_real: Scores of real images, shape (b,).
        on_synthetic: Scores of synthetic images, shape (b,).
    """
    if kind == "relativistic":
        return softplus(on_synthetic - on_real).mean()
    return softplus(-on_real).mean() + softplus(on_synthetic).mean()


def generator_loss(kind: Loss, on_synthetic: torch.Tensor, on_real: torch.Tensor) -> torch.Tensor:
    """Loss of the generator, to be minimised; only the relativistic loss reads `on_real`."""
    if kind == "relativistic":
        return softplus(on_real - on_synthetic).mean()
    return softplus(-on_synthetic).mean()


def penalised(
    score: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score images, and compute the mean squared norm of each score's gradient, in fp32.

    R1 at real images (Mescheder et al. 2018, arXiv:1801.04406), R2 at synthetic ones.

    Args:
        score: From images to one score each.
        images: Shape (b, 1, h, w).

    Returns:
        Scores, shape (b,), and the penalty, a scalar; both can be differentiated by the weights.
    """
    images = images.detach().requires_grad_(True)
    with torch.autocast(images.device.type, enabled=False):
        scores = score(images)
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return scores, gradient.square().sum(dim=(1, 2, 3)).mean()
