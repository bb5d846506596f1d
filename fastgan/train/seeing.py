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

    In several processes each begins its random numbers elsewhere, anew at every start.

    Args:
        config: its augment, instance_noise, instance_noise_steps and seed.
        device: of the images.
        world: this process.
    """

    def __init__(self, config: TrainConfig, device: torch.device, world: World) -> None:
        seed = config.seed + world.rank * 2**32
        self._streams = {
            "augment": seeded_generator(seed, AUGMENT, device),
            "noise": seeded_generator(seed, NOISE, device),
        }
        self._augment = Augment(config.augment, self._streams["augment"]) if config.augment else None
        self._config, self._alone, self.step = config, world.size == 1, 0

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, ...) as the discriminator sees them in the present step; differentiable."""
        if self._augment is not None:
            images = self._augment(images)
        std = self._noise()
        return instance_noise(images, std, self._streams["noise"]) if std else images

    def _noise(self) -> float:
        std, steps = self._config.instance_noise, self._config.instance_noise_steps
        return std * max(0.0, 1 - self.step / steps) if steps else std

    def state_dict(self) -> dict[str, Any]:
        return {f"{name}_{stream.device.type}": stream.get_state() for name, stream in self._streams.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken; on another kind of device, or in several processes, start anew."""
        for name, stream in self._streams.items():
            saved = state.get(f"{name}_{stream.device.type}")
            if saved is not None and self._alone:
                stream.set_state(saved)
