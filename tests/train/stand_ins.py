"""What the trainer calls of fastgan, in plain PyTorch: stands in for what is not there yet, by the same signatures."""

import sys
import types
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import fastgan


class CriticStep(NamedTuple):
    loss: torch.Tensor
    wasserstein: torch.Tensor
    penalty: torch.Tensor


def gradient_penalty(critic, real, fake=None, *, kind="wgan-gp", weight=10.0, target=1.0, generator=None):
    points = real if kind == "r1" else fake if kind == "r2" else mixed(real, fake, kind, generator)
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    squares = gradient.float().flatten(1).square().sum(1)
    if kind in ("r1", "r2"):
        return weight / 2 * squares.mean()
    excess = squares.sqrt() - target
    return weight * (excess.clamp_min(0) if kind == "wgan-lp" else excess).square().mean()


def mixed(real, fake, kind, generator):
    share = torch.rand(len(real), 1, 1, 1, generator=generator)
    if kind == "dragan":
        fake = real + 0.5 * real.std() * torch.rand(real.shape, generator=generator)
    return torch.lerp(real, fake, share)


class GradientPenalty(nn.Module):
    def __init__(self, kind="wgan-gp", weight=10.0, target=1.0, every=1, generator=None):
        super().__init__()
        self.settings = {"kind": kind, "weight": weight, "target": target, "generator": generator}
        self.every, self.calls = every, 0

    def forward(self, critic, real, fake=None):
        self.calls += 1
        if (self.calls - 1) % self.every:
            return torch.zeros(())
        return self.every * gradient_penalty(critic, real, fake, **self.settings)

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def critic_step_wgan_gp(critic, real, fake, *, weight=10.0, target=1.0, kind="wgan-gp", generator=None, scale=1.0):
    wasserstein = critic(real).float().mean() - critic(fake).float().mean()
    settings = {"weight": weight, "target": target, "kind": kind, "generator": generator}
    penalty = gradient_penalty(critic, real, fake, **settings)
    loss = penalty - wasserstein
    (scale * loss).backward()
    return CriticStep(loss.detach(), wasserstein.detach(), penalty.detach())


def install():
    """Put in place what fastgan lacks, until the process ends."""
    for name in ("gradient_penalty", "critic_step_wgan_gp"):
        if not hasattr(fastgan, name):
            setattr(fastgan, name, globals()[name])
    if not hasattr(fastgan.nn, "GradientPenalty"):
        fastgan.nn.GradientPenalty = GradientPenalty
    if not hasattr(fastgan.nn, "utils"):
        fastgan.nn.utils = types.ModuleType("fastgan.nn.utils")
        fastgan.nn.utils.spectral_norm = spectral_norm
        sys.modules["fastgan.nn.utils"] = fastgan.nn.utils
