"""Spectral norm of all layers of a discriminator in training: torch's parametrizations and fastgan's.

``python -m benchmarks.bench_spectral_norm --out FILE`` times all providers in turn and writes one JSON file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from benchmarks import cases, timing
from fastgan.nn import utils
from fastgan.nn.spectral_norm import SpectralNormGroup, folded_weights


def _convolutions(norm: Callable[..., Any], **options: Any) -> list[nn.Module]:
    torch.manual_seed(0)
    layers = [layer for layer in cases.dcgan(64) if layer.name.startswith("D")]
    sizes = [(la.in_channels, la.out_channels, la.kernel_size, la.stride, la.padding) for la in layers]
    return [norm(nn.Conv2d(*size, bias=False), **options) for size in sizes]
