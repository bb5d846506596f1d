"""Schema, shape functions and autograd of ``norm_act``. The formulas are derived in backends/reference/norm_act.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, empty
from fastgan.ops._define import define

_attributes = "float eps, str activation, float negative_slope, bool act_first"
_norm_act = f"norm_act(Tensor x, Tensor? weight, Tensor? bias, {_attributes}) -> (Tensor, Tensor, Tensor)"
_norm_act_eval = (
    f"norm_act_eval(Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, bool training, {_attributes})"
    " -> Tensor"
)
_saved = f"Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, bool training, {_attributes}"
_norm_act_bwd = f"norm_act_bwd({_saved}) -> (Tensor, Tensor, Tensor)"
_norm_act_bwd_bwd = (
    f"norm_act_bwd_bwd(Tensor ddx, Tensor? ddw, Tensor? ddb, {_saved}) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _vector(x: Tensor) -> Tensor:
    return torch.empty(x.shape[1], dtype=accumulate_dtype(x.dtype), device=x.device)


def _as_parameter(gradient: Tensor, parameter: Tensor | None, wanted: bool) -> Tensor | None:
    return gradient.to(parameter.dtype) if wanted and parameter is not None else None


def _save_training(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, weight, bias, *ctx.attributes = inputs
    _, mean, var = output
    ctx.training = True
    ctx.mark_non_differentiable(mean, var)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, mean, var)


def _save_eval(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, bias, mean, var, ctx.training, *ctx.attributes = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, mean, var)


def _first(ctx: Any, dy: Tensor) -> tuple:
    x, weight, bias, mean, var = ctx.saved_tensors
    dx, dw, db = norm_act_bwd(dy, x, weight, bias, mean, var, ctx.training, *ctx.attributes)
    wanted = ctx.needs_input_grad
    return dx, _as_parameter(dw, weight, wanted[1]), _as_parameter(db, bias, wanted[2])


def _backward_training(ctx: Any, dy: Tensor | None, *_: None) -> tuple:
    first = (None, None, None) if dy is None else _first(ctx, dy)
    return *first, None, None, None, None


def _backward_eval(ctx: Any, dy: Tensor | None) -> tuple:
    first = (None, None, None) if dy is None else _first(ctx, dy)
    return *first, None, None, None, None, None, None, None


def _save_backward(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.training, eps, activation, negative_slope, act_first = inputs
    ctx.attributes = (eps, activation, negative_slope, act_first)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _backward_backward(ctx: Any, ddx: Tensor | None, ddw: Tensor | None, ddb: Tensor | None) -> tuple:
    dy, x, weight, bias, mean, var = ctx.saved_tensors
    nones = (None,) * 7
    if ddx is None and ddw is None and ddb is None:
        return *(None,) * 4, *nones
    # a loss on dw or db alone is rare: it takes the same pass with ddx = 0
    ddx = torch.zeros_like(x) if ddx is None else ddx
    arguments = (ddx, ddw, ddb, dy, x, weight, bias, mean, var, ctx.training, *ctx.attributes)
    ddy, dx, dw, db = norm_act_bwd_bwd(*arguments)
    wanted = ctx.needs_input_grad
    return ddy, dx, _as_parameter(dw, weight, wanted[2]), _as_parameter(db, bias, wanted[3]), *nones


def _fake(x: Tensor, *_: Any) -> tuple:
    return empty(x), _vector(x), _vector(x)


def _fake_backward(dy: Tensor, x: Tensor, *_: Any) -> tuple:
    return empty(x), _vector(x), _vector(x)


def _fake_backward_backward(ddx: Tensor, ddw: Any, ddb: Any, dy: Tensor, x: Tensor, *_: Any) -> tuple:
    return empty(x), empty(x), _vector(x), _vector(x)


norm_act = define(
    "norm_act", _norm_act, lambda x, *_: (empty(x), _vector(x), _vector(x)), 0, _save_training, _backward_training
)
norm_act_eval = define("norm_act", _norm_act_eval, lambda x, *_: empty(x), 0, _save_eval, _backward_eval)
norm_act_bwd = define("norm_act", _norm_act_bwd, _fake_backward, 1, _save_backward, _backward_backward)
norm_act_bwd_bwd = define("norm_act", _norm_act_bwd_bwd, _fake_backward_backward, 4)
