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
activations (q, q xh), and applies per-channel coefficients: ``first_coefficients`` and ``second_coefficients`` below.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, dense, per_channel, reduced_dims
from fastgan.backends.reference.activation import act, dact, ddact


class FirstCoefficients(NamedTuple):
    """du = g_ g + xh_ xh + const, (C,) each."""

    g_: Tensor
    xh_: Tensor
    const: Tensor


class SecondCoefficients(NamedTuple):
    """k = v_ v + g_ g + q_ q + xh_ xh + const, and dw; (C,) each."""

    v_: Tensor
    g_: Tensor
    q_: Tensor
    xh_: Tensor
    const: Tensor
    dw: Tensor


def first_coefficients(w: Tensor, r: Tensor, count: int, training: bool, sum_g: Tensor, sum_gxh: Tensor) -> FirstCoefficients:
    """Return the coefficients of du = w r P(g)."""
    wr = w * r
    if not training:
        return FirstCoefficients(wr, torch.zeros_like(wr), torch.zeros_like(wr))
    return FirstCoefficients(wr, -wr * sum_gxh / count, -wr * sum_g / count)


def second_coefficients(
    w: Tensor, r: Tensor, ddw: Tensor, count: int, training: bool, sums: tuple[Tensor, ...], sum_q: Tensor, sum_qxh: Tensor
) -> SecondCoefficients:
    """Return the coefficients of k; ``sums`` are those of (g, g xh, v, v xh, v g)."""
    zero = torch.zeros_like(w)
    mean_g, mean_gxh, mean_v, mean_vxh, mean_vg = (s / count for s in sums)
    if not training:
        return SecondCoefficients(zero, r * ddw, r * w, zero, zero, r * sums[4] + sum_qxh)
    inner = mean_vg - mean_v * mean_g - mean_vxh * mean_gxh
    h_v, h_g = -w * r * mean_gxh, ddw - w * r * mean_vxh
    mean_h = h_v * mean_v + h_g * mean_g + w * sum_q / count
    mean_hxh = h_v * mean_vxh + h_g * mean_gxh + w * sum_qxh / count
    xh_ = -r * mean_hxh - w * r * r * inner
    return SecondCoefficients(r * h_v, r * h_g, r * w, xh_, -r * mean_h, r * count * inner + sum_qxh)


def _normalise(u: Tensor, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    r = torch.rsqrt(var + eps)
    return (u - per_channel(mean, u)) * per_channel(r, u), r


def _affine(xh: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    z = xh if weight is None else xh * per_channel(weight.to(xh.dtype), xh)
    return z if bias is None else z + per_channel(bias.to(xh.dtype), xh)


def norm_act_eval(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    eps: float, activation: str, negative_slope: float, act_first: bool,
) -> Tensor:  # fmt: skip
    """Return y normalised by the given mean and var; x (N, C, ...), all others (C,)."""
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
    if x.numel() == 0:
        mean = var = u.new_zeros(x.shape[1])
        return dense(x.clone(), like=x), mean, var.clone()
    var, mean = torch.var_mean(u, dim=reduced_dims(x), correction=0)
    return norm_act_eval(x, weight, bias, mean, var, eps, activation, negative_slope, act_first), mean, var


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
    w = torch.ones_like(r) if weight is None else weight.to(r.dtype)
    c = first_coefficients(w, r, max(x.numel() // x.shape[1], 1), training, db, dw)
    du = per_channel(c.g_, x) * g + per_channel(c.xh_, x) * xh + per_channel(c.const, x)
    dx = du * dact(x_, activation, negative_slope) if act_first else du
    return dense(dx.to(x.dtype), like=x), dw, db


def norm_act_bwd_bwd(
    ddx: Tensor, ddw: Tensor | None, ddb: Tensor | None,
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the cotangents (ddy, dx, dw, db) for those of ``norm_act_bwd``'s results; dw and db in the accumulation type."""
    x_, dy_, ddx_, mean_, var_ = (t.to(accumulate_dtype(x.dtype)) for t in (x, dy, ddx, mean, var))
    u = act(x_, activation, negative_slope) if act_first else x_
    xh, r = _normalise(u, mean_, var_, eps)
    z = _affine(xh, weight, bias)
    w = torch.ones_like(r) if weight is None else weight.to(r.dtype)
    ddw = torch.zeros_like(r) if ddw is None else ddw.to(r.dtype)
    ddb = torch.zeros_like(r) if ddb is None else ddb.to(r.dtype)
    slope = dact(x_ if act_first else z, activation, negative_slope)
    curve = ddact(x_ if act_first else z, activation, negative_slope)
    g, v = (dy_, ddx_ * slope) if act_first else (dy_ * slope, ddx_)

    dims, count = reduced_dims(x), max(x.numel() // x.shape[1], 1)
    sums = tuple(t.sum(dims) for t in (g, g * xh, v, v * xh, v * g))
    c = first_coefficients(w, r, count, training, sums[2], sums[3])
    t = per_channel(c.g_, x) * v + per_channel(c.xh_ + ddw, x) * xh + per_channel(c.const + ddb, x)
    q = torch.zeros_like(t) if act_first else t * dy_ * curve
    s = second_coefficients(w, r, ddw, count, training, sums, q.sum(dims), (q * xh).sum(dims))
    k = per_channel(s.v_, x) * v + per_channel(s.g_, x) * g + per_channel(s.q_, x) * q
    k = k + per_channel(s.xh_, x) * xh + per_channel(s.const, x)
    if act_first:
        f = first_coefficients(w, r, count, training, sums[0], sums[1])
        du = per_channel(f.g_, x) * g + per_channel(f.xh_, x) * xh + per_channel(f.const, x)
        k = k * slope + ddx_ * du * curve
    ddy = t if act_first else t * slope
    return dense(ddy.to(x.dtype), like=x), dense(k.to(x.dtype), like=x), s.dw, q.sum(dims)
