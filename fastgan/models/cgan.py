"""The conditional GAN: both networks are told the class; those of the DCGAN, from stock ``torch.nn`` modules."""

import torch
from torch import Tensor, nn

from fastgan.models import dcgan
from fastgan.models.layers import weights_init
from fastgan.models.recipe import Batch, Recipe, Setup
from fastgan.nn import utils

CONDITIONINGS = ("concat", "projection")


class Generator(nn.Module):
    """Latent vector and class to image: the DCGAN's generator of the latent and an embedding of the class, end to end.

    Args:
        classes: number of classes, >= 1.
        image_size, channels, features: as of ``dcgan.Generator``.
        latent_dim: length of the latent vector, and of the embedding.
    Source: Mirza and Osindero 2014, section 3.2.
    """

    def __init__(
        self, classes: int, image_size: int = 32, channels: int = 1, latent_dim: int = 100, features: int = 32
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, latent_dim)
        # as large as the latent it would be all that the generator heeds: one image a class
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.main = dcgan.Generator(image_size, channels, 2 * latent_dim, features).main

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        """Map latents (N, latent_dim, 1, 1) and labels (N,), int64, to images (N, C, S, S) in [-1, 1]."""
        return self.main(torch.cat([latent, self.embedding(labels)[:, :, None, None]], 1))


class ConcatDiscriminator(nn.Module):
    """Image and class to logit: the DCGAN's discriminator of the image with a further channel, learned for each class.

    Args:
        classes: number of classes, >= 1.
        image_size, channels, features, norm, spectral_norm: as of ``dcgan.Discriminator``.
    Source: Mirza and Osindero 2014, section 3.2.
    """

    def __init__(
        self,
        classes: int,
        image_size: int = 32,
        channels: int = 1,
        features: int = 32,
        norm: str = "batch",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, image_size * image_size)
        self.main = dcgan.Discriminator(image_size, channels + 1, features, norm, spectral_norm).main

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Map images (N, C, S, S) and labels (N,), int64, to logits (N,), positive for real."""
        plane = self.embedding(labels).unflatten(1, (1, *images.shape[2:]))
        return self.main(torch.cat([images, plane], 1)).flatten()


class ProjectionDiscriminator(nn.Module):
    """Image and class to logit: features of the image in the direction of its class, plus a logit of the image alone.

    D(x, y) = <embedding(y), h(x)> + linear(h(x)); h are the features of the DCGAN's discriminator before its last
    convolution, summed over the pixels.

    Args: as of ``ConcatDiscriminator``; ``spectral_norm`` holds for the embedding and the linear layer, too.
    Source: Miyato and Koyama 2018, equation 3.
    """

    def __init__(
        self,
        classes: int,
        image_size: int = 32,
        channels: int = 1,
        features: int = 32,
        norm: str = "batch",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.main = dcgan.Discriminator(image_size, channels, features, norm, spectral_norm).main[:-1]
        width = features * image_size // 8
        self.linear: nn.Module = nn.Linear(width, 1)
        self.embedding: nn.Module = nn.Embedding(classes, width)
        if spectral_norm:
            self.linear, self.embedding = utils.spectral_norm(self.linear), utils.spectral_norm(self.embedding)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Map images (N, C, S, S) and labels (N,), int64, to logits (N,), positive for real."""
        features = self.main(images).sum((2, 3))
        return self.linear(features).flatten() + (self.embedding(labels) * features).sum(1)


class CGAN(Recipe):
    """A GAN of labelled images that makes images of the class asked for.

    Args:
        conditioning: how the discriminator is told the class; "concat" or "projection".
    Raises: ValueError when the data have no labels.
    """

    name = "cgan"
    image_sizes = dcgan.IMAGE_SIZES
    needs_labels = True

    def __init__(self, setup: Setup, conditioning: str = CONDITIONINGS[0]) -> None:
        super().__init__(setup)
        if conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning must be {' or '.join(CONDITIONINGS)}, got {conditioning!r}")
        if setup.classes < 1:
            raise ValueError("model cgan needs data with labels, these have none")
        self.conditioning = conditioning

    def generator(self) -> nn.Module:
        setup = self.setup
        model = Generator(setup.classes, setup.image_size, setup.channels, setup.latent_dim, setup.features)
        return model.apply(weights_init)

    def discriminator(self) -> nn.Module:
        setup = self.setup
        make = ConcatDiscriminator if self.conditioning == "concat" else ProjectionDiscriminator
        model = make(setup.classes, setup.image_size, setup.channels, setup.features, setup.norm, setup.spectral_norm)
        return model.apply(weights_init)

    def batch(self, images: Tensor, labels: Tensor | None, random: torch.Generator) -> Batch:
        """A batch whose generated images are to be of the classes of the real ones."""
        assert labels is not None
        return Batch(images, (self.latents(len(images), random).to(images.device), labels), (labels,))

    def samples(
        self, count: int, images: Tensor, labels: Tensor | None, random: torch.Generator, truncation: float = 0.0
    ) -> tuple[Tensor, ...]:
        """Latents and labels that count through the classes: in a square grid of classes^2, each column is a class."""
        return self.latents(count, random, truncation), torch.arange(count) % self.setup.classes
