r"""Specification of ``conv_norm_act``: a convolution that normalises and activates what it loads and what it stores.

    u = a_in(norm(x)) with the mean and var given, or x without them;  c = scale (u * w) + bias;  y = a(c)
    mean_y, var_y (biased) of y, where asked for

``*`` is the convolution or, ``transposed``, its adjoint. With ``big`` the tensor that the kernel slides over and
``small`` the other one, and weight (C_small, C_big / groups, kernel) in both cases, there are three bilinear maps:

    gather   small = sum_taps big[s i + d k - p] w[k]         forward of a convolution
    scatter  big   = sum_taps small[i] w[k], at s i + d k - p  forward of a transposed one
    wgrad    w[k]  = sum_i small[i] big[s i + d k - p]

The derivatives of each are the two others: for the cotangents of

    gather   by big: scatter, by w: wgrad;   scatter   by small: gather, by w: wgrad
    wgrad    by big: scatter, by small: gather, each with the cotangent of w in w's place

so first, second and any order need no fourth map. First order, with g = dy a'(c):

    db = sum(g),  dw = wgrad(u, g) (that of scale * weight),  du = the adjoint of * applied to g and w,
    and from du the gradients of x and of norm's parameters, as in ``norm_act``: with ``training``, mean and var are the
    statistics of x, and the derivative goes through them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.backends.geometry import Attributes, crop, input_gradient, weight_shape
from fastgan.backends.layout import accumulate_dtype, dense, formatted, is_channels_last, reduced_dims
from fastgan.backends.reference.activation import act
from fastgan.backends.reference.bias_act import bias_act_bwd
from fastgan.backends.reference.norm_act import norm_act_bwd, norm_act_eval

Vector = Tensor | None


def _load(x: Tensor, nw: Vector, nb: Vector, mean: Vector, var: Vector, a: Attributes) -> Tensor:
    u = x.to(accumulate_dtype(x.dtype))
    if mean is None or var is None:
        return u
    return norm_act_eval(u, nw, nb, mean, var, a.training, a.eps, a.norm_activation, a.norm_slope, False)


def _convolution(u: Tensor, weight: Tensor, a: Attributes) -> Tensor:
    c = torch.convolution(u, weight.to(u.dtype), None, *a.sizes())
    return c if a.scale is None else a.scale * c


def conv_norm_act(
    x: Tensor, weight: Tensor, bias: Vector, norm_weight: Vector, norm_bias: Vector, mean: Vector, var: Vector,
    *attributes: object,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (y, mean_y, var_y), both (0,) unless ``stats``; x (N, C_in, ...), bias (C_out,), others (C_in,)."""
    a = Attributes(*attributes)  # type: ignore[arg-type]
    c = _convolution(_load(x, norm_weight, norm_bias, mean, var, a), weight, a)
    if bias is not None:
        c = c + bias.to(c.dtype).reshape(-1, *[1] * (c.dim() - 2))
    y = act(c, a.activation, a.negative_slope).to(x.dtype, copy=True)
    y = formatted(y, a.channels_last)
    if not a.stats:
        return y, c.new_empty(0), c.new_empty(0)
    if y.numel() == 0:
        return y, c.new_zeros(c.shape[1]), c.new_zeros(c.shape[1])
    var_y, mean_y = torch.var_mean(y.to(c.dtype), dim=reduced_dims(y), correction=0)
    return y, mean_y, var_y


def conv_norm_act_dx(
    dy: Tensor, y: Vector, weight: Tensor, x: Tensor,
    norm_weight: Vector, norm_bias: Vector, mean: Vector, var: Vector, *attributes: object,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (dx, dnorm_weight, dnorm_bias), the latter (0,) without mean; y, where given, masks dy by a'."""
    a = Attributes(*attributes)  # type: ignore[arg-type]
    g = dy.to(accumulate_dtype(x.dtype))
    if y is not None:
        g = bias_act_bwd(g, y.to(g.dtype), None, a.activation, a.negative_slope)
    reverse = input_gradient(x, weight.shape[2:], dy, a, is_channels_last(x))
    du = crop(_convolution(g, weight, reverse), x)
    if mean is None or var is None:
        return dense(du.to(x.dtype), like=x), g.new_empty(0), g.new_empty(0)
    attributes_in = (a.training, a.eps, a.norm_activation, a.norm_slope, False)
    dx, dw, db = norm_act_bwd(du, x.to(g.dtype), norm_weight, norm_bias, mean, var, *attributes_in)
    return dense(dx.to(x.dtype), like=x), dw, db


def conv_norm_act_dw(
    x: Tensor, norm_weight: Vector, norm_bias: Vector, mean: Vector, var: Vector,
    dy: Tensor, y: Vector, kernel_size: list[int], *attributes: object,
) -> Tensor:  # fmt: skip
    """Return dw; y, where given, masks dy by a'."""
    a = Attributes(*attributes)  # type: ignore[arg-type]
    u = _load(x, norm_weight, norm_bias, mean, var, a)
    g = dy.to(u.dtype)
    if y is not None:
        g = bias_act_bwd(g, y.to(g.dtype), None, a.activation, a.negative_slope)
    shape = weight_shape(x, dy, kernel_size, a)
    if x.numel() == 0 or dy.numel() == 0:
        return formatted(x.new_zeros(shape), a.channels_last)
    # oneDNN's gradient of a strided 1x1 weight is wrong for channels_last: see CONTRIBUTING.md
    g, u = g.contiguous(), u.contiguous()
    dw = torch.ops.aten.convolution_backward(g, u, u.new_empty(shape), None, *a.sizes(), [False, True, False])[1]
    return formatted(dw.to(x.dtype), a.channels_last)
