"""One step of each player: losses, penalty, optimiser, weight clipping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import fastgan
from fastgan.train.config import DTYPES, TrainConfig
from fastgan.train.losses import LOSSES
from fastgan.train.penalties import Penalties


class Players:
    """Generator and discriminator with what updates them: loss, penalties, optimisers and gradient scalers.

    Args:
        config: every setting.
        generator, discriminator: on ``device``; trained in place.
        device: of all batches.
    """

    _PARTS = ("generator", "discriminator", "g_optimizer", "d_optimizer", "g_scaler", "d_scaler")

    def __init__(
        self, config: TrainConfig, generator: nn.Module, discriminator: nn.Module, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        self.generator, self.discriminator = generator, discriminator
        self.g_optimizer = _optimizer(config, generator, config.g_lr)
        self.d_optimizer = _optimizer(config, discriminator, config.d_lr)
        scaled = config.dtype == "float16"
        self.g_scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.d_scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.loss = LOSSES[config.loss]
        self.penalties = Penalties(config, device)
        in_one_pass = config.penalty in ("wgan-gp", "wgan-lp") and config.penalty_every == 1
        self._in_one_pass = in_one_pass and config.loss == "wasserstein"

    def generate(self, latents: Tensor) -> Tensor:
        """Images of latents, in training, with the graph for the generator's step unless gradients are off."""
        with self._autocast():
            return self.generator(latents)

    def discriminator_step(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Update the discriminator once.

        Args:
            real, fake: (N, C, S, S); ``fake`` without a graph.
        Returns: detached scalars: ``d_loss``, which includes the penalty; ``penalty`` where there is one, by itself
            and as it last was; ``wasserstein``, mean D(real) - mean D(fake), for that loss.
        """
        if self.penalties:
            # under autocast the generator's images are of 16 bits, and a penalty mixes them with the real ones
            fake = fake.to(real.dtype)
        self.d_optimizer.zero_grad(set_to_none=True)
        measured = self._backward_in_one_pass(real, fake) if self._in_one_pass else self._backward(real, fake)
        self.d_scaler.step(self.d_optimizer)
        self.d_scaler.update()
        if self.config.clip:
            _clamp(self.discriminator, self.config.clip)
        return measured

    def _backward(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            loss = self.loss.discriminator(self.discriminator(real), self.discriminator(fake))
            total = loss + self.penalties(self.discriminator, real, fake) if self.penalties else loss
        self.d_scaler.scale(total).backward()
        measured = {"d_loss": total.detach()}
        if self.penalties:
            measured["penalty"] = self.penalties.last
        if self.config.loss == "wasserstein":
            measured["wasserstein"] = -loss.detach()
        return measured

    def _backward_in_one_pass(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        config, scale = self.config, _scale(self.d_scaler, self.device)
        with self._autocast():
            step = fastgan.critic_step_wgan_gp(
                self.discriminator,
                real,
                fake,
                weight=config.penalty_weight,
                kind=config.penalty,
                generator=self.penalties.generator,
                scale=scale,
            )
        return {"d_loss": step.loss, "penalty": step.penalty, "wasserstein": step.wasserstein}

    def generator_step(self, fake: Tensor, real: Tensor) -> Tensor:
        """Update the generator once; returns its loss, detached.

        Args:
            fake: (N, C, S, S) with the generator's graph.
            real: (N, C, S, S), looked at only by a loss that needs real logits.
        """
        self.g_optimizer.zero_grad(set_to_none=True)
        with _frozen(self.discriminator):
            with self._autocast():
                loss = self.loss.generator(*self._logits(fake, real))
            self.g_scaler.scale(loss).backward()
        self.g_scaler.step(self.g_optimizer)
        self.g_scaler.update()
        return loss.detach()

    def _logits(self, fake: Tensor, real: Tensor) -> list[Tensor]:
        if not self.loss.needs_real:
            return [self.discriminator(fake)]
        with torch.no_grad():
            real_logits = self.discriminator(real)
        return [self.discriminator(fake), real_logits]

    def state_dict(self) -> dict[str, Any]:
        """State of models, optimisers, scalers and, where there are any, penalties."""
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in self._PARTS}
        return {**state, "penalties": self.penalties.state_dict()} if self.penalties else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; other keys are left alone."""
        for name in self._PARTS:
            getattr(self, name).load_state_dict(state[name])
        if self.penalties:
            self.penalties.load_state_dict(state["penalties"])

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = DTYPES[self.config.dtype]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)


def _optimizer(config: TrainConfig, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), lr=lr)
    return torch.optim.Adam(model.parameters(), lr=lr, betas=(config.beta1, config.beta2), fused=True)


@torch.no_grad()
def _clamp(model: nn.Module, limit: float) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.clamp_(-limit, limit)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    # weight gradients would be computed and thrown away
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def _scale(scaler: torch.amp.GradScaler, device: torch.device) -> float:
    # get_scale alone would leave the scaler without the state that its step asks for
    return scaler.scale(torch.ones((), device=device)).item() if scaler.is_enabled() else 1.0
