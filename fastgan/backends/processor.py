"""What this processor multiplies."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch


@functools.cache
def multiplies(dtype: torch.dtype) -> bool:
    """Return whether the processor has products of a 16-bit type."""
    if dtype == torch.bfloat16:
        return torch.cpu._is_avx512_bf16_supported() or _multiplies_tiles()
    return dtype == torch.float16 and torch.cpu._is_amx_fp16_supported()


@functools.cache
def _multiplies_tiles() -> bool:
    return torch.cpu._is_amx_tile_supported()


def is_wrong(dtype: torch.dtype, small: int, big: int, stride: int) -> bool:
    """Return whether torch's convolutions in this dtype are wrong on this processor.

    oneDNN's products of tiles (AMX, torch 2.13) read memory that nobody wrote where strides leave one pixel.

    Args:
        small, big: widths in pixels of the tensor that the kernel slides over, big, and of the other.
        stride: along the width.
    """
    return dtype == torch.bfloat16 and stride > 1 and (small == 1 or big < stride) and _multiplies_tiles()


@contextlib.contextmanager
def right(x: torch.Tensor, small: int, big: int, stride: int) -> Iterator[None]:
    """Context in which torch's convolutions of x are right."""
    if not x.is_cpu or not is_wrong(x.dtype, small, big, stride):
        yield
        return
    before, *_ = torch.backends.mkldnn.set_flags(False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before)
