"""The DCGAN of the PyTorch examples at 32, 64 or 128 pixels, from stock ``torch.nn`` modules."""

from torch import Tensor, nn

IMAGE_SIZES = (32, 64, 128)


def _check_image_size(owner: str, image_size: int) -> None:
    if image_size not in IMAGE_SIZES:
        raise ValueError(f"{owner}: image_size must be 32, 64 or 128, got {image_size}")


def weights_init(module: nn.Module) -> None:
    """Initialise one layer as DCGAN does; use as ``model.apply(weights_init)``.

    Convolution weights are drawn from N(0, 0.02), batch norm weights from N(1, 0.02), batch norm biases are zero.
    Draws from torch's global random numbers. Source: Radford et al. 2015, section 4.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


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
    """Image to logit: strided convolutions, each halving the side, with batch norm and LeakyReLU(0.2).

    At 64 pixels the children have the names and shapes of the PyTorch example; its Sigmoid is left out, so what
    comes out is a logit.

    Args:
        image_size: side of the image in pixels; 32, 64 or 128.
        channels: colour channels of the image, >= 1.
        features: width of the first hidden layer; each later one is twice as wide.
    Raises: ValueError when image_size is none of the three.
    """

    def __init__(self, image_size: int = 64, channels: int = 3, features: int = 64) -> None:
        super().__init__()
        _check_image_size("Discriminator", image_size)
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        width = features
        while width < features * image_size // 8:
            layers += [
                nn.Conv2d(width, width * 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width * 2),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            width *= 2
        layers.append(nn.Conv2d(width, 1, 4, 1, 0, bias=False))
        self.main = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, image_size, image_size) to logits (N,), positive for real."""
        return self.main(images).flatten()
