"""``norm_act`` in C++ on the CPU (csrc/cpu/norm_act.cpp)."""

from __future__ import annotations

import torch
from torch import Tensor

import fastgan._C as _C
from fastgan.backends.layout import accumulate_dtype, dense, empty
from fastgan.backends.reference.activation import ACTIVATIONS, PIECEWISE_LINEAR
from fastgan.backends.reference.norm_act import second_order


def _vectors(x: Tensor, *rows: int) -> Tensor:
    return torch.empty(*rows, x.shape[1], dtype=accumulate_dtype(x.dtype))


def norm_act_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of x, (C,) each."""
    x, mean, var = dense(x), _vectors(x), _vectors(x)
    _C.norm_act_stats_cpu(x, mean, var)
    return mean, var


def norm_act(
    x: Tensor, weight: Tensor | None, bias: Tensor | None,
    eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (y, mean, var) with the statistics of this batch."""
    x, y, mean, var = dense(x), empty(x), _vectors(x), _vectors(x)
    _C.norm_act_fwd_cpu(x, weight, bias, y, mean, var, eps, ACTIVATIONS.index(activation), negative_slope, act_first)
    return y, mean, var


def norm_act_eval(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> Tensor:  # fmt: skip
    """Return y normalised by the given mean and var; only the derivative asks for training."""
    x, y, code = dense(x), empty(x), ACTIVATIONS.index(activation)
    _C.norm_act_eval_cpu(x, weight, bias, mean, var, y, eps, code, negative_slope, act_first)
    return y


def norm_act_bwd(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (dx, dw, db)."""
    x, dy = dense(x), dense(dy.to(x.dtype), like=x)
    dx, dw, db, code = empty(x), _vectors(x), _vectors(x), ACTIVATIONS.index(activation)
    _C.norm_act_bwd_cpu(dy, x, weight, bias, mean, var, dx, dw, db, training, eps, code, negative_slope, act_first)
    return dx, dw, db


def norm_act_bwd_bwd(
    ddx: Tensor, ddw: Tensor | None, ddb: Tensor | None,
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the cotangents (ddy, dx, dw, db) for those of ``norm_act_bwd``'s results."""
    x, code = dense(x), ACTIVATIONS.index(activation)
    inputs = (dense(ddx.to(x.dtype), like=x), dense(dy.to(x.dtype), like=x), x, weight, bias, mean, var)
    sums = _vectors(x, 5)
    _C.norm_act_bwd_bwd_sums_cpu(*inputs, sums, eps, code, negative_slope, act_first)

    def curve(t: Tensor) -> Tensor:
        sums_q = _vectors(x, 2)
        _C.norm_act_bwd_bwd_curve_cpu(*inputs, t, sums_q, eps, code, negative_slope)
        return sums_q

    count = max(x.numel() // x.shape[1], 1)
    curved = activation not in PIECEWISE_LINEAR and not act_first
    c = second_order(weight, var, eps, ddw, ddb, count, training, sums, curve if curved else None)
    ddy, dx = empty(x), empty(x)
    _C.norm_act_bwd_bwd_cpu(*inputs, c.t, c.du, c.k, ddy, dx, eps, code, negative_slope, act_first)
    return ddy, dx, c.dw, c.db
