"""Augmentation that gradients pass through, for the discriminator's real and generated images alike.

Source: Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training", section 4 and appendix A.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastgan.train.errors import BadInput

_SHIFT_SHARE = 1 / 8
_HOLE_SHARE = 1 / 2


class Augment:
    """Changes images at random, each in its own way; affine in the images, so differentiable any number of times.

    "color" adds up to 0.5 either way to the brightness, scales the distance from grey by 0 to 2 and the distance from
    the image's mean by 0.5 to 1.5. "translation" moves by up to 1/8 of the side along each axis, zeros come in.
    "cutout" sets a square of half the side to zero, its centre anywhere in the image. They apply in the order given.
    What comes out may leave [-1, 1]. All frames of a clip change alike.

    Args:
        policy: comma list of "color", "translation" and "cutout"; "": images stay as they are.
        generator: the source of random numbers; they are drawn on its device.
    Raises: BadInput naming a policy that does not exist.
    """

    def __init__(self, policy: str, generator: torch.Generator) -> None:
        names = [name.strip() for name in policy.split(",")] if policy else []
        for name in names:
            if name not in POLICIES:
                raise BadInput(f"augment must be a comma list of {', '.join(POLICIES)}, got {name!r}")
        self.generator = generator
        self._changes = [POLICIES[name] for name in names]

    def __call__(self, images: Tensor) -> Tensor:
        """Changed images of the same shape, dtype and memory format.

        Args:
            images: (N, C, H, W), or (N, C, T, H, W) for clips; floating point in [-1, 1]; not changed in place.
        """
        for change in self._changes:
            images = change(images, self.generator)
        return images


def instance_noise(images: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Images with normal noise of a standard deviation added, in the unit of the images; 0: the images themselves.

    Source: Sønderby et al. 2016, "Amortised MAP inference for image super-resolution", section 3.2.1.
    """
    if std == 0:
        return images
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    return images + std * noise.to(images)


def _color(images: Tensor, generator: torch.Generator) -> Tensor:
    brightness, saturation, contrast = _uniform(images, 3, generator).to(images.dtype)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + 2 * saturation * (images - grey)
    mean = images.mean(tuple(range(1, images.dim())), keepdim=True)
    return mean + (0.5 + contrast) * (images - mean)


def _translation(images: Tensor, generator: torch.Generator) -> Tensor:
    for axis, drawn in zip((-2, -1), _uniform(images, 2, generator), strict=True):
        side = images.shape[axis]
        most = round(side * _SHIFT_SHARE)
        moves = (drawn * (2 * most + 1)).floor() - most
        images = _shift(images, axis, moves.long())
    return images


def _shift(images: Tensor, axis: int, moves: Tensor) -> Tensor:
    source = _positions(images, axis) - moves
    last = images.shape[axis] - 1
    outside = (source < 0) | (source > last)
    # in the order in which they lie in memory, which gather gives its result
    lies_last = images.stride(1) == 1 and images.shape[1] > 1
    if lies_last:
        moved = torch.take_along_dim(images.movedim(1, -1), source.clamp(0, last).movedim(1, -1), axis - 1)
        moved = moved.movedim(-1, 1)
    else:
        moved = torch.take_along_dim(images, source.clamp(0, last), axis)
    return torch.where(outside, 0.0, moved)


def _cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    hole = torch.ones((), dtype=torch.bool, device=images.device)
    for axis, drawn in zip((-2, -1), _uniform(images, 2, generator), strict=True):
        side = images.shape[axis]
        length = round(side * _HOLE_SHARE)
        first = (drawn * (side + 1 - length % 2)).floor() - length // 2
        position = _positions(images, axis)
        hole = hole & (position >= first) & (position < first + length)
    return torch.where(hole, 0.0, images)


def _uniform(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Numbers in [0, 1), ``count`` an image: (count, N, 1, 1, 1), float32, on the images' device."""
    shape = (count, len(images), *(1 for _ in images.shape[1:]))
    return torch.rand(shape, generator=generator, device=generator.device).to(images.device)


def _positions(images: Tensor, axis: int) -> Tensor:
    shape = [1] * images.dim()
    shape[axis] = -1
    return torch.arange(images.shape[axis], device=images.device).reshape(shape)


POLICIES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
