"""The 1 to 4 channel ends of a GAN in CUDA C++ (csrc/cuda/conv_norm_act.cu). Not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import fastgan._C as _C
from fastgan.backends import vendor
from fastgan.backends.geometry import Attributes, weight_shape
from fastgan.backends.layout import accumulate_dtype, dense, formatted
from fastgan.backends.reference.activation import ACTIVATIONS

Vector = Tensor | None
_NOTHING, _NO_MASK = (None, None, 0, 0.0), (None, 0, 0.0)


def serves(big_channels: int, kernel_size: Sequence[int], norm: tuple[Vector, ...], a: Attributes) -> bool:
    """Return whether the kernels serve a convolution whose image side has ``big_channels``."""
    # only the side with many channels can be normalised while it is loaded
    plain = norm[2] is None or a.transposed
    return big_channels <= 4 and len(kernel_size) == 2 and max(kernel_size) <= 7 and a.groups == 1 and plain


def _geometry(a: Attributes) -> tuple:
    return tuple(a.stride), tuple(a.padding), tuple(a.dilation)


def _scale_shift(norm: tuple[Vector, ...], a: Attributes, dtype: torch.dtype) -> tuple:
    weight, bias, mean, var = norm
    if mean is None or var is None:
        return _NOTHING
    scale = torch.rsqrt(var + a.eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    vectors = (v.to(accumulate_dtype(dtype)).contiguous() for v in (scale, shift))
    return *vectors, ACTIVATIONS.index(a.norm_activation), a.norm_slope


def _mask(dy: Tensor, y: Vector, a: Attributes) -> tuple:
    # the kernels read y by the strides of dy
    dense_y = None if y is None else dense(y.to(dy.dtype), like=dy)
    return dense_y, ACTIVATIONS.index(a.activation), a.negative_slope


def convolution(x: Tensor, norm: tuple[Vector, ...], weight: Tensor, bias: Vector, y: Tensor, a: Attributes) -> None:
    """Write y = act(conv(x) + bias)."""
    w = vendor.scaled(weight, a)
    after = (bias, y, _geometry(a), ACTIVATIONS.index(a.activation), a.negative_slope)
    if a.transposed:
        _C.conv_norm_act_scatter_cuda(dense(x), _NO_MASK, _scale_shift(norm, a, x.dtype), w, *after)
    else:
        _C.conv_norm_act_gather_cuda(dense(x), _NO_MASK, w, *after)


def input_gradient(dy: Tensor, y: Vector, weight: Tensor, du: Tensor, a: Attributes, reverse: Attributes) -> None:
    """Write du, the convolution of dy masked by y with the attributes ``reverse``."""
    g = dense(dy.to(du.dtype))
    after = (vendor.scaled(weight, a), None, du, _geometry(reverse), ACTIVATIONS.index("identity"), 0.0)
    if reverse.transposed:
        _C.conv_norm_act_scatter_cuda(g, _mask(g, y, a), _NOTHING, *after)
    else:
        _C.conv_norm_act_gather_cuda(g, _mask(g, y, a), *after)


def weight_gradient(
    x: Tensor, norm: tuple[Vector, ...], dy: Tensor, y: Vector, kernel_size: list[int], a: Attributes
) -> Tensor:
    """Return dw."""
    x, g = dense(x), dense(dy.to(x.dtype))
    dw = x.new_empty(weight_shape(x, dy, kernel_size, a))
    mask, vectors = _mask(g, y, a), _scale_shift(norm, a, x.dtype)
    if a.transposed:
        _C.conv_norm_act_wgrad_cuda(g, mask, x, _NO_MASK, vectors, dw, _geometry(a))
    else:
        _C.conv_norm_act_wgrad_cuda(x, _NO_MASK, g, mask, _NOTHING, dw, _geometry(a))
    return formatted(dw, a.channels_last)
