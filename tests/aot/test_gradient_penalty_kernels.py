"""The CUDA kernels of ``gradient_penalty``, run on the CPU, against the reference in float64."""

import ctypes

import pytest
import torch

from fastgan.backends.layout import accumulate_dtype
from fastgan.backends.reference.gradient_penalty import gradient_penalty, gradient_penalty_interpolate
from fastgan.testing import assert_close_to_gold, random_values

from . import cuda_on_cpu as cuda

pytestmark = pytest.mark.aot

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
# samples of a block, one block and several; packs of 16 bytes and single values; parts of more than one launch pass
SHAPES = [(300, 2), (37, 8), (5, 105), (3, 784), (2, 8192), (2, 8199), (70, 1000), (3, 40000), (1, 2_200_000)]
every_type = pytest.mark.parametrize("dtype", [F16, BF16, F32, F64], ids=str)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Interpolate(ctypes.Structure):
    """``fastgan::GradientPenaltyInterpolateParams``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("real", "fake", "t", "x")),
        *((name, ctypes.c_int64) for name in ("batch", "inner")),
        ("type", ctypes.c_int),
        ("stack", ctypes.c_bool),
    )


class Penalty(ctypes.Structure):
    """``fastgan::GradientPenaltyParams``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("g", "v", "penalty", "workspace")),
        *((name, ctypes.c_int64) for name in ("batch", "inner")),
        *((name, ctypes.c_double) for name in ("weight", "target")),
        ("type", ctypes.c_int),
        ("one_sided", ctypes.c_bool),
    )


@pytest.fixture(scope="module")
def library(compiler, tmp_path_factory):
    library = cuda.compile_stem(compiler, tmp_path_factory.mktemp("penalty"), "gradient_penalty")
    library.workspace.restype = library.parameters_size.restype = ctypes.c_int64
    assert library.parameters_size(True) == ctypes.sizeof(Interpolate)
    assert library.parameters_size(False) == ctypes.sizeof(Penalty)
    return library


def _amid_nan(values, offset):
    """Return (values in memory full of NaN, that memory)."""
    memory = torch.full((values.numel() + 64,), torch.nan, dtype=values.dtype)
    # memory of torch begins at a multiple of 64 bytes
    inner = memory[offset : offset + values.numel()].view(values.shape)
    return inner.copy_(values), memory


def _run(library, g, target, one_sided, backwards, offset):
    g, _ = _amid_nan(g, offset)
    v, memory = _amid_nan(torch.full_like(g, torch.nan), offset)
    penalty = torch.full((), torch.nan, dtype=accumulate_dtype(g.dtype))
    batch, inner = g.shape
    p = Penalty(g.data_ptr(), v.data_ptr(), penalty.data_ptr(), None, batch, inner, 10.0, target)
    p.type, p.one_sided = cuda.TYPES.index(g.dtype), one_sided
    workspace = torch.full((library.workspace(ctypes.byref(p)),), torch.nan, dtype=F64)
    p.workspace = workspace.data_ptr()
    assert library.penalty(ctypes.byref(p), backwards) == 0
    assert memory.isnan().sum() == 64 + v.isnan().sum(), "written beside v"
    return penalty, v


def _gradient(shape, dtype):
    g = random_values(shape, 0)
    scale = torch.linspace(0.3, 3.1, shape[0], dtype=F64)[:, None] if shape[0] > 1 else 3.0
    g = (g / g.norm(dim=1, keepdim=True) * scale).to(dtype)
    if shape[0] > 2:
        g[1] = 0
    return g


def _check(library, g, target, one_sided=False, offset=16):
    results = [_run(library, g, target, one_sided, backwards, offset) for backwards in (False, True)]
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second), "the result depends on the order of threads"
    gold = gradient_penalty(g.double(), 10.0, target, one_sided)
    low = gradient_penalty(g.to(accumulate_dtype(g.dtype)), 10.0, target, one_sided)
    penalty, v = results[0]
    assert_close_to_gold(penalty, gold[0], low[0], name="P")
    assert_close_to_gold(v, gold[1], low[1].to(g.dtype), name="v")


@every_type
@every_shape
def test_penalty(library, shape, dtype):
    _check(library, _gradient(shape, dtype), 1.0)


@pytest.mark.parametrize("target, one_sided", [(1.0, True), (0.0, False), (0.0, True), (2.3, True)])
@pytest.mark.parametrize("shape", [(300, 2), (3, 784), (3, 40000)], ids=str)
def test_variants(library, shape, target, one_sided):
    _check(library, _gradient(shape, F32), target, one_sided)


@every_type
def test_pointers_that_are_not_aligned(library, dtype):
    _check(library, _gradient((3, 8704), dtype), 1.0, offset=17)


def test_large_values(library):
    g = torch.full((2, 3000), 1e18)
    _, v = _run(library, g, 1.0, False, False, 16)
    torch.testing.assert_close(v, 10 * g, rtol=1e-6, atol=0)


@pytest.mark.parametrize("one_sided", [False, True])
def test_what_is_not_a_number_stays_so(library, one_sided):
    g = _gradient((3, 784), F32)
    g[2, 700] = torch.nan
    penalty, v = _run(library, g, 1.0, one_sided, False, 16)
    assert penalty.isnan() and v[2].isnan().all() and v[:2].isfinite().all()


@pytest.mark.parametrize("shape, expected", [((0, 5), 0.0), ((3, 0), 40.0)])
def test_empty_batch(library, shape, expected):
    penalty, _ = _run(library, torch.ones(shape), 2.0, False, False, 16)
    assert penalty.item() == expected


@pytest.mark.parametrize("stack", [False, True], ids=["alone", "stack"])
@pytest.mark.parametrize("offset", [16, 17])
@every_type
@pytest.mark.parametrize("shape", [(300, 2), (5, 105), (3, 784), (2, 8192), (0, 4)], ids=str)
def test_interpolate(library, shape, dtype, offset, stack):
    (real, _), (fake, _) = (_amid_nan(random_values(shape, i).to(dtype), offset) for i in (0, 1))
    t = random_values(shape[:1], 2).sigmoid().to(accumulate_dtype(dtype))
    x, memory = _amid_nan(torch.full(((3 if stack else 1) * shape[0], shape[1]), torch.nan, dtype=dtype), offset)
    p = Interpolate(*(v.data_ptr() for v in (real, fake, t, x)), *shape, cuda.TYPES.index(dtype), stack)
    assert library.interpolate(ctypes.byref(p), False) == 0
    assert memory.isnan().sum() == 64
    gold = gradient_penalty_interpolate(real.double(), fake.double(), t.double(), stack)
    low = gradient_penalty_interpolate(real.to(t.dtype), fake.to(t.dtype), t, stack).to(dtype)
    assert_close_to_gold(x, gold, low, name="x")
