"""Schema, shape functions and autograd of ``gradient_penalty``. The maths is in backends/reference/gradient_penalty.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, empty, memory_format
from fastgan.backends.reference import gradient_penalty as reference
from fastgan.ops._define import define

_interpolate = "gradient_penalty_interpolate(Tensor real, Tensor fake, Tensor t, bool stack) -> Tensor"
_gradient_penalty = "gradient_penalty(Tensor g, float weight, float target, bool one_sided) -> (Tensor, Tensor)"


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    g, *ctx.attributes = inputs
    _, v = output
    ctx.mark_non_differentiable(v)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(g, v)


def _backward(ctx: Any, dpenalty: Tensor | None, _: None) -> tuple:
    if dpenalty is None:
        return None, None, None, None
    g, v = ctx.saved_tensors
    if torch.is_grad_enabled():
        # a third order is rare: it goes through the specification
        _, v = reference.gradient_penalty(g, *ctx.attributes)
    return v * dpenalty.to(v.dtype), None, None, None


def _fake_interpolate(real: Tensor, fake: Tensor, t: Tensor, stack: bool) -> Tensor:
    if not stack:
        return empty(real)
    shape = (3 * real.shape[0], *real.shape[1:])
    return torch.empty(shape, dtype=real.dtype, device=real.device, memory_format=memory_format(real))


def _fake(g: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return g.new_empty((), dtype=accumulate_dtype(g.dtype)), empty(g)


gradient_penalty_interpolate = define("gradient_penalty", _interpolate, _fake_interpolate)
gradient_penalty = define("gradient_penalty", _gradient_penalty, _fake, 0, _save, _backward)
