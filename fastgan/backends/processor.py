"""What this processor multiplies."""

from __future__ import annotations

import contextlib
import functools
import threading

import torch


@functools.cache
def multiplies(dtype: torch.dtype) -> bool:
    """Return whether the processor has products of a 16-bit type."""
    if dtype == torch.bfloat16:
        return torch.cpu._is_avx512_bf16_supported() or multiplies_tiles()
    return dtype == torch.float16 and torch.cpu._is_amx_fp16_supported()


@functools.cache
def multiplies_tiles() -> bool:
    """Return whether it multiplies whole tiles of bfloat16."""
    return torch.cpu._is_amx_tile_supported()


def is_wrong(dtype: torch.dtype, small: int, big: int, stride: int) -> bool:
    """Return whether torch's convolutions in this dtype are wrong on this processor.

    oneDNN's products of tiles (AMX, torch 2.13) read memory that nobody wrote where strides leave one pixel
    of a row, or step over all of it.

    Args:
        small, big: widths in pixels of the tensor that the kernel slides over, big, and of the other.
        stride: along the width.
    """
    return dtype == torch.bfloat16 and stride > 1 and (small == 1 or big < stride) and multiplies_tiles()


class _WithoutOneDNN:
    """Context without oneDNN, whose switch is one for all threads: the last to leave turns it on again."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, True

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = torch._C._get_mkldnn_enabled()
                torch._C._set_mkldnn_enabled(False)
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                torch._C._set_mkldnn_enabled(self.before)


_without_onednn = _WithoutOneDNN()


def right(dtype: torch.dtype, small: int, big: int, stride: int) -> contextlib.AbstractContextManager[None]:
    """Return a context in which torch's convolutions are right."""
    return _without_onednn if is_wrong(dtype, small, big, stride) else contextlib.nullcontext()
