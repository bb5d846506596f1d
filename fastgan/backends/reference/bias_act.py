r"""Specification of ``bias_act``: y = a(x + b_c), c the channel, dimension 1.

First order: dx = dy a'(z) with z = x + b, and db = sum dx. It is written as a function of (dy, s), s the saved tensor:
y, from which a' follows, or x for silu. Second order, given the cotangent ddx of dx: ddy = ddx a'(z), and
ds = ddx dy da'/ds, where for s = y da'/ds is -2y (tanh), 1 - 2y (sigmoid) or 0 (piecewise linear), and for s = x
it is a''(z). A gradient for s = y flows on through ``bias_act`` itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, dense, per_channel, reduced_dims
from fastgan.backends.reference.activation import SAVES_INPUT, act, dact, dact_from_result, ddact


def _pre_activation(x: Tensor, bias: Tensor | None) -> Tensor:
    x_ = x.to(accumulate_dtype(x.dtype))
    return x_ if bias is None else x_ + per_channel(bias.to(x_.dtype), x)


def bias_act(x: Tensor, bias: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    """Return y; x (N, C, ...), bias (C,) or None."""
    y = act(_pre_activation(x, bias), activation, negative_slope)
    return dense(y.to(x.dtype, copy=True), like=x)


def bias_act_bwd(dy: Tensor, s: Tensor, bias: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    """Return dx; s is y, or x for silu."""
    z = _pre_activation(s, bias if activation in SAVES_INPUT else None)
    slope = (dact if activation in SAVES_INPUT else dact_from_result)(z, activation, negative_slope)
    return dense((dy * slope).to(s.dtype), like=s)


def bias_act_bwd_(dy: Tensor, s: Tensor, activation: str, negative_slope: float) -> None:
    """Replace s, which is y, by dx."""
    s.copy_(bias_act_bwd(dy, s, None, activation, negative_slope))


def bias_act_db(dy: Tensor, y: Tensor, activation: str, negative_slope: float) -> Tensor:
    """Return the sum of dx over all dimensions but the channel's (C,), in the accumulation type."""
    wide = accumulate_dtype(y.dtype)
    return bias_act_bwd(dy.to(wide), y.to(wide), None, activation, negative_slope).sum(reduced_dims(y))


def bias_act_bwd_bwd(
    ddx: Tensor, dy: Tensor, s: Tensor, bias: Tensor | None, activation: str, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """Return (ddy, ds) for the cotangent ddx of dx."""
    z = _pre_activation(s, bias if activation in SAVES_INPUT else None)
    if activation in SAVES_INPUT:
        slope, curvature = dact(z, activation, negative_slope), ddact(z, activation, negative_slope)
    else:
        slope = dact_from_result(z, activation, negative_slope)
        curvature = {"tanh": -2 * z, "sigmoid": 1 - 2 * z}.get(activation, torch.zeros_like(z))
    ddy = (ddx * slope).to(s.dtype)
    ds = (ddx.to(z.dtype) * dy * curvature).to(s.dtype)
    return dense(ddy, like=s), dense(ds, like=s)
