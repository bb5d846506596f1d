"""Weights to take spectral norms of, and what torch makes of them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastgan import ops
from fastgan.testing import assert_close_to_gold, in_layout, random_values

from .grid import DTYPES

EPS = 1e-12


class Case(NamedTuple):
    """A weight of ``shape`` seen from ``dim``, in one of testing.LAYOUTS."""

    shape: tuple[int, ...]
    dim: int = 0
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"

    def __str__(self):
        return f"{'x'.join(map(str, self.shape))}-dim{self.dim}-{str(self.dtype)[6:]}-{self.layout}"


def _shapes():
    # columns around lanes and rows around groups of rows; more rows than one task has; odd inner sizes
    shapes = [(1, 1), (3, 63), (5, 65), (9, 8200), (700, 40), (40, 700), (17, 6, 5), (17, 6, 3, 3), (21, 10, 4, 4)]
    shapes += [(3, 4, 1, 1), (4, 6, 2, 3, 2), (2, 3, 20, 20), (1, 70, 4, 4), (70, 1, 4, 4)]
    return [Case(shape, dim) for shape in shapes for dim in (0, 1)] + [Case((5, 4, 3, 6), 2), Case((5, 4, 3, 6), 3)]


def _layouts():
    images = [Case(shape, dim, layout=layout) for shape in ((6, 5, 4, 4), (70, 33, 3, 3)) for dim in (0, 1, 3)
              for layout in ("channels_last", "sliced", "sliced_channels_last", "permuted", "expanded")]  # fmt: skip
    volumes = [Case((6, 5, 2, 3, 4), dim, layout="channels_last") for dim in (0, 1, 4)]
    return images + volumes + [Case((8, 70), dim, layout="permuted") for dim in (0, 1)]


CASES = _shapes() + _layouts()
TYPES = [Case(shape, dim, dtype, layout) for shape, dim, layout in
         (((70, 33, 3, 3), 0, "contiguous"), ((24, 70, 4, 4), 1, "contiguous"), ((24, 70, 4, 4), 1, "channels_last"),
          ((24, 70, 4, 4), 0, "channels_last"), ((300, 70), 0, "contiguous")) for dtype in DTYPES]  # fmt: skip
SMALL = [Case((4, 3, 2, 2)), Case((4, 3, 2, 2), 1, layout="channels_last"), Case((3, 5), 1), Case((4, 3, 3), 1)]


def matrix_of(weight, dim):
    return weight.movedim(dim, 0).flatten(1)


def make(case, device, seed=0):
    """Return weight, u and v of a case, and a cotangent of the result."""
    weight, dy = (in_layout(random_values(case.shape, seed + i, device).to(case.dtype), case.layout) for i in (0, 1))
    rows, columns = matrix_of(weight, case.dim).shape
    u, v = (F.normalize(random_values((n,), seed + i, device), dim=0) for n, i in ((rows, 2), (columns, 3)))
    return weight, u.to(case.dtype), v.to(case.dtype), dy


def stock(weight, u, v, dim, iterations, v_first=False, eps=EPS):
    """Return what torch's parametrization does, in the type of the weight, or its legacy hook with ``v_first``."""
    m = matrix_of(weight, dim)
    for _ in range(iterations):
        if v_first:
            v = F.normalize(torch.mv(m.t(), u), dim=0, eps=eps)
        u = F.normalize(torch.mv(m, v), dim=0, eps=eps)
        if not v_first:
            v = F.normalize(torch.mv(m.t(), u), dim=0, eps=eps)
    return u, v, torch.dot(u, torch.mv(m, v))


def ours_of(weights, us, vs, dims, iterations=1, v_first=False, eps=EPS):
    return ops.spectral_norm.spectral_norm_power_iteration(weights, us, vs, dims, iterations, eps, v_first)


def check(case, device, iterations, v_first, got=None, seed=0):
    weight, u, v, _ = make(case, device, seed)
    if got is None:
        us, vs, sigmas = ours_of([weight], [u], [v], [case.dim], iterations, v_first)
        got = us[0], vs[0], sigmas[0]
    gold = stock(weight.double(), u.double(), v.double(), case.dim, iterations, v_first)
    low = stock(weight, u, v, case.dim, iterations, v_first)
    assert [t.dtype for t in got[:2]] == [case.dtype] * 2
    assert got[2].dtype == (torch.float64 if case.dtype == torch.float64 else torch.float32)
    for name, ours, exact, rounded in zip(("u", "v", "sigma"), got, gold, low, strict=True):
        terms = max(weight.numel() // n for n in (u.numel(), v.numel()))
        assert_close_to_gold(ours, exact, rounded, name=f"{name} of {case} after {iterations}", terms=terms)
