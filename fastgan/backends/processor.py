"""What this processor multiplies."""

from __future__ import annotations

import functools

import torch


@functools.cache
def multiplies(dtype: torch.dtype) -> bool:
    """Return whether the processor has products of a 16-bit type."""
    if dtype == torch.bfloat16:
        return torch.cpu._is_avx512_bf16_supported() or multiplies_tiles()
    return dtype == torch.float16 and torch.cpu._is_amx_fp16_supported()


@functools.cache
def multiplies_tiles() -> bool:
    """Return whether it multiplies whole tiles of bfloat16, which outdoes pairs of it."""
    return torch.cpu._is_amx_tile_supported()
