"""Estimates of sigma that reads share until the weight changes, and what tells that one has."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from fastgan.nn._power_iteration import Estimate, Weight

_living: weakref.WeakSet[Kept] = weakref.WeakSet()
_watching = False
_steps = 0


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


def age(weight: Tensor) -> tuple[int, int]:
    """Return what differs once a weight has changed: its version, and the steps that optimisers have made."""
    _watch()
    return weight._version, _steps


def _watch() -> None:
    """Look at each optimiser's step from now on: with ``fused=True`` it leaves a parameter's version as it is."""
    global _watching
    if not _watching:
        _watching = True
        register_optimizer_step_post_hook(_after_step)


def _after_step(optimizer: Optimizer, *_: Any) -> None:
    global _steps
    _steps += 1
    changed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for kept in list(_living):
        if id(kept.weight()) in changed:
            kept.versions = None
