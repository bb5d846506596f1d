"""What is so small that torch's own layers are faster than a fused op, where no backend was asked for by name.

The limits were measured on a CPU (docs/performance.md): an op calls Python several times and packs the weight.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import Parameter

from fastgan import backends

# pixels of all samples on a convolution's smaller side and multiplications, within both of which torch's convolution
# wins, and values of a tensor up to which its batch norm and activation do
_CONVOLUTIONS = ((128, math.inf), (256, 1 << 27), (math.inf, 1 << 23))
_VALUES = 1 << 17
# values of a weight from which on torch's convolution needs fresh memory at every call, and loses at few pixels, too
_LARGE_WEIGHT = 1 << 23


def _in_question(x: Tensor) -> bool:
    return (
        type(x) in (Tensor, Parameter)
        and backends.asked() == "auto"
        and not torch.compiler.is_compiling()
        and x.is_cpu
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        # who records a critic runs another number of samples later
        and torch._C._len_torch_function_stack() == 0
    )


def few_values(x: Tensor) -> bool:
    """Return whether torch's batch norm and activation of x are faster."""
    return _in_question(x) and x.numel() <= _VALUES


def little_work(x: Tensor, conv: _ConvNd) -> bool:
    """Return whether torch's convolution of x is faster."""
    if not _in_question(x) or x.dim() != 4:
        return False
    pixels, kernel_size = x.shape[2] * x.shape[3], conv.kernel_size
    # of a single pixel on that side the op makes one product with the weight as it lies
    if isinstance(conv, _ConvTransposeNd):
        single = pixels == 1
    else:
        pixels //= conv.stride[0] * conv.stride[1]
        single = x.shape[2:] == kernel_size
    pixels *= x.shape[0]
    weight = conv.in_channels * conv.out_channels * kernel_size[0] * kernel_size[1]
    if single or weight >= _LARGE_WEIGHT:
        return False
    return any(pixels <= most and pixels * weight < work for most, work in _CONVOLUTIONS)
