"""Power iterations of many weights in one call, and ahead of the reads that want them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import Parameter

from fastgan import ops
from fastgan.nn._plain import DTYPES, why_not_mode


class Weight(NamedTuple):
    """A weight to be normalised, the buffers that hold its singular vectors, and how they are iterated.

    weight: 2 or more dimensions; u: (weight.shape[dim],), v: (the product of the others,), in its dtype on its device.
    iterations: 0 in evaluation.
    """

    weight: Tensor
    u: Tensor
    v: Tensor
    dim: int
    iterations: int
    eps: float
    v_first: bool

    def kind(self) -> tuple:
        """Return what weights must share to go through one call."""
        return self.weight.device, self.weight.dtype, self.iterations, self.eps, self.v_first

    def versions(self) -> tuple[int, int, int]:
        return self.weight._version, self.u._version, self.v._version

    def served(self) -> bool:
        """Return whether the ops take these tensors here."""
        w = self.weight
        dtype, device, compiling = w.dtype, w.device, torch.compiler.is_compiling()
        for t in self[:3]:
            if type(t) is not Tensor and type(t) is not Parameter:
                return False
            if t.dtype is not dtype or t.device != device:
                return False
            # dynamo does not know the question
            if not compiling and t.is_inference():
                return False
        if w.dim() < 2 or not (w.is_cpu or w.is_cuda) or w.layout is not torch.strided or w.dtype not in DTYPES:
            return False
        return w.numel() > 0 and not why_not_mode()


class Estimate(NamedTuple):
    """New singular vectors, in the weight's dtype, and sigma, without dimensions, in the accumulation type."""

    u: Tensor
    v: Tensor
    sigma: Tensor


def full_precision(device: torch.device) -> AbstractContextManager:
    """Return a context without autocast, whose matrix products would round sigma."""
    kind = device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def iterate(weights: Sequence[Weight]) -> list[Estimate]:
    """Return an estimate of each weight, all of one kind, from one call; the buffers stay as they are."""
    first = weights[0]
    tensors = [w.weight for w in weights], [w.u for w in weights], [w.v for w in weights]
    with torch.no_grad(), full_precision(first.weight.device):
        found = ops.spectral_norm.spectral_norm_power_iteration(
            *tensors, [w.dim for w in weights], first.iterations, first.eps, first.v_first
        )
        us, vs, sigmas = found
        return [Estimate(*each) for each in zip(us, vs, sigmas.unbind(), strict=True)]


def write(w: Weight, found: Estimate) -> None:
    """Write what a read found, in place: replicas and captured graphs share the buffers' memory."""
    if w.iterations:
        torch._foreach_copy_([w.u.detach(), w.v.detach()], [found.u, found.v])


def by_kind(weights: Iterable[Weight]) -> list[list[Weight]]:
    """Return the weights in lists of one kind each."""
    kinds: dict[tuple, list[Weight]] = {}
    for w in weights:
        kinds.setdefault(w.kind(), []).append(w)
    return list(kinds.values())


class Batch:
    """Weights of one kind with their estimates."""

    def __init__(self, weights: list[Weight], found: list[Estimate]) -> None:
        self.weights, self.found = weights, found
        self._folded: list[tuple[Tensor, Tensor]] = []
        self._with_gradients = False

    def folded(self, i: int) -> tuple[Tensor, Tensor]:
        """Return weight i, whose gradient is that of weight / sigma, and 1 / sigma; all weights share a backward."""
        if not self._folded or self._with_gradients != torch.is_grad_enabled():
            self._with_gradients = torch.is_grad_enabled()
            sigmas = torch.stack([found.sigma for found in self.found])
            self._folded = list(zip(self._fold(sigmas), sigmas.reciprocal().unbind(), strict=True))
        return self._folded[i]

    def _fold(self, sigmas: Tensor) -> list[Tensor]:
        result = [w.weight for w in self.weights]
        trained = [i for i, t in enumerate(result) if self._with_gradients and t.requires_grad]
        if trained:
            weights, found = [self.weights[i] for i in trained], [self.found[i] for i in trained]
            chosen = sigmas if len(trained) == len(result) else sigmas[trained]
            dims = [w.dim for w in weights]
            folded = ops.spectral_norm.spectral_norm_fold(
                [w.weight for w in weights], [f.u for f in found], [f.v for f in found], chosen, dims
            )
            for i, weight in zip(trained, folded, strict=True):
                result[i] = weight
        return result


class _Pending(NamedTuple):
    batch: Batch
    place: int
    versions: tuple[int, int, int]

    def fits(self, w: Weight) -> bool:
        """Return whether this was made of the tensors of w as they are now."""
        old = self.batch.weights[self.place]
        same = old.weight is w.weight and old.u is w.u and old.v is w.v and old[3:] == w[3:]
        return same and self.versions == w.versions()


class _Ahead(threading.local):
    """What was made ahead of reads in this thread, by the id of the buffer u."""

    def __init__(self) -> None:
        self.pending: dict[int, _Pending] = {}


_ahead = _Ahead()


def put_ahead(batch: Batch) -> list[int]:
    """Offer each estimate of a batch to the next read of its weight; return the keys for ``forget``."""
    keys = []
    for i, w in enumerate(batch.weights):
        _ahead.pending[id(w.u)] = _Pending(batch, i, w.versions())
        keys.append(id(w.u))
    return keys


def is_ahead(w: Weight) -> bool:
    """Return whether something waits for the next read of just this weight."""
    entry = _ahead.pending.get(id(w.u))
    return entry is not None and entry.fits(w)


def take_ahead(w: Weight) -> tuple[Batch, int] | None:
    """Return batch and index that were made for this read, None if there is none or what it was made of has changed."""
    entry = _ahead.pending.pop(id(w.u), None)
    return entry[:2] if entry is not None and entry.fits(w) else None


def forget(keys: Iterable[int]) -> None:
    """Drop what was not read."""
    for key in keys:
        _ahead.pending.pop(key, None)
