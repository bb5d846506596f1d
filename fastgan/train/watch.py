"""Signs that a game goes wrong: samples that look alike, a discriminator that is always right, weights of NaN."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

_ALIKE, _GRIDS = 0.2, 3
_ALWAYS_RIGHT, _ROWS = 0.999, 25
# the logit from which on an image counts as real
_THRESHOLDS = {"non-saturating": 0.0, "minimax": 0.0, "hinge": 0.0, "least-squares": 0.5}


def diversity(images: Tensor) -> float:
    """Mean Euclidean distance of all pairs of images (N, ...), N >= 2; that of one image is 0."""
    return torch.pdist(images.flatten(1).float()).mean().item() if len(images) > 1 else 0.0


def accuracy(logits: tuple[Tensor, Tensor] | None, loss: str) -> float | None:
    """Share of images that the discriminator takes for what they are; None for losses without a threshold.

    Args:
        logits: of real and of generated images, (N, ...) each.
        loss: name in ``losses.LOSSES``; pairs are compared for "relativistic".
    """
    if logits is None:
        return None
    real, fake = logits
    if loss == "relativistic":
        return (real > fake).float().mean().item()
    if loss not in _THRESHOLDS:
        return None
    threshold = _THRESHOLDS[loss]
    return ((real > threshold).float().mean() + (fake <= threshold).float().mean()).item() / 2


class Watch:
    """Looks at samples and at the discriminator's accuracy, and says once what looks wrong.

    Args:
        real: images of the data, (N, ...), to compare the samples' diversity with.
    """

    def __init__(self, real: Tensor) -> None:
        self._real = diversity(real)
        self._said: set[str] = set()
        self._right_rows = self._alike_grids = 0
        self.diversity = math.nan

    def sampled(self, images: Tensor) -> None:
        """Look at a grid of samples (N, ...)."""
        self.diversity = diversity(images) / self._real if self._real else math.nan
        self._alike_grids = self._alike_grids + 1 if self.diversity < _ALIKE else 0

    def warning(self, row: dict[str, Any]) -> str:
        """What looks wrong in a row of measurements, or ""; each complaint comes once."""
        self._right_rows = self._right_rows + 1 if row.get("d_accuracy", 0.0) >= _ALWAYS_RIGHT else 0
        if self._right_rows >= _ROWS and self._first("accuracy"):
            return (
                f"the discriminator has told all images apart in the last {_ROWS} rows: the generator learns little"
                " from it, try a smaller d_lr, a penalty, label_smoothing, instance_noise or augment"
            )
        # those of an untrained generator do, too
        if self._alike_grids > _GRIDS and self._first("diversity"):
            return (
                f"samples look alike, {self.diversity:.2f} times as far apart as real images (mode collapse):"
                " try a smaller g_lr, a penalty, spectral_norm, or another loss"
            )
        return ""

    def _first(self, complaint: str) -> bool:
        new = complaint not in self._said
        self._said.add(complaint)
        return new

    def state_dict(self) -> dict[str, Any]:
        return {
            "said": sorted(self._said),
            "rows": self._right_rows,
            "grids": self._alike_grids,
            "last": self.diversity,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken."""
        self._said, self._right_rows = set(state["said"]), state["rows"]
        self._alike_grids, self.diversity = state["grids"], state["last"]


def all_finite(model: nn.Module) -> bool:
    """Whether no parameter and no buffer is infinite or not a number."""
    values = [value for value in model.state_dict().values() if isinstance(value, Tensor) and value.is_floating_point()]
    return all(torch.isfinite(value).all().item() for value in values)
