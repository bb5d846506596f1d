"""What a model brings to the game of two networks: the networks, what goes into them, and losses beside the game's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Setup:
    """What a model is built for.

    Args:
        image_size: side in pixels.
        channels: colour channels of the data, 1 or 3.
        classes: number of classes of the data's labels; 0: it has none.
        latent_dim: length of the latent vector.
        features: width of the layer of each network that is nearest to the image.
        norm: of the discriminator; "batch", "none" or "layer".
        spectral_norm: of the discriminator.
    """

    image_size: int = 64
    channels: int = 3
    classes: int = 0
    latent_dim: int = 100
    features: int = 64
    norm: str = "batch"
    spectral_norm: bool = False


class Batch(NamedTuple):
    """One batch of the game, all on the same device, N the same in all of them.

    Args:
        real: (N, ...), what the discriminator is to take for real; in [-1, 1].
        inputs: the generator's arguments; what it returns has the shape of ``real``.
        given: what the discriminator is told beside its image, such as labels (N,), int64.
    """

    real: Tensor
    inputs: tuple[Tensor, ...]
    given: tuple[Tensor, ...] = ()


class Recipe(ABC):
    """An unconditional GAN, latents to images; a model overrides what it does otherwise, and brings its networks.

    Images are (N, C, H, W), float32 in [-1, 1], on the device of training; labels are (N,), int64, or None where the
    data has none. ``random`` is a generator of random numbers on the CPU, the only source of them.

    ``mixes_samples`` says that the discriminator's logit of an image depends on the others of its batch, by more than
    batch norm; real and generated images then do not go through it in one pass.

    A model's own options are keyword arguments of its ``__init__`` with defaults, checked there.

    Args:
        setup: what to build for.
    Raises: ValueError naming the setting that the model cannot take; nothing is built before it is asked for.
    """

    name: ClassVar[str] = "gan"
    image_sizes: ClassVar[tuple[int, ...]] = (32, 64, 128)
    norms: ClassVar[tuple[str, ...]] = ("batch", "none", "layer")
    needs_labels: ClassVar[bool] = False
    # the generator starts from images of the data
    needs_data: ClassVar[bool] = False
    # the data are clips (N, C, T, H, W) of so many frames T; 0: images
    clip_length: int = 0
    # what the networks compute changes in ``advance``
    grows: ClassVar[bool] = False
    mixes_samples: bool = False
    # images of a second set lie behind those of the first: (N, 2C, H, W)
    needs_second_set: ClassVar[bool] = False

    def __init__(self, setup: Setup) -> None:
        _require(setup.image_size in self.image_sizes, self.name, "image_size", self.image_sizes, setup.image_size)
        _require(setup.norm in self.norms, self.name, "norm", self.norms, setup.norm)
        self.setup = setup

    @abstractmethod
    def generator(self) -> nn.Module:
        """A new generator, initialised with torch's global random numbers."""

    @abstractmethod
    def discriminator(self) -> nn.Module:
        """A new discriminator: (N, ...) images, and ``Batch.given``, to logits (N,) or more a sample."""

    def batch(self, images: Tensor, labels: Tensor | None, random: torch.Generator) -> Batch:
        """A batch of the game from a batch of the data."""
        return Batch(images, (self.latents(len(images), random).to(images.device),))

    def samples(
        self, count: int, images: Tensor, labels: Tensor | None, random: torch.Generator, truncation: float = 0.0
    ) -> tuple[Tensor, ...]:
        """The generator's arguments for ``count`` pictures to look at, on the CPU.

        Args:
            images, labels: at least ``count`` of the data, on the CPU, for models that start from an image or label.
            truncation: latents beyond it are drawn again; 0: none are.
        """
        return (self.latents(count, random, truncation),)

    def generator_loss(self, generator: nn.Module, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        """Scalars by name, added to the generator's loss and logged."""
        return {}

    def frames(self, images: Tensor) -> Tensor:
        """What a discriminator sees as single images (M, 1 or 3, H, W), M >= N, to be scored."""
        return images

    def picture(self, inputs: tuple[Tensor, ...], fake: Tensor) -> Tensor:
        """What to show of generated images, (M, 1 or 3, H, W): themselves, or beside what they were made from."""
        return self.frames(fake)

    def advance(self, generator: nn.Module, discriminator: nn.Module, step: int) -> None:  # noqa: B027
        """Called before each step, counted from 0, and with a checkpoint's step after loading it."""

    def latents(self, count: int, random: torch.Generator, truncation: float = 0.0) -> Tensor:
        """Standard normal latents (count, latent_dim, 1, 1), float32, on the CPU; beyond ``truncation`` drawn again."""
        latents = torch.randn(count, self.setup.latent_dim, 1, 1, generator=random)
        while truncation and (beyond := latents.abs() > truncation).any():
            latents[beyond] = torch.randn(int(beyond.sum()), generator=random)
        return latents


def _require(holds: bool, model: str, name: str, choices: tuple[Any, ...], got: object) -> None:
    if not holds:
        wanted = ", ".join(map(str, choices))
        raise ValueError(f"{name} must be {'one of ' if len(choices) > 1 else ''}{wanted} for model {model}, got {got}")
