"""Convolutions with one pixel on one side and as many as the kernel has on the other: one product with the weight.

They are the first of a generator and the last of a discriminator. The weight is read as it lies, since packing it would
take longer than the product: as the matrix (small, big * kH * kW), small the channels of the side with one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import fastgan._C as _C
from fastgan.backends.geometry import Attributes
from fastgan.backends.layout import is_channels_last

# elements of a result in bfloat16 up to which a product with one term is an elementwise one
_MULTIPLIED = 1 << 18


def serves(x: Tensor, kernel_size: Sequence[int], a: Attributes) -> bool:
    """Return whether a convolution of x without groups, or its gradients, are one product, and as exact as without."""
    if any(a.padding) or any(a.output_padding):
        return False
    # both are about products of torch's, and not about convolutions
    if torch.get_float32_matmul_precision() != "highest":
        return False
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.get_autocast_dtype("cpu"):
        return False
    size = (1, 1) if a.transposed else tuple(kernel_size)
    return tuple(x.shape[2:]) == size and set(a.dilation) == {1}


def convolution(u: Tensor, weight: Tensor, bias: Tensor | None, a: Attributes) -> Tensor:
    """Return the convolution of u with scale * weight, or the transposed one, in the weight's memory format."""
    last = is_channels_last(weight)
    matrix = _rows(weight, last)
    if a.scale is not None:
        u = u * a.scale
    if not a.transposed:
        return _product(_rows(u, last), matrix.t(), bias)[:, :, None, None]
    taps = weight.shape[2] * weight.shape[3]
    if bias is not None:
        bias = bias.repeat(taps) if last else bias.repeat_interleave(taps)
    y = _product(u.flatten(1), matrix, bias)
    if last:
        return y.unflatten(1, (*weight.shape[2:], -1)).permute(0, 3, 1, 2)
    return y.unflatten(1, (-1, *weight.shape[2:]))


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a @ b + bias, rounded to a's dtype at the end."""
    half = a.dtype == torch.bfloat16
    if a.shape[1] == 1 and bias is None and (not half or a.shape[0] * b.shape[1] <= _MULTIPLIED):
        return a * b
    if half and b.shape[1] == 1:
        y = a.new_empty(a.shape[0], 1)
        _C.one_pixel_product_cpu(a.contiguous(), b[:, 0].to(a.dtype).contiguous(), bias, y)
        return y
    return a @ b if bias is None else torch.addmm(bias, a, b)


def weight_gradient(u: Tensor, g: Tensor, shape: Sequence[int], a: Attributes) -> Tensor:
    """Return the gradient of the weight, of the given shape."""
    small, big = (u, g) if a.transposed else (g, u)
    dw = _product(small.flatten(1).t(), _rows(big, a.channels_last))
    if not a.channels_last:
        return dw.reshape(shape)
    return dw.reshape(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)


def _rows(x: Tensor, last: bool) -> Tensor:
    return (x.permute(0, 2, 3, 1) if last else x).flatten(1)
