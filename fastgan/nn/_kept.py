"""Estimates of sigma that reads share until the weight changes."""

from __future__ import annotations

import weakref
from typing import Any

from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from fastgan.nn._power_iteration import Estimate, Weight

_living: weakref.WeakSet[Kept] = weakref.WeakSet()
_watching = False


class Kept:
    """An estimate, and what tells whether it still holds."""

    def __init__(self, w: Weight, found: Estimate) -> None:
        self.found = found
        self.weight = weakref.ref(w.weight)
        self.versions: tuple[int, int, int] | None = w.versions()
        _watch()
        _living.add(self)

    def holds(self, w: Weight) -> bool:
        """Return whether neither weight nor buffers have changed."""
        return self.weight() is w.weight and self.versions == w.versions()


def _watch() -> None:
    """Look at each optimiser's step from now on: with ``fused=True`` it leaves a parameter's version as it is."""
    global _watching
    if not _watching:
        _watching = True
        register_optimizer_step_post_hook(_after_step)


def _after_step(optimizer: Optimizer, *_: Any) -> None:
    changed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for kept in list(_living):
        if id(kept.weight()) in changed:
            kept.versions = None
