"""Runs a convolution with the normalisation and activation around it as one op, and hands the rest on undone."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import Parameter

from fastgan import ops
from fastgan.backends.geometry import Attributes, output_channels, output_size
from fastgan.backends.layout import formatted, is_channels_last
from fastgan.backends.reference.activation import SAVES_INPUT
from fastgan.nn._autocast import autocast, autocast_dtype, autocast_weight
from fastgan.nn._spectral_norm import folded_weight, read_weight
from fastgan.ops.conv_norm_act import Origin

_PLAIN = (Tensor, Parameter)
Vectors = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
# taps times channels of a sum that costs little
_FEW_TERMS = 128
_NO_NORM: Vectors = (None, None, None, None)


class Raw(NamedTuple):
    """A convolution's result whose normalisation and activation are still to be done: ``finish`` does them, or the next
    convolution while it loads, so that neither result is ever written.

    norm is (weight, bias, mean, var), without mean and var for nothing but a memory format to be put right;
    ``training`` says that mean and var are those of u; ``channels_last`` is the format that the finished tensor has;
    ``origin``, from what u is made again in backward.
    """

    u: Tensor
    norm: Vectors
    training: bool
    eps: float
    activation: str
    negative_slope: float
    channels_last: bool
    origin: Origin | None = None


Value = Tensor | Raw


def tensor_of(value: Value) -> Tensor:
    """Return the tensor that is there, of the shape of the finished one."""
    return value.u if isinstance(value, Raw) else value


def is_last(value: Value) -> bool:
    """Return whether the finished tensor has its channels innermost."""
    return value.channels_last if isinstance(value, Raw) else is_channels_last(value)


def finish(value: Value) -> Tensor:
    """Return the tensor that stands for what is still to be done."""
    if not isinstance(value, Raw):
        return value
    y = value.u
    if value.norm[2] is not None:
        y = ops.norm_act.norm_act_eval(
            y, *value.norm, value.training, value.eps, value.activation, value.negative_slope, False
        )
    return y if y.dim() != 4 or value.channels_last else formatted(y, False)


class Convolution(NamedTuple):
    """A convolution's tensors and sizes, with the weight read once: reading a parametrization may change its state.

    The convolution is that with scale * weight, and the gradient by ``weight`` is that by scale * weight.
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    transposed: bool
    groups: int
    scale: Tensor | None = None

    @classmethod
    def of(cls, conv: _ConvNd) -> Convolution:
        sizes = (conv.stride, conv.padding, conv.dilation, conv.output_padding, conv.transposed, conv.groups)
        weight, scale = folded_weight(conv) or (read_weight(conv), None)
        return cls(weight, conv.bias, *sizes, scale)  # type: ignore[arg-type]

    def stock(self, x: Tensor) -> Tensor:
        """Return torch's result, or raise torch's error."""
        weight = self.weight if self.scale is None else ops.spectral_norm.spectral_norm_unfold(self.weight, self.scale)
        if self.transposed:
            sizes: Any = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
            return F.conv_transpose2d(x, weight, self.bias, *sizes)
        sizes = (self.stride, self.padding, self.dilation, self.groups)
        return F.conv2d(x, weight, self.bias, *sizes)

    def why_not(self, x: Tensor) -> str:
        """Return why torch's convolution has to be called, mostly for its error; empty if the op may run."""
        w, b = self.weight, self.bias
        if type(w) not in _PLAIN or (b is not None and type(b) not in _PLAIN):
            return "the weight or bias is no plain Tensor"
        if w.dim() != 4 or (b is not None and (b.dim() != 1 or b.dtype != w.dtype or b.device != w.device)):
            return "weight and bias do not fit together"
        if x.device != w.device or x.shape[1] != (w.shape[0] if self.transposed else w.shape[1] * self.groups):
            return "the input does not fit the weight"
        if autocast_dtype(x) != autocast_dtype(w):
            return "input and weight differ in dtype"
        if min(self.output_size(x)) < 1:
            return "the input is smaller than the kernel"
        return ""

    def output_size(self, x: Tensor) -> list[int]:
        """Return the spatial size of the result for x."""
        return output_size(x.shape[2:], self.weight.shape[2:], self)

    def channels(self) -> int:
        """Return the number of channels of the result."""
        return output_channels(self.weight.shape, self)

    def attributes(self, **changes: Any) -> Attributes:
        plain = Attributes(
            list(self.stride), list(self.padding), list(self.dilation), list(self.output_padding), self.transposed,
            self.groups, False, 0.0, "identity", 0.0, "identity", 0.0, False, False, self.scale,
        )  # fmt: skip
        return plain._replace(**changes)

    def norm_act(
        self, value: Value, norm: Vectors, training: bool, eps: float, activation: str, negative_slope: float,
        act_first: bool, inside: bool,
    ) -> Raw:  # fmt: skip
        """Return act(norm(conv(value))), still to be finished; norm has the statistics unless ``training``.

        Args:
            act_first: activation before the normalisation; not one of ``SAVES_INPUT`` where gradients are wanted.
        """
        on_store, on_load = (activation, "identity") if act_first else ("identity", activation)
        weight, bias, mean, var = norm
        u, *batch, last, _ = self.run(value, on_store, negative_slope, training, inside, False)
        mean, var = batch if training else (mean, var)
        return Raw(u, (weight, bias, mean, var), training, eps, on_load, negative_slope, last)

    def run(
        self, value: Value, activation: str, negative_slope: float, stats: bool, inside: bool, remake: bool
    ) -> tuple[Tensor, Tensor, Tensor, bool, Origin | None]:
        """Return (y, mean, var, whether torch's result would be channels last, the origin of y).

        Args:
            inside: nobody but the next convolution sees y, so its memory format is free.
            remake: y may be made again in backward.
        """
        x, norm = (value.u, value.norm) if isinstance(value, Raw) else (value, _NO_NORM)
        last = is_channels_last(self.weight) or is_last(value)
        a = self.attributes(
            activation=activation,
            negative_slope=negative_slope,
            stats=stats,
            channels_last=last or (inside and x.is_cpu),
        )
        origin = None
        if isinstance(value, Raw):
            a = a._replace(training=value.training, eps=value.eps)
            a = a._replace(norm_activation=value.activation, norm_slope=value.negative_slope)
            origin = value.origin
        given, weight = autocast(x), autocast_weight(self.weight)
        call = ops.conv_norm_act.conv_norm_act_remade
        (y, mean, var), made = call(given, weight, self.bias, norm, a, origin if given is x else None, remake)
        return y, mean, var, last, made

    def worth_remaking(self, x: Tensor) -> bool:
        """Return whether the result is much larger than x and little work, as an image's first activations are."""
        if self.transposed or math.prod(self.weight.shape[1:]) > _FEW_TERMS:
            return False
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not x.is_cpu:
            return False
        return self.channels() * math.prod(self.output_size(x)) >= 2 * math.prod(x.shape[1:])


def same_padding(
    x: Tensor, weight: Tensor, padding: int | tuple[int, ...] | str, dilation: tuple[int, int]
) -> tuple[Tensor, int | tuple[int, ...]]:
    """Return x and padding with the words ``same`` and ``valid`` made numbers; an odd one more goes into x."""
    if not isinstance(padding, str):
        return x, padding
    if padding == "valid":
        return x, 0
    totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(total % 2 for total in totals):
        x = F.pad(x, (0, totals[1] % 2, 0, totals[0] % 2))
    return x, tuple(total // 2 for total in totals)


def conv_act(value: Value, conv: Convolution, activation: str, negative_slope: float, inside: bool) -> Value:
    """Return act(conv(value)); only its memory format may still have to be put right, where ``inside``."""
    if activation in SAVES_INPUT and torch.is_grad_enabled():
        y = conv._replace(bias=None).run(value, "identity", 0.0, False, False, False)[0]
        return ops.bias_act.bias_act(y, conv.bias, activation, negative_slope)
    remake = inside and activation != "identity" and isinstance(value, Tensor) and conv.worth_remaking(value)
    y, _, _, last, made = conv.run(value, activation, negative_slope, False, inside, remake)
    return Raw(y, _NO_NORM, False, 0.0, "identity", 0.0, last, made) if inside else y
