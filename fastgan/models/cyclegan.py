"""CycleGAN: two generators that turn images of one set into the other's, from stock ``torch.nn`` modules."""

import torch
from torch import Tensor, nn

from fastgan.models.layers import NORMS, Residual, add_spectral_norm, check_weight, leaky, weights_init
from fastgan.models.recipe import Batch, Recipe, Setup

# in what follows "pairs" are images of set A and, behind them on the channel axis, of set B: (N, 2C, H, W)


class Generator(nn.Module):
    """Both directions at once; each is a network down to a quarter of the side, residual blocks there, and up again.

    Args:
        channels: colour channels of one image, >= 1.
        features: width of the layers nearest to the image; twice as wide at each smaller size.
        blocks: number of residual blocks.
    """

    def __init__(self, channels: int = 3, features: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.a_to_b = _translator(channels, features, blocks)
        self.b_to_a = _translator(channels, features, blocks)

    def forward(self, pairs: Tensor) -> Tensor:
        """Map pairs (A, B) to pairs (B as A, A as B), (N, 2 * channels, H, W) both, in [-1, 1]."""
        a, b = pairs.chunk(2, dim=1)
        return torch.cat([self.b_to_a(b), self.a_to_b(a)], dim=1)


class Discriminator(nn.Module):
    """Two PatchGANs, one for each set, with a logit for each overlapping square of 22x22 pixels.

    Args:
        channels: colour channels of one image, >= 1.
        features: width of the first hidden layer.
        norm: of the hidden layers but the first; "batch", "none" or "layer".
        spectral_norm: divide the weight of every convolution by its largest singular value.
    Raises: ValueError when norm is none of the three.
    """

    def __init__(self, channels: int = 3, features: int = 64, norm: str = "batch", spectral_norm: bool = False) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"Discriminator: norm must be {', '.join(NORMS)}, got {norm!r}")
        self.d_a = _patch_critic(channels, features, norm, spectral_norm)
        self.d_b = _patch_critic(channels, features, norm, spectral_norm)

    def forward(self, pairs: Tensor) -> Tensor:
        """Map pairs (N, 2 * channels, H, W) to logits (N, 2, H / 4 - 1, W / 4 - 1), those of A first."""
        a, b = pairs.chunk(2, dim=1)
        return torch.cat([self.d_a(a), self.d_b(b)], dim=1)


class CycleGAN(Recipe):
    """Turns images of set A into ones of set B and back, without pairs that belong together.

    Args:
        setup: what to build for; ``channels`` are those of one image, and there is no latent vector.
        cycle_weight: factor, >= 0, of the mean absolute difference of an image from what comes back after both
            directions, "cycle" among the losses.
        identity_weight: likewise from what a generator makes of an image that is of its target set already,
            "identity" among the losses; 0: it is not computed.
    Raises: ValueError naming the option.
    Source: Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks".
    """

    name = "cyclegan"
    needs_data = True
    needs_second_set = True

    def __init__(self, setup: Setup, cycle_weight: float = 10.0, identity_weight: float = 0.0) -> None:
        super().__init__(setup)
        self.cycle_weight = check_weight(self.name, "cycle_weight", cycle_weight)
        self.identity_weight = check_weight(self.name, "identity_weight", identity_weight)

    def generator(self) -> nn.Module:
        return Generator(self.setup.channels, self.setup.features).apply(weights_init)

    def discriminator(self) -> nn.Module:
        setup = self.setup
        model = Discriminator(setup.channels, setup.features, setup.norm, setup.spectral_norm)
        return model.apply(weights_init)

    def batch(self, images: Tensor, labels: Tensor | None, random: torch.Generator) -> Batch:
        return Batch(images, (images,))

    def samples(
        self, count: int, images: Tensor, labels: Tensor | None, random: torch.Generator, truncation: float = 0.0
    ) -> tuple[Tensor, ...]:
        return (images[:count],)

    def generator_loss(self, generator: nn.Module, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        pairs = batch.real
        # what was made of A is in the place of B, so that the same call brings each back to its own place
        losses = {"cycle": self.cycle_weight * (generator(fake) - pairs).abs().mean()}
        if self.identity_weight:
            swapped = torch.cat(pairs.chunk(2, dim=1)[::-1], dim=1)
            losses["identity"] = self.identity_weight * (generator(swapped) - pairs).abs().mean()
        return losses

    def frames(self, images: Tensor) -> Tensor:
        """Pairs (N, 2C, H, W) to images (2N, C, H, W), all those of A first."""
        return torch.cat(images.chunk(2, dim=1))

    def picture(self, inputs: tuple[Tensor, ...], fake: Tensor) -> Tensor:
        """From left to right A, A as B, B, B as A: (N, C, H, 4W)."""
        (a, b), (b_as_a, a_as_b) = inputs[0].chunk(2, dim=1), fake.chunk(2, dim=1)
        return torch.cat([a, a_as_b, b, b_as_a], dim=3)


def _translator(channels: int, features: int, blocks: int) -> nn.Sequential:
    width = 4 * features
    return nn.Sequential(
        *_conv_norm(nn.Conv2d(channels, features, 7, padding=3, bias=False)),
        *_conv_norm(nn.Conv2d(features, 2 * features, 3, 2, 1, bias=False)),
        *_conv_norm(nn.Conv2d(2 * features, width, 3, 2, 1, bias=False)),
        *(_block(width) for _ in range(blocks)),
        *_conv_norm(nn.ConvTranspose2d(width, 2 * features, 4, 2, 1, bias=False)),
        *_conv_norm(nn.ConvTranspose2d(2 * features, features, 4, 2, 1, bias=False)),
        nn.Conv2d(features, channels, 7, padding=3),
        nn.Tanh(),
    )


def _block(width: int) -> nn.Module:
    first, second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
    return Residual(*_conv_norm(first), *_conv_norm(second)[:2])


def _conv_norm(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(convolution.out_channels, affine=True), nn.ReLU(True)]


def _patch_critic(channels: int, features: int, norm: str, spectral_norm: bool) -> nn.Module:
    make_norm = NORMS[norm]
    second = nn.Conv2d(features, 2 * features, 4, 2, 1, bias=make_norm is None)
    layers: list[nn.Module] = [nn.Conv2d(channels, features, 4, 2, 1), leaky(), second]
    layers += [] if make_norm is None else [make_norm(2 * features)]
    layers += [leaky(), nn.Conv2d(2 * features, 1, 4, 1, 1)]
    critic = nn.Sequential(*layers)
    return add_spectral_norm(critic) if spectral_norm else critic
