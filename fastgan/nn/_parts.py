"""Batch norm by the statistics of each part of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def part_by_part(forward: Callable[[Tensor], Tensor], parts: int, x: Tensor) -> Tensor:
    """Return what ``forward`` makes of each of the equal parts of a batch, in their order."""
    if len(x) % parts:
        raise ValueError(f"separate_statistics: parts must divide the batch of {len(x)}, got {parts}")
    return torch.cat([forward(part) for part in x.split(len(x) // parts or 1)])


class Parted(partial):
    """The ``forward`` of a norm that fused ops may still stand for, if they do each part by itself."""


def parts_of(norm: _BatchNorm) -> int:
    """Return in how many parts a norm takes its batch at present."""
    forward = norm.__dict__.get("forward")
    return forward.args[1] if type(forward) is Parted else 1


@contextmanager
def separate_statistics(module: nn.Module, parts: int) -> Iterator[None]:
    r"""Batch norm by the statistics of each part of the batch, so that several batches go through a model in one call.

    ``with separate_statistics(D, 2): real_logits, fake_logits = D(torch.cat((real, fake))).chunk(2)`` gives results,
    gradients and running statistics of ``D(real), D(fake)``, to rounding, in one pass over the weights. Only batch
    norm is told of the parts: what else mixes the samples of a batch sees them all, a spectral norm iterates once, and
    dropout draws other numbers. Sub-batches of one batch instead are known as ghost batch norm (Hoffer et al. 2017).
    Differentiable as often as the model.

    Args:
        module: converted or stock; its ``torch.nn`` batch norms of any dimension, synchronised ones and fastgan's are
            meant. It must not be compiled, copied or saved inside.
        parts: equal ones, one after the other along dimension 0, >= 1.
    Raises: ValueError if parts is below 1, or, in the call of a batch norm, if it does not divide the batch.
    """
    if parts < 1:
        raise ValueError(f"separate_statistics: parts must be >= 1, got {parts}")
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    before = [norm.__dict__.get("forward") for norm in norms]
    for norm, own in zip(norms, before, strict=True):
        # nobody knows what a forward of the user's own does
        norm.__dict__["forward"] = (Parted if own is None else partial)(part_by_part, norm.forward, parts)
    try:
        yield
    finally:
        for norm, own in zip(norms, before, strict=True):
            if own is None:
                del norm.__dict__["forward"]
            else:
                norm.__dict__["forward"] = own
