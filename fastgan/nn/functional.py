"""The fused functions: they check what the user passes, fill in defaults, and are the API reference."""

from __future__ import annotations

import torch
from torch import Tensor

import fastgan.ops  # noqa: F401
from fastgan.backends.reference.activation import ACTIVATIONS

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _check_input(op: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: x must be a Tensor, got {type(x).__name__}")
    if x.dtype not in _DTYPES:
        raise TypeError(f"{op}: x must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if x.dim() < 2:
        raise ValueError(f"{op}: x must have at least 2 dimensions (N, C, ...), got shape {tuple(x.shape)}")


def _check_vector(op: str, name: str, v: Tensor | None, x: Tensor) -> None:
    if v is None:
        return
    if not isinstance(v, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor or None, got {type(v).__name__}")
    if v.dim() != 1 or v.shape[0] != x.shape[1]:
        raise ValueError(f"{op}: {name} must have shape ({x.shape[1]},), the channels of x, got {tuple(v.shape)}")
    if v.device != x.device:
        raise ValueError(f"{op}: {name} must be on {x.device}, the device of x, got {v.device}")
    if v.dtype not in _DTYPES:
        raise TypeError(f"{op}: {name} must be of a floating point type, got {v.dtype}")


def _check_activation(op: str, activation: str, negative_slope: float) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if not negative_slope >= 0:
        raise ValueError(f"{op}: negative_slope must be >= 0, got {negative_slope!r}")


def bias_act(
    x: Tensor, bias: Tensor | None = None, *, activation: str = "leaky_relu", negative_slope: float = 0.2
) -> Tensor:
    r"""Bias and activation in one pass over the data.

    y = act(x + bias), the bias along dimension 1. Equal to ``F.leaky_relu(x + bias[:, None, None], negative_slope)``.
    Differentiable twice in x and bias; to any order for identity, relu and leaky_relu, whose second derivative is None, not zeros.

    Args:
        x: (N, C, ...), at least 2 dimensions; float16, bfloat16, float32 or float64; any layout; any device.
        bias: (C,), dtype of x or float32; None for no bias.
        activation: identity, relu, leaky_relu, tanh, sigmoid or silu.
        negative_slope: slope of leaky_relu below zero, dimensionless, >= 0.
    Returns: tensor of x's shape, dtype and memory format (channels_last stays so; what is not dense becomes dense).
    Raises: ValueError or TypeError naming the argument; BackendUnavailable when a backend was asked for by name and cannot serve.
    Precision: computed in float32 (float64 for float64). Deterministic. Saves y for backward, x for silu.
    Source: derived in backends/reference/bias_act.py.
    """
    _check_input("bias_act", x)
    _check_vector("bias_act", "bias", bias, x)
    _check_activation("bias_act", activation, negative_slope)
    return torch.ops.fastgan.bias_act(x, bias, activation, negative_slope)


def _check_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> None:  # fmt: skip
    op = "batch_norm_act"
    _check_input(op, x)
    for name, v in (("weight", weight), ("bias", bias), ("running_mean", mean), ("running_var", var)):
        _check_vector(op, name, v, x)
    if (mean is None) != (var is None):
        raise ValueError(f"{op}: running_mean and running_var must be given together, got only one of them")
    if not training and mean is None:
        raise ValueError(f"{op}: running_mean must be a Tensor when training is False, got None")
    if not 0 <= momentum <= 1:
        raise ValueError(f"{op}: momentum must be in [0, 1], got {momentum!r}")
    if not eps > 0:
        raise ValueError(f"{op}: eps must be > 0, got {eps!r}")
    if training and x.numel() == x.shape[1]:
        raise ValueError(f"{op}: x must have more than 1 value per channel when training, got shape {tuple(x.shape)}")


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
    ``F.leaky_relu(F.batch_norm(...))``. With ``act_first`` the activation comes before: ``F.batch_norm(F.leaky_relu(x))``.
    Differentiable twice in x, weight, bias.

    Args:
        x: (N, C, ...), at least 2 dimensions; float16, bfloat16, float32 or float64; contiguous or channels_last; any device.
        weight, bias: (C,), dtype of x or float32; None for 1 and 0.
        running_mean, running_var: (C,); updated in place when ``training`` (the variance unbiased), required otherwise.
        training: normalise by the statistics of x, else by the running ones.
        momentum: share of the new batch in the running statistics, in [0, 1].
        eps: added to the variance, > 0, in the square of x's unit.
        activation: identity, relu, leaky_relu, tanh, sigmoid or silu.
        negative_slope: slope of leaky_relu below zero, dimensionless, >= 0.
        act_first: activation before the normalisation.
    Returns: tensor of x's shape, dtype and memory format (channels_last stays so; what is not dense becomes dense).
    Raises: ValueError or TypeError naming the argument; BackendUnavailable when a backend was asked for by name and cannot serve.
    Precision: float32 accumulation (float64 for float64), Chan's merge of tile means. Deterministic. Saves x, mean, var for backward.
    Source: Ioffe and Szegedy 2015, eq. 1-4; both backward orders are derived in backends/reference/norm_act.py.
    """
    _check_batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)
    _check_activation("batch_norm_act", activation, negative_slope)
    attributes = (eps, activation, negative_slope, act_first)
    if not training:
        return torch.ops.fastgan.norm_act_eval(x, weight, bias, running_mean, running_var, *attributes)
    y, mean, var = torch.ops.fastgan.norm_act(x, weight, bias, *attributes)
    if running_mean is not None and running_var is not None and x.numel() > 0:
        count = x.numel() // x.shape[1]
        _update_running(running_mean, mean, momentum)
        _update_running(running_var, var * (count / (count - 1)), momentum)
    return y
