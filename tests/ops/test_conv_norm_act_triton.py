"""The implicit matrix products of ``conv_norm_act`` in Triton, function by function against the reference backend."""

from collections import defaultdict
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from fastgan.backends import use_backend, vendor
from fastgan.backends.geometry import Attributes, output_size
from fastgan.backends.layout import is_channels_last
from fastgan.backends.reference import bias_act, conv_norm_act, norm_act
from fastgan.testing import assert_close_to_gold, random_values

from .grid import GPU, INTERPRETED

pytest.importorskip("triton", reason="the triton backend was not tested here")
from fastgan.backends.triton import conv_norm_act as implicit
from fastgan.backends.triton import tuning

DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.skipif(not INTERPRETED and not GPU, reason="Triton needs TRITON_INTERPRET=1 or a GPU"),
    pytest.mark.parametrize("backend", ["triton"], indirect=True),
    *([] if INTERPRETED else [pytest.mark.gpu]),
]
STEMS = vendor.Pointwise(bias_act, norm_act)
SLOPE, EPS = 0.2, 1e-5


class Sizes(NamedTuple):
    """One convolution: kernel, stride, padding, dilation, channels in and out, and the size of x."""

    k: tuple[int, int]
    s: tuple[int, int]
    p: tuple[int, int]
    c_in: int
    c_out: int
    size: tuple[int, int] = (6, 5)
    d: tuple[int, int] = (1, 1)
    output_padding: tuple[int, int] = (0, 0)
    n: int = 2

    def __str__(self) -> str:
        words = [f"{name}{'x'.join(map(str, getattr(self, name)))}" for name in ("k", "s", "p")]
        return "-".join([*words, f"{self.c_in}to{self.c_out}", "x".join(map(str, self.size))])


def _square(k, s, p, *rest, **more):
    return Sizes((k, k), (s, s), (p, p), *rest, **more)


GATHERS = (
    _square(4, 2, 1, 3, 33, size=(8, 6)),
    _square(4, 1, 0, 33, 1, size=(5, 4)),
    _square(3, 1, 1, 17, 5),
    _square(5, 2, 2, 17, 3),
    _square(5, 2, 2, 1, 17, size=(7, 6)),
    _square(1, 1, 0, 33, 17),
    # gradients of rows that no tap reaches
    _square(3, 2, 1, 17, 5, size=(6, 8)),
    _square(1, 2, 0, 5, 3, size=(7, 6)),
    _square(2, 3, 0, 17, 3, size=(8, 7)),
    # not the same along H and W
    Sizes((3, 2), (1, 2), (2, 0), 17, 5),
    Sizes((1, 4), (2, 1), (0, 3), 5, 17),
    _square(3, 1, 2, 17, 5, d=(2, 2)),
    Sizes((3, 3), (1, 2), (2, 1), 17, 5, d=(2, 1)),
)
SCATTERS = (
    _square(4, 2, 1, 33, 3, size=(4, 3)),
    _square(4, 1, 0, 17, 5, size=(1, 1), n=3),
    _square(3, 1, 1, 17, 5),
    _square(5, 2, 2, 17, 1, size=(3, 4), output_padding=(1, 1)),
    _square(3, 2, 1, 5, 17, size=(4, 3), output_padding=(1, 0)),
    # phases without taps
    _square(1, 2, 0, 17, 5, size=(3, 2), output_padding=(1, 1)),
    Sizes((3, 2), (1, 3), (2, 0), 17, 5, size=(4, 3)),
    _square(3, 1, 2, 17, 5, d=(2, 2)),
    Sizes((3, 3), (1, 2), (2, 1), 17, 5, size=(5, 4), d=(2, 1)),
)
CASES = [(sizes, False) for sizes in GATHERS] + [(sizes, True) for sizes in SCATTERS]
each_case = pytest.mark.parametrize(
    "sizes, transposed", CASES, ids=[f"{'scatter' if t else 'gather'}-{sizes}" for sizes, t in CASES]
)


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut even these tensors into several tiles and splits."""
    configs = defaultdict(lambda: tuning.Config(32, 16, 32, 4, 2))
    monkeypatch.setattr(tuning, "configs", lambda: configs)


@pytest.fixture
def no_vendor(monkeypatch):
    """Fail where the vendor's convolution would run."""
    for name in ("conv_norm_act", "conv_norm_act_dx", "conv_norm_act_dw"):
        monkeypatch.setattr(vendor, name, lambda *_: pytest.fail("the vendor's convolution ran"))


class Problem:
    """Tensors of one call, in float64 rounded to ``dtype``, and its attributes."""

    def __init__(self, sizes, transposed, dtype=torch.float64, activation="leaky_relu", norm_activation="leaky_relu",
                 norm="wb", last=True, shift=0.3):  # fmt: skip
        self.a = Attributes(
            sizes.s, sizes.p, sizes.d, sizes.output_padding, transposed, 1, True, EPS, norm_activation, SLOPE,
            activation, SLOPE, True, last,
        )  # fmt: skip
        self.kernel, self.dtype, self.last = list(sizes.k), dtype, last
        ends = (sizes.c_in, sizes.c_out) if transposed else (sizes.c_out, sizes.c_in)
        scale = (sizes.c_in * sizes.k[0] * sizes.k[1]) ** -0.5
        self.x = self._image((sizes.n, sizes.c_in, *sizes.size), 1, shift)
        self.weight = (random_values((*ends, *sizes.k), 2, DEVICE) * scale).to(dtype)
        self.bias = random_values((sizes.c_out,), 3, DEVICE).to(dtype)
        self.dy = self._image((sizes.n, sizes.c_out, *output_size(sizes.size, sizes.k, self.a)), 4)
        self.norm = self._norm(sizes.c_in, norm, shift)
        self.y = self.call(conv_norm_act, low=False)["y"].to(dtype)

    def _image(self, shape, seed, shift=0.0):
        x = (random_values(shape, seed, DEVICE) + shift).to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last) if self.last else x

    def _norm(self, c, given, shift):
        if given is None:
            return (None,) * 4
        accumulate = torch.float64 if self.dtype == torch.float64 else torch.float32
        weight, bias, mean, var = ((random_values((c,), seed, DEVICE)).to(accumulate) for seed in range(5, 9))
        return weight if "w" in given else None, bias if "b" in given else None, mean + shift, var.abs() + 0.5

    def call(self, module, low=True):
        """Return all results of forward and both gradients by name; in float64 unless ``low``."""

        def of(*tensors):
            return [t if t is None or low else t.double() for t in tensors]

        x, weight, bias, dy, *norm = of(self.x, self.weight, self.bias, self.dy, *self.norm)
        y, mean, var = module.conv_norm_act(x, weight, bias, *norm, *self.a)
        if not hasattr(self, "y"):
            return {"y": y}
        [saved] = of(self.y)
        dx, dnw, dnb = module.conv_norm_act_dx(dy, saved, weight, x, *norm, *self.a)
        dw = module.conv_norm_act_dw(x, *norm, dy, saved, self.kernel, *self.a)
        return {"y": y, "mean": mean, "var": var, "dx": dx, "dnorm_weight": dnw, "dnorm_bias": dnb, "dw": dw}


# the vendor's convolution with plain PyTorch around it: how accurate a type can be expected to be
STOCK = SimpleNamespace(
    conv_norm_act=lambda x, w, b, *rest: vendor.conv_norm_act(STEMS, x, w, b, rest[:4], Attributes(*rest[4:])),
    conv_norm_act_dx=lambda *t: vendor.conv_norm_act_dx(STEMS, *t[:4], t[4:8], Attributes(*t[8:])),
    conv_norm_act_dw=lambda x, *t: vendor.conv_norm_act_dw(STEMS, x, t[:4], *t[4:7], Attributes(*t[7:])),
)


def _check(problem):
    got, gold = problem.call(implicit), problem.call(conv_norm_act, low=False)
    low = gold if problem.dtype == torch.float64 else problem.call(STOCK)
    for name, value in got.items():
        terms = 64 if value.dim() == 1 or name == "dx" else 1
        rule = {"factor": 2.0 if name in ("y", "mean", "var") else 3.0, "terms": terms, "term_dtype": problem.dtype}
        assert_close_to_gold(value, gold[name], low[name], name=name, **rule)
        assert value.dtype == (problem.dtype if value.dim() == 4 else low[name].dtype), name
        if value.dim() == 4:
            assert is_channels_last(value) == is_channels_last(gold[name]), name


@each_case
def test_all_passes_in_float64(backend, sizes, transposed, small_blocks, no_vendor):
    _check(Problem(sizes, transposed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("sizes, transposed", CASES[:1] + CASES[3:4] + CASES[13:15] + CASES[19:20], ids=str)
def test_all_passes_in_low_precision(backend, sizes, transposed, dtype, small_blocks):
    _check(Problem(sizes, transposed, dtype, last=dtype == torch.float32))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("activation", ["identity", "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("norm, norm_activation", [(None, "identity"), ("", "silu"), ("w", "tanh"), ("b", "relu")])
def test_every_load_and_store(backend, norm, norm_activation, activation, transposed, small_blocks):
    sizes = _square(3, 2, 1, 5, 3, size=(4, 3))
    _check(Problem(sizes, transposed, torch.float64, activation, norm_activation, norm, last=norm != "w"))


@pytest.mark.parametrize("channels", [(3, 24), (24, 3), (24, 24), (24, 130)], ids=str)
def test_block_sizes_of_the_table(backend, channels, monkeypatch):
    monkeypatch.setattr(tuning, "LARGE", 1)
    _check(Problem(_square(3, 2, 1, *channels, size=(4, 5)), False, torch.float16))
    _check(Problem(_square(3, 2, 1, *channels, size=(3, 3), n=1), True, torch.float32))


@pytest.mark.parametrize("tiles", [1, 5, 300])
def test_merge_of_any_number_of_tiles(backend, tiles, monkeypatch):
    monkeypatch.setattr(implicit, "MERGE_TILES", 32)
    counts = torch.tensor([(0, 1, 7, 20)[(i + 3) % 4] for i in range(tiles)])
    values = random_values((int(counts.sum()), 19), 1, DEVICE) + 1e3
    parts = values.split(counts.tolist())
    zero = values.new_zeros(19)
    mean = torch.stack([part.mean(0) if len(part) else zero for part in parts])
    squares = torch.stack([part.var(0, correction=0) * len(part) if len(part) else zero for part in parts])
    got = implicit._statistics(values, torch.stack((mean, squares)), counts.int().to(DEVICE))
    torch.testing.assert_close(got[0], values.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(got[1], values.var(0, correction=0), rtol=1e-9, atol=0)


def test_statistics_far_from_zero(backend, small_blocks):
    problem = Problem(_square(3, 1, 1, 5, 3), False, torch.float32, "identity", norm=None)
    bias = problem.bias + 1e4
    y, mean, var = implicit.conv_norm_act(problem.x, problem.weight, bias, *problem.norm, *problem.a)
    gold_var, gold_mean = torch.var_mean(y.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(mean.double(), gold_mean, rtol=3e-7, atol=0)
    torch.testing.assert_close(var.double(), gold_var, rtol=1e-3, atol=0)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("channels", [(3, 17), (17, 3)], ids=str)
def test_nan_stays_where_it_belongs(backend, channels, transposed, small_blocks, nan_in_new_memory):
    """A NaN reaches what its pixel reaches and no more; memory beyond a tensor's end, full of NaN, is not read."""
    problem = Problem(_square(3, 2, 1, *channels, size=(5, 4)), transposed)
    for name in ("x", "dy", "y", "weight"):
        t = getattr(problem, name)
        format = torch.channels_last if t.dim() == 4 and name != "weight" else torch.contiguous_format
        around = torch.full((t.numel() + 5000,), float("nan"), dtype=t.dtype, device=DEVICE)
        inside = around.as_strided(t.shape, t.contiguous(memory_format=format).stride(), 1000)
        setattr(problem, name, inside.copy_(t))
    gold, got = problem.call(conv_norm_act), problem.call(implicit)
    assert all(value.isfinite().all() for value in got.values())
    for name in ("x", "dy", "y"):
        getattr(problem, name)[0, 0, 0, 1] = float("nan")
    gold, got = problem.call(conv_norm_act), problem.call(implicit)
    for name in ("y", "dw"):
        assert gold[name].isnan().any() and not gold[name].isnan().all(), name
        assert torch.equal(got[name].isnan(), gold[name].isnan()), name


def test_same_bits_every_time(backend, small_blocks):
    problem = Problem(_square(4, 2, 1, 17, 5, size=(3, 4)), True, torch.float32)
    first, second = problem.call(implicit), problem.call(implicit)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


REST = {
    "groups": (_square(3, 1, 1, 4, 2, size=(3, 3)), {"groups": 2}),
    "dilated": (_square(3, 2, 2, 3, 2, size=(5, 5), d=(2, 2)), {}),
    "empty": (_square(3, 2, 1, 3, 2, size=(4, 4), n=0), {}),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", REST)
def test_vendor_serves_the_rest(backend, name, transposed):
    sizes, more = REST[name]
    problem = Problem(sizes, transposed)
    if more:
        problem.a = problem.a._replace(**more)
        channels = (4, 1) if transposed else (2, 2)
        problem.weight = random_values((*channels, 3, 3), 2, DEVICE)
    _check(problem)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_vendor_serves_other_dimensions(backend, dimensions):
    a = Attributes(
        *([n] * dimensions for n in (2, 1, 1, 0)), False, 1, True, EPS, "relu", 0.0, "tanh", 0.0, True, False
    )
    x, weight = (random_values((2, 3, *[n] * dimensions), n, DEVICE) for n in (5, 3))
    arguments = (x, weight, None, None, None, None, None, *a)
    for got, gold in zip(implicit.conv_norm_act(*arguments), conv_norm_act.conv_norm_act(*arguments), strict=True):
        assert_close_to_gold(got, gold)


def test_runs_only_where_asked_or_measured(backend, monkeypatch):
    problem = Problem(_square(3, 2, 1, 17, 5, size=(4, 4)), False)
    key = tuning.key("fwd", problem.x, 17, 5, problem.y.numel())
    with use_backend("auto"):
        assert not implicit._serves("fwd", problem.x, problem.y.shape, problem.kernel, problem.a)
        monkeypatch.setattr(tuning, "measured", lambda: {(tuning._device_name(problem.x.device), key): "implicit_gemm"})
        assert implicit._serves("fwd", problem.x, problem.y.shape, problem.kernel, problem.a)
        assert not implicit._serves("dw", problem.x, problem.y.shape, problem.kernel, problem.a)
    assert implicit._serves("dw", problem.x, problem.y.shape, problem.kernel, problem.a)
