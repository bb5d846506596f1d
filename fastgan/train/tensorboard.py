"""Measurements and samples of a run for TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgan.train.callbacks import Callback
from fastgan.train.errors import BadInput, find_package

if TYPE_CHECKING:
    from fastgan.train.trainer import FitResult, Trainer


class TensorBoard(Callback):
    """A callback that writes each logged row as scalars and each grid of samples as an image.

    A resumed run goes on in the same directory: TensorBoard hides what was written after the checkpoint.

    Args:
        directory: for the event files; default: ``tensorboard`` in the run's directory.
    Raises: BadInput when tensorboardX is missing, or, when training starts, where there is no directory.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        if not find_package("tensorboardX"):
            raise BadInput('TensorBoard needs tensorboardX, so install it with `pip install "fastgan[tensorboard]"`')
        self._directory = directory
        self._writer: Any = None

    def started(self, trainer: Trainer) -> None:
        from tensorboardX import SummaryWriter

        directory = self._directory or (trainer.run and trainer.run.root / "tensorboard")
        if not directory:
            raise BadInput("TensorBoard needs a directory where the run has none (out)")
        self._close()
        # hides what a killed run wrote after the checkpoint; at step 0 the first grid is written anew
        purge_step = trainer.step + 1 if trainer.step else 0
        # the name has the second of the start; of two files of one second the later step comes second
        suffix = f".{trainer.step:09d}"
        self._writer = SummaryWriter(str(directory), purge_step=purge_step, flush_secs=10, filename_suffix=suffix)

    def logged(self, trainer: Trainer, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, row["step"])

    def sampled(self, trainer: Trainer, path: Path) -> None:
        import numpy
        from PIL import Image

        with Image.open(path) as grid:
            pixels = numpy.asarray(grid)
        self._writer.add_image("samples", pixels, trainer.step, dataformats="HW" if pixels.ndim == 2 else "HWC")

    def ended(self, trainer: Trainer, result: FitResult) -> None:
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
