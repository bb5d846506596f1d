"""A WGAN-GP critic trained in three ways that give the same gradients: by hand, with the penalty, with the whole step.

python examples/wgan_gp.py [--way hand|penalty|step] [--steps 20]
"""

import argparse
import time

import torch
from torch import Tensor, nn

import fastgan


def critic(width: int = 32) -> nn.Sequential:
    """A critic for 32x32 images; a penalty is per sample, so there is no batch norm in it."""
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(4 * width, 1, 4, 1, 0),
        nn.Flatten(0),
    )


def penalty_by_hand(model: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    t = torch.rand(len(real), 1, 1, 1)
    x = (t * real + (1 - t) * fake).requires_grad_()
    scores = model(x)
    (g,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)
    return 10 * (g.flatten(1).norm(dim=1) - 1).square().mean()


def step(way: str, model: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Add the gradients of one critic step to ``.grad`` and return mean D(real) - mean D(fake)."""
    if way == "step":
        return fastgan.critic_step_wgan_gp(model, real, fake, weight=10.0).wasserstein
    wasserstein = model(real).mean() - model(fake).mean()
    if way == "penalty":
        penalty = fastgan.gradient_penalty(model, real, fake, weight=10.0)
    else:
        # on a converted critic even this runs no convolution on zeros
        penalty = penalty_by_hand(model, real, fake)
    (penalty - wasserstein).backward()
    return wasserstein.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=("hand", "penalty", "step"), default="step")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = fastgan.convert(critic())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.0, 0.9))
    begin = time.perf_counter()
    for i in range(arguments.steps):
        real, fake = torch.rand(64, 3, 32, 32) * 2 - 1, torch.randn(64, 3, 32, 32)
        optimizer.zero_grad()
        wasserstein = step(arguments.way, model, real, fake)
        optimizer.step()
        print(f"step {i}: wasserstein {wasserstein:.3f}")
    print(f"{arguments.steps / (time.perf_counter() - begin):.1f} steps a second")
    print(fastgan.explain(model))


if __name__ == "__main__":
    main()
