"""``bias_act`` in C++ on the CPU (csrc/cpu/bias_act.cpp) and in CUDA C++ (csrc/cuda/bias_act.cu)."""

from __future__ import annotations

from torch import Tensor

import fastgan._C as _C
from fastgan.backends.layout import dense, empty
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


def bias_act_bwd_bwd(
    ddx: Tensor, dy: Tensor, s: Tensor, bias: Tensor | None, activation: str, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """Return (ddy, ds) for the cotangent ddx of dx."""
    s, dy, ddx = dense(s), dense(dy.to(s.dtype), like=s), dense(ddx.to(s.dtype), like=s)
    ddy, ds = empty(s), empty(s)
    bias = bias if activation in SAVES_INPUT else None
    _run("bwd_bwd", ddx, dy, s, bias, ddy, ds, ACTIVATIONS.index(activation), negative_slope, x=s)
    return ddy, ds
