"""``gradient_penalty`` in C++ (csrc/cpu/gradient_penalty.cpp) and in CUDA C++ (csrc/cuda/gradient_penalty.cu)."""

from __future__ import annotations

import torch
from torch import Tensor

import fastgan._C as _C
from fastgan.backends.layout import accumulate_dtype, dense, empty, memory_format


def gradient_penalty_interpolate(real: Tensor, fake: Tensor, t: Tensor, stack: bool) -> Tensor:
    """Return x, in real's dtype and memory format; ``stack``: (3B, ...) of real, fake and x."""
    real, fake = dense(real), dense(fake.to(real.dtype), like=real)
    t = t.to(accumulate_dtype(real.dtype)).contiguous()
    shape = ((3 if stack else 1) * real.shape[0], *real.shape[1:])
    x = torch.empty(shape, dtype=real.dtype, device=real.device, memory_format=memory_format(real))
    getattr(_C, f"gradient_penalty_interpolate_{real.device.type}")(real, fake, t, x, stack)
    return x


def gradient_penalty(g: Tensor, weight: float, target: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    """Return (P, v): P without dimensions in the accumulation type, v in g's type; both 0 for an empty batch."""
    g, penalty, v = dense(g), g.new_empty((), dtype=accumulate_dtype(g.dtype)), empty(g)
    getattr(_C, f"gradient_penalty_{g.device.type}")(g, penalty, v, weight, target, one_sided)
    return penalty, v
