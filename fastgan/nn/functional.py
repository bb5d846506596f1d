"""The fused functions: they check what the user passes, fill in defaults, and are the API reference."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan import ops
from fastgan.backends.reference.activation import SAVES_INPUT
from fastgan.nn._checks import (
    check_activation,
    check_batch_norm,
    check_convolution,
    check_input,
    check_output,
    check_spectral_norm,
    check_vector,
    pair,
)
from fastgan.nn._conv import Convolution, Vectors, conv_act, finish, same_padding

__all__ = [
    "batch_norm_act",
    "bias_act",
    "conv_norm_act",
    "conv_transpose_norm_act",
    "spectral_norm_power_iteration",
]


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
    check_vector("bias_act", "bias", bias, x.shape[1], x.device)
    check_activation("bias_act", activation, negative_slope)
    return ops.bias_act.bias_act(x, bias, activation, negative_slope)


def update_running(x: Tensor, running: Vectors, batch: Vectors, momentum: float) -> None:
    """Move running mean and variance, the last two, towards those of the batch x; an empty batch leaves them."""
    (*_, running_mean, running_var), (*_, mean, var) = running, batch
    count = x.numel() // x.shape[1]
    if count == 0 or mean is None or var is None:
        return
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((var * (count / max(count - 1, 1))).to(running_var.dtype), momentum)


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
    check_batch_norm(
        "batch_norm_act", x.shape, x.device, weight, bias, running_mean, running_var, training, momentum, eps
    )
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
    update_running(x, (weight, bias, running_mean, running_var), (None, None, mean, var), momentum)
    return y


def _run_convolution(
    op: str, x: Tensor, conv: Convolution, norm: bool, vectors: Vectors, training: bool,
    momentum: float, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> Tensor:  # fmt: skip
    check_output(op, x, conv)
    if not norm:
        return finish(conv_act(x, conv, activation, negative_slope, False))
    batch = (x.shape[0], conv.channels(), *conv.output_size(x))
    check_batch_norm(op, batch, x.device, *vectors, training, momentum, eps, prefix="norm_")
    if act_first and activation in SAVES_INPUT:
        y = conv.run(x, "identity", 0.0, False, False, False)[0]
        return run_norm_act(y, *vectors, training, momentum, eps, activation, negative_slope, act_first)
    raw = conv.norm_act(x, vectors, training, eps, activation, negative_slope, act_first, False)
    if training:
        update_running(raw.u, vectors, raw.norm, momentum)
    return finish(raw)


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
    r"""Convolution, batch normalisation and activation, fused.

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
    Precision: float32 accumulation (float64 for float64); statistics of the rounded result of the convolution.
    Deterministic. Saves x, weight, the result of the convolution, mean and var for backward.
    Source: derived in backends/reference/conv_norm_act.py.
    """
    op = "conv_norm_act"
    check_convolution(op, x, weight, bias, False, groups, stride, padding, dilation)
    check_activation(op, activation, negative_slope)
    x, numbers = same_padding(x, weight, padding, pair(dilation))
    sizes = (pair(stride), pair(numbers), pair(dilation), (0, 0), False, groups)
    vectors = (norm_weight, norm_bias, running_mean, running_var)
    conv, after = Convolution(weight, bias, *sizes), (training, momentum, eps, activation, negative_slope, act_first)
    return _run_convolution(op, x, conv, norm, vectors, *after)


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
    r"""Transposed convolution, batch normalisation and activation, fused.

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
    Precision: float32 accumulation (float64 for float64); statistics of the rounded result of the convolution.
    Deterministic. Saves x, weight, the result of the convolution, mean and var for backward.
    Source: derived in backends/reference/conv_norm_act.py.
    """
    op = "conv_transpose_norm_act"
    check_convolution(op, x, weight, bias, True, groups, stride, padding, dilation, output_padding)
    check_activation(op, activation, negative_slope)
    sizes = (pair(stride), pair(padding), pair(dilation), pair(output_padding), True, groups)
    vectors = (norm_weight, norm_bias, running_mean, running_var)
    conv, after = Convolution(weight, bias, *sizes), (training, momentum, eps, activation, negative_slope, act_first)
    return _run_convolution(op, x, conv, norm, vectors, *after)


@torch.no_grad()
def spectral_norm_power_iteration(
    weight: Tensor, u: Tensor, v: Tensor, *, dim: int = 0, n_power_iterations: int = 1, eps: float = 1e-12
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Power iteration for the largest singular value of a weight, seen as a matrix with ``dim`` as its rows.

    u = normalize(M v), v = normalize(M^T u), repeated, then sigma = u . M v, in one pass over the weight for each
    iteration on the CPU and one launch for all on a GPU. Equal to what torch.nn.utils.parametrizations.spectral_norm
    does at each read in training; the normalised weight is ``weight / sigma``.
    Not differentiable: u, v and sigma come without a graph. ``fastgan.nn.utils.spectral_norm`` has the gradient.

    Args:
        weight: at least 2 dimensions, not empty; float16, bfloat16, float32 or float64; contiguous and channels_last
            weights (these for dim 0 and 1) are read as they lie, others are copied; any device.
        u: (weight.shape[dim],), of unit length, dtype of weight.
        v: (weight.numel() / weight.shape[dim],), of unit length, dtype of weight; the other dimensions in their order.
        dim: dimension of the outputs: 0, or 1 for transposed convolutions; negative counts from the end.
        n_power_iterations: >= 0; with 0, u and v are returned as they are with their sigma.
        eps: least length that a vector is divided by, > 0, in the unit of weight.
    Returns: new u, new v, and sigma without dimensions, float32 (float64 for float64). The arguments are not changed.
    Raises: ValueError or TypeError naming the argument; BackendUnavailable when a backend was named and cannot serve.
    Precision: float32 accumulation (float64 for float64), float64 between blocks. Deterministic. Saves nothing.
    Source: Miyato et al. 2018, algorithm 1; formulas in backends/reference/spectral_norm.py.
    """
    check_spectral_norm("spectral_norm_power_iteration", weight, u, v, dim, n_power_iterations, eps)
    dims = [dim % weight.dim()]
    us, vs, sigmas = ops.spectral_norm.spectral_norm_power_iteration(
        [weight], [u], [v], dims, n_power_iterations, eps, False
    )
    return us[0], vs[0], sigmas[0]
