"""Writes a GAN from the modules of fastgan.nn: python examples/write_your_own.py [--steps 20]."""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan.nn import BatchNormAct2d, ConvNormAct2d, ConvTransposeNormAct2d
from fastgan.nn.functional import bias_act


class Generator(nn.Module):
    """Latents (N, 32) to images (N, 1, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(32, 64 * 4 * 4, bias=False)
        self.norm = BatchNormAct2d(64, activation="relu")
        self.up = ConvTransposeNormAct2d(64, 32, 4, 2, 1, bias=False, activation="relu")
        self.last = ConvTransposeNormAct2d(32, 1, 4, 2, 1, norm=False, activation="tanh")

    def forward(self, latents: Tensor) -> Tensor:
        return self.last(self.up(self.norm(self.start(latents).view(-1, 64, 4, 4))))


class Critic(nn.Module):
    """Images (N, 1, 16, 16) to one number each, (N,); without batch norm, as WGAN-GP wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = ConvNormAct2d(1, 32, 4, 2, 1, norm=False)
        self.down2 = ConvNormAct2d(32, 64, 4, 2, 1, norm=False)
        self.hidden = nn.Linear(64 * 4 * 4, 64, bias=False)
        self.bias = nn.Parameter(torch.zeros(64))
        self.last = nn.Linear(64, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.hidden(self.down2(self.down1(images)).flatten(1))
        # the functions take any tensor (N, C, ...)
        return self.last(bias_act(x, self.bias, activation="leaky_relu", negative_slope=0.2)).flatten()


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return mean((|critic'(x)| - 1)^2) at random points between real and fake: fastgan's ops differentiate twice."""
    x = torch.lerp(real, fake, torch.rand(len(real), 1, 1, 1)).requires_grad_()
    (dx,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (dx.flatten(1).norm(dim=1) - 1).square().mean()


def stripes(n: int) -> Tensor:
    """Return n pictures of stripes, (N, 1, 16, 16) in [-1, 1], to have something to learn."""
    angle, phase = 3.14 * torch.rand(n, 1, 1), 6.28 * torch.rand(n, 1, 1)
    axis = torch.linspace(-4, 4, 16)
    return torch.sin(axis[:, None] * angle.cos() + axis * angle.sin() + phase)[:, None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    generator, critic = Generator(), Critic()
    g_optimizer = torch.optim.Adam(generator.parameters(), 2e-4, betas=(0.0, 0.9))
    c_optimizer = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.0, 0.9))
    for step in range(steps):
        real, fake = stripes(32), generator(torch.randn(32, 32))
        penalty = gradient_penalty(critic, real, fake.detach())
        c_loss = critic(fake.detach()).mean() - critic(real).mean() + 10 * penalty
        c_optimizer.zero_grad()
        c_loss.backward()
        c_optimizer.step()
        g_loss = -critic(fake).mean()
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        if step % 5 == 0 or step == steps - 1:
            print(f"step {step}: penalty {penalty.item():.3f}, c_loss {c_loss.item():.3f}, g_loss {g_loss.item():.3f}")
    assert F.mse_loss(generator(torch.randn(8, 32)), stripes(8)).isfinite()


if __name__ == "__main__":
    main()
