"""The gradient penalties of a run: which, how often, their random numbers, and the last value for the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import fastgan
from fastgan.train.config import TrainConfig
from fastgan.train.distributed import World
from fastgan.train.streams import PENALTY, seeded_generator


class Penalties:
    """What ``config.penalty`` names: nothing, one penalty, or R1 and R2 together.

    Args:
        config: its penalty, penalty_weight, penalty_every and seed.
        device: of the images, on which points between them are drawn.
        world: each process takes its share of the random numbers.
    """

    def __init__(self, config: TrainConfig, device: torch.device, world: World) -> None:
        kinds = [] if config.penalty == "none" else config.penalty.split("+")
        self.every, self.generator = config.penalty_every, seeded_generator(config.seed, PENALTY, device)
        settings: dict[str, Any] = {"weight": config.penalty_weight, "every": self.every, "generator": self.generator}
        self.modules = [fastgan.nn.GradientPenalty(kind=kind, **settings) for kind in kinds]
        self.last = torch.zeros((), device=device)
        self._world = world

    def __bool__(self) -> bool:
        return bool(self.modules)

    def __call__(self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """Sum of the penalties, a float32 scalar; 0 on the steps that ``every`` leaves out."""
        with self.shared(real):
            total = torch.stack([module(critic, real, fake) for module in self.modules]).sum()
        # a step that is left out gives a constant; the log keeps the value before it
        if total.requires_grad:
            self.last = total.detach() / self.every
        return total

    @contextmanager
    def shared(self, real: Tensor) -> Iterator[torch.Generator]:
        """The generator where the share of this process's images begins; behind all shares afterwards."""
        world = self._world
        shapes = self._drawn(real)
        self._draw(world.rank * shapes)
        yield self.generator
        self._draw((world.size - world.rank - 1) * shapes)

    def _drawn(self, real: Tensor) -> list[torch.Size]:
        due = [module.kind for module in self.modules if module.calls % module.every == 0]
        if not {"wgan-gp", "wgan-lp", "dragan"} & set(due):
            return []
        return [real.shape[:1], real.shape] if "dragan" in due else [real.shape[:1]]

    def _draw(self, shapes: list[torch.Size]) -> None:
        for shape in shapes:
            torch.rand(shape, generator=self.generator, device=self.generator.device)

    def state_dict(self) -> dict[str, Any]:
        """All that the next penalty depends on, and the last value."""
        modules = [module.state_dict() for module in self.modules]
        return {"modules": modules, self._random: self.generator.get_state(), "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken; on another kind of device the random numbers start anew."""
        for module, saved in zip(self.modules, state["modules"], strict=True):
            module.load_state_dict(saved)
        self.last = state["last"].to(self.last.device)
        if self._random in state:
            self.generator.set_state(state[self._random])

    @property
    def _random(self) -> str:
        return f"random_{self.generator.device.type}"
