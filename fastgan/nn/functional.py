"""The fused functions: they check what the user passes, fill in defaults, and are the API reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan import ops
from fastgan.nn._checks import check_activation, check_batch_norm, check_convolution, check_input, check_vector

Vectors = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def bias_act(
    x: Tensor, bias: Tensor | None = None, *, activation: str = "leaky_relu", negative_slope: float = 0.2
) -> Tensor:
    r"""Bias and activation in one pass over the data.

    y = act(x + bias), the bias along dimension 1. Equal to ``F.leaky_relu(x + bias[:, None, None], negative_slope)``.
    Differentiable twice in x and bias; to any order for identity, relu and leaky_relu, whose second derivative is None,
    not zeros.

    Args:
        x: (N, C, ...), at least 2 dimensions; float16, bfloat16, float32 or float64; any layout; any device.
        bias: (C,), dtype of x or float32; None for no bias.
        activation: identity, relu, leaky_relu, tanh, sigmoid or silu.
        negative_slope: slope of leaky_relu below zero, dimensionless, >= 0.
    Returns: tensor of x's shape, dtype and memory format (channels_last stays so; what is not dense becomes dense).
    Raises: ValueError or TypeError naming the argument; BackendUnavailable when a backend was named and cannot serve.
    Precision: computed in float32 (float64 for float64). Deterministic. Saves y for backward, x for silu.
    Source: derived in backends/reference/bias_act.py.
    """
    check_input("bias_act", x)
    check_vector("bias_act", "bias", bias, x)
    check_activation("bias_act", activation, negative_slope)
    return ops.bias_act.bias_act(x, bias, activation, negative_slope)


@torch.no_grad()
def _update_running(running: Tensor, batch: Tensor, momentum: float) -> None:
    running.lerp_(batch.to(running.dtype), momentum)


def batch_norm_act(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "leaky_relu",
    negative_slope: float = 0.2,
    act_first: bool = False,
) -> Tensor:
    r"""Batch normalisation followed by an activation, in one pass over the data.

    y = act(weight * (x - mean) / sqrt(var + eps) + bias), statistics over all dimensions but 1. Equal to
    ``F.leaky_relu(F.batch_norm(...))``. With ``act_first`` the activation comes before, as in
    ``F.batch_norm(F.leaky_relu(x))``.
    Differentiable twice in x, weight, bias.

    Args:
        x: (N, C, ...), at least 2 dimensions; float16, bfloat16, float32 or float64; contiguous or channels_last; any
            device.
        weight, bias: (C,), dtype of x or float32; None for 1 and 0.
        running_mean, running_var: (C,); updated in place when ``training`` (the variance unbiased), required otherwise.
        training: normalise by the statistics of x, else by the running ones.
        momentum: share of the new batch in the running statistics, in [0, 1].
        eps: added to the variance, > 0, in the square of x's unit.
        activation: identity, relu, leaky_relu, tanh, sigmoid or silu.
        negative_slope: slope of leaky_relu below zero, dimensionless, >= 0.
        act_first: activation before the normalisation.
    Returns: tensor of x's shape, dtype and memory format (channels_last stays so; what is not dense becomes dense).
    Raises: ValueError or TypeError naming the argument; BackendUnavailable when a backend was named and cannot serve.
    Precision: float32 accumulation (float64 for float64), Chan's merge of tile means. Deterministic. Saves x, mean, var
    for backward.
    Source: Ioffe and Szegedy 2015, eq. 1-4; both backward orders are derived in backends/reference/norm_act.py.
    """
    check_input("batch_norm_act", x)
    check_batch_norm("batch_norm_act", x, weight, bias, running_mean, running_var, training, momentum, eps)
    check_activation("batch_norm_act", activation, negative_slope)
    attributes = (eps, activation, negative_slope, act_first)
    return run_norm_act(x, weight, bias, running_mean, running_var, training, momentum, *attributes)


def run_norm_act(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    training: bool, momentum: float, *attributes: float | str | bool,
) -> Tensor:  # fmt: skip
    """``batch_norm_act`` without the checks, for callers that made them; ``attributes`` as in ``fastgan::norm_act``."""
    if not training:
        return ops.norm_act.norm_act_eval(x, weight, bias, running_mean, running_var, False, *attributes)
    y, mean, var = ops.norm_act.norm_act(x, weight, bias, *attributes)
    if running_mean is not None and running_var is not None and x.numel() > 0:
        count = x.numel() // x.shape[1]
        _update_running(running_mean, mean, momentum)
        _update_running(running_var, var * (count / (count - 1)), momentum)
    return y


def _stem_after(
    op: str, y: Tensor, bias: Tensor | None, norm: bool, vectors: Vectors, training: bool,
    momentum: float, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> Tensor:  # fmt: skip
    if not norm:
        return ops.bias_act.bias_act(y, bias, activation, negative_slope)
    check_batch_norm(op, y, *vectors, training, momentum, eps, prefix="norm_")
    return run_norm_act(y, *vectors, training, momentum, eps, activation, negative_slope, act_first)


def conv_norm_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    norm: bool = True,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "leaky_relu",
    negative_slope: float = 0.2,
    act_first: bool = False,
) -> Tensor:
    r"""Convolution, batch normalisation and activation; for now torch's convolution, then the rest fused.

    y = act(norm(conv(x, weight) + bias)), or act(conv(x, weight) + bias) without ``norm``. Equal to
    ``F.leaky_relu(F.batch_norm(F.conv2d(...), ...))``. Differentiable twice in x, weight, bias, norm_weight, norm_bias.

    Args:
        x: (N, C_in, H, W); float16, bfloat16, float32 or float64; contiguous or channels_last; any device.
        weight: (C_out, C_in / groups, kH, kW), dtype of x (any under autocast).
        bias: (C_out,), added to the convolution; None for no bias.
        stride, padding, dilation, groups: as in ``F.conv2d``.
        norm: normalise; the six arguments after it and ``eps`` are those of ``batch_norm_act`` and unused without it.
        activation: identity, relu, leaky_relu, tanh, sigmoid or silu.
        negative_slope: slope of leaky_relu below zero, dimensionless, >= 0.
        act_first: activation before the normalisation.
    Returns: (N, C_out, H', W') in the dtype and memory format of ``F.conv2d``.
    Raises: ValueError or TypeError naming the argument; BackendUnavailable when a backend was named and cannot serve.
    Precision: the convolution's is torch's, the rest as in ``batch_norm_act`` and ``bias_act``.
    """
    op = "conv_norm_act"
    check_convolution(op, x, weight, bias, False, groups, stride, padding, dilation)
    check_activation(op, activation, negative_slope)
    y = F.conv2d(x, weight, bias if norm else None, stride, padding, dilation, groups)
    vectors = (norm_weight, norm_bias, running_mean, running_var)
    return _stem_after(op, y, bias, norm, vectors, training, momentum, eps, activation, negative_slope, act_first)


def conv_transpose_norm_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    output_padding: int | tuple[int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
    *,
    norm: bool = True,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "leaky_relu",
    negative_slope: float = 0.2,
    act_first: bool = False,
) -> Tensor:
    r"""Transposed convolution, batch normalisation and activation; for now torch's convolution, then the rest fused.

    As ``conv_norm_act``, with ``F.conv_transpose2d`` and its order of arguments. Differentiable twice in x, weight,
    bias, norm_weight, norm_bias.

    Args:
        x: (N, C_in, H, W); float16, bfloat16, float32 or float64; contiguous or channels_last; any device.
        weight: (C_in, C_out / groups, kH, kW), dtype of x (any under autocast).
        bias: (C_out,), added to the convolution; None for no bias.
        stride, padding, output_padding, groups, dilation: as in ``F.conv_transpose2d``.
        norm and all after it: as in ``conv_norm_act``.
    Returns: (N, C_out, H', W') in the dtype and memory format of ``F.conv_transpose2d``.
    Raises: ValueError or TypeError naming the argument; BackendUnavailable when a backend was named and cannot serve.
    Precision: the convolution's is torch's, the rest as in ``batch_norm_act`` and ``bias_act``.
    """
    op = "conv_transpose_norm_act"
    check_convolution(op, x, weight, bias, True, groups, stride, padding, dilation)
    check_activation(op, activation, negative_slope)
    y = F.conv_transpose2d(x, weight, bias if norm else None, stride, padding, output_padding, groups, dilation)
    vectors = (norm_weight, norm_bias, running_mean, running_var)
    return _stem_after(op, y, bias, norm, vectors, training, momentum, eps, activation, negative_slope, act_first)
