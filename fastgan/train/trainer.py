"""The training loop: discriminator and generator steps in turn, and everything that a run leaves behind."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.models import dcgan
from fastgan.train.checkpoint import checkpoint_steps, load_checkpoint, save_checkpoint
from fastgan.train.config import TrainConfig
from fastgan.train.data import BatchSampler, load_images, normalise
from fastgan.train.errors import BadInput, TrainingFailed, require_extra
from fastgan.train.images import make_grid, save_png
from fastgan.train.interrupt import stop_on_signal
from fastgan.train.run_dir import RunDir
from fastgan.train.sampling import draw_latents, generate, seeded_generator
from fastgan.train.steps import Players

_PACKAGES = ("PIL", "tqdm", "tomli_w")
_LATENTS, _ORDER, _FIXED = 1, 2, 3  # streams of random numbers, each with a generator of its own


@dataclass(frozen=True)
class FitResult:
    """How ``Trainer.fit`` ended: the last step done, the signal that stopped it or 0, and the rows of metrics.jsonl."""

    step: int
    signum: int
    metrics: list[dict[str, Any]]


class Trainer:
    """Trains a generator against a discriminator.

    The same config gives the same losses on a CPU, also across a stop and a resume. Seeds torch's global random
    numbers. Nothing is written before ``fit``, and nothing at all when ``config.out`` is empty.

    Args:
        config: every setting.
        generator: maps latents (N, latent_dim, 1, 1) to images (N, C, image_size, image_size) in [-1, 1]; default: the
            one that ``config.model`` names. Trained in place, in channels_last.
        discriminator: maps such images to logits (N,); likewise. ``config.norm`` and ``config.spectral_norm`` shape the
            default one and are not looked for in another.
    Raises: BadInput when data, device, dtype, packages or the directory ``config.out`` cannot serve.
    """

    def __init__(
        self, config: TrainConfig, generator: nn.Module | None = None, discriminator: nn.Module | None = None
    ) -> None:
        self._prepare(config, generator, discriminator, None)

    @classmethod
    def resume(
        cls,
        directory: str | Path,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        **overrides: Any,
    ) -> Trainer:
        """Go on with a run from its newest checkpoint.

        Args:
            directory: of the run.
            generator, discriminator: those given to ``Trainer``, if any; their weights are replaced.
            overrides: ``steps`` and ``device`` may be changed.
        Raises: BadInput when there is no run, another process works on it, or it has done all its steps.
        """
        run = RunDir(directory)
        steps = checkpoint_steps(run.checkpoints)
        if not steps or not run.config.exists():
            raise BadInput(f"{directory} holds no run to go on with")
        config = TrainConfig.read(run.config, **{"out": str(directory), **overrides})
        if steps[-1] >= config.steps:
            raise BadInput(f"{directory} has done {steps[-1]} steps already, ask for more with --steps")
        run.lock()
        try:
            trainer = cls.__new__(cls)
            trainer._prepare(config, generator, discriminator, run)
            trainer.load_state_dict(load_checkpoint(run.checkpoints))
        except BaseException:
            run.unlock()
            raise
        return trainer

    def _prepare(
        self, config: TrainConfig, generator: nn.Module | None, discriminator: nn.Module | None, resumed: RunDir | None
    ) -> None:
        require_extra(*_PACKAGES)
        self.config = config
        self.device = config.resolve_device()
        self.run = resumed or (RunDir(config.out) if config.out else None)
        self._opened = resumed is not None
        if self.run and not resumed:
            self.run.check_new()
        self.data = load_images(config.data, config.image_size)
        torch.manual_seed(config.seed)
        self.generator = self._place(self._default_generator() if generator is None else generator)
        self.discriminator = self._place(self._default_discriminator() if discriminator is None else discriminator)
        self.players = Players(config, self.generator, self.discriminator, self.device)
        self.step = 0
        self._latents = seeded_generator(config.seed, _LATENTS)
        self._sampler = BatchSampler(len(self.data), config.batch_size, seeded_generator(config.seed, _ORDER))
        self._fixed = draw_latents(config.sample_count, config.latent_dim, seeded_generator(config.seed, _FIXED))

    def _default_generator(self) -> nn.Module:
        config = self.config
        model = dcgan.Generator(config.image_size, self.data.channels, config.latent_dim, config.features)
        return model.apply(dcgan.weights_init)

    def _default_discriminator(self) -> nn.Module:
        config, channels = self.config, self.data.channels
        settings: dict[str, Any] = {"norm": config.norm, "spectral_norm": config.spectral_norm}
        model = dcgan.Discriminator(config.image_size, channels, config.features, **settings)
        return model.apply(dcgan.weights_init)

    def _place(self, model: nn.Module) -> nn.Module:
        model = model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.config.convert:
            import fastgan

            fastgan.convert(model)
        return model

    def fit(self, progress: bool = True) -> FitResult:
        """Train until ``config.steps``, or until SIGINT or SIGTERM, which finish the present step and save.

        Args:
            progress: show a progress bar with losses and images a second on stderr.
        Raises: TrainingFailed when a loss is no longer finite; BadInput when another run took the directory meanwhile.
        """
        self._open_run()
        self.generator.train()
        self.discriminator.train()
        metrics: list[dict[str, Any]] = []
        try:
            with stop_on_signal() as stop, _progress_bar(self.step, self.config.steps, progress) as bar:
                if self.step == 0:
                    self._save_samples()
                    self._save_checkpoint()
                clock = _Clock(self.step)
                while self.step < self.config.steps and not stop.signum:
                    measured = self.train_step()
                    bar.update()
                    if self._due(self.config.log_every):
                        metrics.append(self._log(measured, clock))
                        bar.set_postfix(_postfix(metrics[-1]))
                    clock.leave_out(self._save_what_is_due)
                if stop.signum and not self._due(self.config.checkpoint_every):
                    self._save_checkpoint()
        finally:
            if self.run:
                self.run.unlock()
        return FitResult(self.step, stop.signum, metrics)

    def train_step(self) -> dict[str, Tensor]:
        """``d_steps`` discriminator steps, each on images of its own, and a generator step on the last of them.

        Returns: detached scalars: d_loss and g_loss, penalty and wasserstein where there are such.
        """
        for _ in range(self.config.d_steps - 1):
            real = self._real_batch()
            with torch.no_grad():
                fake = self.players.generate(self._draw_latents())
            self.players.discriminator_step(real, fake)
        real, fake = self._real_batch(), self.players.generate(self._draw_latents())
        measured = self.players.discriminator_step(real, fake.detach())
        g_loss = self.players.generator_step(fake, real)
        self.step += 1
        return {"d_loss": measured.pop("d_loss"), "g_loss": g_loss, **measured}

    def _real_batch(self) -> Tensor:
        images = self.data.images[self._sampler.next()].to(self.device, non_blocking=True)
        return normalise(images).contiguous(memory_format=torch.channels_last)

    def _draw_latents(self) -> Tensor:
        return draw_latents(self.config.batch_size, self.config.latent_dim, self._latents).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on: step, players, random numbers and data order."""
        state = {**self.players.state_dict(), "_sampler": self._sampler.state_dict()}
        random = {"latents": self._latents.get_state(), "cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {**state, "step": self.step, "channels": self.data.channels, "random": random}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.players.load_state_dict(state)
        self._sampler.load_state_dict(state["_sampler"])
        self.step = state["step"]
        self._latents.set_state(state["random"]["latents"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)

    def _open_run(self) -> None:
        if self.run is None:
            return
        if self._opened:
            self.run.lock()
            self.run.drop_metrics_after(self.step)
        else:
            self.run.create()
            self._opened = True
        self.config.write(self.run.config)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _log(self, measured: dict[str, Tensor], clock: _Clock) -> dict[str, Any]:
        losses = {name: value.item() for name, value in measured.items()}
        if not all(map(math.isfinite, losses.values())):
            raise TrainingFailed(
                f"training diverged: a loss is not finite at step {self.step}, try a smaller g_lr and d_lr"
            )
        speed = clock.rate(self.step) * self.config.batch_size
        row = {"step": self.step, **losses, "images_per_second": round(speed, 1)}
        if self.run:
            self.run.append_metrics(row)
        return row

    def _save_what_is_due(self) -> None:
        if self._due(self.config.sample_every):
            self._save_samples()
        if self._due(self.config.checkpoint_every):
            self._save_checkpoint()

    def _save_samples(self) -> None:
        if self.run:
            grid = make_grid(generate(self.generator, self._fixed))
            save_png(grid, self.run.samples / f"step_{self.step:06d}.png")

    def _save_checkpoint(self) -> None:
        if self.run:
            save_checkpoint(self.run.checkpoints, self.step, self.state_dict(), self.config.keep_checkpoints)


class _Clock:
    """Steps a second since the last question, without the time spent on saving."""

    def __init__(self, step: int) -> None:
        self._mark, self._step = time.perf_counter(), step

    def rate(self, step: int) -> float:
        now = time.perf_counter()
        steps, seconds = step - self._step, now - self._mark
        self._mark, self._step = now, step
        return steps / seconds

    def leave_out(self, work: Callable[[], None]) -> None:
        start = time.perf_counter()
        work()
        self._mark += time.perf_counter() - start


def _progress_bar(step: int, steps: int, progress: bool) -> Any:
    from tqdm import tqdm

    wait = 0.5 if sys.stderr.isatty() else 10.0  # seconds; a log file gets a line for each refresh
    return tqdm(initial=step, total=steps, unit="step", disable=not progress, mininterval=wait, dynamic_ncols=True)


def _postfix(row: dict[str, Any]) -> dict[str, str]:
    losses = {name: f"{value:.3f}" for name, value in row.items() if name not in ("step", "images_per_second")}
    return {**losses, "img/s": f"{row['images_per_second']:.0f}"}
