"""``bias_act`` in C++ on the CPU (csrc/cpu/bias_act.cpp) and in CUDA C++ (csrc/cuda/bias_act.cu)."""

from __future__ import annotations

import torch
from torch import Tensor

import fastgan._C as _C
from fastgan.backends.layout import accumulate_dtype, dense, empty, reduced_dims
from fastgan.backends.reference.activation import ACTIVATIONS, SAVES_INPUT


def _run(pass_: str, *args: object, x: Tensor) -> None:
    getattr(_C, f"bias_act_{pass_}_{x.device.type}")(*args)


def bias_act(x: Tensor, bias: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    """Return y = act(x + bias)."""
    x, y = dense(x), empty(x)
    _run("fwd", x, bias, y, ACTIVATIONS.index(activation), negative_slope, x=x)
    return y


def bias_act_bwd(dy: Tensor, s: Tensor, bias: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    """Return dx; s is y, or x for silu."""
    s, dy, dx = dense(s), dense(dy.to(s.dtype), like=s), empty(s)
    bias = bias if activation in SAVES_INPUT else None
    _run("bwd", dy, s, bias, dx, ACTIVATIONS.index(activation), negative_slope, x=s)
    return dx


def bias_act_bwd_(dy: Tensor, s: Tensor, activation: str, negative_slope: float) -> None:
    """Replace s, which is y, by dx."""
    if dense(s) is not s:
        s.copy_(bias_act_bwd(dy, s, None, activation, negative_slope))
        return
    # each value is read before it is written
    _run("bwd", dense(dy.to(s.dtype), like=s), s, None, s, ACTIVATIONS.index(activation), negative_slope, x=s)


def bias_act_db(dy: Tensor, y: Tensor, activation: str, negative_slope: float) -> Tensor:
    """Return the sum of dx over all dimensions but the channel's; the activation is piecewise linear."""
    wide = accumulate_dtype(y.dtype)
    if y.is_cuda:
        return bias_act_bwd(dy, y, None, activation, negative_slope).sum(reduced_dims(y), dtype=wide)
    y, db = dense(y), torch.empty(y.shape[1], dtype=wide)
    _run("db", dense(dy.to(y.dtype), like=y), y, db, ACTIVATIONS.index(activation), negative_slope, x=y)
    return db


def bias_act_bwd_bwd(
    ddx: Tensor, dy: Tensor, s: Tensor, bias: Tensor | None, activation: str, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """Return (ddy, ds) for the cotangent ddx of dx."""
    s, dy, ddx = dense(s), dense(dy.to(s.dtype), like=s), dense(ddx.to(s.dtype), like=s)
    ddy, ds = empty(s), empty(s)
    bias = bias if activation in SAVES_INPUT else None
    _run("bwd_bwd", ddx, dy, s, bias, ddy, ds, ACTIVATIONS.index(activation), negative_slope, x=s)
    return ddy, ds
