"""Batches of real data, in an order that a run keeps across a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan.models import Recipe
from fastgan.train.batches import Batches
from fastgan.train.config import TrainConfig
from fastgan.train.data import BatchSampler, ImageSet, load_images, normalise
from fastgan.train.errors import BadInput
from fastgan.train.streams import MOVES, ORDER, ORDER_B, seeded_generator


class Feed:
    """The data of a run, and where it is in their order.

    Args:
        config: its data, data_b, image_size, batch_size, flip, crop and seed.
        device: of the batches; the data lie there, too, if they fit.
    Raises: BadInput when the data set cannot serve.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        recipe = config.recipe()
        names = [config.data, config.data_b] if recipe.needs_second_set else [config.data]
        self.sets = [load_images(name, config.image_size, frames=recipe.clip_length) for name in names]
        _check(config, recipe, self.sets)
        self._moves = seeded_generator(config.seed, MOVES)
        self._batches = [
            Batches(images, device, flip=config.flip, crop=config.crop, random=self._moves) for images in self.sets
        ]
        self._samplers = [
            BatchSampler(len(images), config.batch_size, seeded_generator(config.seed, stream))
            for images, stream in zip(self.sets, (ORDER, ORDER_B), strict=False)
        ]

    @property
    def channels(self) -> int:
        return self.sets[0].channels

    @property
    def classes(self) -> int:
        return self.sets[0].classes

    @property
    def unreadable(self) -> list[Path]:
        """Files of the data that were left out because they cannot be read."""
        return [path for images in self.sets for path in images.unreadable]

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def next(self) -> tuple[Tensor, Tensor | None]:
        """The next batch: images (N, C, ...), float32 in [-1, 1], and labels (N,), or None where the data has none."""
        indices = [sampler.next() for sampler in self._samplers]
        parts = [batches.batch(index) for batches, index in zip(self._batches, indices, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1), self._batches[0].labels(indices[0])

    def first(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Images and labels to look at, on the CPU: ``count`` at random as they are, fewer where there are fewer."""
        count = min(count, *map(len, self.sets))
        indices = [torch.randperm(len(images), generator=random)[:count] for images in self.sets]
        parts = [normalise(images.images[index]) for images, index in zip(self.sets, indices, strict=True)]
        labels = self.sets[0].labels
        return torch.cat(parts, 1), None if labels is None else labels[indices[0]]

    def state_dict(self) -> dict[str, Any]:
        return {"samplers": [sampler.state_dict() for sampler in self._samplers], "moves": self._moves.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. Raises BadInput when a data set has another size now."""
        for sampler, saved in zip(self._samplers, state["samplers"], strict=True):
            sampler.load_state_dict(saved)
        self._moves.set_state(state["moves"])


def _check(config: TrainConfig, recipe: Recipe, sets: list[ImageSet]) -> None:
    if recipe.needs_labels and not sets[0].classes:
        raise BadInput(f"data must have labels for model {config.model}, and {config.data} has none")
    channels = [images.channels for images in sets]
    if len(set(channels)) > 1:
        raise BadInput(f"data and data_b must have as many colour channels, got {channels[0]} and {channels[1]}")
