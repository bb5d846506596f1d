"""The penalty of a gradient as a stem under test, beside the composition a user would write."""

import math
import zlib
from typing import NamedTuple

import torch

from fastgan.ops.gradient_penalty import gradient_penalty
from fastgan.testing import in_layout, random_values

from .common import INTERPRETED_DTYPES
from .grid import DTYPES

WEIGHT = 10.0


class PenaltyCase(NamedTuple):
    """One configuration; ``spread`` is the factor from the least to the largest norm, which lie around 1."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    target: float = 1.0
    one_sided: bool = False
    weight: float = WEIGHT
    spread: float = 9.0

    def __str__(self) -> str:
        words = ["x".join(map(str, self.shape)), str(self.dtype)[6:], f"target_{self.target:g}"]
        words += ["one_sided"] if self.one_sided else []
        words += [self.layout] if self.layout != "contiguous" else []
        words += [f"weight_{self.weight:g}"] if self.weight != WEIGHT else []
        return "-".join(words)


def make_gradient(case, device="cpu"):
    """Return g, its norms from 1 / sqrt(spread) to sqrt(spread) and nowhere near the target, its last sample 0.

    With one sample, that one is not 0.
    """
    g = random_values(case.shape, zlib.crc32(str(case).encode()), device)
    batch = case.shape[0]
    # an even number of steps would meet 1 in the middle
    steps = torch.linspace(-0.5, 0.5, batch + batch % 2, dtype=torch.float64, device=device)[:batch]
    norms = g.flatten(1).norm(dim=1)
    wanted = case.spread**-steps if batch > 1 else torch.full_like(norms, math.sqrt(case.spread))
    g *= (wanted / norms).reshape(-1, *[1] * (g.dim() - 1))
    if batch > 1:
        g[-1] = 0
    return in_layout(g.to(case.dtype), case.layout)


def fused(case, g):
    """Return (P, v)."""
    return gradient_penalty(g, case.weight, case.target, case.one_sided)


def stock(case, g):
    """Return P as a user would write it; torch's norm has the gradient 0 at 0."""
    over = g.flatten(1).norm(dim=1) - case.target
    return case.weight * (over.clamp(min=0) if case.one_sided else over).square().mean()


def stock_seed(case, g):
    """Return (P, v) of the composition."""
    g = g.detach().requires_grad_()
    penalty = stock(case, g)
    return penalty.detach(), torch.autograd.grad(penalty, g)[0]


VARIANTS = [{"target": target, "one_sided": one_sided} for target in (1.0, 0.0, 2.3) for one_sided in (False, True)]
SMALL = (5, 3, 4, 7)
# one sample in many parts, samples of one and of several parts, points, many samples, every number of dimensions
SHAPES = ((1, 3, 131, 257), (3, 2, 97, 89), (77, 2), (300, 1, 3, 3), (9, 5, 11), (4, 2, 3, 5, 7), (2, 65), (3, 33000))
CASES = [PenaltyCase(SMALL, dtype, layout, **v) for dtype in DTYPES for v in VARIANTS
         for layout in ("contiguous", "channels_last")]  # fmt: skip
CASES += [PenaltyCase(s, dtype, **VARIANTS[i % 6]) for i, s in enumerate(SHAPES) for dtype in DTYPES]
CASES += [PenaltyCase(s, weight=0.1, **VARIANTS[(i + 1) % 6]) for i, s in enumerate(SHAPES)]
# for the interpreter, which takes 0.1 s a program: one part and several, one tile of samples and several
FEW = [PenaltyCase(SMALL, dtype, **v) for v, dtype in zip(VARIANTS, INTERPRETED_DTYPES * 2, strict=True)]
FEW += [PenaltyCase(shape, INTERPRETED_DTYPES[i % 3], **VARIANTS[i % 6])
        for i, shape in enumerate(((1, 3, 53, 87), (77, 2), (35, 1, 3, 3), (9, 5, 11), (4, 2, 3, 5, 7), (2, 65),
                                   (2, 9000), (40, 70)))]  # fmt: skip
FEW += [PenaltyCase((2, 3, 5, 9), weight=0.1), PenaltyCase((2, 3, 5, 9), torch.float64, weight=0.1, target=0.3)]
