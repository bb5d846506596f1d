"""One step of each player: losses, penalty, optimiser, clipping of gradients and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import fastgan
from fastgan.models import Batch, Recipe
from fastgan.nn.utils import separate_statistics
from fastgan.train.checks import DTYPES
from fastgan.train.config import TrainConfig
from fastgan.train.distributed import World
from fastgan.train.losses import LOSSES
from fastgan.train.optimizers import lr_factor, make_average, make_optimizer
from fastgan.train.penalties import Penalties
from fastgan.train.seeing import Seeing


class Players:
    """Generator and discriminator with what updates them: loss, penalties, optimisers and gradient scalers.

    Args:
        config: every setting.
        recipe: of the model; its losses are added to the generator's.
        generator, discriminator: on ``device``; trained in place.
        device: of all batches.
        world: this process among those of the run; gradients are averaged over them.
        together: the discriminator sees real and generated images in one pass, batch norm with the statistics of each.
    """

    _PARTS = ("generator", "discriminator", "g_optimizer", "d_optimizer", "g_scaler", "d_scaler", "seeing")

    def __init__(
        self,
        config: TrainConfig,
        recipe: Recipe,
        generator: nn.Module,
        discriminator: nn.Module,
        device: torch.device,
        world: World,
        together: bool,
    ) -> None:
        self.config, self.recipe, self.device, self.world = config, recipe, device, world
        self.together = together
        self.generator, self.discriminator = generator, discriminator
        self.g_optimizer = make_optimizer(config, generator, config.g_lr)
        self.d_optimizer = make_optimizer(config, discriminator, config.d_lr)
        self.ema = make_average(config, generator)
        scaled = config.dtype == "float16"
        self.g_scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.d_scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.loss = LOSSES[config.loss]
        smoothing = config.label_smoothing
        self._smoothing: dict[str, float] = {"smoothing": smoothing} if smoothing else {}
        self.penalties = Penalties(config, device, world)
        self.seeing = Seeing(config, device, world)
        # logits of the last discriminator step, (N, ...) each; None where they were not at hand
        self.logits: tuple[Tensor, Tensor] | None = None
        every_step = config.penalty in ("wgan-gp", "wgan-lp") and config.penalty_every == 1
        self._with_penalty = every_step and config.loss == "wasserstein"

    @property
    def sampler(self) -> nn.Module:
        """The generator to draw samples from: the moving average where there is one."""
        return self.generator if self.ema is None else self.ema.module

    def begin(self, step: int) -> None:
        """Set what depends on the step, counted from 0: growth, learning rates, noise."""
        self.recipe.advance(self.generator, self.discriminator, step)
        self.seeing.begin(step)
        if self.world.size > 1:
            # dropout on this process's images
            torch.manual_seed(self.world.seed(self.config.seed, step))
        if self.config.lr_schedule != "constant":
            factor = lr_factor(self.config, step)
            for optimizer, lr in ((self.g_optimizer, self.config.g_lr), (self.d_optimizer, self.config.d_lr)):
                for group in optimizer.param_groups:
                    group["lr"] = lr * factor

    def end(self) -> None:
        """What follows a step: the moving average, which looks at how many steps it has seen."""
        if self.ema is not None:
            self.ema.update_parameters(self.generator)

    def step(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """A discriminator step on each batch, and a generator step on the last; returns what they measured."""
        for batch in batches[:-1]:
            with torch.no_grad():
                fake = self.generate(batch)
            self.discriminator_step(batch, fake)
        batch = batches[-1]
        fake = self.generate(batch)
        measured = self.discriminator_step(batch, fake.detach())
        return measured | self.generator_step(batch, fake)

    def device_generators(self) -> list[torch.Generator]:
        """The random numbers that a step draws on the device, beside torch's own."""
        return [self.penalties.generator, *self.seeing.generators()]

    def generate(self, batch: Batch) -> Tensor:
        """Images of a batch's inputs, in training, with the graph for the generator's step unless gradients are off."""
        with self._autocast():
            return self.generator(*batch.inputs)

    def discriminator_step(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        """Update the discriminator once.

        Args:
            batch: its ``real`` images, and what the discriminator is told beside them.
            fake: of the shape of ``batch.real``, without a graph.
        Returns: detached scalars: ``d_loss``, which includes the penalty; ``penalty`` where there is one, by itself
            and as it last was; ``wasserstein``, mean D(real) - mean D(fake), for that loss.
        """
        if self.penalties:
            # under autocast the generator's images are of 16 bits, and a penalty mixes them with the real ones
            fake = fake.to(batch.real.dtype)
        _drop_gradients(self.discriminator)
        real, fake = self.seeing(batch.real), self.seeing(fake)
        if self._with_penalty and not batch.given:
            measured = self._backward_with_penalty(real, fake)
        else:
            measured = self._backward(batch, real, fake)
        self._update(self.discriminator, self.d_optimizer, self.d_scaler, measured)
        if self.config.clip:
            _clamp(self.discriminator, self.config.clip)
        return measured

    def _critic(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        return (lambda x: self.discriminator(x, *batch.given)) if batch.given else self.discriminator

    def _judge(self, batch: Batch, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        if not self.together:
            critic = self._critic(batch)
            return critic(real), critic(fake)
        with separate_statistics(self.discriminator, 2):
            both = self.discriminator(torch.cat((real, fake)), *(torch.cat((told, told)) for told in batch.given))
        real_logits, fake_logits = both.chunk(2)
        return real_logits, fake_logits

    def _backward(self, batch: Batch, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            real_logits, fake_logits = self._judge(batch, real, fake)
            loss = self.loss.discriminator(real_logits, fake_logits, **self._smoothing)
            total = loss + self.penalties(self._critic(batch), real, fake) if self.penalties else loss
        self.d_scaler.scale(total).backward()
        self.logits = real_logits.detach(), fake_logits.detach()
        measured = {"d_loss": total.detach()}
        if self.penalties:
            measured["penalty"] = self.penalties.last
        if self.config.loss == "wasserstein":
            measured["wasserstein"] = -loss.detach()
        return measured

    def _backward_with_penalty(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        config, scale = self.config, _scale(self.d_scaler, self.device)
        with self._autocast(), self.penalties.shared(real) as generator:
            step = fastgan.critic_step_wgan_gp(
                self.discriminator,
                real,
                fake,
                weight=config.penalty_weight,
                kind=config.penalty,
                generator=generator,
                scale=scale,
            )
        return {"d_loss": step.loss, "penalty": step.penalty, "wasserstein": step.wasserstein}

    def generator_step(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        """Update the generator once.

        Args:
            batch: that ``fake`` was generated from; its real images are looked at by a relativistic loss only.
            fake: with the generator's graph.
        Returns: detached scalars: ``g_loss``, with all its parts, and those of ``Recipe.generator_loss`` by name.
        """
        _drop_gradients(self.generator)
        with _frozen(self.discriminator):
            with self._autocast():
                loss = self.loss.generator(*self._logits(batch, fake))
                parts = self.recipe.generator_loss(self.generator, batch, fake)
                total = sum(parts.values(), start=loss)
            self.g_scaler.scale(total).backward()
        measured = {"g_loss": total.detach(), **{name: part.detach() for name, part in parts.items()}}
        self._update(self.generator, self.g_optimizer, self.g_scaler, measured)
        return measured

    def _logits(self, batch: Batch, fake: Tensor) -> list[Tensor]:
        critic = self._critic(batch)
        if not self.loss.needs_real:
            return [critic(self.seeing(fake))]
        with torch.no_grad():
            real_logits = critic(self.seeing(batch.real))
        return [critic(self.seeing(fake)), real_logits]

    def _update(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        measured: dict[str, Tensor],
    ) -> None:
        self.world.average([*(parameter.grad for parameter in model.parameters()), *measured.values()])
        if self.config.clip_grad:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), self.config.clip_grad)
        scaler.step(optimizer)
        scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """State of models, optimisers, scalers and, where there are any, penalties and the moving average."""
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in self._PARTS}
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        return {**state, "penalties": self.penalties.state_dict()} if self.penalties else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; other keys are left alone."""
        for name in self._PARTS:
            getattr(self, name).load_state_dict(state[name])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.penalties:
            self.penalties.load_state_dict(state["penalties"])

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = DTYPES[self.config.dtype]
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)


def _drop_gradients(model: nn.Module) -> None:
    # an optimiser's zero_grad is made for profiling, and takes as long as its step
    for parameter in model.parameters():
        parameter.grad = None


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
