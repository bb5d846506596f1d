"""Tensors as autocast hands them to a convolution."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn.parameter import Parameter

from fastgan.backends import native
from fastgan.nn._kept import age

# by the id of a weight and dtype: the weight, what differs once it has changed, and its cast
Casts = dict[tuple[int, torch.dtype], tuple[Tensor, tuple[int, ...], Tensor]]


def autocast_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which autocast hands x to a convolution."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:
        return x.dtype
    return torch.get_autocast_dtype(kind)


def autocast(x: Tensor) -> Tensor:
    """Return x as autocast hands it to a convolution."""
    return x.to(autocast_dtype(x))


def autocast_weight(weight: Tensor) -> Tensor:
    """Return a weight as autocast hands it to a convolution.

    As with torch's layers the calls inside its outermost context share one cast of a parameter, through which their
    gradients are added up in its dtype; but none from before the weight changed, as far as its version and optimisers
    tell. Without the extension, or autocast's cache, each call casts.
    """
    dtype = autocast_dtype(weight)
    if weight.dtype is dtype or not _is_shared(weight):
        return weight.to(dtype)
    casts, key, now = _casts(), (id(weight), dtype), (*age(weight), weight.data_ptr())
    if key not in casts or casts[key][1] != now:
        casts[key] = weight, now, weight.to(dtype)
    return casts[key][2]


def _is_shared(weight: Tensor) -> bool:
    return (
        torch.is_grad_enabled()
        and weight.requires_grad
        and weight.is_leaf
        and torch.is_autocast_cache_enabled()
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        # it has no version
        and not weight.is_inference()
        and not native.missing()
    )


def _casts() -> Casts:
    """Return the casts of this context. They hang on one that torch's cache drops when the context ends, and are not
    in that cache themselves: torch's layers would find them, whatever has become of the weight."""
    import fastgan._C as _C

    leaf = _leaf()
    cast = _C.autocast(leaf)
    # no cast where autocast's dtype is float32, and the leaf lives on
    return {} if cast is leaf else cast.__dict__.setdefault("_fastgan_casts", {})


@functools.cache
def _leaf() -> Parameter:
    """Return what torch's cache takes for a weight."""
    with torch.inference_mode(False):
        return Parameter(torch.zeros(1, dtype=torch.float32, device="cpu"))
