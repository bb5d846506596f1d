"""Losses as people write them by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

WEIGHT = 10.0
# with the usual 1e-8 Adam's first step is the gradient's sign, which rounding flips where it is small, and no provider
# could be checked; with this it is about the gradient, and takes as long
EPS = 1e-2
Critic = Callable[[Tensor], Tensor]


def norms(critic: Critic, x: Tensor) -> Tensor:
    """Return the norm of a critic's gradient at each sample (N,), differentiable."""
    x = x.detach().requires_grad_()
    scores = critic(x)
    (g,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)
    return g.flatten(1).norm(dim=1)


def penalty(kind: str, critic: Critic, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    """Return WGAN-GP's penalty, R1 or R2; t is (N, 1, 1, 1)."""
    if kind == "wgan-gp":
        return WEIGHT * (norms(critic, t * real + (1 - t) * fake) - 1).square().mean()
    return WEIGHT / 2 * norms(critic, real if kind == "r1" else fake).square().mean()


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss from logits (N,)."""
    real, fake = real.flatten(), fake.flatten()
    if kind == "non-saturating":
        return softplus(-real).mean() + softplus(fake).mean()
    return relu(1 - real).mean() + relu(1 + fake).mean() if kind == "hinge" else fake.mean() - real.mean()


def generator_loss(kind: str, fake: Tensor) -> Tensor:
    """Return the generator's loss from logits (N,)."""
    return softplus(-fake).mean() if kind == "non-saturating" else -fake.mean()


def adam_settings(loss: str) -> tuple[float, tuple[float, float]]:
    """Return learning rate and momenta of a game's players."""
    return (2e-4, (0.5, 0.999)) if loss == "non-saturating" else (1e-4, (0.0, 0.9))


def adam(model: nn.Module, loss: str, fused: bool, capturable: bool) -> torch.optim.Adam:
    """Return the optimiser of each of the two players."""
    lr, betas = adam_settings(loss)
    return torch.optim.Adam(model.parameters(), lr, betas, EPS, fused=fused or None, capturable=capturable)
