"""Modules with a fused activation: torch's arguments first, torch's state_dict keys."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.nn import functional as FF
from fastgan.nn._checks import check_activation
from fastgan.nn._fusion import fused_norm_act, traced_conv
from fastgan.nn._layers import KINDS, NORM, stock_activation
from fastgan.nn._plain import why_not_here
from fastgan.nn._reasons import why_not_backend, why_not_input


def _activation_repr(activation: str, negative_slope: float, act_first: bool = False) -> str:
    slope = f", negative_slope={negative_slope}" if activation == "leaky_relu" else ""
    return f"activation={activation}{slope}" + (", act_first=True" if act_first else "")


class BiasAct(nn.Module):
    r"""Adds a bias per channel and applies an activation, in one pass over the data.

    y = act(x + bias). Differentiable twice.

    Args:
        num_features: C, the length of the bias, > 0.
        bias: False for the activation alone.
        device, dtype: of the bias.
        activation: identity, relu, leaky_relu, tanh, sigmoid or silu.
        negative_slope: slope of leaky_relu below zero, dimensionless, >= 0.
    Shape: (N, C, ...) to the same, in x's dtype.
    Attributes: ``bias`` (C,), zeros at first.
    Raises: ValueError naming the argument.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: str = "leaky_relu",
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        check_activation("BiasAct", activation, negative_slope)
        self.num_features = num_features
        self.activation = activation
        self.negative_slope = negative_slope
        zeros = torch.zeros(num_features, device=device, dtype=dtype) if bias else None
        self.register_parameter("bias", None if zeros is None else nn.Parameter(zeros))

    def reset_parameters(self) -> None:
        """Set the bias to zero."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if why_not_here() or why_not_input(x) or why_not_backend("bias_act", x.device, x.dtype):
            if self.bias is not None:
                x = x + self.bias.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2))
            return stock_activation(x, (self.activation, self.negative_slope, False))
        return FF.bias_act(x, self.bias, activation=self.activation, negative_slope=self.negative_slope)

    def extra_repr(self) -> str:
        activation = _activation_repr(self.activation, self.negative_slope)
        return f"{self.num_features}, bias={self.bias is not None}, {activation}"


class BatchNormAct2d(nn.BatchNorm2d):
    r"""``torch.nn.BatchNorm2d`` with an activation after it, or before it, in one pass over the data.

    y = act(norm(x)), or norm(act(x)) with ``act_first``. The state_dict is that of BatchNorm2d; training flag,
    momentum=None, track_running_stats and num_batches_tracked work as there. Differentiable twice.
    ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` keeps the activation.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype, bias: as in ``torch.nn.BatchNorm2d``.
        activation: identity, relu, leaky_relu, tanh, sigmoid or silu.
        negative_slope: slope of leaky_relu below zero, dimensionless, >= 0.
        act_first: activation before the normalisation.
    Shape: (N, C, H, W) to the same, in x's dtype and memory format.
    Raises: ValueError naming the argument, or where x does not have 4 dimensions.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        activation: str = "leaky_relu",
        negative_slope: float = 0.2,
        act_first: bool = False,
    ) -> None:
        check_activation("BatchNormAct2d", activation, negative_slope)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        # torch 2.11 has no argument bias
        if not bias:
            self.register_parameter("bias", None)
        self.activation = activation
        self.negative_slope = negative_slope
        self.act_first = act_first

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        activation = (self.activation, self.negative_slope, False)
        y = None if why_not_here() else fused_norm_act(input, self, *activation[:2], self.act_first)
        if y is not None:
            return y
        if self.act_first:
            return super().forward(stock_activation(input, activation))
        return stock_activation(super().forward(input), activation)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {_activation_repr(self.activation, self.negative_slope, self.act_first)}"


class SyncBatchNormAct2d(BatchNormAct2d, nn.SyncBatchNorm):
    """``BatchNormAct2d`` with statistics over all processes, which ``convert_sync_batchnorm`` makes of one.

    Differentiable once.
    """


KINDS[BatchNormAct2d] = KINDS[SyncBatchNormAct2d] = NORM
_convert_of_torch = nn.SyncBatchNorm.convert_sync_batchnorm.__func__  # type: ignore[attr-defined]


@functools.wraps(_convert_of_torch)
def _convert_sync_batchnorm(cls: type, module: nn.Module, process_group: Any = None) -> nn.Module:
    made = _convert_of_torch(cls, module, process_group)
    if isinstance(module, BatchNormAct2d):
        made.__class__ = SyncBatchNormAct2d
        made.activation, made.negative_slope = module.activation, module.negative_slope
        made.act_first = module.act_first
    return made


# torch's own makes a SyncBatchNorm of every batch norm, and asks no subclass: the activation would be lost in silence
nn.SyncBatchNorm.convert_sync_batchnorm = classmethod(_convert_sync_batchnorm)  # type: ignore[method-assign,assignment]


class _ConvStem(nn.Module):
    """``conv`` and ``norm``, None without it; state_dict keys ``conv.weight``, ``conv.bias``, ``norm.weight``, ..."""

    conv: nn.Conv2d | nn.ConvTranspose2d
    norm: nn.BatchNorm2d | nn.SyncBatchNorm | None

    def __init__(
        self,
        conv: nn.Conv2d | nn.ConvTranspose2d,
        channels: int,
        norm: bool,
        activation: str,
        negative_slope: float,
        act_first: bool,
        **norm_arguments: Any,
    ) -> None:
        super().__init__()
        check_activation(type(self).__name__, activation, negative_slope)
        self.conv = conv
        self.norm = nn.BatchNorm2d(channels, **norm_arguments) if norm else None
        self.activation = activation
        self.negative_slope = negative_slope
        self.act_first = act_first

    def forward(self, x: Tensor) -> Tensor:
        # the layers may be parametrized, or have been replaced
        return traced_conv(x, self.conv, self.norm, (self.activation, self.negative_slope, False), self.act_first)

    def extra_repr(self) -> str:
        return _activation_repr(self.activation, self.negative_slope, self.act_first)


class ConvNormAct2d(_ConvStem):
    r"""``torch.nn.Conv2d``, batch norm and activation, fused.

    y = act(norm(conv(x))), norm(act(conv(x))) with ``act_first``, act(conv(x)) without ``norm``. Differentiable twice.

    Args:
        in_channels ... dtype: as in ``torch.nn.Conv2d``; ``bias`` is that of the convolution.
        norm: normalise, with the BatchNorm2d ``norm``.
        activation: identity, relu, leaky_relu, tanh, sigmoid or silu.
        negative_slope: slope of leaky_relu below zero, dimensionless, >= 0.
        eps, momentum: of the normalisation, as in ``torch.nn.BatchNorm2d``.
        act_first: activation before the normalisation.
    Shape: (N, C_in, H, W) to (N, C_out, H', W').
    Attributes: ``conv`` (Conv2d), ``norm`` (BatchNorm2d or None).
    Raises: ValueError naming the argument.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        norm: bool = True,
        activation: str = "leaky_relu",
        negative_slope: float = 0.2,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        act_first: bool = False,
    ) -> None:
        sizes: tuple[Any, ...] = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        conv = nn.Conv2d(*sizes, bias, padding_mode, device, dtype)  # type: ignore[call-arg,arg-type]
        norm_arguments = {"eps": eps, "momentum": momentum, "device": device, "dtype": dtype}
        super().__init__(conv, out_channels, norm, activation, negative_slope, act_first, **norm_arguments)


class ConvTransposeNormAct2d(_ConvStem):
    r"""``torch.nn.ConvTranspose2d``, batch norm and activation, fused.

    As ``ConvNormAct2d``, with the arguments of ``torch.nn.ConvTranspose2d`` in its order. Differentiable twice.

    Args:
        in_channels ... dtype: as in ``torch.nn.ConvTranspose2d``; ``bias`` is that of the convolution.
        norm and all after it: as in ``ConvNormAct2d``.
    Shape: (N, C_in, H, W) to (N, C_out, H', W').
    Attributes: ``conv`` (ConvTranspose2d), ``norm`` (BatchNorm2d or None).
    Raises: ValueError naming the argument.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        norm: bool = True,
        activation: str = "leaky_relu",
        negative_slope: float = 0.2,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        act_first: bool = False,
    ) -> None:
        sizes: tuple[Any, ...] = (in_channels, out_channels, kernel_size, stride, padding, output_padding, groups)
        conv = nn.ConvTranspose2d(*sizes, bias, dilation, padding_mode, device, dtype)  # type: ignore[call-arg,arg-type]
        norm_arguments = {"eps": eps, "momentum": momentum, "device": device, "dtype": dtype}
        super().__init__(conv, out_channels, norm, activation, negative_slope, act_first, **norm_arguments)
