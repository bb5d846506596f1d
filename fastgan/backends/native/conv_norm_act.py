"""``conv_norm_act`` in C++ on the CPU (csrc/cpu/conv_norm_act.cpp, _dw.cpp), and its thin ends in CUDA C++."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

import fastgan._C as _C
from fastgan.backends import processor, vendor
from fastgan.backends.geometry import (
    Attributes,
    crop,
    empty_weight,
    input_gradient,
    output_channels,
    output_size,
    weight_shape,
    widths,
)
from fastgan.backends.layout import accumulate_dtype, dense, is_channels_last, wanted_format
from fastgan.backends.native import bias_act, matmul, norm_act, one_pixel, thin
from fastgan.backends.reference import norm_act as reference_norm_act
from fastgan.backends.reference.activation import ACTIVATIONS

Vector = Tensor | None
_VENDOR = vendor.Pointwise(bias_act, norm_act)
_CUDA = vendor.Pointwise(bias_act, reference_norm_act)
_MATMUL = vendor.Pointwise(bias_act, norm_act, matmul.convolution, matmul.weight_gradient)
_ONE_PIXEL = vendor.Pointwise(bias_act, norm_act, one_pixel.convolution, one_pixel.weight_gradient)
# what torch's products of matrices take as it is
_EXACT = (torch.float32, torch.float64)
# terms of a sum from which on torch's matrix products beat its convolutions in bfloat16, where the processor has units
# for it: 4096 was measured to win by 2 to 5, 1024 to lose by 2
_LONG = 2048
# channels from which on a copy with channels innermost pays
_MANY = 16


@functools.cache
def _beside_torch() -> bool:
    """Return whether csrc multiplies whole tiles of bfloat16 if torch does."""
    return _C.instruction_set() == "amx_bf16" or not processor.multiplies_tiles()


def _in_pairs(x: Tensor, weight: Sequence[int], a: Attributes) -> bool:
    """Return whether csrc multiplies pairs of bfloat16 and is faster than torch: in tiles, by minimal filtering, or
    thin ends."""
    if x.dtype != torch.bfloat16 or not _beside_torch():
        return False
    out = output_size(x.shape[2:], weight[2:], a)
    return _C.conv_norm_act_in_pairs_cpu(tuple(x.shape), tuple(weight), tuple(out), _sizes(a))


def _around(
    x: Tensor, dy: Tensor | None, weight: Sequence[int], norm: tuple[Vector, ...], a: Attributes
) -> vendor.Pointwise | None:
    """Return what to put the pointwise kernels around; None for the kernels of csrc. ``weight`` is its shape."""
    if x.is_cuda:
        return None if x.numel() > 0 and thin.serves(weight[1], weight[2:], norm, a) else _CUDA
    if x.dim() != 4 or a.groups != 1 or x.numel() == 0 or (dy is not None and dy.numel() == 0):
        return _VENDOR
    multiplies = processor.multiplies(x.dtype)
    # a factor of the weight might take float16 out of its range
    if (x.dtype in _EXACT or (multiplies and x.dtype == torch.bfloat16)) and one_pixel.serves(x, weight[2:], a):
        return _ONE_PIXEL
    if not multiplies or _in_pairs(x, weight, a):
        return None
    if processor.is_wrong(x.dtype, *widths(x, weight[2:], a), a.stride[1]):
        return None
    long = x.shape[1] * math.prod(weight[2:]) >= _LONG and set(a.dilation) == {1}
    return _MATMUL if long else _VENDOR


def _sizes(a: Attributes) -> tuple:
    return tuple(a.stride), tuple(a.padding), tuple(a.dilation), a.transposed


def _norm(norm: tuple[Vector, ...], a: Attributes) -> tuple:
    return *norm, a.eps, ACTIVATIONS.index(a.norm_activation), a.norm_slope


def _mask(y: Vector, a: Attributes) -> tuple:
    return y, ACTIVATIONS.index(a.activation), a.negative_slope


_NO_NORM, _NO_MASK = (None, None, None, None, 0.0, 0, 0.0), (None, 0, 0.0)


def _loaded(x: Tensor, norm: tuple, mask: tuple) -> tuple[Tensor, tuple, tuple]:
    """Return x, norm and mask; where channels are outermost and many, what they give, with channels innermost."""
    if x.shape[1] < _MANY or x.stride(1) == 1:
        return x, norm, mask
    to = torch.empty(x.shape, dtype=accumulate_dtype(x.dtype), memory_format=torch.channels_last)
    _C.conv_norm_act_load_cpu(x, norm, mask, to)
    return to, _NO_NORM, _NO_MASK


def _outputs(x: Tensor, weight: Tensor, a: Attributes) -> tuple[Tensor, Tensor, Tensor]:
    """Return uninitialised y, mean and var."""
    channels = output_channels(weight.shape, a)
    shape = (x.shape[0], channels, *output_size(x.shape[2:], weight.shape[2:], a))
    memory_format = wanted_format(x.dim(), a.channels_last)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)
    dtype = accumulate_dtype(x.dtype)
    mean, var = (torch.empty(channels if a.stats else 0, dtype=dtype, device=x.device) for _ in range(2))
    return y, mean, var


def _convolution(
    x: Tensor, norm: tuple, mask: tuple, weight: Tensor, bias: Vector, a: Attributes
) -> tuple[Tensor, Tensor, Tensor]:
    outputs, code = _outputs(x, weight, a), ACTIVATIONS.index(a.activation)
    _C.conv_norm_act_fwd_cpu(x, norm, mask, weight, bias, a.scale, *outputs, _sizes(a), code, a.negative_slope)
    return outputs


def conv_norm_act(
    x: Tensor, weight: Tensor, bias: Vector, norm_weight: Vector, norm_bias: Vector, mean: Vector, var: Vector,
    *attributes: object,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (y, mean_y, var_y)."""
    a, norm = Attributes(*attributes), (norm_weight, norm_bias, mean, var)  # type: ignore[arg-type]
    around = _around(x, None, weight.shape, norm, a)
    if around is not None:
        return vendor.conv_norm_act(around, x, weight, bias, norm, a)
    if x.is_cuda:
        y, *vectors = _outputs(x, weight, a)
        thin.convolution(x, norm, weight, bias, y, a)
        mean_y, var_y = reference_norm_act.norm_act_stats(y) if a.stats else vectors
        return y, mean_y, var_y
    return _convolution(x, _norm(norm, a), _NO_MASK, weight, bias, a)


def conv_norm_act_dx(
    dy: Tensor, y: Vector, weight: Tensor, x: Tensor,
    norm_weight: Vector, norm_bias: Vector, mean: Vector, var: Vector, *attributes: object,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (dx, dnorm_weight, dnorm_bias)."""
    a, norm = Attributes(*attributes), (norm_weight, norm_bias, mean, var)  # type: ignore[arg-type]
    around = _around(x, dy, weight.shape, norm, a)
    if around is not None:
        return vendor.conv_norm_act_dx(around, dy, y, weight, x, norm, a)
    reverse = input_gradient(x, weight.shape[2:], dy, a, is_channels_last(x))
    if x.is_cuda:
        du, no_dw, no_db = _outputs(dy.to(x.dtype), weight, reverse)
        thin.input_gradient(dy, y, weight, du, a, reverse)
    else:
        du, no_dw, no_db = _convolution(dy.to(x.dtype), _NO_NORM, _mask(y, a), weight, None, reverse)
    du = dense(crop(du, x), like=x)
    if mean is None:
        return du, no_dw, no_db
    return (reference_norm_act if x.is_cuda else norm_act).norm_act_bwd(
        du, x, *norm, a.training, a.eps, a.norm_activation, a.norm_slope, False
    )


def conv_norm_act_dw(
    x: Tensor, norm_weight: Vector, norm_bias: Vector, mean: Vector, var: Vector,
    dy: Tensor, y: Vector, kernel_size: list[int], *attributes: object,
) -> Tensor:  # fmt: skip
    """Return dw."""
    a, norm = Attributes(*attributes), (norm_weight, norm_bias, mean, var)  # type: ignore[arg-type]
    around = _around(x, dy, weight_shape(x, dy, kernel_size, a), norm, a)
    if around is not None:
        return vendor.conv_norm_act_dw(around, x, norm, dy, y, kernel_size, a)
    if x.is_cuda:
        return thin.weight_gradient(x, norm, dy, y, kernel_size, a)
    dw = empty_weight(x, dy, kernel_size, a)
    # the kernel reads its operands several times
    g, _, mask = _loaded(dy.to(x.dtype), _NO_NORM, _mask(y, a))
    u, loaded_norm, _ = _loaded(x, _norm(norm, a), _NO_MASK)
    _C.conv_norm_act_dw_cpu(u, loaded_norm, g, mask, dw, _sizes(a))
    return dw
