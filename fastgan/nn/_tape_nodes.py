"""The steps that a tape can hold, each with its derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastgan import ops
from fastgan.backends.geometry import Attributes
from fastgan.backends.layout import accumulate_dtype, is_channels_last
from fastgan.nn._tape import Biased, Node, Tape, Weighted

NO_NORM = (None, None, None, None)


class Convolution(Weighted):
    """y = act(conv(x, weight) + bias)."""

    def __init__(self, x: int, weight: Tensor, bias: Tensor | None, a: Attributes) -> None:
        self.inputs, self.weight, self.bias, self.a = (x,), weight, bias, a
        self.w = weight.detach()

    def _mask(self, tape: Tape, part: slice) -> Tensor | None:
        return None if self.a.activation == "identity" else tape.values[self.output][part]

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        x, y = tape.values[self.inputs[0]][part], self._mask(tape, part)
        return [ops.conv_norm_act.conv_norm_act_dx(dy, y, self.w, x, *NO_NORM, *self.a)[0]]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        a = self.a._replace(activation="identity")
        t, _, _ = ops.conv_norm_act.conv_norm_act(tangents[0], self.w, None, *NO_NORM, *a)
        return _tangent(tape, self.output, t, self.a.activation, self.a.negative_slope)

    def weight_gradient(self, tape: Tape, x: Tensor, dy: Tensor) -> Tensor:
        y, a = self._mask(tape, slice(None)), self.a._replace(channels_last=is_channels_last(self.w))
        return ops.conv_norm_act.conv_norm_act_dw(x, *NO_NORM, dy, y, list(self.w.shape[2:]), *a)

    def bias_gradient(self, tape: Tape, bias: Tensor, dy: Tensor, part: slice) -> Tensor:
        y = tape.values[self.output][part]
        return ops.bias_act.bias_act_db(dy, y, self.a.activation, self.a.negative_slope).to(bias.dtype)


class Linear(Weighted):
    """y = x weight^T + bias, over the last dimension."""

    def __init__(self, x: int, weight: Tensor, bias: Tensor | None) -> None:
        self.inputs, self.weight, self.bias = (x,), weight, bias
        self.w = weight.detach()

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        return [dy @ self.w]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        return tangents[0] @ self.w.mT

    def weight_gradient(self, tape: Tape, x: Tensor, dy: Tensor) -> Tensor:
        return dy.flatten(0, -2).mT @ x.flatten(0, -2)

    def bias_gradient(self, tape: Tape, bias: Tensor, dy: Tensor, part: slice) -> Tensor:
        return dy.flatten(0, -2).sum(0, dtype=accumulate_dtype(dy.dtype)).to(bias.dtype)


class Activation(Biased):
    """y = act(x + bias), for an activation whose derivative shows in y."""

    def __init__(self, x: int, activation: str, negative_slope: float, bias: Tensor | None = None) -> None:
        self.inputs, self.bias, self.activation, self.negative_slope = (x,), bias, activation, negative_slope

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        return [_masked(dy, tape.values[self.output][part], self.activation, self.negative_slope)]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        return _tangent(tape, self.output, tangents[0], self.activation, self.negative_slope)

    def bias_gradient(self, tape: Tape, bias: Tensor, dy: Tensor, part: slice) -> Tensor:
        y = tape.values[self.output][part]
        return ops.bias_act.bias_act_db(dy, y, self.activation, self.negative_slope).to(bias.dtype)


class Reshape(Node):
    """The same values in another shape; the first dimension stays."""

    def __init__(self, x: int) -> None:
        self.inputs = (x,)

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        return [dy.reshape(dy.shape[0], *tape.values[self.inputs[0]].shape[1:])]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        return tangents[0].reshape(tangents[0].shape[0], *tape.values[self.output].shape[1:])


class Add(Node):
    """y = a + b, or a - b with ``sign`` -1; both of y's shape."""

    def __init__(self, a: int, b: int, sign: int) -> None:
        self.inputs, self.sign = (a, b), sign

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        return [dy, dy if self.sign > 0 else -dy]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        return torch.add(tangents[0], tangents[1], alpha=self.sign)


class Function(Node):
    """A torch function that is linear in its first argument; autograd has its derivative."""

    def __init__(self, x: int, run: Callable[[Tensor], Tensor]) -> None:
        self.inputs, self.run = (x,), run

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        with torch.enable_grad():
            x = tape.values[self.inputs[0]][part].detach().requires_grad_()
            return list(torch.autograd.grad(self.run(x), x, dy))

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        return self.run(tangents[0])


def _masked(dy: Tensor, y: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    """Return dy times the activation's derivative where its result is y."""
    return dy if y is None else ops.bias_act.bias_act_bwd(dy, y, None, activation, negative_slope)


def _tangent(tape: Tape, place: int, t: Tensor, activation: str, negative_slope: float) -> Tensor:
    """Return the tangent after an activation whose results are at ``place``, for t before it."""
    if activation == "identity":
        return t
    y = tape.values[place][tape.direction]
    if not tape.start:
        return ops.bias_act.bias_act_bwd(t, y, None, activation, negative_slope)
    # nobody reads these results again, and the weight gradient wants their tangents where they are
    ops.bias_act.bias_act_bwd_(t, y, activation, negative_slope)
    return y
