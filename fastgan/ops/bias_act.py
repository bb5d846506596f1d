"""Schema, shape functions and autograd of ``bias_act``. The formulas are derived in backends/reference/bias_act.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, empty, reduced_dims
from fastgan.backends.reference.activation import PIECEWISE_LINEAR, SAVES_INPUT
from fastgan.ops._define import define

_bias_act = "bias_act(Tensor x, Tensor? bias, str activation, float negative_slope) -> Tensor"
_bias_act_bwd = "bias_act_bwd(Tensor dy, Tensor s, Tensor? bias, str activation, float negative_slope) -> Tensor"
_bias_act_bwd_in_place = "bias_act_bwd_(Tensor dy, Tensor(a!) s, str activation, float negative_slope) -> ()"
_bias_act_db = "bias_act_db(Tensor dy, Tensor y, str activation, float negative_slope) -> Tensor"
_bias_act_bwd_bwd = (
    "bias_act_bwd_bwd(Tensor ddx, Tensor dy, Tensor s, Tensor? bias, str activation, float negative_slope)"
    " -> (Tensor, Tensor)"
)


def sum_per_channel(dx: Tensor, dtype: torch.dtype) -> Tensor:
    """Return db in a dtype, of a gradient that has its mask."""
    return dx.sum(reduced_dims(dx), dtype=accumulate_dtype(dx.dtype)).to(dtype)


def _save_forward(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, bias, ctx.activation, ctx.negative_slope = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x if ctx.activation in SAVES_INPUT else output, bias)


def _backward(ctx: Any, dy: Tensor | None) -> tuple:
    if dy is None:
        return None, None, None, None
    s, bias = ctx.saved_tensors
    dx = bias_act_bwd(dy, s, bias, ctx.activation, ctx.negative_slope)
    return dx, sum_per_channel(dx, bias.dtype) if ctx.needs_input_grad[1] else None, None, None


def _save_backward(ctx: Any, inputs: tuple, output: Tensor) -> None:
    dy, s, bias, ctx.activation, ctx.negative_slope = inputs
    ctx.set_materialize_grads(False)
    curved = ctx.activation not in PIECEWISE_LINEAR
    # dy is needed for the curvature only
    ctx.save_for_backward(dy if curved else None, s, bias)


def _backward_backward(ctx: Any, ddx: Tensor | None) -> tuple:
    if ddx is None:
        return None, None, None, None, None
    dy, s, bias = ctx.saved_tensors
    if dy is None:
        # None, not zeros, for the mask: zeros would cost the layers below a whole backward pass
        ddy = bias_act_bwd(ddx, s, bias, ctx.activation, ctx.negative_slope)
        return ddy, None, None, None, None
    ddy, ds = bias_act_bwd_bwd(ddx, dy, s, bias, ctx.activation, ctx.negative_slope)
    wants_bias = ctx.needs_input_grad[2] and ctx.activation in SAVES_INPUT
    return ddy, ds, sum_per_channel(ds, bias.dtype) if wants_bias else None, None, None


bias_act = define("bias_act", _bias_act, lambda x, *_: empty(x), 0, _save_forward, _backward)
bias_act_bwd = define("bias_act", _bias_act_bwd, lambda dy, s, *_: empty(s), 1, _save_backward, _backward_backward)
bias_act_bwd_ = define("bias_act", _bias_act_bwd_in_place, lambda dy, s, *_: None, 1)
bias_act_db = define(
    "bias_act", _bias_act_db, lambda dy, y, *_: y.new_empty(y.shape[1], dtype=accumulate_dtype(y.dtype)), 1
)
bias_act_bwd_bwd = define("bias_act", _bias_act_bwd_bwd, lambda ddx, dy, s, *_: (empty(s), empty(s)), 2)
