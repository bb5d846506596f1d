"""Bytes that a layer or a step keeps for backward: all that autograd saves, but for parameters, each storage once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import cases
from benchmarks.peers.peer import Peer
from benchmarks.suites.layers import LayerWork
from benchmarks.suites.step import Players, StepWork
from benchmarks.work import Run, Work


class Kept:
    """What is kept now, and the most that was kept at one time, in bytes.

    Args:
        models: whose parameters do not count, since they are there anyway.
    """

    def __init__(self, *models: nn.Module) -> None:
        self.now = self.peak = 0
        self._count: dict[int, int] = {}
        self._parameters = {p.untyped_storage().data_ptr() for model in models for p in model.parameters()}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what autograd saves in the block, until its graph goes."""
        with torch.autograd.graph.saved_tensors_hooks(lambda x: _Saved(self, x), lambda saved: saved.tensor):
            yield

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        self._count[key] = self._count.get(key, 0) + 1
        if self._count[key] == 1 and key not in self._parameters:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def remove(self, tensor: Tensor) -> None:
        """Take back one ``add``."""
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        self._count[key] -= 1
        if self._count[key] == 0:
            del self._count[key]
            self.now -= 0 if key in self._parameters else storage.nbytes()


class _Saved:
    def __init__(self, kept: Kept, tensor: Tensor) -> None:
        self.kept, self.tensor = kept, tensor
        kept.add(tensor)

    def __del__(self) -> None:
        self.kept.remove(self.tensor)


class StepMemory(StepWork):
    """The most that a training step keeps at one time."""

    def run(self, peer: Peer) -> Run:
        players = Players(self, peer)
        run, kept = players.run(), Kept(players.g, players.d)
        return _counted(run, kept)


class LayerMemory(LayerWork):
    """What one layer keeps from its forward to its backward, its input included, its result where it is needed."""

    def run(self, peer: Peer) -> Run:
        model, step, results = self.parts(peer)
        return _counted(Run(step, results), Kept(model))


def _counted(run: Run, kept: Kept) -> Run:
    step = run.step

    def counted() -> Any:
        kept.peak = kept.now
        with kept.watching():
            step()
        return kept.peak

    run.step = counted
    return run


def work(case: cases.Case, dtype: torch.dtype, device: str) -> Work:
    """What a case of this suite measures."""
    return (LayerMemory if isinstance(case.what, cases.Layer) else StepMemory)(case, dtype, device)


WORK = work
