"""What is so small that torch's own layers are faster than a fused op, where no backend was asked for by name.

An op calls Python several times and packs the weight. The limits were found by timing layers of GANs by hand on two CPU
cores; what they leave to lose are the rows at batch 1 in docs/performance.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, bfloat16, float32, get_autocast_dtype, is_autocast_enabled, nn
from torch.compiler import is_compiling
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import Parameter

from fastgan import backends
from fastgan.backends import processor
from fastgan.backends.geometry import widths
from fastgan.backends.layout import is_channels_last
from fastgan.nn._conv import Value, is_last, tensor_of
from fastgan.ops import _define

# pixels of all samples on a convolution's smaller side and multiplications, up to both of which torch's convolution
# wins, and its transposed convolution
_CONVOLUTIONS = ((128, math.inf), (256, 1 << 27), (math.inf, 3 << 22))
_TRANSPOSED = (*_CONVOLUTIONS[:2], (math.inf, 1 << 23))
# values of a tensor up to which torch's batch norm and activation do
_VALUES = 1 << 17
# multiplications of a convolution to or from a single pixel up to which torch's wins over one product of matrices
_PRODUCT = 1 << 13
# the same of a convolution without a backward, where channels are innermost
_PRODUCT_FORWARD = 1 << 16
# values of a weight from which on torch's convolution needs fresh memory at every call, and loses at few pixels, too
_LARGE_WEIGHT = 1 << 23
# id of a Sequential, shape, strides and dtype of its input, whether autocast is on and gradients are wanted
_Key = tuple[int, torch.Size, tuple[int, ...], torch.dtype, bool, bool]
# ids of a Sequential's children, when all their groups were small; what gets the id of one that is gone has the same
# result from its children called one by one
_known: dict[_Key, list[int]] = {}
_MOST_KNOWN = 1024
# costs less to ask than whether that of one device is on
_any_autocast = torch._C._is_any_autocast_enabled


def in_question(x: Tensor, norm: nn.Module | None = None) -> bool:
    """Return whether torch's own layers may do what is small: on a CPU, eager, no backend by name, in float32, or in
    bfloat16 on a processor that multiplies it.
    """
    # no function is called that need not be: between other work each is in no cache, and takes four times as long
    return (
        (type(x) is Tensor or type(x) is Parameter)
        and x.is_cpu
        and not is_compiling()
        and ((x.dtype is float32 and not _any_autocast()) or _multiplied(x.dtype))
        and backends._asked == "auto"
        # who records a critic runs another number of samples later
        and not _define._watchers
        # torch's refuses the CPU
        and (norm is None or not isinstance(norm, nn.SyncBatchNorm))
    )


def _multiplied(dtype: torch.dtype) -> bool:
    """Return whether torch's layers calculate in float32 for tensors of this dtype, or in a bfloat16 that is fast."""
    if is_autocast_enabled("cpu") and dtype in (float32, bfloat16):
        dtype = get_autocast_dtype("cpu")
    return dtype is float32 or (dtype is bfloat16 and processor.multiplies(dtype))


def _is_reduced(x: Tensor) -> bool:
    """Return whether torch's layers calculate in bfloat16, where little work is in question."""
    return x.dtype is bfloat16 or is_autocast_enabled("cpu")


def _is_copied(conv: _ConvNd, x: Tensor) -> bool:
    """Return whether the op would copy the weight: in bfloat16, with channels outermost."""
    weight = conv._parameters.get("weight")
    return _is_reduced(x) and weight is not None and not is_channels_last(weight)


def known_small(model: nn.Module, children: Sequence[nn.Module], x: Tensor) -> bool:
    """Return whether ``remember_small`` was told of such a call.

    Called one after another the children give the same result whatever has changed in them, so no more is looked at.
    """
    return in_question(x) and _known.get(_key(model, x)) == list(map(id, children))


def remember_small(model: nn.Module, children: Sequence[nn.Module], x: Tensor) -> None:
    """Note that torch's layers are faster for all children of a Sequential."""
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[_key(model, x)] = list(map(id, children))


def _key(model: nn.Module, x: Tensor) -> _Key:
    return id(model), x.shape, x.stride(), x.dtype, _any_autocast(), torch.is_grad_enabled()


def few_values(x: Tensor, norm: nn.Module | None = None) -> bool:
    """Return whether torch's activation of x is faster, with batch norm where there is one, and can be done at all."""
    return in_question(x, norm) and x.numel() <= _VALUES


def little_work(value: Value, conv: _ConvNd, norm: nn.Module | None = None) -> bool:
    """Return whether torch's convolution of value is faster, and a norm after it can be done at all."""
    x, transposed = tensor_of(value), isinstance(conv, nn.ConvTranspose2d)
    if not in_question(x, norm) or x.dim() != 4 or not (transposed or isinstance(conv, nn.Conv2d)):
        return False
    pixels, kernel_size, stride = x.shape[2] * x.shape[3], conv.kernel_size, conv.stride
    # torch's gradient of a kernel that leaves pixels out is wrong in channels_last, or writes where it must not
    if kernel_size[0] < stride[0] or kernel_size[1] < stride[1]:
        return False
    if stride[1] > 1 and _is_reduced(x):
        # "valid" is as good as what may be wrong
        sides = (1, 1) if isinstance(conv.padding, str) else widths(x, kernel_size, conv)  # type: ignore[arg-type]
        if processor.is_wrong(bfloat16, *sides, stride[1]):
            return False
    weight = conv.in_channels * conv.out_channels * kernel_size[0] * kernel_size[1]
    # of a single pixel on that side the op makes one product with the weight as it lies
    if pixels == 1 if transposed else x.shape[2:] == kernel_size:
        work = x.shape[0] * weight
        forward = not transposed and work <= _PRODUCT_FORWARD and not torch.is_grad_enabled()
        return work <= _PRODUCT or (forward and is_last(value))
    if weight >= _LARGE_WEIGHT and not _is_copied(conv, x):
        return False
    pixels = x.shape[0] * (pixels if transposed else pixels // (stride[0] * stride[1]))
    limits = _TRANSPOSED if transposed else _CONVOLUTIONS
    return any(pixels <= most and pixels * weight <= work for most, work in limits)
