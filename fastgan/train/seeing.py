"""What images go through before the discriminator sees them, real and generated alike: augmentation and noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.train.augment import Augment, instance_noise
from fastgan.train.config import TrainConfig
from fastgan.train.distributed import World
from fastgan.train.streams import AUGMENT, NOISE, seeded_generator


class Seeing:
    """Differentiable augmentation, then noise that fades; each has random numbers of its own.

    In several processes the numbers begin anew at each step, elsewhere in each process, so that a run goes on without
    the state of each.

    Args:
        config: its augment, instance_noise, instance_noise_steps and seed.
        device: of the images.
        world: this process.
    """

    def __init__(self, config: TrainConfig, device: torch.device, world: World) -> None:
        self._streams = {
            "augment": seeded_generator(config.seed, AUGMENT, device),
            "noise": seeded_generator(config.seed, NOISE, device),
        }
        self._augment = Augment(config.augment, self._streams["augment"])
        self._config, self._world, self._step = config, world, 0

    def begin(self, step: int) -> None:
        """Set what depends on the step, counted from 0."""
        self._step = step
        if self._world.size > 1:
            for number, stream in enumerate(self._streams.values(), 1):
                stream.manual_seed(self._world.seed(self._config.seed, step, number))

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, ...) as the discriminator sees them in the present step; differentiable."""
        return instance_noise(self._augment(images), self._noise(), self._streams["noise"])

    def generators(self) -> list[torch.Generator]:
        """The generators of its random numbers, on the images' device."""
        return list(self._streams.values())

    def _noise(self) -> float:
        std, steps = self._config.instance_noise, self._config.instance_noise_steps
        return std * max(0.0, 1 - self._step / steps) if steps else std

    def state_dict(self) -> dict[str, Any]:
        return {f"{name}_{stream.device.type}": stream.get_state() for name, stream in self._streams.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken; on another kind of device start anew."""
        for name, stream in self._streams.items():
            saved = state.get(f"{name}_{stream.device.type}")
            if saved is not None:
                stream.set_state(saved)
