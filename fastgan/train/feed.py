"""Batches of real data, in an order that a run keeps across a stop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.models import Recipe
from fastgan.train.config import TrainConfig
from fastgan.train.data import BatchSampler, ImageSet, load_images
from fastgan.train.errors import BadInput
from fastgan.train.streams import ORDER, ORDER_B, SHIFTS, seeded_generator


class Feed:
    """The data of a run, and where it is in their order.

    Args:
        config: its data, data_b, image_size, batch_size, flip, crop and seed.
        recipe: what the model needs of the data.
        device: of the batches; the data lie there, too, if they fit.
    Raises: BadInput when the data set cannot serve.
    """

    def __init__(self, config: TrainConfig, recipe: type[Recipe], device: torch.device) -> None:
        frames = config.recipe().frames_per_clip if recipe.needs_clips else 0
        names = [config.data, config.data_b] if recipe.needs_second_set else [config.data]
        self.sets = [load_images(name, config.image_size, frames=frames) for name in names]
        self.config, self.device = config, device
        _check(config, recipe, self.sets)
        for images in self.sets:
            images.place(device)
        streams = (ORDER, ORDER_B)
        self.samplers = [
            BatchSampler(len(images), config.batch_size, seeded_generator(config.seed, stream))
            for images, stream in zip(self.sets, streams, strict=False)
        ]
        self._shifts = seeded_generator(config.seed, SHIFTS)
        self._moves: dict[str, Any] = {"flip": config.flip, "crop": config.crop, "generator": self._shifts}

    @property
    def channels(self) -> int:
        return self.sets[0].channels

    @property
    def classes(self) -> int:
        return self.sets[0].classes

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def next(self) -> tuple[Tensor, Tensor | None]:
        """The next batch: images (N, C, ...), float32 in [-1, 1], and labels (N,), or None where the data has none."""
        return self._gather([sampler.next() for sampler in self.samplers], self._moves)

    def first(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Images and labels for pictures to look at, on the CPU: ``count`` at random, fewer where there are fewer."""
        indices = [torch.randperm(len(images), generator=random)[:count] for images in self.sets]
        count = min(map(len, indices))
        images, labels = self._gather([index[:count] for index in indices], {})
        return images.cpu(), None if labels is None else labels.cpu()

    def _gather(self, indices: list[Tensor], moves: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        batches = [images.batch(index, **moves) for images, index in zip(self.sets, indices, strict=True)]
        images = batches[0] if len(batches) == 1 else torch.cat(batches, dim=1)
        return images, self.sets[0].labels_of(indices[0])

    def state_dict(self) -> dict[str, Any]:
        return {"samplers": [sampler.state_dict() for sampler in self.samplers], "shifts": self._shifts.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. Raises BadInput when a data set has another size now."""
        for sampler, saved in zip(self.samplers, state["samplers"], strict=True):
            sampler.load_state_dict(saved)
        self._shifts.set_state(state["shifts"])


def _check(config: TrainConfig, recipe: type[Recipe], sets: list[ImageSet]) -> None:
    if recipe.needs_labels and not sets[0].classes:
        raise BadInput(f"data must have labels for model {config.model}, and {config.data} has none")
    channels = [images.channels for images in sets]
    if len(set(channels)) > 1:
        raise BadInput(f"data and data_b must have as many colour channels, got {channels[0]} and {channels[1]}")
