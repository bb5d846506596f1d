"""The first GAN: two fully connected networks, from stock ``torch.nn`` modules."""

from torch import Tensor, nn

from fastgan.models.layers import add_spectral_norm, leaky
from fastgan.models.recipe import Recipe, Setup


class Generator(nn.Module):
    """Latent vector to image through two hidden layers with batch norm and ReLU; Tanh last.

    Args:
        image_size: side of the image in pixels.
        channels: colour channels of the image, >= 1.
        latent_dim: length of the latent vector.
        features: width of both hidden layers.
    Source: Goodfellow et al. 2014, section 5, with batch norm, which keeps the images from becoming all alike, and with
        Tanh for its sigmoid, as images are in [-1, 1] here.
    """

    def __init__(self, image_size: int = 28, channels: int = 1, latent_dim: int = 100, features: int = 512) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Flatten(),
            nn.Linear(latent_dim, features, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(True),
            nn.Linear(features, features, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(True),
            nn.Linear(features, channels * image_size * image_size),
            nn.Tanh(),
            nn.Unflatten(1, (channels, image_size, image_size)),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Map latents (N, latent_dim, 1, 1) to images (N, channels, image_size, image_size) in [-1, 1]."""
        return self.main(latent)


class Discriminator(nn.Module):
    """Image to logit through two hidden layers with LeakyReLU(0.2) and dropout.

    Args:
        image_size: side of the image in pixels.
        channels: colour channels of the image, >= 1.
        features: width of both hidden layers.
        dropout: share of the hidden activations that is set to zero in training, in [0, 1).
    Source: Goodfellow et al. 2014, section 5, with LeakyReLU for its maxout.
    """

    def __init__(self, image_size: int = 28, channels: int = 1, features: int = 512, dropout: float = 0.3) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * image_size * image_size, features),
            leaky(),
            nn.Dropout(dropout),
            nn.Linear(features, features),
            leaky(),
            nn.Dropout(dropout),
            nn.Linear(features, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, image_size, image_size) to logits (N,), positive for real."""
        return self.main(images).flatten()


class MLP(Recipe):
    """The generator and the discriminator above.

    Args:
        dropout: of the discriminator, in [0, 1).
    Source: Goodfellow et al. 2014.
    """

    name = "mlp"
    image_sizes = (28, 32, 64)
    norms = ("none",)

    def __init__(self, setup: Setup, dropout: float = 0.3) -> None:
        super().__init__(setup)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.dropout = dropout

    def generator(self) -> nn.Module:
        setup = self.setup
        return Generator(setup.image_size, setup.channels, setup.latent_dim, setup.features)

    def discriminator(self) -> nn.Module:
        setup = self.setup
        model = Discriminator(setup.image_size, setup.channels, setup.features, self.dropout)
        return add_spectral_norm(model) if setup.spectral_norm else model
