"""SRGAN: a generator that enlarges a small image, from stock ``torch.nn`` modules."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from fastgan.models import dcgan
from fastgan.models.layers import Residual, check_weight, weights_init
from fastgan.models.recipe import Batch, Recipe, Setup

SCALES = (2, 4)


class Generator(nn.Module):
    """Small image to large one: residual blocks at the small size, then transposed convolutions, each doubling it.

    The paper's network with ReLU for its PReLU, and transposed convolutions for its pixel shuffle.

    Args:
        channels: colour channels of the image, >= 1.
        features: width of every hidden layer.
        scale: how many times larger the side becomes; 2 or 4.
        blocks: number of residual blocks.
    Raises: ValueError when scale is neither.
    """

    def __init__(self, channels: int = 3, features: int = 64, scale: int = 2, blocks: int = 4) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"Generator: scale must be 2 or 4, got {scale}")
        self.head = nn.Sequential(nn.Conv2d(channels, features, 3, padding=1), nn.ReLU(True))
        self.body = Residual(*(_block(features) for _ in range(blocks)), *_conv_norm(features))
        layers: list[nn.Module] = []
        while scale > 1:
            up = nn.ConvTranspose2d(features, features, 4, 2, 1, bias=False)
            layers += [up, nn.BatchNorm2d(features), nn.ReLU(True)]
            scale //= 2
        self.tail = nn.Sequential(*layers, nn.Conv2d(features, channels, 3, padding=1), nn.Tanh())

    def forward(self, small: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to images (N, channels, scale * H, scale * W) in [-1, 1]."""
        return self.tail(self.body(self.head(small)))


class SRGAN(Recipe):
    """Enlarges images that were made small; the discriminator tells the enlarged from the original ones.

    Args:
        setup: what to build for; there is no latent vector.
        scale: how many times smaller the generator's input is; 2 or 4.
        content_weight: factor, >= 0, of the mean absolute difference from the original image, "content" among the
            losses; the paper's is of features of VGG or of squares.
    Raises: ValueError naming the option.
    Source: Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a GAN".
    """

    name = "srgan"
    needs_data = True

    def __init__(self, setup: Setup, scale: int = 2, content_weight: float = 10.0) -> None:
        super().__init__(setup)
        if scale not in SCALES:
            raise ValueError(f"scale must be 2 or 4 for model srgan, got {scale}")
        self.scale, self.content_weight = scale, check_weight(self.name, "content_weight", content_weight)

    def generator(self) -> nn.Module:
        return Generator(self.setup.channels, self.setup.features, self.scale).apply(weights_init)

    def discriminator(self) -> nn.Module:
        return dcgan.DCGAN(self.setup).discriminator()

    def batch(self, images: Tensor, labels: Tensor | None, random: torch.Generator) -> Batch:
        return Batch(images, (self.shrink(images),))

    def samples(
        self, count: int, images: Tensor, labels: Tensor | None, random: torch.Generator, truncation: float = 0.0
    ) -> tuple[Tensor, ...]:
        return (self.shrink(images[:count]),)

    def generator_loss(self, generator: nn.Module, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        return {"content": self.content_weight * (fake - batch.real).abs().mean()}

    def picture(self, inputs: tuple[Tensor, ...], fake: Tensor) -> Tensor:
        """The input, enlarged by repeating pixels, and to its right what was generated: (N, C, H, 2W)."""
        return torch.cat([interpolate(inputs[0], scale_factor=self.scale, mode="nearest"), fake], dim=3)

    def shrink(self, images: Tensor) -> Tensor:
        """Make images (N, C, H, W) small by the mean over squares: (N, C, H / scale, W / scale)."""
        return avg_pool2d(images, self.scale)


def _conv_norm(width: int) -> list[nn.Module]:
    return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]


def _block(width: int) -> nn.Module:
    return Residual(*_conv_norm(width), nn.ReLU(True), *_conv_norm(width))
