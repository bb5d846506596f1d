"""Batch norm by the statistics of each part of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# compiled code looks at it, and does not see what a module gets
_active = 0


def part_by_part(forward: Callable[[Tensor], Tensor], parts: int, input: Tensor) -> Tensor:
    """Return what ``forward`` makes of each of the equal parts of a batch, in their order."""
    if len(input) % parts:
        raise ValueError(f"separate_statistics: parts must divide the batch of {len(input)}, got {parts}")
    return torch.cat([forward(part) for part in input.tensor_split(parts)])


class Parted(partial):
    """The ``forward`` of a norm that fused ops may still stand for, if they do each part by itself."""


@cache
def _takes_input_alone(forward: Callable[..., Tensor]) -> bool:
    return len(signature(forward).parameters) == 2


def parts_of(norm: _BatchNorm) -> int:
    """Return in how many parts a norm takes the statistics of its batch at present."""
    if not _active or not (norm.training or norm.running_mean is None):
        return 1
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
            meant. Inside it must not be compiled, copied, saved or called through DataParallel.
        parts: equal ones, one after the other along dimension 0, >= 1.
    Raises: ValueError if parts is below 1 or a batch norm takes more than its input; in the call of a batch norm, if
        parts does not divide the batch.
    """
    global _active
    if parts < 1:
        raise ValueError(f"separate_statistics: parts must be >= 1, got {parts}")
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    for norm in norms:
        if not _takes_input_alone(type(norm).forward):
            raise ValueError(
                f"separate_statistics: module must have batch norms of one input, got {type(norm).__name__}"
            )
    before = [norm.__dict__.get("forward") for norm in norms]
    for norm, own in zip(norms, before, strict=True):
        # nobody knows what a forward of the user's own does
        norm.__dict__["forward"] = (Parted if own is None else partial)(part_by_part, norm.forward, parts)
    _active += 1
    try:
        yield
    finally:
        _active -= 1
        for norm, own in zip(norms, before, strict=True):
            if own is None:
                del norm.__dict__["forward"]
            else:
                norm.__dict__["forward"] = own
