"""The training loop: discriminator and generator steps in turn, and everything that a run leaves behind."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fastgan
from fastgan.models import Batch
from fastgan.train.callbacks import Callback
from fastgan.train.checkpoint import check_state, checkpoint_steps, fitting, load_checkpoint
from fastgan.train.config import TrainConfig
from fastgan.train.distributed import World, local_device
from fastgan.train.errors import BadInput, TrainingFailed, require_extra
from fastgan.train.feed import Feed
from fastgan.train.graph import GraphedStep, check_graph
from fastgan.train.interrupt import stop_on_signal
from fastgan.train.progress import Clock, postfix, progress_bar
from fastgan.train.run_dir import RunDir
from fastgan.train.saving import Keeper
from fastgan.train.steps import Players
from fastgan.train.streams import FIXED, LATENTS, SHOWN, seeded_generator
from fastgan.train.watch import Watch, accuracy

_PACKAGES = ("PIL", "tqdm", "tomli_w", "matplotlib", "jinja2")


@dataclass(frozen=True)
class FitResult:
    """How ``Trainer.fit`` ended: the last step done, the signal that stopped it or 0, and the rows of metrics.jsonl."""

    step: int
    signum: int
    metrics: list[dict[str, Any]]


class Trainer:
    """Trains a generator against a discriminator.

    The same config gives the same losses on a CPU, also across a stop and a resume. Seeds torch's global random
    numbers. Nothing is written before ``fit``, and nothing at all when ``config.out`` is empty. Under ``torchrun`` the
    processes share each batch, gradients are averaged, and that of rank 0 writes.

    Args:
        config: every setting.
        generator: maps what the recipe of ``config.model`` gives it, for most latents (N, latent_dim, 1, 1), to images
            (N, C, image_size, image_size) in [-1, 1]; default: that of the recipe. Trained in place, in channels_last.
        discriminator: maps such images to logits (N,); likewise. ``config.norm`` and ``config.spectral_norm`` shape the
            default one and are not looked for in another, which sees real and generated images one after the other: the
            default one sees both in one pass, batch norm with the statistics of each.
        callbacks: told of what happens, in turn.
    Raises: BadInput when data, device, dtype, packages or the directory ``config.out`` cannot serve.
    """

    def __init__(
        self,
        config: TrainConfig,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.world = World.join()
        with self.world.together():
            self._prepare(config, generator, discriminator, callbacks, None)
        # those that were given may have been made from other random numbers in each process
        for model in (self.generator, self.discriminator, self.players.ema):
            self.world.equalise(model)

    @classmethod
    def resume(
        cls,
        directory: str | Path,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        callbacks: Sequence[Callback] = (),
        **overrides: Any,
    ) -> Trainer:
        """Go on with a run from its newest checkpoint, or from its beginning when it was stopped before the first one.

        Args:
            directory: of the run.
            generator, discriminator, callbacks: those given to ``Trainer``, if any; their weights are replaced.
            overrides: ``steps`` and ``device`` may be changed.
        Raises: BadInput when there is no run, another process works on it, or it has done all its steps.
        """
        run, trainer = RunDir(directory), cls.__new__(cls)
        trainer.world = World.join()
        try:
            with trainer.world.together():
                config = _read(run, overrides)
                trainer._prepare(config, generator, discriminator, callbacks, run)
                if checkpoint_steps(run.checkpoints):
                    state = load_checkpoint(run.checkpoints)
                    check_state(state, config, trainer.data, run.checkpoints)
                    with fitting(run.checkpoints):
                        trainer.load_state_dict(state)
        except BaseException:
            run.unlock()
            raise
        return trainer

    def _prepare(
        self,
        config: TrainConfig,
        generator: nn.Module | None,
        discriminator: nn.Module | None,
        callbacks: Sequence[Callback],
        resumed: RunDir | None,
    ) -> None:
        require_extra(*_PACKAGES)
        self.config = config
        self.device = local_device(config.resolve_device())
        run = resumed or (RunDir(config.out) if config.out else None)
        self.run = run if self.world.first else None
        self._opened = resumed is not None
        if self.run:
            self.run.lock() if resumed else self.run.check_new()
        self.data = Feed(config, self.device)
        self.recipe = config.recipe(self.data.channels, self.data.classes)
        torch.manual_seed(config.seed)
        self.generator = self._place(self.recipe.generator() if generator is None else generator)
        self.discriminator = self._place(self.recipe.discriminator() if discriminator is None else discriminator)
        together = discriminator is None and not self.recipe.mixes_samples
        self.players = Players(
            config, self.recipe, self.generator, self.discriminator, self.device, self.world, together
        )
        if config.graph:
            check_graph(config, self.device, self.world.size)
        self._play = GraphedStep(self.players) if config.graph else self.players.step
        self.step = 0
        self._random = seeded_generator(config.seed, LATENTS)
        shown = self.data.first(config.sample_count, seeded_generator(config.seed, SHOWN))
        fixed = seeded_generator(config.seed, FIXED)
        self.fixed = self.recipe.samples(config.sample_count, *shown, fixed, config.truncation)
        self.watch = Watch(shown[0])
        self.keeper = Keeper(self, callbacks)

    def _place(self, model: nn.Module) -> nn.Module:
        self.world.check(self.config.batch_size, model, self.config.convert, self.device)
        model = self.world.synchronise(model).to(device=self.device)
        if all(parameter.dim() < 5 for parameter in model.parameters()):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return fastgan.convert(model) if self.config.convert else model

    def fit(self, progress: bool = True) -> FitResult:
        """Train until ``config.steps``, or until SIGINT or SIGTERM, which finish the present step and save.

        Args:
            progress: show a progress bar with losses and images a second on stderr.
        Raises: TrainingFailed when a loss is no longer finite, with the last good checkpoint kept; BadInput when
            another run took the directory meanwhile or nothing can be written.
        """
        keeper, metrics = self.keeper, []
        keeper.open(self._opened)
        self._opened = True
        self.generator.train()
        self.discriminator.train()
        try:
            with (
                self.world.all_alive(),
                stop_on_signal() as stop,
                progress_bar(self.step, self.config.steps, progress and self.world.first) as bar,
            ):
                keeper.start()
                clock, signum = Clock(self.step), 0
                # processes that did not stop after the same step would wait for each other
                while self.step < self.config.steps and not (signum := max(self.world.gather(stop.signum))):
                    measured = self.train_step()
                    bar.update()
                    if self.due(self.config.log_every):
                        metrics.append(keeper.log(self._row(measured, clock)))
                        bar.set_postfix(postfix(metrics[-1]))
                        if metrics[-1].get("warning") and self.world.first:
                            bar.write(f"warning: {metrics[-1]['warning']}", file=sys.stderr)
                    clock.leave_out(keeper.save_what_is_due)
                result = FitResult(self.step, signum, metrics)
                keeper.end(result)
        finally:
            keeper.close()
        return result

    def train_step(self) -> dict[str, Tensor]:
        """``config.d_steps`` discriminator steps and one generator step.

        Each discriminator step has its own real images and latents; the generator's is judged on those of the last.
        Returns: detached scalars, those of ``Players.discriminator_step`` and ``Players.generator_step``.
        """
        self.players.begin(self.step)
        measured = self._play([self._batch() for _ in range(self.config.d_steps)])
        self.players.end()
        self.step += 1
        return measured

    def due(self, every: int) -> bool:
        """Whether something that is done every so many steps, and after the last, is to be done now."""
        return self.step % every == 0 or self.step == self.config.steps

    def _batch(self) -> Batch:
        batch = self.recipe.batch(*self.data.next(), self._random)
        share = self.world.share
        return Batch(share(batch.real), tuple(map(share, batch.inputs)), tuple(map(share, batch.given)))

    def _row(self, measured: dict[str, Tensor], clock: Clock) -> dict[str, Any]:
        row: dict[str, Any] = {"step": self.step, **{name: value.item() for name, value in measured.items()}}
        self._check_finite(row)
        right = accuracy(self.players.logits, self.config.loss)
        if right is not None:
            row["d_accuracy"] = round(sum(self.world.gather(right)) / self.world.size, 4)
        if not math.isnan(self.watch.diversity):
            row["diversity"] = round(self.watch.diversity, 4)
        warning = self.watch.warning(row) if self.step % self.config.log_every == 0 else ""
        speed = clock.rate(self.step) * self.config.batch_size
        return {**row, "images_per_second": round(speed, 1), **({"warning": warning} if warning else {})}

    def _check_finite(self, row: dict[str, Any]) -> None:
        wrong = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if wrong:
            raise TrainingFailed(self.keeper.diverged(wrong[0]))

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on; not the config."""
        random: dict[str, Any] = {"cpu": torch.get_rng_state(), "latents": self._random.get_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        state: dict[str, Any] = {**self.players.state_dict(), "data": self.data.state_dict(), "random": random}
        return {**state, "watch": self.watch.state_dict(), "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.step = state["step"]
        self.recipe.advance(self.generator, self.discriminator, self.step)
        self.players.load_state_dict(state)
        self.data.load_state_dict(state["data"])
        self.watch.load_state_dict(state["watch"])
        self._random.set_state(state["random"]["latents"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)


def _read(run: RunDir, overrides: dict[str, Any]) -> TrainConfig:
    run.check_old()
    config = TrainConfig.read(run.config, **{"out": str(run.root), **overrides})
    done = max(checkpoint_steps(run.checkpoints), default=0)
    if done >= config.steps:
        raise BadInput(f"{run.root} has done {done} steps already, ask for more with --steps")
    return config
