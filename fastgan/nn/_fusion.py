"""Runs a group of layers as one fused op, or layer by layer where that would be noticed.

``Sequential`` and traced models share it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import Parameter

from fastgan import ops
from fastgan.nn._layers import ACT, CONV, CONVS, NORM, NORM_DIMS, Activation, activation_of, kind_of, stock_activation
from fastgan.nn._reasons import (
    vectors_of,
    why_not_backend,
    why_not_conv_act,
    why_not_here,
    why_not_input,
    why_not_module,
    why_not_norm,
    why_not_norm_act,
)
from fastgan.nn.functional import run_norm_act


def fused_norm_act(
    x: Tensor, norm: _BatchNorm, activation: str, negative_slope: float, act_first: bool
) -> Tensor | None:
    """Return batch norm and activation of x by one op, None if that cannot be. Counts the batch as torch does."""
    # a subclass is a BatchNormAct2d
    if why_not_input(x) or x.dim() not in NORM_DIMS.get(type(norm), (4,)):
        return None
    vectors = vectors_of(norm)
    if why_not_norm(norm, vectors, x) or why_not_backend("norm_act", x.device, x.dtype):
        return None
    weight, bias, mean, var = vectors
    training, momentum = norm.training or mean is None, norm.momentum
    if norm.training and not norm.track_running_stats:
        mean = var = None
    elif norm.training and (count := norm.num_batches_tracked) is not None:
        count.add_(1)
        if momentum is None:
            momentum = 1.0 / float(count)
    momentum = 0.0 if momentum is None else momentum
    attributes = (norm.eps, activation, negative_slope, act_first)
    return run_norm_act(x, weight, bias, mean, var, training, momentum, *attributes)


def norm_act(x: Tensor, norm: _BatchNorm, act: Activation, act_first: bool = False, private: bool = False) -> Tensor:
    """Return act(norm(x)), or norm(act(x)) with ``act_first``: by one op where nobody can tell, else by the modules.

    Args:
        norm: of kind NORM.
        private: nobody but the caller holds x, so that an activation may change it in place.
    """
    if not why_not_norm_act(norm, act, act_first, private):
        name, slope = activation_of(act)
        y = fused_norm_act(x, norm, name, slope, act_first)
        if y is not None:
            return y
    return norm(stock_activation(x, act)) if act_first else stock_activation(norm(x), act)


def _pulls_bias(conv: _ConvNd, x: Tensor) -> bool:
    t, bias = type(conv), conv.bias
    if bias is None or t not in CONVS or x.dim() != CONVS[t][0] or why_not_module(conv):
        return False
    plain = type(bias) is Parameter or type(bias) is Tensor
    return plain and bias.dtype == conv.weight.dtype and bias.device == x.device and bias.numel() == conv.out_channels


def _without_bias(x: Tensor, conv: _ConvNd) -> Tensor:
    transposed = CONVS[type(conv)][1]
    if transposed is None:
        return conv._conv_forward(x, conv.weight, None)
    sizes = (conv.stride, conv.padding, conv.output_padding, conv.groups, conv.dilation)
    return transposed(x, conv.weight, None, *sizes)


def _result_dtype(x: Tensor) -> torch.dtype:
    device_type = x.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else x.dtype


def conv_act(x: Tensor, conv: _ConvNd, act: Activation) -> Tensor:
    """Return act(conv(x)): bias and activation by one op where nobody can tell, else by the modules."""
    if why_not_conv_act(conv, act) or why_not_input(x):
        return stock_activation(conv(x), act)
    if why_not_backend("bias_act", x.device, _result_dtype(x)):
        return stock_activation(conv(x), act)
    name, slope = activation_of(act)
    if _pulls_bias(conv, x):
        return ops.bias_act.bias_act(_without_bias(x, conv), conv.bias, name, slope)
    y = conv(x)
    if why_not_input(y) or y.dim() < 2:
        return stock_activation(y, act)
    return ops.bias_act.bias_act(y, None, name, slope)


def traced_norm_act(x: Tensor, norm: nn.Module, act: Activation, act_first: bool = False) -> Tensor:
    """``norm_act`` for traced code, where the modules may have been replaced since."""
    if kind_of(norm) == NORM and _still_known(act) and not why_not_here():
        return norm_act(x, norm, act, act_first)  # type: ignore[arg-type]
    return norm(stock_activation(x, act)) if act_first else stock_activation(norm(x), act)


def traced_conv_act(x: Tensor, conv: nn.Module, act: Activation) -> Tensor:
    """``conv_act`` for traced code, where the modules may have been replaced since."""
    if kind_of(conv) == CONV and _still_known(act) and not why_not_here():
        return conv_act(x, conv, act)  # type: ignore[arg-type]
    return stock_activation(conv(x), act)


def _still_known(act: Activation) -> bool:
    return isinstance(act, tuple) or kind_of(act) == ACT
