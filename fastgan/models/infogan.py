"""InfoGAN: codes whose meaning the generator finds without labels; the DCGAN's networks, stock ``torch.nn`` modules."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from fastgan.models import dcgan
from fastgan.models.layers import check_weight, leaky, weights_init
from fastgan.models.recipe import Batch, Recipe, Setup


class Generator(nn.Module):
    """Latent vector and codes to image, by the DCGAN's generator, with the network Q that guesses the codes.

    Q belongs to the generator, as both are trained to make the guesses right; it shares no layer with the
    discriminator, so that any discriminator and any penalty will do.

    Args:
        image_size, channels, latent_dim, features: as of ``dcgan.Generator``.
        categories: values of the categorical code, >= 2.
        continuous: number of continuous codes, >= 0.
    Source: Chen et al. 2016, section 5.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        latent_dim: int = 62,
        features: int = 32,
        categories: int = 10,
        continuous: int = 2,
    ) -> None:
        super().__init__()
        self.categories, self.continuous = categories, continuous
        self.main = dcgan.Generator(image_size, channels, latent_dim + categories + continuous, features).main
        body = list(dcgan.Discriminator(image_size, channels, features).main)[:-1]
        width = features * image_size // 8
        head = [nn.Conv2d(width, 128, 4, bias=False), nn.BatchNorm2d(128), leaky(), nn.Flatten()]
        self.guess = nn.Sequential(*body, *head, nn.Linear(128, categories + continuous))

    def forward(self, latent: Tensor, category: Tensor, codes: Tensor) -> Tensor:
        """Map latents (N, latent_dim, 1, 1), categories (N,), int64, and codes (N, continuous) to images in [-1, 1]."""
        chosen = one_hot(category, self.categories).to(latent.dtype)
        return self.main(torch.cat([latent.flatten(1), chosen, codes], 1)[:, :, None, None])

    def information(self, images: Tensor, category: Tensor, codes: Tensor) -> Tensor:
        """How far Q's guesses from images are off the codes they were made from; a float32 scalar, 0 at best.

        Cross entropy of the category, plus half the squared error of each continuous code: up to constants, minus the
        lower bound of the mutual information, where Q's guess of a continuous code is a normal of variance 1.
        Source: Chen et al. 2016, equation 5.
        """
        guess = self.guess(images).float()
        loss = cross_entropy(guess[:, : self.categories], category)
        if self.continuous:
            loss = loss + mse_loss(guess[:, self.categories :], codes) * self.continuous / 2
        return loss


class InfoGAN(Recipe):
    """A GAN whose generator is told codes, and is rewarded when Q finds them again in its images.

    Args:
        categories: values of the categorical code, >= 2.
        continuous: number of continuous codes, uniform in [-1, 1], >= 0.
        info_weight: factor of the loss of Q's guesses, >= 0.
    Source: Chen et al. 2016.
    """

    name = "infogan"
    image_sizes = dcgan.IMAGE_SIZES

    def __init__(self, setup: Setup, categories: int = 10, continuous: int = 2, info_weight: float = 1.0) -> None:
        super().__init__(setup)
        for option, value, least in (("categories", categories, 2), ("continuous", continuous, 0)):
            if value < least:
                raise ValueError(f"{option} must be at least {least}, got {value}")
        self.categories, self.continuous = categories, continuous
        self.info_weight = check_weight(self.name, "info_weight", info_weight)

    def generator(self) -> nn.Module:
        setup, codes = self.setup, (self.categories, self.continuous)
        model = Generator(setup.image_size, setup.channels, setup.latent_dim, setup.features, *codes)
        return model.apply(weights_init)

    def discriminator(self) -> nn.Module:
        return dcgan.DCGAN(self.setup).discriminator()

    def batch(self, images: Tensor, labels: Tensor | None, random: torch.Generator) -> Batch:
        """A batch with latents and random codes."""
        inputs = (self.latents(len(images), random), *self._codes(len(images), random))
        return Batch(images, tuple(value.to(images.device) for value in inputs))

    def samples(
        self, count: int, images: Tensor, labels: Tensor | None, random: torch.Generator, truncation: float = 0.0
    ) -> tuple[Tensor, ...]:
        """Latents and codes; up to categories^2 are a table of what the codes mean, more of them are random.

        In the table the category counts on from picture to picture, so that in a square grid of categories^2 each
        column is a category and each row a latent; the first continuous code grows from row to row, from -1 to 1.
        """
        latents, (category, codes) = self.latents(count, random, truncation), self._codes(count, random)
        if count > self.categories**2:
            return latents, category, codes
        index = torch.arange(count)
        category, row = index % self.categories, index // self.categories
        codes = codes[row]
        if self.continuous:
            codes[:, 0] = 2 * row / max(1, int(row.max())) - 1
        return latents[row], category, codes

    def generator_loss(self, generator: nn.Module, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        """``info``: the loss of Q's guesses."""
        _, category, codes = batch.inputs
        return {"info": self.info_weight * generator.information(fake, category, codes)}  # type: ignore[operator]

    def _codes(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        category = torch.randint(self.categories, (count,), generator=random)
        return category, 2 * torch.rand(count, self.continuous, generator=random) - 1
