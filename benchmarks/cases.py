"""The shapes that are measured."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

# (N, C, H, W) before each BatchNorm of DCGAN-64 at batch 64, G and D, and the issue's own shape
NORM_ACT = ((64, 128, 32, 32), (64, 64, 32, 32), (64, 128, 16, 16), (64, 256, 8, 8), (64, 512, 4, 4))
BIAS_ACT = ((64, 64, 32, 32), (64, 128, 16, 16), (64, 3, 64, 64))
DTYPES = (torch.float32, torch.bfloat16)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def name(dtype: torch.dtype) -> str:
    """Return float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")


class Layer(NamedTuple):
    """A layer of a GAN: convolution, batch norm where ``norm``, activation."""

    name: str
    transposed: bool
    in_channels: int
    out_channels: int
    size: int
    kernel_size: int
    stride: int
    padding: int
    norm: bool
    activation: str


def dcgan(size: int, width: int = 64, latent: int = 100, channels: int = 3) -> list[Layer]:
    """Return the layers of the DCGAN tutorial's generator and discriminator for images of ``size`` pixels."""
    doublings = int(math.log2(size)) - 3
    widths = [width * 2**i for i in range(doublings + 1)]
    g = [Layer("G1", True, latent, widths[-1], 1, 4, 1, 0, True, "relu")]
    d = [Layer("D1", False, channels, width, size, 4, 2, 1, False, "leaky_relu")]
    for i in range(doublings):
        g.append(Layer(f"G{i + 2}", True, widths[-1 - i], widths[-2 - i], 4 * 2**i, 4, 2, 1, True, "relu"))
        d.append(Layer(f"D{i + 2}", False, widths[i], widths[i + 1], size // 2 ** (i + 1), 4, 2, 1, True, "leaky_relu"))
    g.append(Layer(f"G{doublings + 2}", True, width, channels, size // 2, 4, 2, 1, False, "tanh"))
    d.append(Layer(f"D{doublings + 2}", False, widths[-1], 1, 4, 4, 1, 0, False, "identity"))
    return g + d


CONV_NORM_ACT = dcgan(64)
