"""Schema, shape functions and autograd of ``conv_norm_act``; the maths is in backends/reference/conv_norm_act.py.

``scale`` counts as a constant, and the gradient by ``weight`` is that by scale * weight: who folds a factor into a
convolution knows how it depends on the weight, see ``spectral_norm_fold``.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan.backends.geometry import Attributes, crop, empty_weight, input_gradient, output_channels, output_size
from fastgan.backends.layout import accumulate_dtype, empty, is_channels_last, wanted_format
from fastgan.backends.reference.activation import PIECEWISE_LINEAR
from fastgan.ops._define import define
from fastgan.ops.bias_act import bias_act_bwd, bias_act_db, sum_per_channel
from fastgan.ops.norm_act import norm_act_bwd

_attributes = (
    "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt[] output_padding, bool transposed, SymInt groups,"
    " bool training, float eps, str norm_activation, float norm_slope,"
    " str activation, float negative_slope, bool stats, bool channels_last, Tensor? scale=None"
)
_norm = "Tensor? norm_weight, Tensor? norm_bias, Tensor? mean, Tensor? var"
_conv_norm_act = (
    f"conv_norm_act(Tensor x, Tensor weight, Tensor? bias, {_norm}, {_attributes}) -> (Tensor, Tensor, Tensor)"
)
_conv_norm_act_dx = (
    f"conv_norm_act_dx(Tensor dy, Tensor? y, Tensor weight, Tensor x, {_norm}, {_attributes})"
    " -> (Tensor, Tensor, Tensor)"
)
_conv_norm_act_dw = (
    f"conv_norm_act_dw(Tensor x, {_norm}, Tensor dy, Tensor? y, SymInt[] kernel_size, {_attributes}) -> Tensor"
)
_ATTRIBUTES = (None,) * len(Attributes._fields)


class Remade:
    """A result of ``conv_norm_act`` that is not kept for backward, but made again from x, weight and bias.

    The same to rounding; the same bits where our own kernels run. In one backward the convolution that took it comes
    first and, if the one that made it will run too, leaves its copy for that.
    """

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self._shared: tuple[bool, Tensor] | None = None

    def again(self, x: Tensor, weight: Tensor, bias: Tensor | None, share: bool) -> Tensor:
        """Return the result once more, differentiable where a graph is being made; ``share``: somebody else follows."""
        graph, shared = torch.is_grad_enabled(), self._shared
        self._shared = None
        if shared is not None and shared[0] == graph:
            y = shared[1]
        else:
            y = conv_norm_act(x, weight, bias, None, None, None, None, *self.attributes)[0]
        self._shared = (graph, y) if share else None
        return y

    def forget(self) -> None:
        """Drop what was left for somebody."""
        self._shared = None


class Origin(NamedTuple):
    """How a tensor is made again: by a call of ``conv_norm_act`` without normalisation, and with what."""

    remade: Remade
    x: Tensor
    weight: Tensor
    bias: Tensor | None


class _Calling(threading.local):
    """What the next call in this thread is to save otherwise; its schema has no place for it."""

    remade: Remade | None = None
    origin: Origin | None = None

    def take(self) -> tuple[Remade | None, Origin | None]:
        taken, self.remade, self.origin = (self.remade, self.origin), None, None
        return taken


_calling = _Calling()


def conv_norm_act_remade(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm: tuple, a: Attributes, origin: Origin | None, remake: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], Origin | None]:
    """``conv_norm_act`` that keeps less for backward.

    Args:
        origin: of x, which is made again from it instead of kept.
        remake: the result may be made again, too: nobody will see it but another call that is given its origin.
    Returns: the results, and the first one's origin.
    """
    made = None
    if remake and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        # torch keeps no bias, so that it may change before backward
        bias = None if bias is None else bias.clone()
        made = Origin(Remade(a), x, weight, bias)
    if made is None and origin is None:
        return conv_norm_act(x, weight, bias, *norm, *a), None
    _calling.remade, _calling.origin = made and made.remade, origin
    try:
        return conv_norm_act(x, weight, bias, *norm, *a), made
    finally:
        _calling.take()


def _edges(tensors: tuple) -> list[int]:
    """Return for each argument its place in ``next_functions``, which counts tensors only."""
    edges, count = [], 0
    for t in tensors:
        edges.append(count)
        count += isinstance(t, Tensor)
    return edges


def _wanted(ctx: Any, argument: int) -> bool:
    """Return whether the gradient of an argument will be used: needs_input_grad is True for weights even inside
    ``torch.autograd.grad(out, x)``."""
    if not ctx.needs_input_grad[argument]:
        return False
    if torch.compiler.is_compiling():
        # what nobody uses is removed from the graph
        return True
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[ctx.edges[argument]][0])
    except RuntimeError:
        # a leaf that autograd.grad captures
        return True


def _as(gradient: Tensor | None, parameter: Tensor | None, wanted: bool) -> Tensor | None:
    return gradient.to(parameter.dtype) if wanted and gradient is not None and parameter is not None else None


def _save_forward(ctx: Any, inputs: tuple, output: tuple) -> None:
    tensors, ctx.attributes = inputs[:7], Attributes(*inputs[7:])
    x, weight, bias, *norm = tensors
    ctx.edges = _edges(tensors)
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.remade, origin = _calling.take()
    ctx.remade_x = None if origin is None else origin.remade
    y = output[0] if ctx.attributes.activation != "identity" and ctx.remade is None else None
    kept = (x, None, None, None) if origin is None else (None, *origin[1:])
    ctx.save_for_backward(*kept, weight, *norm, y, None if ctx.remade is None else bias)


def _input_gradients(dy: Tensor, y: Tensor | None, weight: Tensor, x: Tensor, norm: list, a: Attributes) -> tuple:
    """Return (dx, dnorm_weight, dnorm_bias): by one op, by differentiable ones where a graph is being made."""
    if not torch.is_grad_enabled():
        return conv_norm_act_dx(dy, y, weight, x, *norm, *a)
    reverse = input_gradient(x, weight.shape[2:], dy, a, is_channels_last(x))
    du, _, _ = conv_norm_act(dy, weight, None, None, None, None, None, *reverse)
    du = crop(du, x)
    if norm[2] is None:
        return du, None, None
    return norm_act_bwd(du, x, *norm, a.training, a.eps, a.norm_activation, a.norm_slope, False)


def _backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple:
    nothing = (None,) * 7
    if dy is None:
        if ctx.remade is not None:
            ctx.remade.forget()
        return *nothing, *_ATTRIBUTES
    x, *origin, weight, nw, nb, mean, var, y, bias = ctx.saved_tensors
    norm = [nw, nb, mean, var]
    a = ctx.attributes
    wants_x, wants_weight, wants_bias, wants_nw, wants_nb = (_wanted(ctx, i) for i in range(5))
    if ctx.remade_x is not None and (wants_x or wants_weight or wants_nw or wants_nb):
        # who made x will run where its gradient is wanted
        x = ctx.remade_x.again(*origin, share=wants_x)
    if ctx.remade is not None:
        y = ctx.remade.again(x, weight, bias, share=False)
    dx = dw = db = dnw = dnb = None
    graph = torch.is_grad_enabled()
    if wants_bias and y is not None and not graph and a.activation in PIECEWISE_LINEAR:
        db = bias_act_db(dy, y, a.activation, a.negative_slope).to(ctx.bias_dtype)
    elif y is not None and (graph or wants_bias):
        dy, y = bias_act_bwd(dy, y, None, a.activation, a.negative_slope), None
    if wants_x or wants_nw or wants_nb:
        dx, dnw, dnb = _input_gradients(dy, y, weight, x, norm, a)
    if wants_weight:
        # in the weight's memory format, or autograd would copy it
        like_weight = a._replace(channels_last=is_channels_last(weight))
        dw = conv_norm_act_dw(x, *norm, dy, y, list(weight.shape[2:]), *like_weight)
    if wants_bias and db is None:
        db = sum_per_channel(dy, ctx.bias_dtype)
    norm_gradients = (_as(dnw, norm[0], wants_nw), _as(dnb, norm[1], wants_nb))
    return dx if wants_x else None, dw, db, *norm_gradients, None, None, *_ATTRIBUTES


def _save_dw(ctx: Any, inputs: tuple, output: Tensor) -> None:
    # scale has no part in it: the gradient is that of scale * weight
    tensors, ctx.attributes = inputs[:7], Attributes(*inputs[8:])._replace(scale=None)
    x, *norm, dy, y = tensors
    assert y is None, "a mask is for calls without a graph"
    ctx.edges = _edges(tensors)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, *norm, dy)


def _backward_dw(ctx: Any, v: Tensor | None) -> tuple:
    if v is None:
        return *(None,) * 8, *_ATTRIBUTES
    x, *norm, dy = ctx.saved_tensors
    a = ctx.attributes._replace(activation="identity", stats=False)
    wants_x, wants_nw, wants_nb, _, _, wants_dy = (_wanted(ctx, i) for i in range(6))
    dx = dnw = dnb = ddy = None
    if wants_x or wants_nw or wants_nb:
        dx, dnw, dnb = _input_gradients(dy, None, v, x, norm, a)
    if wants_dy:
        forward = a._replace(channels_last=is_channels_last(dy))
        ddy, _, _ = conv_norm_act(x, v, None, *norm, *forward)
    norm_gradients = (_as(dnw, norm[0], wants_nw), _as(dnb, norm[1], wants_nb))
    return dx if wants_x else None, *norm_gradients, None, None, ddy, None, None, *_ATTRIBUTES


def _fake(x: Tensor, weight: Tensor, *rest: Any) -> tuple:
    a = Attributes(*rest[5:])
    channels = output_channels(weight.shape, a)
    shape = (x.shape[0], channels, *output_size(x.shape[2:], weight.shape[2:], a))
    memory_format = wanted_format(x.dim(), a.channels_last)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)
    vector = torch.empty(channels if a.stats else 0, dtype=accumulate_dtype(x.dtype), device=x.device)
    return y, vector, torch.empty_like(vector)


def _fake_dx(dy: Tensor, y: Any, weight: Tensor, x: Tensor, nw: Any, nb: Any, mean: Tensor | None, *_: Any) -> tuple:
    vector = torch.empty(0 if mean is None else x.shape[1], dtype=accumulate_dtype(x.dtype), device=x.device)
    return empty(x), vector, torch.empty_like(vector)


def _fake_dw(x: Tensor, nw: Any, nb: Any, mean: Any, var: Any, dy: Tensor, y: Any, kernel: Any, *rest: Any) -> Tensor:
    return empty_weight(x, dy, kernel, Attributes(*rest))


conv_norm_act = define("conv_norm_act", _conv_norm_act, _fake, 0, _save_forward, _backward)
conv_norm_act_dx = define("conv_norm_act", _conv_norm_act_dx, _fake_dx, 3)
conv_norm_act_dw = define("conv_norm_act", _conv_norm_act_dw, _fake_dw, 0, _save_dw, _backward_dw)
