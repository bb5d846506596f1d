"""The CUDA kernels of ``conv_norm_act`` for 1 to 4 channels, run on the CPU, against the reference in float64."""

from typing import NamedTuple

import pytest
import torch

from fastgan.backends.geometry import Attributes, output_size
from fastgan.backends.layout import accumulate_dtype
from fastgan.backends.reference.activation import ACTIVATIONS
from fastgan.backends.reference.bias_act import bias_act_bwd
from fastgan.backends.reference.conv_norm_act import conv_norm_act, conv_norm_act_dw
from fastgan.testing import assert_close_to_gold

from . import cuda_on_cpu as cuda

pytestmark = pytest.mark.aot

EPS, SLOPE = 1e-5, 0.2
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


class Case(NamedTuple):
    kernel: tuple
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    dilation: tuple = (1, 1)
    big: tuple = (2, 3, 12, 12)
    small_channels: int = 64


CASES = {
    "k4s2p1": Case((4, 4), (2, 2), (1, 1), big=(2, 3, 34, 30)),
    "k4s2p1-odd": Case((4, 4), (2, 2), (1, 1), big=(2, 3, 21, 39), small_channels=7),
    "k4s2p1-c4": Case((4, 4), (2, 2), (1, 1), big=(1, 4, 16, 16), small_channels=72),
    "k3s1p1": Case((3, 3), padding=(1, 1), big=(2, 1, 13, 17)),
    "k3s1p1-wide": Case((3, 3), padding=(1, 1), big=(1, 2, 3, 40), small_channels=136),
    "k5s2p2": Case((5, 5), (2, 2), (2, 2), big=(2, 4, 19, 15)),
    "k7s1p3": Case((7, 7), padding=(3, 3), big=(1, 3, 11, 14)),
    "k7s1p3-c4": Case((7, 7), padding=(3, 3), big=(1, 4, 9, 9), small_channels=1),
    "k1s1": Case((1, 1), big=(2, 2, 5, 5), small_channels=1),
    "k2x5": Case((2, 5), (3, 1), (1, 0), (2, 3), big=(2, 3, 16, 23), small_channels=8),
    "far": Case((3, 3), (2, 1), (4, 9), (4, 9), big=(1, 3, 15, 22), small_channels=12),
    "gaps": Case((2, 2), (3, 4), big=(2, 3, 12, 13), small_channels=20),
}

SMALLEST = Case((4, 4), (2, 2), (1, 1), big=(2, 3, 10, 14), small_channels=20)


def _attributes(case, transposed=False, activation="identity", norm_activation="identity"):
    a = Attributes(
        case.stride, case.padding, case.dilation, (0, 0), transposed, 1, True, EPS, norm_activation, SLOPE,
        activation, SLOPE, False, False,
    )  # fmt: skip
    if not transposed:
        return a
    least = output_size(_small_shape(case)[2:], case.kernel, a)
    return a._replace(output_padding=[n - m for n, m in zip(case.big[2:], least, strict=True)])


def _small_shape(case):
    return (case.big[0], case.small_channels, *output_size(case.big[2:], case.kernel, _attributes(case)))


def _geometry(case):
    return case.stride, case.padding, case.dilation


class Guarded:
    """A tensor amid NaN, in one of two memory formats, which shows what is read or written beside it."""

    def __init__(self, values, channels_last, offset=16):
        order = (0, 2, 3, 1) if channels_last and values.dim() == 4 else tuple(range(values.dim()))
        shape = [values.shape[i] for i in order]
        self.memory = torch.full((values.numel() + 2 * offset,), torch.nan, dtype=values.dtype)
        self.inner = self.memory[offset : offset + values.numel()]
        self.tensor = self.inner.view(shape).permute(*(order.index(i) for i in range(values.dim())))
        self.tensor.copy_(values)
        self.offset = offset

    def untouched(self):
        return bool(self.memory[: self.offset].isnan().all() and self.memory[-self.offset :].isnan().all())


class Inputs:
    """Random values of one type for a case, in fp64 for the reference and guarded for the kernels."""

    def __init__(self, case, dtype, channels_last, offset=16):
        g = torch.Generator().manual_seed(0)
        self.case, self.dtype, self.channels_last, self.offset = case, dtype, channels_last, offset
        self.wide = accumulate_dtype(dtype)

        def random(*shape, dtype=dtype):
            return torch.randn(shape, generator=g, dtype=F64).to(dtype)

        k = case.small_channels
        self.big, self.small = random(*case.big), random(*_small_shape(case))
        self.y_big, self.y_small = random(*case.big).tanh(), random(*_small_shape(case)).tanh()
        self.weight = random(k, case.big[1], *case.kernel) / (k * case.kernel[0]) ** 0.5
        self.bias_big, self.bias_small = random(case.big[1]), random(k, dtype=self.wide)
        self.norm = (random(k, dtype=self.wide), random(k, dtype=self.wide))
        self.stats = (random(k, dtype=self.wide) / 4, random(k, dtype=self.wide).abs() + 0.5)

    def guarded(self, t):
        return Guarded(t, self.channels_last, self.offset)

    def scale_shift(self):
        (weight, bias), (mean, var) = self.norm, self.stats
        scale = weight * torch.rsqrt(var + EPS)
        return scale, bias - mean * scale

    def small_operand(self, mode):
        """Return (operand, kept alive, activation of the load); mode is plain, norm-<activation> or mask-<...>."""
        kind, _, name = mode.partition("-")
        data = self.guarded(self.small)
        keep = [data]
        if kind == "norm":
            keep += [*self.scale_shift()]
            return cuda.operand(data.tensor, None, keep[1], keep[2], name, SLOPE), keep
        if kind == "mask":
            keep.append(self.guarded(self.y_small))
            return cuda.operand(data.tensor, keep[1].tensor, activation=name, slope=SLOPE), keep
        return cuda.operand(data.tensor), keep

    def big_operand(self, mode):
        kind, _, name = mode.partition("-")
        data, y = self.guarded(self.big), self.guarded(self.y_big)
        if kind == "mask":
            return cuda.operand(data.tensor, y.tensor, activation=name, slope=SLOPE), [data, y]
        return cuda.operand(data.tensor), [data, y]


def _masked(x, y, mode, dtype):
    kind, _, name = mode.partition("-")
    return bias_act_bwd(x.to(dtype), y.to(dtype), None, name, SLOPE) if kind == "mask" else x.to(dtype)


def _reference(pass_, t, dtype, load, activation, bias, big_load):
    """The reference's result with everything in one type."""
    case = t.case
    kind, _, name = load.partition("-")
    norm = [v.to(accumulate_dtype(dtype)) for v in (*t.norm, *t.stats)] if kind == "norm" else [None] * 4
    weight, bias = t.weight.to(dtype), None if bias is None else bias.to(dtype)
    if pass_ == "gather":
        big = _masked(t.big, t.y_big, load, dtype)
        return conv_norm_act(big, weight, bias, *[None] * 4, *_attributes(case, False, activation))[0]
    small = _masked(t.small, t.y_small, load, dtype)
    a = _attributes(case, True, activation, name or "identity")
    if pass_ == "scatter":
        return conv_norm_act(small, weight, bias, *norm, *a)[0]
    return conv_norm_act_dw(small, *norm, _masked(t.big, t.y_big, big_load, dtype), None, list(case.kernel), *a)


@pytest.fixture(scope="module")
def library(compiler, tmp_path_factory):
    return cuda.build(compiler, tmp_path_factory.mktemp("thin"))


def _check(
    library,
    pass_,
    case,
    dtype,
    channels_last,
    load="plain",
    activation="identity",
    bias=False,
    offset=16,
    big_load="plain",
):
    t = Inputs(case, dtype, channels_last, offset)
    like = {"gather": t.small, "scatter": t.big, "wgrad": t.weight}[pass_]
    vector = {"gather": t.bias_small, "scatter": t.bias_big}.get(pass_) if bias else None
    results = []
    for backwards in (False, True):
        out = Guarded(torch.full_like(like, torch.nan), channels_last and pass_ != "wgrad", offset)
        if pass_ == "gather":
            (big, keep), small = t.big_operand(load), cuda.operand(out.tensor)
        else:
            (small, keep), (big, more) = t.small_operand(load), t.big_operand(big_load)
            keep += more
        if pass_ == "scatter":
            big = cuda.operand(out.tensor)
        geometry = _geometry(case)
        error = cuda.launch(
            library,
            pass_,
            big,
            small,
            t.weight,
            vector,
            out.tensor,
            case.big[0],
            geometry,
            activation,
            SLOPE,
            backwards,
        )
        assert error == 0 and out.untouched() and keep
        results.append(out.tensor.clone())
    assert torch.equal(*results), "the result depends on the order of threads"
    gold = _reference(pass_, t, F64, load, activation, vector, big_load)
    low = _reference(pass_, t, dtype, load, activation, vector, big_load)
    sums = {"gather": t.weight[0].numel(), "scatter": t.weight[:, 0].numel(), "wgrad": t.small[:, 0].numel()}
    factor = 3 if pass_ == "wgrad" else 2
    assert_close_to_gold(results[0], gold, low, factor=factor, name=pass_, terms=sums[pass_])


both_layouts = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
every_pass = pytest.mark.parametrize("pass_", cuda.PASSES)


@both_layouts
@every_pass
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_geometry(library, case, pass_, channels_last):
    _check(library, pass_, case, F32, channels_last)


@every_pass
@pytest.mark.parametrize("name", ["k4s2p1-odd", "k3s1p1-wide", "k5s2p2", "k2x5", "far"])
def test_float64(library, name, pass_):
    _check(library, pass_, CASES[name], F64, channels_last=True)


@every_pass
@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
@pytest.mark.parametrize("small_channels", [16, 12])
def test_16_bits(library, pass_, dtype, small_channels):
    case = CASES["k4s2p1-odd"]._replace(small_channels=small_channels)
    load = {"gather": "mask-tanh", "scatter": "norm-relu", "wgrad": "norm-leaky_relu"}[pass_]
    _check(library, pass_, case, dtype, True, load, "leaky_relu", bias=True)


@every_pass
def test_pointers_that_are_not_aligned(library, pass_):
    _check(library, pass_, CASES["k4s2p1-c4"], F32, True, offset=17)


@both_layouts
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pass_", ["gather", "scatter"])
def test_bias_and_activation_on_store(library, pass_, activation, channels_last):
    _check(library, pass_, SMALLEST, F32, channels_last, "plain", activation, bias=True)


@both_layouts
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("pass_", "kind"),
    # nothing normalises an image
    [("gather", "mask"), ("scatter", "mask"), ("scatter", "norm"), ("wgrad", "mask"), ("wgrad", "norm")],
)
def test_load(library, pass_, kind, activation, channels_last):
    _check(library, pass_, SMALLEST, F32, channels_last, f"{kind}-{activation}")


@pytest.mark.parametrize("load", ["plain", "norm-relu"])
def test_wgrad_masks_the_image_side(library, load):
    _check(library, "wgrad", SMALLEST, F32, True, load, big_load="mask-tanh")


@pytest.mark.parametrize("load", ["norm-leaky_relu", "mask-sigmoid"])
def test_load_far(library, load):
    _check(library, "scatter", CASES["far"], F32, True, load, "tanh", bias=True)


def test_sum_of_many_blocks(library):
    case = SMALLEST._replace(big=(9, 1, 64, 64), small_channels=8)
    _check(library, "wgrad", case, F32, True)


def test_empty_batch(library):
    case = SMALLEST._replace(big=(0, *SMALLEST.big[1:]))
    for pass_ in cuda.PASSES:
        _check(library, pass_, case, F32, True)


def test_rejects_what_it_does_not_serve(library):
    for case in (Case((8, 1)), Case((3, 3), big=(1, 5, 9, 9))):
        t = Inputs(case, F32, True)
        operands = cuda.operand(t.big), cuda.operand(t.small)
        for pass_ in cuda.PASSES:
            out = torch.empty(1)
            assert cuda.launch(library, pass_, *operands, t.weight, None, out, 1, _geometry(case)) != 0
