r"""``gradient_penalty`` in plain PyTorch, the specification; differentiable to any order.

g (B, ...) is the gradient of a critic by its input, n_b = |g_b| the Euclidean norm over all other dimensions.

    x_b  = t_b real_b + (1 - t_b) fake_b                                 interpolate
    P    = weight / B sum_b (n_b - target)^2                             one-sided: of max(n_b - target, 0)
    v_b  = dP/dg_b = c_b g_b,   c_b = 2 weight / B (1 - target / n_b)    one-sided: 0 where n_b <= target

v, the seed of the second backward pass, is 0 where n_b is: the norm has no derivative there. With target 0 c_b is
constant, as R1 and R2 want it.
Source: Gulrajani et al. 2017, algorithm 1; Petzka et al. 2018, eq. 8 (one-sided); Mescheder et al. 2018, eq. 9.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype


def _per_sample(v: Tensor, x: Tensor) -> Tensor:
    return v.reshape(-1, *[1] * (x.dim() - 1))


def gradient_penalty_interpolate(real: Tensor, fake: Tensor, t: Tensor, stack: bool) -> Tensor:
    """Return x, in real's dtype and memory format; ``stack``: (3B, ...) of real, fake and x."""
    share = _per_sample(t, real)
    x = (share * real.to(t.dtype) + (1 - share) * fake.to(t.dtype)).to(real.dtype)
    return torch.cat([real, fake.to(real.dtype), x]) if stack else x


def gradient_penalty(g: Tensor, weight: float, target: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    """Return (P, v): P without dimensions in the accumulation type, v in g's type; both 0 for an empty batch."""
    wide = g.to(accumulate_dtype(g.dtype))
    share = weight / max(g.shape[0], 1)
    if target == 0:
        return share * wide.square().sum(), (2 * share * wide).to(g.dtype)
    squared = wide.flatten(1).square().sum(1)
    positive = squared > 0
    # the root of 0 has an infinite derivative, which would be NaN in the next order
    norm = torch.where(positive, squared, 1.0).sqrt()
    over = torch.where(positive, norm, 0.0) - target
    if one_sided:
        over = over.clamp(min=0)
    c = torch.where(positive, 2 * share * over / norm, 0.0)
    return share * over.square().sum(), (_per_sample(c, wide) * wide).to(g.dtype)
