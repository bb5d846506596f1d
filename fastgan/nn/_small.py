"""What is so small that torch's own layers are faster than a fused op, where no backend was asked for by name.

An op calls Python several times and packs the weight. The limits were found by timing layers of GANs by hand on two CPU
cores; what they leave to lose are the rows at batch 1 in docs/performance.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import Parameter

from fastgan import backends
from fastgan.ops._define import is_watched

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
        and not is_watched()
    )


def few_values(x: Tensor, norm: nn.Module | None = None) -> bool:
    """Return whether torch's activation of x is faster, with batch norm where there is one, and can be done at all."""
    # torch's synchronised norm refuses the CPU
    return _in_question(x) and x.numel() <= _VALUES and not isinstance(norm, nn.SyncBatchNorm)


def little_work(x: Tensor, conv: _ConvNd) -> bool:
    """Return whether torch's convolution of x is faster."""
    transposed = isinstance(conv, nn.ConvTranspose2d)
    if not _in_question(x) or x.dim() != 4 or not (transposed or isinstance(conv, nn.Conv2d)):
        return False
    pixels, kernel_size, stride = x.shape[2] * x.shape[3], conv.kernel_size, conv.stride
    # torch's gradient of a kernel that leaves pixels out is wrong in channels_last, or writes where it must not
    if kernel_size[0] < stride[0] or kernel_size[1] < stride[1]:
        return False
    # of a single pixel on that side the op makes one product with the weight as it lies
    if pixels == 1 if transposed else x.shape[2:] == kernel_size:
        return False
    weight = conv.in_channels * conv.out_channels * kernel_size[0] * kernel_size[1]
    if weight >= _LARGE_WEIGHT:
        return False
    pixels = x.shape[0] * (pixels if transposed else pixels // (stride[0] * stride[1]))
    return any(pixels <= most and pixels * weight < work for most, work in _CONVOLUTIONS)
