r"""Specification of ``norm_act``: batch normalisation with an activation after it, or before it (``act_first``).

Per channel, with M = N H W values, u = a(x) if act_first else x, and r = (var + eps)^-1/2:

    forward    xh = r (u - mean),  z = w xh + b,  y = z if act_first else a(z)
               training: mean = sum(u) / M,  var = sum((u - mean)^2) / M;  else both are given and constant

First order, for the cotangent dy, with g = dy if act_first else dy a'(z), and the projection
P(g) = g - mean(g) - xh mean(g xh), self-adjoint, in training, else P(g) = g:

    db = sum(g),  dw = sum(g xh),  du = w r P(g),  dx = du a'(x) if act_first else du

Second order. Let v = ddx a'(x) if act_first else ddx, and differentiate S = <v, du> + ddw dw + ddb db:

    by g       t = w r P(v) + ddw xh + ddb;   ddy = t if act_first else t a'(z)
    by z       q = 0 if act_first else t dy a''(z), which goes on as a cotangent of z = w xh + b
    by xh      h = ddw g + w q - w r (mean(g xh) v + mean(v xh) g)        (the bracket only in training)
    by u       k = r P(h) - w r^2 xh <v, P(g)> / M                        (in training; else k = r h)
    by x       k a'(x) + ddx du a''(x) if act_first else k
    by w       r <v, P(g)> + sum(q xh)
    by b       sum(q)

with <v, P(g)> = sum(v g) - M mean(v) mean(g) - M mean(v xh) mean(g xh). P(h) needs only the sums already named:
mean(h) and mean(h xh) follow from those of g, v and q. So a backend reduces (g, g xh, v, v xh, v g), then for curved
activations (q, q xh), and applies per-channel coefficients: ``first_order`` and ``second_order`` below, which all
backends share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, dense, per_channel, reduced_dims
from fastgan.backends.reference.activation import act, dact, ddact


class SecondOrder(NamedTuple):
    """Per-channel coefficients of the second-order pass, and the parameters' gradients."""

    t: Tensor  # (3, C), of v, xh, 1 in t
    du: Tensor  # (3, C), of g, xh, 1 in du
    k: Tensor  # (5, C), of v, g, q, xh, 1 in k
    dw: Tensor  # (C,)
    db: Tensor  # (C,)


def first_order(wr: Tensor, count: int, training: bool, sum_g: Tensor, sum_gxh: Tensor) -> Tensor:
    """Return the coefficients (3, C) of g, xh and 1 in w r P(g); all arguments (C,)."""
    if not training:
        return torch.stack((wr, torch.zeros_like(wr), torch.zeros_like(wr)))
    return torch.stack((wr, -wr * sum_gxh / count, -wr * sum_g / count))


def second_order(
    weight: Tensor | None, var: Tensor, eps: float, ddw: Tensor | None, ddb: Tensor | None, count: int, training: bool,
    sums: Tensor, curve: Callable[[Tensor], Tensor] | None,
) -> SecondOrder:  # fmt: skip
    """Return all coefficients of the second-order pass.

    Args:
        sums: (5, C), of g, g xh, v, v xh, v g.
        curve: from the coefficients of t to the sums (2, C) of q and q xh; None where q is 0.
    """
    r = torch.rsqrt(var.to(sums.dtype) + eps)
    zero = torch.zeros_like(r)
    w = torch.ones_like(r) if weight is None else weight.to(r.dtype)
    ddw, ddb = zero if ddw is None else ddw.to(r.dtype), zero if ddb is None else ddb.to(r.dtype)
    mean_g, mean_gxh, mean_v, mean_vxh, mean_vg = sums / count
    t = first_order(w * r, count, training, sums[2], sums[3]) + torch.stack((zero, ddw, ddb))
    du = first_order(w * r, count, training, sums[0], sums[1])
    sum_q, sum_qxh = (zero, zero) if curve is None else curve(t)
    if not training:
        k = torch.stack((zero, r * ddw, r * w, zero, zero))
        return SecondOrder(t, du, k, r * sums[4] + sum_qxh, sum_q.clone())
    inner = mean_vg - mean_v * mean_g - mean_vxh * mean_gxh
    h_v, h_g = -w * r * mean_gxh, ddw - w * r * mean_vxh
    mean_h = h_v * mean_v + h_g * mean_g + w * sum_q / count
    mean_hxh = h_v * mean_vxh + h_g * mean_gxh + w * sum_qxh / count
    k = torch.stack((r * h_v, r * h_g, r * w, -r * mean_hxh - w * r * r * inner, -r * mean_h))
    return SecondOrder(t, du, k, r * count * inner + sum_qxh, sum_q.clone())


def _normalise(u: Tensor, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    r = torch.rsqrt(var + eps)
    return (u - per_channel(mean, u)) * per_channel(r, u), r


def _affine(xh: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    z = xh if weight is None else xh * per_channel(weight.to(xh.dtype), xh)
    return z if bias is None else z + per_channel(bias.to(xh.dtype), xh)


def _combine(coefficients: Tensor, *terms: Tensor) -> Tensor:
    *of_terms, constant = (per_channel(c, terms[0]) for c in coefficients)
    return sum((c * t for c, t in zip(of_terms, terms, strict=True)), constant)


def _sums(*terms: Tensor) -> Tensor:
    return torch.stack([t.sum(reduced_dims(t)) for t in terms])


def norm_act_eval(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> Tensor:  # fmt: skip
    """Return y normalised by mean and var; x (N, C, ...), all others (C,); only the derivative asks for training."""
    dtype = accumulate_dtype(x.dtype)
    u = act(x.to(dtype), activation, negative_slope) if act_first else x.to(dtype)
    xh, _ = _normalise(u, mean.to(dtype), var.to(dtype), eps)
    z = _affine(xh, weight, bias)
    y = z if act_first else act(z, activation, negative_slope)
    return dense(y.to(x.dtype), like=x)


def norm_act(
    x: Tensor, weight: Tensor | None, bias: Tensor | None,
    eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (y, mean, var) with the statistics of this batch, var biased; (C,) in the accumulation type."""
    u = x.to(accumulate_dtype(x.dtype))
    if act_first:
        u = act(u, activation, negative_slope)
    mean, var = norm_act_stats(u)
    if x.numel() == 0:
        return dense(x.clone(), like=x), mean, var
    return norm_act_eval(x, weight, bias, mean, var, True, eps, activation, negative_slope, act_first), mean, var


def norm_act_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of x over all dimensions but the channel's, (C,) in the accumulation type."""
    u = x.to(accumulate_dtype(x.dtype))
    if x.numel() == 0:
        return u.new_zeros(x.shape[1]), u.new_zeros(x.shape[1])
    var, mean = torch.var_mean(u, dim=reduced_dims(x), correction=0)
    return mean, var


def norm_act_bwd(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (dx, dw, db); dw and db in the accumulation type."""
    x_, dy_, mean_, var_ = (t.to(accumulate_dtype(x.dtype)) for t in (x, dy, mean, var))
    u = act(x_, activation, negative_slope) if act_first else x_
    xh, r = _normalise(u, mean_, var_, eps)
    g = dy_ if act_first else dy_ * dact(_affine(xh, weight, bias), activation, negative_slope)
    dw, db = (g * xh).sum(reduced_dims(x)), g.sum(reduced_dims(x))
    wr = r if weight is None else weight.to(r.dtype) * r
    du = _combine(first_order(wr, max(x.numel() // x.shape[1], 1), training, db, dw), g, xh)
    dx = du * dact(x_, activation, negative_slope) if act_first else du
    return dense(dx.to(x.dtype), like=x), dw, db


def norm_act_bwd_bwd(
    ddx: Tensor, ddw: Tensor | None, ddb: Tensor | None,
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the cotangents (ddy, dx, dw, db) for those of ``norm_act_bwd``'s results."""
    x_, dy_, ddx_, mean_, var_ = (t.to(accumulate_dtype(x.dtype)) for t in (x, dy, ddx, mean, var))
    u = act(x_, activation, negative_slope) if act_first else x_
    xh, _ = _normalise(u, mean_, var_, eps)
    point = x_ if act_first else _affine(xh, weight, bias)
    slope, curvature = dact(point, activation, negative_slope), ddact(point, activation, negative_slope)
    g, v = (dy_, ddx_ * slope) if act_first else (dy_ * slope, ddx_)
    q = torch.zeros_like(g)

    def curve(t: Tensor) -> Tensor:
        nonlocal q
        q = _combine(t, v, xh) * dy_ * curvature
        return _sums(q, q * xh)

    count = max(x.numel() // x.shape[1], 1)
    sums = _sums(g, g * xh, v, v * xh, v * g)
    c = second_order(weight, var_, eps, ddw, ddb, count, training, sums, None if act_first else curve)
    t, k = _combine(c.t, v, xh), _combine(c.k, v, g, q, xh)
    if act_first:
        k = k * slope + ddx_ * _combine(c.du, g, xh) * curvature
    ddy = t if act_first else t * slope
    return dense(ddy.to(x.dtype), like=x), dense(k.to(x.dtype), like=x), c.dw, c.db
