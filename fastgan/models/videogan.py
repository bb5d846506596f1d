"""A GAN of short clips: the DCGAN with a third axis, time, from stock ``torch.nn`` modules."""

from typing import Any

from torch import Tensor, nn

from fastgan.models.layers import NORMS, add_spectral_norm, leaky, weights_init
from fastgan.models.recipe import Recipe, Setup

_NORMS = {**NORMS, "batch": nn.BatchNorm3d}
_TIME_AND_SPACE: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
_SPACE: dict[str, Any] = {"kernel_size": (1, 4, 4), "stride": (1, 2, 2), "padding": (0, 1, 1)}


class Generator(nn.Module):
    """Latent vector to clip: transposed convolutions, each doubling the side, with batch norm and ReLU; Tanh last.

    The last three double the number of frames, too. It is the paper's network of one stream.

    Args:
        image_size: side of a frame in pixels; 32 or 64.
        channels: colour channels, >= 1.
        latent_dim: length of the latent vector.
        features: width of the last hidden layer; each earlier one is twice as wide.
        frames: of a clip; a multiple of 8.
    Raises: ValueError when image_size or frames is something else.
    """

    def __init__(
        self, image_size: int = 32, channels: int = 3, latent_dim: int = 100, features: int = 64, frames: int = 8
    ) -> None:
        super().__init__()
        _check("Generator", image_size, frames)
        width = features * image_size // 8
        layers = _up(latent_dim, width, kernel_size=(frames // 8, 4, 4))
        while width > features:
            layers += _up(width, width // 2, **_resizing(width, features))
            width //= 2
        self.main = nn.Sequential(*layers, nn.ConvTranspose3d(width, channels, **_TIME_AND_SPACE), nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        """Map latents (N, latent_dim, 1, 1) to clips (N, channels, frames, image_size, image_size) in [-1, 1]."""
        return self.main(latent.unsqueeze(-1))


class Discriminator(nn.Module):
    """Clip to logit: strided convolutions, each halving the side, with a norm and LeakyReLU(0.2).

    The first three halve the number of frames, too.

    Args:
        image_size, channels, frames: of the generator.
        features: width of the first hidden layer; each later one is twice as wide.
        norm: after each convolution but the first and the last; "batch", "none" or "layer".
        spectral_norm: divide the weight of every convolution by its largest singular value.
    Raises: ValueError when image_size, frames or norm is something else.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        features: int = 64,
        frames: int = 8,
        norm: str = "batch",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        _check("Discriminator", image_size, frames)
        if norm not in _NORMS:
            raise ValueError(f"Discriminator: norm must be {', '.join(_NORMS)}, got {norm!r}")
        make_norm, width = _NORMS[norm], features
        layers: list[nn.Module] = [nn.Conv3d(channels, features, **_TIME_AND_SPACE), leaky()]
        while width < features * image_size // 8:
            resizing = _resizing(2 * width, features)
            layers.append(nn.Conv3d(width, 2 * width, bias=make_norm is None, **resizing))
            layers += [leaky()] if make_norm is None else [make_norm(2 * width), leaky()]
            width *= 2
        layers.append(nn.Conv3d(width, 1, (frames // 8, 4, 4)))
        self.main = nn.Sequential(*layers)
        if spectral_norm:
            add_spectral_norm(self.main)

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips (N, channels, frames, image_size, image_size) to logits (N,), positive for real."""
        return self.main(clips).flatten()


class VideoGAN(Recipe):
    """The two networks above, on clips (N, C, T, H, W).

    Args:
        setup: what to build for; image_size 32 or 64.
        frames: T of the data and of what is generated, kept as ``clip_length``; a multiple of 8.
    Raises: ValueError naming the option.
    Source: Vondrick et al. 2016, "Generating Videos with Scene Dynamics"; 32 pixels instead of 64, and 8 frames
        instead of 32.
    """

    name = "videogan"
    image_sizes = (32, 64)

    def __init__(self, setup: Setup, frames: int = 8) -> None:
        super().__init__(setup)
        if frames < 8 or frames % 8:
            raise ValueError(f"frames must be a multiple of 8 for model videogan, got {frames}")
        self.clip_length = frames

    def generator(self) -> nn.Module:
        setup = self.setup
        model = Generator(setup.image_size, setup.channels, setup.latent_dim, setup.features, self.clip_length)
        return model.apply(weights_init)

    def discriminator(self) -> nn.Module:
        setup, length = self.setup, self.clip_length
        sizes = (setup.image_size, setup.channels, setup.features, length)
        return Discriminator(*sizes, setup.norm, setup.spectral_norm).apply(weights_init)

    def frames(self, images: Tensor) -> Tensor:
        """Clips (N, C, T, H, W) to frames (N * T, C, H, W), those of a clip one after the other."""
        return images.transpose(1, 2).flatten(0, 1)

    def picture(self, inputs: tuple[Tensor, ...], fake: Tensor) -> Tensor:
        """Each clip as one picture, its frames from left to right: (N, C, H, T * W)."""
        return fake.transpose(2, 3).flatten(3)


def _check(owner: str, image_size: int, frames: int) -> None:
    if image_size not in VideoGAN.image_sizes:
        raise ValueError(f"{owner}: image_size must be 32 or 64, got {image_size}")
    if frames < 8 or frames % 8:
        raise ValueError(f"{owner}: frames must be a multiple of 8, got {frames}")


def _resizing(width: int, features: int) -> dict[str, Any]:
    # of the convolution whose deeper side is so wide: the three nearest to the image have 1, 2 and 4 times features
    return _TIME_AND_SPACE if width <= 4 * features else _SPACE


def _up(width: int, out: int, **resizing: Any) -> list[nn.Module]:
    return [nn.ConvTranspose3d(width, out, bias=False, **resizing), nn.BatchNorm3d(out), nn.ReLU(True)]
