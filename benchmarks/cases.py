"""The shapes that are measured."""

from __future__ import annotations

import torch

# (N, C, H, W) before each BatchNorm of DCGAN-64 at batch 64, G and D, and the issue's own shape
NORM_ACT = ((64, 128, 32, 32), (64, 64, 32, 32), (64, 128, 16, 16), (64, 256, 8, 8), (64, 512, 4, 4))
BIAS_ACT = ((64, 64, 32, 32), (64, 128, 16, 16), (64, 3, 64, 64))
DTYPES = (torch.float32, torch.bfloat16)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def name(dtype: torch.dtype) -> str:
    """Return float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")
