"""A context encoder that fills a hole in an image, from stock ``torch.nn`` modules."""

import torch
from torch import Tensor, nn

from fastgan.models import dcgan
from fastgan.models.layers import check_weight, leaky, weights_init
from fastgan.models.recipe import Batch, Recipe, Setup


class Generator(nn.Module):
    """Image with a hole to a whole image: strided convolutions down to 4x4 pixels, transposed ones up again.

    Args:
        image_size: side of the image in pixels; a power of two, >= 16.
        channels: colour channels of the image, >= 1.
        features: width of the first and of the last hidden layer; twice as wide at each smaller size.
    """

    def __init__(self, image_size: int = 64, channels: int = 3, features: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels + 1, features, 4, 2, 1), leaky()]
        width, deepest = features, features * image_size // 8
        while width < deepest:
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), leaky()]
            width *= 2
        while width > features:
            up = nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False)
            layers += [up, nn.BatchNorm2d(width // 2), nn.ReLU(True)]
            width //= 2
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(features, channels, 4, 2, 1), nn.Tanh())

    def forward(self, masked: Tensor, mask: Tensor) -> Tensor:
        """Fill holes.

        Args:
            masked: (N, channels, image_size, image_size) in [-1, 1]; what is in the hole is replaced.
            mask: (N, 1, image_size, image_size); 1 in the hole and 0 elsewhere.
        Returns: images of the shape of ``masked``, equal to it outside the hole.
        """
        return mask * self.main(torch.cat([masked, mask], dim=1)) + (1 - mask) * masked


class Inpaint(Recipe):
    """Fills rectangular holes; the discriminator tells the completed images from whole ones.

    Args:
        setup: what to build for; there is no latent vector.
        reconstruction_weight: factor, >= 0, of the mean absolute difference from the original inside the hole,
            "reconstruction" among the losses; the paper's is of squares.
    Raises: ValueError naming the option.
    Source: Pathak et al. 2016, "Context Encoders: Feature Learning by Inpainting".
    """

    name = "inpaint"
    needs_data = True

    def __init__(self, setup: Setup, reconstruction_weight: float = 10.0) -> None:
        super().__init__(setup)
        self.reconstruction_weight = check_weight(self.name, "reconstruction_weight", reconstruction_weight)

    def generator(self) -> nn.Module:
        return Generator(self.setup.image_size, self.setup.channels, self.setup.features).apply(weights_init)

    def discriminator(self) -> nn.Module:
        return dcgan.DCGAN(self.setup).discriminator()

    def batch(self, images: Tensor, labels: Tensor | None, random: torch.Generator) -> Batch:
        return Batch(images, cut_holes(images, random))

    def samples(
        self, count: int, images: Tensor, labels: Tensor | None, random: torch.Generator, truncation: float = 0.0
    ) -> tuple[Tensor, ...]:
        return cut_holes(images[:count], random)

    def generator_loss(self, generator: nn.Module, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        # outside the hole the two are equal
        difference = (fake - batch.real).abs().sum() / (batch.inputs[1].sum() * fake.shape[1])
        return {"reconstruction": self.reconstruction_weight * difference}

    def picture(self, inputs: tuple[Tensor, ...], fake: Tensor) -> Tensor:
        """The image with the hole, and to its right the completed one: (N, C, H, 2W)."""
        return torch.cat([inputs[0], fake], dim=3)


def cut_holes(images: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut one rectangle of random place and sides, a quarter to a half of the image's each, out of every image.

    Args:
        images: (N, C, S, S), S >= 4; left as they are.
        random: on the CPU.
    Returns: the images with 0, middle grey, in the hole; and the mask (N, 1, S, S), of their dtype, 1 in the hole.
    """
    count, size = len(images), images.shape[-1]
    sides = torch.randint(size // 4, size // 2 + 1, (count, 2, 1), generator=random)
    starts = (torch.rand(count, 2, 1, generator=random) * (size - sides + 1)).long()
    places = torch.arange(size)
    inside = (places >= starts) & (places < starts + sides)  # [N, 2, S]
    mask = (inside[:, None, 0, :, None] & inside[:, None, 1, None, :]).to(images)
    return images * (1 - mask), mask
