"""Memory formats: any layout in, the input's layout out, the same rule in kernels and in shape functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(x: Tensor) -> torch.memory_format:
    """Return the format an op's output has for input x: contiguous, or channels last in 2 or 3 spatial dimensions.

    Where x could be both, of one channel or one pixel, its strides decide, as in torch.
    """
    last = _CHANNELS_LAST.get(x.dim())
    if last is None:
        return torch.contiguous_format
    contiguous = x.is_contiguous()
    if contiguous == x.is_contiguous(memory_format=last):
        return suggest_memory_format(x)
    return torch.contiguous_format if contiguous else last


def wanted_format(dim: int, channels_last: bool) -> torch.memory_format:
    """Return channels last for tensors of ``dim`` dimensions, where wanted and there is one, else contiguous."""
    return _CHANNELS_LAST.get(dim, torch.contiguous_format) if channels_last else torch.contiguous_format


def is_channels_last(x: Tensor) -> bool:
    """Return whether an op's output for input x is channels last."""
    return memory_format(x) != torch.contiguous_format


def dense(x: Tensor, like: Tensor | None = None) -> Tensor:
    """Return x, copied only if it is not dense already in its own memory format, or in that of ``like``."""
    if like is None:
        return x.contiguous(memory_format=memory_format(x))
    # most often nothing is to be done, and to find out what would be takes microseconds
    if x.is_contiguous() and (like is x or (like.is_contiguous() and x.stride() == like.stride())):
        return x
    return _formatted(x, memory_format(like))


def formatted(x: Tensor, channels_last: bool) -> Tensor:
    """Return x dense in a memory format, copied only if need be."""
    return _formatted(x, wanted_format(x.dim(), channels_last))


def _formatted(x: Tensor, wanted: torch.memory_format) -> Tensor:
    x = x.contiguous(memory_format=wanted)
    strides = _strides(x, wanted != torch.contiguous_format)
    if x.stride() == strides:
        return x
    # x could be both, and whoever reads its strides would take it for the other format
    x = x.as_strided(x.shape, strides)
    # a view cannot be changed in place once it is the result of an autograd.Function
    return x if x.requires_grad else x.detach()


def _strides(x: Tensor, channels_last: bool) -> tuple[int, ...]:
    order = [0, *range(2, x.dim()), 1] if channels_last else range(x.dim())
    strides, step = [0] * x.dim(), 1
    for i in reversed(order):
        strides[i] = step
        # as torch counts where there is nothing
        step *= x.shape[i] if channels_last else max(x.shape[i], 1)
    return tuple(strides)


def empty(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return uninitialised memory of x's shape in x's memory format, which empty_like alone would not: it copies
    permuted strides."""
    return torch.empty_like(x, dtype=dtype, memory_format=memory_format(x))


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type sums and statistics are kept in: float64 for float64, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def per_channel(v: Tensor, x: Tensor) -> Tensor:
    """Return the (C,) vector v shaped to broadcast over x of shape (N, C, ...)."""
    return v.reshape(1, -1, *[1] * (x.dim() - 2))


def reduced_dims(x: Tensor) -> list[int]:
    """Return all dimensions of x but the channel's, which is 1."""
    return [0, *range(2, x.dim())]
