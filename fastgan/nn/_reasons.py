"""Why a group of layers cannot run as one fused op: each function returns the reason, empty where there is none.

A group is fused only if nobody can tell. Every reason against it is found here, at each call, and ``fastgan.explain``
prints the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import Parameter

from fastgan import backends
from fastgan.nn._conv import Vectors
from fastgan.nn._layers import CONV, NORM_DIMS, Activation, activation_of, changes_input, kind_of
from fastgan.nn._plain import DTYPES, why_not_module
from fastgan.nn._spectral_norm import LegacySpectralNorm

# shape, device and dtype of a tensor that is not there yet
Meta = tuple[Sequence[int], torch.device, torch.dtype]


def shows_output(module: nn.Module) -> bool:
    """Return whether others than the next layer may hold this layer's output, and would see it changed in place."""
    hooks = module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(hooks) or "forward" in module.__dict__ or kind_of(module) != CONV


def why_not_act(act: Activation) -> str:
    """Return why an activation cannot be fused, empty if it can."""
    _, slope = activation_of(act)
    if not isinstance(slope, (float, int)) or not slope >= 0:
        return f"the negative slope {slope!r} is not a number >= 0"
    return "" if isinstance(act, tuple) else why_not_module(act)


def why_not_input(x: Tensor) -> str:
    """Return why the ops do not take this input, empty if they do."""
    if type(x) is not Tensor and type(x) is not Parameter:
        return f"the input is a {type(x).__name__}, not a plain Tensor"
    if not (x.is_cpu or x.is_cuda) or x.layout is not torch.strided:
        return f"the input is on {x.device} in layout {x.layout}"
    return "" if x.dtype in DTYPES else f"the input is {x.dtype}"


def vectors_of(norm: _BatchNorm) -> Vectors:
    """Return (weight, bias, running_mean, running_var)."""
    parameters, buffers = norm._parameters, norm._buffers
    # a look-up by attribute takes ten times as long; the replicas of DataParallel have their parameters as attributes
    if "weight" in parameters and "bias" in parameters and "running_mean" in buffers and "running_var" in buffers:
        return parameters["weight"], parameters["bias"], buffers["running_mean"], buffers["running_var"]
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


def why_not_norm(norm: _BatchNorm, vectors: Vectors, x: Tensor | Meta | None = None) -> str:
    """Return which state of a batch norm, or which input of it, ``norm_act`` does not serve; empty if it serves all."""
    if isinstance(x, Tensor):
        x = (x.shape, x.device, x.dtype)
    if (vectors[2] is None) != (vectors[3] is None):
        return "there is only one of running_mean and running_var"
    if not norm.eps > 0 or not (norm.momentum is None or 0 <= norm.momentum <= 1):
        return f"eps {norm.eps} or momentum {norm.momentum} is out of range"
    first = vectors[0] if vectors[0] is not None else vectors[2]
    if first is None:
        first = vectors[1]
    if first is not None:
        dtype, device, channels = first.dtype, first.device, norm.num_features
        for v in vectors:
            if v is None:
                continue
            if type(v) is not Parameter and type(v) is not Tensor:
                return f"a parameter is a {type(v).__name__}"
            if v.dtype is not dtype or v.numel() != channels or v.device != device:
                return "its parameters and buffers differ in dtype, device or length"
        if dtype not in DTYPES:
            return f"its parameters are {dtype}"
        if x is not None and (x[1] != device or x[0][1] != channels):
            return "the input has another number of channels or is on another device"
        if x is not None and dtype is not x[2] and (dtype != torch.float32 or x[2] == torch.float64):
            return f"its parameters are {dtype}, the input is {x[2]}"
    if x is not None and (norm.training or vectors[2] is None) and math.prod(x[0]) == x[0][1]:
        return "there is one value per channel"
    return ""


@cache
def _no_fast_backend(stem: str, device: torch.device, dtype: torch.dtype) -> str:
    if backends.automatic(stem, device.type, dtype) != "reference":
        return ""
    names = [name for name in backends.PREFERENCE.get(device.type, ()) if name != "reference"]
    reasons = [f"{name}: {backends.unavailable(name, stem, device.type, dtype)}" for name in names]
    return "; ".join(reasons) or f"no backend for {device.type} tensors"


def _constant_no_fast_backend(stem: str, device: torch.device, dtype: torch.dtype) -> str:
    return _no_fast_backend(stem, device, dtype)


# what torch.compiler.assume_constant_result does, without its import of all of dynamo
_constant_no_fast_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]


def why_not_backend(stem: str, device: torch.device, dtype: torch.dtype) -> str:
    """Return why only the automatic fallback could serve, slower than stock; empty if a backend can, or was named."""
    if backends.asked() != "auto":
        return ""
    if torch.compiler.is_compiling():
        return _constant_no_fast_backend(stem, device, dtype)
    return _no_fast_backend(stem, device, dtype)


def why_not_norm_act(norm: _BatchNorm, act: Activation, act_first: bool = False, private: bool = False) -> str:
    """Return why the modules of a group must be called themselves; ``private``: nobody else holds the group's input."""
    reason = why_not_module(norm) or why_not_act(act)
    if not reason and type(norm) not in NORM_DIMS and norm.activation != "identity":
        return f"{type(norm).__name__} has an activation of its own"
    if not reason and act_first and not private and changes_input(act):
        return "the activation changes its input in place"
    return reason


def why_not_conv_norm_act(norm: _BatchNorm, act: Activation | None) -> str:
    """Return why the norm after a convolution must be called itself; nobody else holds what it gets."""
    return why_not_module(norm) if act is None else why_not_norm_act(norm, act, False, private=True)


def why_not_conv(conv: _ConvNd, x: Tensor | None = None) -> str:
    """Return why a convolution must be called itself, empty if ``conv_norm_act`` may do its work on x."""
    if not isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)):
        return "there are fused convolutions in two dimensions only"
    reason = why_not_module(conv, called=(LegacySpectralNorm,))
    if not reason and conv.padding_mode != "zeros":
        reason = f"padding_mode is {conv.padding_mode!r}"
    if not reason and isinstance(conv.padding, str):
        reason = f"padding is {conv.padding!r}"
    if not reason and x is not None:
        reason = why_not_input(x) or ("" if x.dim() == 4 else f"the input has {x.dim()} dimensions")
    return reason


def vendors_convolution(conv: _ConvNd) -> str:
    """Return why a convolution's matrix products are the vendor's, empty if they may be fused kernels."""
    return "the vendor's convolution with fused kernels around it: groups" if conv.groups != 1 else ""
