"""The DCGAN of the PyTorch examples at 32, 64 or 128 pixels, from stock ``torch.nn`` modules."""

from torch import Tensor, nn

from fastgan.models.layers import NORMS, add_spectral_norm, leaky, weights_init
from fastgan.models.recipe import Recipe

IMAGE_SIZES = (32, 64, 128)


def _check_image_size(owner: str, image_size: int) -> None:
    if image_size not in IMAGE_SIZES:
        raise ValueError(f"{owner}: image_size must be 32, 64 or 128, got {image_size}")


class Generator(nn.Module):
    """Latent vector to image: transposed convolutions, each doubling the side, with batch norm and ReLU; Tanh last.

    At 64 pixels the children have the names and shapes of the PyTorch example, so its checkpoints load.

    Args:
        image_size: side of the image in pixels; 32, 64 or 128.
        channels: colour channels of the image, >= 1.
        latent_dim: length of the latent vector.
        features: width of the last hidden layer; each earlier one is twice as wide.
    Raises: ValueError when image_size is none of the three.
    """

    def __init__(self, image_size: int = 64, channels: int = 3, latent_dim: int = 100, features: int = 64) -> None:
        super().__init__()
        _check_image_size("Generator", image_size)
        width = features * image_size // 8
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_dim, width, 4, 1, 0, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
        ]
        while width > features:
            layers += [
                nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width // 2),
                nn.ReLU(True),
            ]
            width //= 2
        layers += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Map latents (N, latent_dim, 1, 1) to images (N, channels, image_size, image_size) in [-1, 1]."""
        return self.main(latent)


class Discriminator(nn.Module):
    """Image to logit: strided convolutions, each halving the side, with a norm and LeakyReLU(0.2).

    At 64 pixels the children have the names and shapes of the PyTorch example; its Sigmoid is left out, so what
    comes out is a logit.

    Args:
        image_size: side of the image in pixels; 32, 64 or 128.
        channels: colour channels of the image, >= 1.
        features: width of the first hidden layer; each later one is twice as wide.
        norm: after each convolution but the first and the last; "batch", "none", or "layer" over (C, H, W) of each
            sample with a weight and a bias per channel. Without "batch", each convolution that no norm follows has a
            bias.
        spectral_norm: divide the weight of every convolution by its largest singular value.
    Raises: ValueError when image_size or norm is none of the three.
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        features: int = 64,
        norm: str = "batch",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        _check_image_size("Discriminator", image_size)
        if norm not in NORMS:
            raise ValueError(f"Discriminator: norm must be {', '.join(NORMS)}, got {norm!r}")
        make_norm, ends_bias = NORMS[norm], norm != "batch"
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 4, 2, 1, bias=ends_bias), leaky()]
        width = features
        while width < features * image_size // 8:
            layers.append(nn.Conv2d(width, width * 2, 4, 2, 1, bias=make_norm is None))
            layers += [leaky()] if make_norm is None else [make_norm(width * 2), leaky()]
            width *= 2
        layers.append(nn.Conv2d(width, 1, 4, 1, 0, bias=ends_bias))
        self.main = nn.Sequential(*layers)
        if spectral_norm:
            add_spectral_norm(self.main)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, image_size, image_size) to logits (N,), positive for real."""
        return self.main(images).flatten()


class DCGAN(Recipe):
    """The generator and the discriminator above. Source: Radford et al. 2015."""

    name = "dcgan"
    image_sizes = IMAGE_SIZES

    def generator(self) -> nn.Module:
        setup = self.setup
        return Generator(setup.image_size, setup.channels, setup.latent_dim, setup.features).apply(weights_init)

    def discriminator(self) -> nn.Module:
        setup = self.setup
        model = Discriminator(setup.image_size, setup.channels, setup.features, setup.norm, setup.spectral_norm)
        return model.apply(weights_init)
