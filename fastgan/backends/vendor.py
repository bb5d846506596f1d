"""``conv_norm_act`` by the vendor's convolution (cuDNN, oneDNN) with a backend's fused pointwise kernels around it.

It serves every size, and is the choice wherever nothing faster was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.backends import processor
from fastgan.backends.geometry import Attributes, crop, input_gradient, weight_shape, widths
from fastgan.backends.layout import accumulate_dtype, dense, formatted, is_channels_last

Vector = Tensor | None


def convolution(u: Tensor, weight: Tensor, bias: Vector, a: Attributes) -> Tensor:
    """Return torch's convolution of u with scale * weight, or the transposed one."""
    with _right(u, weight.shape, a):
        return torch.convolution(u, scaled(weight, a), bias, *a.sizes())


def _right(u: Tensor, weight: Sequence[int], a: Attributes) -> AbstractContextManager[None]:
    """Return a context in which torch's convolutions of u are right; ``weight`` is its shape."""
    return processor.right(u.dtype, *widths(u, weight[2:], a), a.stride[-1]) if u.is_cpu else nullcontext()


def weight_gradient(u: Tensor, g: Tensor, shape: Sequence[int], a: Attributes) -> Tensor:
    """Return torch's gradient of the weight, of the given shape."""
    w = u.new_empty(1).expand(shape)
    with _right(u, shape, a):
        return torch.ops.aten.convolution_backward(g, u, w, None, *a.sizes(), [False, True, False])[1]


def scaled(weight: Tensor, a: Attributes) -> Tensor:
    """Return scale * weight."""
    return weight if a.scale is None else (weight * a.scale).to(weight.dtype)


class Pointwise(NamedTuple):
    """The stems of the backend that calls, and the convolutions that stand between them."""

    bias_act: ModuleType
    norm_act: ModuleType
    convolution: Callable[..., Tensor] = convolution
    weight_gradient: Callable[..., Tensor] = weight_gradient


def _load(stems: Pointwise, x: Tensor, norm: tuple[Vector, ...], a: Attributes) -> Tensor:
    if norm[2] is None:
        return x
    return stems.norm_act.norm_act_eval(x, *norm, a.training, a.eps, a.norm_activation, a.norm_slope, False)


def _masked(stems: Pointwise, dy: Tensor, y: Vector, a: Attributes) -> Tensor:
    return dy if y is None else stems.bias_act.bias_act_bwd(dy, y, None, a.activation, a.negative_slope)


def conv_norm_act(
    stems: Pointwise, x: Tensor, weight: Tensor, bias: Vector, norm: tuple[Vector, ...], a: Attributes
) -> tuple[Tensor, Tensor, Tensor]:
    """As in backends/reference/conv_norm_act.py; norm is (norm_weight, norm_bias, mean, var)."""
    u = _load(stems, x, norm, a)
    plain = a.activation == "identity"
    y = stems.convolution(u, weight, bias.to(u.dtype) if plain and bias is not None else None, a)
    if not plain:
        y = stems.bias_act.bias_act(y, bias, a.activation, a.negative_slope)
    # a view cannot be changed in place once it is the result of an autograd.Function
    y = formatted(y, a.channels_last).detach()
    if a.stats:
        return y, *stems.norm_act.norm_act_stats(y)
    dtype = accumulate_dtype(x.dtype)
    return y, y.new_empty(0, dtype=dtype), y.new_empty(0, dtype=dtype)


def conv_norm_act_dx(
    stems: Pointwise, dy: Tensor, y: Vector, weight: Tensor, x: Tensor, norm: tuple[Vector, ...], a: Attributes
) -> tuple[Tensor, Tensor, Tensor]:
    """As in backends/reference/conv_norm_act.py."""
    g = _masked(stems, dy, y, a)
    reverse = input_gradient(x, weight.shape[2:], dy, a, is_channels_last(x))
    du = crop(stems.convolution(g, weight, None, reverse), x)
    if norm[2] is None:
        dtype = accumulate_dtype(x.dtype)
        return dense(du, like=x), x.new_empty(0, dtype=dtype), x.new_empty(0, dtype=dtype)
    attributes = (a.training, a.eps, a.norm_activation, a.norm_slope, False)
    return stems.norm_act.norm_act_bwd(du, x, *norm, *attributes)


def conv_norm_act_dw(
    stems: Pointwise, x: Tensor, norm: tuple[Vector, ...], dy: Tensor, y: Vector, kernel_size: list[int], a: Attributes
) -> Tensor:
    """As in backends/reference/conv_norm_act.py."""
    u, g = _load(stems, x, norm, a), _masked(stems, dy, y, a)
    shape = weight_shape(x, dy, kernel_size, a)
    if x.numel() == 0 or dy.numel() == 0:
        return formatted(x.new_zeros(shape), a.channels_last)
    return formatted(stems.weight_gradient(u, g, shape, a), a.channels_last).detach()
