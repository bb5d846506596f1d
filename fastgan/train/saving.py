"""What a run leaves behind while it goes: settings, measurements, samples, checkpoints, scores, report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import torch

import fastgan
from fastgan.train.best import Best, best_step
from fastgan.train.callbacks import Callback
from fastgan.train.checkpoint import checkpoint_steps, describe, save_checkpoint
from fastgan.train.command import command_line
from fastgan.train.errors import BadInput, TrainingFailed
from fastgan.train.files import step_file
from fastgan.train.film import write_film
from fastgan.train.images import make_grid, save_png
from fastgan.train.report import write_report
from fastgan.train.sampling import generate
from fastgan.train.tensorboard import TensorBoard
from fastgan.train.watch import all_finite

if TYPE_CHECKING:
    from fastgan.train.trainer import FitResult, Trainer


class Keeper:
    """Writes to the run's directory, where there is one, and tells the callbacks; in the process of rank 0.

    Args:
        trainer: whose run it is.
        callbacks: told of what happens.
    Raises: BadInput when a package for what the config asks for is missing.
    """

    def __init__(self, trainer: Trainer, callbacks: Sequence[Callback]) -> None:
        config = trainer.config
        self.trainer, self.run, self.config = trainer, trainer.run, config
        self.callbacks = list(callbacks) if trainer.world.first else []
        if self.run and config.tensorboard:
            self.callbacks.append(TensorBoard())
        self.best = Best(config, trainer.device) if self.run and config.score_every else None

    def open(self, opened: bool) -> None:
        """Make the directory and write the settings, or drop what was measured after the step to go on from."""
        try:
            with self._together():
                if self.run and opened:
                    self.run.reopen(self.trainer.step)
                    self.config.write(self.run.config)
                elif self.run:
                    self.run.create(self.config)
                    self.run.write_json("run.json", self._facts())
        except BaseException:
            if self.run:
                self.run.unlock()
            raise

    def start(self) -> None:
        """Samples and checkpoint of step 0, where the run begins there."""
        with self._together():
            self._tell("started")
            if self.trainer.step == 0:
                self._save_samples()
                self._save_checkpoint()

    def log(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add a row to metrics.jsonl; returns it."""
        with self._together():
            if self.run:
                self.run.append(self.run.metrics, row)
            self._tell("logged", row)
        return row

    def save_what_is_due(self) -> None:
        """Samples, score and checkpoint, each at its interval and after the last step."""
        due, config = self.trainer.due, self.config
        sampled, saved = due(config.sample_every), due(config.checkpoint_every)
        scored = bool(config.score_every) and due(config.score_every)
        if not (sampled or saved or scored):
            return
        with self._together():
            if sampled:
                self._save_samples()
            if scored and self.best and self.run:
                self.run.append(self.run.scores, self.best.score(self.trainer))
            if saved or scored:
                self._save_checkpoint()

    def end(self, result: FitResult) -> None:
        """The checkpoint of a step that a signal stopped at."""
        with self._together():
            if result.signum and result.step not in self._saved():
                self._save_checkpoint()
            self._tell("ended", result)

    def close(self) -> None:
        """Film and report of what is there, and the directory free for others."""
        failed = sys.exc_info()[0] is not None
        if self.run:
            try:
                write_film(self.run)
                write_report(self.run)
            except (BadInput, OSError) as error:
                # what ended the training is more important than a report that found no room
                if not failed:
                    print(f"warning: there is no report of this run: {error}", file=sys.stderr)
            finally:
                self.run.unlock()

    def diverged(self, what: str) -> str:
        """What to say when ``what`` is no longer finite."""
        steps = self._saved()
        kept = f"; the last good checkpoint is that of step {steps[-1]}" if steps else ""
        advice = "try smaller g_lr and d_lr, clip_grad=1" + (
            "" if self.config.dtype == "float32" else ", dtype float32"
        )
        return f"training diverged: {what} is not finite at step {self.trainer.step}{kept}; {advice}"

    def _save_samples(self) -> None:
        images = generate(self.trainer.players.sampler, self.trainer.fixed)
        # the grid after a run's last step is none of those that a longer run would have
        if self.trainer.step % self.config.sample_every == 0:
            self.trainer.watch.sampled(images)
        if self.run:
            path = step_file(self.run.samples, self.trainer.step, ".png")
            save_png(make_grid(self.trainer.recipe.picture(self.trainer.fixed, images)), path)
            self._tell("sampled", path)

    def _save_checkpoint(self) -> None:
        trainer = self.trainer
        if not (all_finite(trainer.generator) and all_finite(trainer.discriminator)):
            raise TrainingFailed(self.diverged("a weight"))
        if not self.run:
            return
        state = {**trainer.state_dict(), **describe(self.config, trainer.data)}
        best = best_step(self.run)
        try:
            path = save_checkpoint(self.run.checkpoints, trainer.step, state, self.config.keep_checkpoints, best)
        except OSError as error:
            raise BadInput(self._unwritten(error)) from None
        self._tell("saved", path)

    def _saved(self) -> list[int]:
        return checkpoint_steps(self.run.checkpoints) if self.run else []

    def _unwritten(self, error: OSError) -> str:
        steps = self._saved()
        there = f"those of steps {', '.join(map(str, steps))} are there" if steps else "there is none yet"
        return f"the checkpoint of step {self.trainer.step} cannot be written ({error.strerror or error}); {there}"

    def _together(self) -> AbstractContextManager[None]:
        return self.trainer.world.together()

    def _tell(self, what: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, what)(self.trainer, *args)

    def _facts(self) -> dict[str, Any]:
        trainer = self.trainer
        sizes = {name: _count(getattr(trainer, name)) for name in ("generator", "discriminator")}
        versions = {"fastgan": fastgan.__version__, "torch": torch.__version__, "python": sys.version.split()[0]}
        machine = {"device": _name(trainer.device), "threads": torch.get_num_threads(), "processes": trainer.world.size}
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {
            "command": command_line(),
            "started": started,
            "images": len(trainer.data),
            **versions,
            **machine,
            "parameters": sizes,
        }


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
