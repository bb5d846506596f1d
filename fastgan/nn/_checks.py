"""Checks of what the user passes to ``fastgan.nn.functional``: "<op>: <argument> must be <contract>, got <value>"."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.backends.reference.activation import ACTIVATIONS
from fastgan.nn._conv import Convolution
from fastgan.nn._plain import DTYPES


def check_dtype(op: str, name: str, x: Tensor) -> None:
    if x.dtype not in DTYPES:
        raise TypeError(f"{op}: {name} must be float16, bfloat16, float32 or float64, got {x.dtype}")


def check_input(op: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: x must be a Tensor, got {type(x).__name__}")
    check_dtype(op, "x", x)
    if x.dim() < 2:
        raise ValueError(f"{op}: x must have at least 2 dimensions (N, C, ...), got shape {tuple(x.shape)}")


def check_vector(op: str, name: str, v: Tensor | None, channels: int, device: torch.device) -> None:
    if v is None:
        return
    if not isinstance(v, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor or None, got {type(v).__name__}")
    if v.dim() != 1 or v.shape[0] != channels:
        raise ValueError(f"{op}: {name} must have shape ({channels},), the channels of x, got {tuple(v.shape)}")
    if v.device != device:
        raise ValueError(f"{op}: {name} must be on {device}, the device of x, got {v.device}")
    if v.dtype not in DTYPES:
        raise TypeError(f"{op}: {name} must be of a floating point type, got {v.dtype}")


def check_activation(op: str, activation: str, negative_slope: float) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if not 0 <= negative_slope < math.inf:
        raise ValueError(f"{op}: negative_slope must be >= 0 and finite, got {negative_slope!r}")


def check_batch_norm(
    op: str, shape: Sequence[int], device: torch.device, weight: Tensor | None, bias: Tensor | None,
    mean: Tensor | None, var: Tensor | None,
    training: bool, momentum: float, eps: float, prefix: str = "",
) -> None:  # fmt: skip
    vectors = ((prefix + "weight", weight), (prefix + "bias", bias), ("running_mean", mean), ("running_var", var))
    for name, v in vectors:
        check_vector(op, name, v, shape[1], device)
    if (mean is None) != (var is None):
        raise ValueError(f"{op}: running_mean and running_var must be given together, got only one of them")
    if not training and mean is None:
        raise ValueError(f"{op}: running_mean must be a Tensor when training is False, got None")
    if momentum is None or not 0 <= momentum <= 1:
        raise ValueError(f"{op}: momentum must be in [0, 1], got {momentum!r}")
    if not eps > 0:
        raise ValueError(f"{op}: eps must be > 0, got {eps!r}")
    if training and math.prod(shape) == shape[1]:
        what = "x" if not prefix else "the result of the convolution"
        raise ValueError(
            f"{op}: {what} must have more than 1 value per channel when training, got shape {tuple(shape)}"
        )


def pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    """Return (size, size), or the pair that was given."""
    values = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    return values * 2 if len(values) == 1 else values  # type: ignore[return-value]


def _check_sizes(op: str, least: int, **sizes: int | tuple[int, ...] | str) -> None:
    for name, size in sizes.items():
        values = size if isinstance(size, (tuple, list)) else (size,)
        if not all(isinstance(v, int) and v >= least for v in values) or len(values) not in (1, 2):
            raise ValueError(f"{op}: {name} must be an integer or a pair of integers >= {least}, got {size!r}")


def check_convolution(
    op: str, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, groups: int,
    stride: int | tuple[int, ...], padding: int | tuple[int, ...] | str, dilation: int | tuple[int, ...],
    output_padding: int | tuple[int, ...] = 0,
) -> None:  # fmt: skip
    check_input(op, x)
    if x.dim() != 4:
        raise ValueError(f"{op}: x must have shape (N, C, H, W), got {tuple(x.shape)}")
    if not isinstance(weight, Tensor):
        raise TypeError(f"{op}: weight must be a Tensor, got {type(weight).__name__}")
    _check_sizes(op, 1, stride=stride, dilation=dilation)
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"{op}: groups must be an integer >= 1, got {groups!r}")
    if transposed or padding not in ("same", "valid"):
        _check_sizes(op, 0, padding=padding)
    elif padding == "same" and set(pair(stride)) != {1}:
        raise ValueError(f"{op}: padding must be a number when stride is not 1, got 'same' with stride {stride!r}")
    _check_sizes(op, 0, output_padding=output_padding)
    sizes = zip(pair(output_padding), pair(stride), pair(dilation), strict=True)
    if any(o > 0 and o >= max(s, d) for o, s, d in sizes):
        raise ValueError(f"{op}: output_padding must be smaller than stride or dilation, got {output_padding!r}")
    rows = x.shape[1] if transposed else x.shape[1] // groups
    if weight.dim() != 4 or weight.shape[0 if transposed else 1] != rows or x.shape[1] % groups:
        form = f"({rows}, C_out / groups, kH, kW)" if transposed else f"(C_out, {rows}, kH, kW)"
        of = f"{x.shape[1]} channels in {groups} groups"
        raise ValueError(f"{op}: weight must have shape {form} for {of}, got {tuple(weight.shape)}")
    if weight.device != x.device:
        raise ValueError(f"{op}: weight must be on {x.device}, the device of x, got {weight.device}")
    if weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"{op}: weight must be {x.dtype}, the dtype of x, got {weight.dtype}")
    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    if not transposed and channels % groups:
        raise ValueError(f"{op}: groups must divide the {channels} rows of weight, got {groups}")
    if isinstance(bias, Tensor) and bias.device != x.device:
        raise ValueError(f"{op}: bias must be on {x.device}, the device of x, got {bias.device}")
    if bias is not None and (not isinstance(bias, Tensor) or tuple(bias.shape) != (channels,)):
        got = tuple(bias.shape) if isinstance(bias, Tensor) else type(bias).__name__
        raise ValueError(f"{op}: bias must be None or have shape ({channels},), the channels of the result, got {got}")


def check_output(op: str, x: Tensor, conv: Convolution) -> None:
    size, kernel = conv.output_size(x), tuple(conv.weight.shape[2:])
    if min(size) < 1:
        given = tuple(x.shape[2:])
        raise ValueError(f"{op}: x must be at least as large as the kernel {kernel} with its padding, got {given}")


def check_spectral_norm(
    op: str, weight: Tensor, u: Tensor, v: Tensor, dim: int, n_power_iterations: int, eps: float
) -> None:
    if not isinstance(weight, Tensor):
        raise TypeError(f"{op}: weight must be a Tensor, got {type(weight).__name__}")
    check_dtype(op, "weight", weight)
    if weight.dim() < 2 or weight.numel() == 0:
        raise ValueError(f"{op}: weight must have at least 2 dimensions and one value, got shape {tuple(weight.shape)}")
    if not isinstance(dim, int) or not -weight.dim() <= dim < weight.dim():
        raise ValueError(f"{op}: dim must be a dimension of weight, which has {weight.dim()}, got {dim!r}")
    for name, vector, size in (("u", u, weight.shape[dim]), ("v", v, weight.numel() // weight.shape[dim])):
        if not isinstance(vector, Tensor):
            raise TypeError(f"{op}: {name} must be a Tensor, got {type(vector).__name__}")
        if tuple(vector.shape) != (size,):
            raise ValueError(f"{op}: {name} must have shape ({size},) for dim {dim}, got {tuple(vector.shape)}")
        if vector.device != weight.device:
            raise ValueError(f"{op}: {name} must be on {weight.device}, the device of weight, got {vector.device}")
        if vector.dtype != weight.dtype:
            raise TypeError(f"{op}: {name} must be {weight.dtype}, the dtype of weight, got {vector.dtype}")
    if not isinstance(n_power_iterations, int) or n_power_iterations < 0:
        raise ValueError(f"{op}: n_power_iterations must be an integer >= 0, got {n_power_iterations!r}")
    if not 0 < eps < math.inf:
        raise ValueError(f"{op}: eps must be > 0 and finite, got {eps!r}")
