"""The CUDA kernels of ``spectral_norm``, run on the CPU as one block, against the reference in float64."""

import pytest
import torch
import torch.nn.functional as F

from fastgan.backends.layout import accumulate_dtype
from fastgan.backends.reference import spectral_norm as reference
from fastgan.testing import assert_close_to_gold, in_layout, random_values

from .cuda_on_cpu import TYPES
from .cuda_on_cpu import spectral_norm as cuda

pytestmark = pytest.mark.aot

# small, since each barrier of 256 threads is 256 changes of context here
SHAPES = ((3, 300), (34, 2), (4, 3, 5), (2, 3, 4, 4), (2, 2, 17, 17))
# (shape, dim, layout): all of them are one launch
LAYERS = [(shape, dim, "contiguous") for shape in SHAPES for dim in (0, 1)]
LAYERS += [((3, 2, 3, 3), dim, "channels_last") for dim in (0, 1)] + [((2, 3, 2, 3, 2), 0, "channels_last")]
LAYERS += [((3, 2, 4, 5), 3, "contiguous")]
DIMS = [dim for _, dim, _ in LAYERS]


@pytest.fixture(scope="module")
def library(compiler, tmp_path_factory):
    return cuda.build(compiler, tmp_path_factory.mktemp("spectral_norm"))


def _inputs(dtype):
    lists = [], [], [], []
    for i, (shape, dim, layout) in enumerate(LAYERS):
        weight, dy = (in_layout(random_values(shape, i + k).to(dtype), layout) for k in (0, 50))
        rows = shape[dim]
        u, v = (F.normalize(random_values((n,), i + k), dim=0) for n, k in ((rows, 100), (weight.numel() // rows, 150)))
        for to, t in zip(lists, (weight, u.to(dtype), v.to(dtype), dy), strict=True):
            to.append(t)
    return lists


def _doubles(*lists):
    return ([t.double() for t in tensors] for tensors in lists)


@pytest.mark.parametrize(
    ("dtype", "iterations", "v_first"),
    [(torch.float32, 0, False), (torch.float32, 1, True), *((dtype, 2, i % 2 == 0) for i, dtype in enumerate(TYPES))],
)
def test_power_iteration(library, dtype, iterations, v_first):
    weights, us, vs, _ = _inputs(dtype)
    results = []
    for backwards in (False, True):
        new_us, new_vs = ([torch.full_like(t, torch.nan) for t in tensors] for tensors in (us, vs))
        sigmas = torch.full((len(weights),), torch.nan, dtype=accumulate_dtype(dtype))
        layers = [cuda.layer(w, u, v, d, new_u=a, new_v=b)
                  for w, u, v, d, a, b in zip(weights, us, vs, DIMS, new_us, new_vs, strict=True)]  # fmt: skip
        cuda.launch(library, layers, sigmas, dtype, iterations, v_first, backwards=backwards)
        results.append([*new_us, *new_vs, *sigmas])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), "the result depends on the order of threads"
    gold, low = (reference.spectral_norm_power_iteration(*lists, DIMS, iterations, 1e-12, v_first)
                 for lists in (_doubles(weights, us, vs), (weights, us, vs)))  # fmt: skip
    for ours, exact, rounded in zip(results[0], *([*r[0], *r[1], *r[2]] for r in (gold, low)), strict=True):
        if iterations == 0 and ours.dim() == 0:
            # the terms cancel
            assert abs(ours - exact) <= 1e-5
        else:
            assert_close_to_gold(ours, exact, rounded, terms=1000)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_backward(library, dtype):
    weights, us, vs, dys = _inputs(dtype)
    sigmas = torch.linspace(0.5, 2, len(weights), dtype=accumulate_dtype(dtype))
    results = []
    for backwards in (False, True):
        outs = [torch.full_like(w, torch.nan) for w in weights]
        layers = [cuda.layer(w, u, v, d, dy=dy, out=out)
                  for w, u, v, d, dy, out in zip(weights, us, vs, DIMS, dys, outs, strict=True)]  # fmt: skip
        cuda.launch(library, layers, sigmas, dtype, backward=True, backwards=backwards)
        results.append(outs)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), "the result depends on the order of threads"
    gold = reference.spectral_norm_bwd(*_doubles(dys, weights, us, vs), sigmas.double(), DIMS)
    low = reference.spectral_norm_bwd(dys, weights, us, vs, sigmas, DIMS)
    for ours, exact, rounded in zip(results[0], gold, low, strict=True):
        assert_close_to_gold(ours, exact, rounded, factor=3, terms=ours.numel())
