"""Progressive growing: both networks start at 4 pixels and double their resolution as training goes on."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from fastgan.models.layers import NORMS, add_spectral_norm, initialise, leaky
from fastgan.models.recipe import Recipe, Setup

_FIRST = 4  # pixels


class PixelNorm(nn.Module):
    """Scale the features of each pixel to a mean square of 1: (N, C, H, W) to the same.

    Source: Karras et al. 2018, section 4.2.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class MinibatchStddev(nn.Module):
    """Append a channel that holds the mean standard deviation of the features over the batch: (N, C, H, W) to C + 1.

    Source: Karras et al. 2018, section 3.
    """

    def forward(self, x: Tensor) -> Tensor:
        deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
        return torch.cat([x, deviation.to(x.dtype).expand(len(x), 1, *x.shape[2:])], 1)


class _Growing(nn.Module):
    """What both networks share: the step that training is at, in the state, and the stage that it means.

    Stage 0 works at 4 pixels, each later one at twice the pixels of the one before; the last one stays. In the first
    half of a stage its new layers fade in.
    """

    step: Tensor

    def __init__(self, image_size: int, features: int, grow_every: int) -> None:
        super().__init__()
        self.image_size, self.grow_every = image_size, grow_every
        self.widths = [features * image_size // side for side in _sides(image_size)]
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def stage(self) -> tuple[int, float]:
        """Return the stage, counted from 0, and the share of its new layers in the image, in (0, 1]."""
        step = int(self.step)
        stage = min(step // self.grow_every, len(self.widths) - 1)
        since = step - stage * self.grow_every + 1
        return stage, min(1.0, 2 * since / self.grow_every) if stage else 1.0


class Generator(_Growing):
    """Latent vector to image, always at full size: what the present stage makes is enlarged to it, pixel by pixel.

    Args:
        image_size: side of the image in pixels; 4 times a power of 2.
        channels: colour channels of the image, >= 1.
        latent_dim: length of the latent vector.
        features: width at full resolution; each stage before is twice as wide.
        grow_every: steps of a stage.
        pixel_norm: ``PixelNorm`` in place of batch norm.
    Source: Karras et al. 2018, section 2.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        latent_dim: int = 100,
        features: int = 16,
        grow_every: int = 300,
        pixel_norm: bool = False,
    ) -> None:
        super().__init__(image_size, features, grow_every)

        def layers(convolution: nn.Module, width: int) -> list[nn.Module]:
            return [convolution, leaky(), PixelNorm()] if pixel_norm else [convolution, nn.BatchNorm2d(width), leaky()]

        def block(width: int, up: nn.Module) -> nn.Module:
            same = nn.Conv2d(width, width, 3, 1, 1, bias=pixel_norm)
            return nn.Sequential(*layers(up, width), *layers(same, width))

        first, *later = self.widths
        self.first = block(first, nn.ConvTranspose2d(latent_dim, first, _FIRST, bias=pixel_norm))
        ups = (nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=pixel_norm) for width in later)
        self.blocks = nn.ModuleList(block(width, up) for width, up in zip(later, ups, strict=True))
        self.to_image = nn.ModuleList(nn.Sequential(nn.Conv2d(width, channels, 1), nn.Tanh()) for width in self.widths)

    def forward(self, latent: Tensor) -> Tensor:
        """Map latents (N, latent_dim, 1, 1) to images (N, channels, image_size, image_size) in [-1, 1]."""
        stage, share = self.stage()
        before = x = self.first(latent)
        for block in self.blocks[:stage]:
            before, x = x, block(x)
        image = self.to_image[stage](x)
        if share < 1:
            image = torch.lerp(_enlarge(self.to_image[stage - 1](before), image.shape[-1]), image, share)
        return _enlarge(image, self.image_size)


class Discriminator(_Growing):
    """Image to logit; what it sees of an image has the resolution of the present stage.

    Args:
        image_size, channels, features, grow_every: as of the generator.
        norm: after each convolution but the first of a stage and the last; "batch", "none", or "layer" over (C, H, W)
            of each sample.
        minibatch_stddev: show the last layers how much the images of a batch differ.
    Source: Karras et al. 2018, sections 2 and 3.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        features: int = 16,
        grow_every: int = 300,
        norm: str = "batch",
        minibatch_stddev: bool = True,
    ) -> None:
        super().__init__(image_size, features, grow_every)
        make_norm = NORMS[norm]

        def layers(convolution: nn.Module, width: int) -> list[nn.Module]:
            return [convolution, make_norm(width), leaky()] if make_norm else [convolution, leaky()]

        def block(width: int) -> nn.Module:
            same = nn.Conv2d(width, width, 3, 1, 1, bias=norm != "batch")
            down = nn.Conv2d(width, 2 * width, 4, 2, 1, bias=norm != "batch")
            return nn.Sequential(*layers(same, width), *layers(down, 2 * width))

        first, *later = self.widths
        self.from_image = nn.ModuleList(nn.Sequential(nn.Conv2d(channels, width, 1), leaky()) for width in self.widths)
        self.blocks = nn.ModuleList(block(width) for width in later)
        extra = [MinibatchStddev()] if minibatch_stddev else []
        mixed = nn.Conv2d(first + len(extra), first, 3, 1, 1, bias=norm != "batch")
        self.last = nn.Sequential(*extra, *layers(mixed, first), nn.Conv2d(first, 1, _FIRST))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, image_size, image_size) to logits (N,), positive for real."""
        stage, share = self.stage()
        image = _reduce(images, _FIRST << stage)
        x = self.from_image[stage](image)
        for index in reversed(range(stage)):
            x = self.blocks[index](x)
            if share < 1 and index == stage - 1:
                x = torch.lerp(self.from_image[index](_reduce(image, _FIRST << index)), x, share)
        return self.last(x).flatten()


class Progressive(Recipe):
    """The generator and the discriminator above, growing together.

    Args:
        grow_every: steps of a stage, of which the first half fades its new layers in; >= 2.
        pixel_norm: in the generator, in place of batch norm.
        minibatch_stddev: in the discriminator, which then sees a batch, not single images.
    Source: Karras et al. 2018.
    """

    name = "progressive"
    image_sizes = (8, 16, 32, 64, 128)
    grows = True

    def __init__(
        self, setup: Setup, grow_every: int = 300, pixel_norm: bool = False, minibatch_stddev: bool = True
    ) -> None:
        super().__init__(setup)
        if grow_every < 2:
            raise ValueError(f"grow_every must be at least 2, got {grow_every}")
        self.grow_every, self.pixel_norm = grow_every, pixel_norm
        self.minibatch_stddev = self.mixes_samples = minibatch_stddev

    def generator(self) -> nn.Module:
        setup, sizes = self.setup, (self.grow_every, self.pixel_norm)
        model = Generator(setup.image_size, setup.channels, setup.latent_dim, setup.features, *sizes)
        return model.apply(_he)

    def discriminator(self) -> nn.Module:
        setup, options = self.setup, (self.grow_every, self.setup.norm, self.minibatch_stddev)
        model = Discriminator(setup.image_size, setup.channels, setup.features, *options)
        return (add_spectral_norm(model) if setup.spectral_norm else model).apply(_he)

    def advance(self, generator: nn.Module, discriminator: nn.Module, step: int) -> None:
        """Set the step that both networks are at."""
        for model in (generator, discriminator):
            cast(_Growing, model).step.fill_(step)


def _sides(image_size: int) -> list[int]:
    """Return the pixels of each stage: 4, 8, ..., image_size."""
    return [_FIRST << stage for stage in range((image_size // _FIRST).bit_length())]


def _enlarge(image: Tensor, side: int) -> Tensor:
    return interpolate(image, (side, side)) if image.shape[-1] < side else image


def _reduce(image: Tensor, side: int) -> Tensor:
    return avg_pool2d(image, image.shape[-1] // side) if image.shape[-1] > side else image


def _he(layer: nn.Module) -> None:
    """Initialise one layer: weights normal by He et al. 2015, equation 15, for LeakyReLU(0.2), biases zero."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        initialise(layer, lambda weight: nn.init.kaiming_normal_(weight, 0.2))
