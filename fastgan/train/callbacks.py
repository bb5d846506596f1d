"""What may happen beside training: objects that the trainer calls at its turning points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgan.train.trainer import FitResult, Trainer


class Callback:
    """Called by ``Trainer.fit`` in the process of rank 0; override what is wanted. An exception ends the training."""

    def started(self, trainer: Trainer) -> None:
        """Before the first step, with the run's directory there."""

    def logged(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """After a row went to metrics.jsonl; what is added to ``row`` here goes to the progress bar only."""

    def sampled(self, trainer: Trainer, path: Path) -> None:
        """After a grid of samples was written."""

    def saved(self, trainer: Trainer, path: Path) -> None:
        """After a checkpoint was written."""

    def ended(self, trainer: Trainer, result: FitResult) -> None:
        """After the last step, also when a signal stopped the run."""
