"""Makes a GAN that exists already faster, without touching its code: python examples/convert_existing_gan.py."""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastgan


class Generator(nn.Sequential):
    """Latents (N, 32, 1, 1) to images (N, 1, 16, 16)."""

    def __init__(self) -> None:
        super().__init__(
            nn.ConvTranspose2d(32, 64, 4, 1, 0, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(True),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(True),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
            nn.Tanh(),
        )


class Discriminator(nn.Module):
    """Images (N, 1, 16, 16) to logits (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 4, 2, 1)
        self.conv2 = nn.Conv2d(32, 64, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 1, 4, 1, 0)

    def forward(self, images: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(images), 0.2)
        x = F.leaky_relu(self.norm(self.conv2(x)), 0.2)
        return self.conv3(x).flatten()


def disks(n: int) -> Tensor:
    """Return n pictures of a disk, (N, 1, 16, 16) in [-1, 1], to have something to learn."""
    axis = torch.linspace(-1, 1, 16)
    center, radius = torch.rand(2, n, 1, 1) - 0.5, 0.3 + 0.3 * torch.rand(n, 1, 1)
    distance = ((axis[:, None] - center[0]) ** 2 + (axis - center[1]) ** 2).sqrt()
    return torch.tanh(10 * (radius - distance))[:, None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    generator, discriminator = Generator(), Discriminator()
    g_optimizer = torch.optim.Adam(generator.parameters(), 2e-4, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), 2e-4, betas=(0.5, 0.999))

    # the only two lines that are new
    fastgan.convert(generator)
    fastgan.convert(discriminator)
    print(fastgan.explain(generator), fastgan.explain(discriminator), sep="\n\n", end="\n\n")

    for step in range(steps):
        real, fake = disks(32), generator(torch.randn(32, 32, 1, 1))
        d_loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake.detach())).mean()
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        g_loss = F.softplus(-discriminator(fake)).mean()
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        if step % 5 == 0 or step == steps - 1:
            print(f"step {step}: d_loss {d_loss.item():.3f}, g_loss {g_loss.item():.3f}")

    # the checkpoint loads into the stock model, with or without fastgan
    Generator().load_state_dict(generator.state_dict())
    assert type(fastgan.revert(discriminator)) is Discriminator


if __name__ == "__main__":
    main()
