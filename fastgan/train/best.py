"""The score that is taken during training, and which checkpoint has the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fastgan.train.config import TrainConfig
from fastgan.train.features import check_packages
from fastgan.train.images import to_uint8
from fastgan.train.run_dir import RunDir
from fastgan.train.sampling import generate
from fastgan.train.scores import KidScore
from fastgan.train.streams import SCORES, seeded_generator

if TYPE_CHECKING:
    from fastgan.train.trainer import Trainer


class Best:
    """KID of generated against real images, with the same of both each time.

    Args:
        config: its seed and score_count.
        device: where features are computed.
    Raises: BadInput when a package is missing.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        check_packages()
        self._config, self._device = config, device
        self._score: KidScore | None = None

    def score(self, trainer: Trainer) -> dict[str, Any]:
        """A row for scores.jsonl: step, kid and its standard deviation, and of how many images."""
        recipe, config = trainer.recipe, self._config
        random = seeded_generator(config.seed, SCORES)
        shown = trainer.data.first(config.score_count, random)
        if self._score is None:
            self._score = KidScore(to_uint8(recipe.frames(shown[0])), config.seed, self._device)
        inputs = recipe.samples(len(shown[0]), *shown, random)
        kid = self._score(to_uint8(recipe.frames(generate(trainer.players.sampler, inputs))))
        return {"step": trainer.step, "kid": kid.mean, "kid_std": kid.std, "n": len(shown[0])}


def best_step(run: RunDir) -> int | None:
    """The step of a run with the lowest KID, None where none was taken."""
    rows = run.rows(run.scores)
    return min(rows, key=lambda row: row["kid"])["step"] if rows else None
