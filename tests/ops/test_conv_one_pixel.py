"""Convolutions with one pixel on one side, and those that only look like it: all derivatives are torch's."""

import pytest
import torch
import torch.nn.functional as F

import fastgan
import fastgan.nn.functional as FF
from fastgan.backends import native, processor
from fastgan.backends.geometry import Attributes
from fastgan.testing import assert_close_to_gold

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing() or "")

UP = [
    {"kernel": (4, 4)}, {"kernel": (3, 5)}, {"kernel": (1, 1)}, {"kernel": (4, 4), "stride": 3},
    {"kernel": (4, 4), "padding": 1}, {"kernel": (4, 4), "stride": 2, "output_padding": 1},
    {"kernel": (3, 3), "dilation": 2}, {"kernel": (4, 4), "groups": 2},
]  # fmt: skip
DOWN = [
    {"kernel": (4, 4)}, {"kernel": (3, 5)}, {"kernel": (1, 1)}, {"kernel": (4, 4), "stride": 2},
    {"kernel": (4, 4), "padding": 1}, {"kernel": (4, 4), "groups": 2},
]  # fmt: skip
FORMATS = [torch.contiguous_format, torch.channels_last]


def derivatives(y, tensors):
    first = torch.autograd.grad(y.sin().sum(), tensors, create_graph=True)
    return [y, *first, *torch.autograd.grad(sum(d.square().sum() for d in first), tensors)]


@pytest.mark.parametrize("x_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("weight_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("transposed", "sizes"), [*((True, s) for s in UP), *((False, s) for s in DOWN)], ids=lambda v: str(v)
)
def test_derivatives_are_those_of_torch(transposed, sizes, batch, weight_format, x_format):
    torch.manual_seed(0)
    sizes = dict(sizes)
    kernel = sizes.pop("kernel")
    small, big = (4, 6)
    groups = sizes.get("groups", 1)
    weight = torch.randn(small, big // groups, *kernel, dtype=torch.float64).contiguous(memory_format=weight_format)
    shape = (batch, small, 1, 1) if transposed else (batch, big, *kernel)
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=x_format)
    bias = torch.randn(big if transposed else small, dtype=torch.float64)
    tensors = [t.requires_grad_() for t in (x, weight, bias)]
    stock = (F.conv_transpose2d if transposed else F.conv2d)(x, weight, bias, **sizes)
    fused = FF.conv_transpose_norm_act if transposed else FF.conv_norm_act
    with fastgan.use_backend("native"):
        ours = fused(x, weight, bias, **sizes, norm=False, activation="identity")
        found = derivatives(ours, tensors)
    assert all(ours.is_contiguous(memory_format=f) for f in FORMATS if stock.is_contiguous(memory_format=f))
    torch.testing.assert_close(found, derivatives(stock, tensors), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(
    ("shape", "kernel", "changes", "serves"),
    [
        ((2, 4, 1, 1), (4, 4), {"transposed": True}, True),
        ((2, 4, 1, 1), (4, 4), {"transposed": True, "padding": [1, 1]}, False),
        ((2, 4, 1, 1), (4, 4), {"transposed": True, "output_padding": [1, 1]}, False),
        ((2, 4, 1, 1), (4, 4), {"transposed": True, "dilation": [2, 2]}, False),
        ((2, 4, 2, 1), (4, 4), {"transposed": True}, False),
        ((2, 4, 3, 5), (3, 5), {}, True),
        ((2, 4, 5, 3), (3, 5), {}, False),
        ((2, 4, 1, 1), (4, 4), {"padding": [2, 2]}, False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("multiplies", [False, True])
def test_which_it_serves(shape, kernel, changes, serves, dtype, multiplies, monkeypatch):
    import fastgan.backends.native.conv_norm_act as native

    a = Attributes([1, 1], [0, 0], [1, 1], [0, 0], False, 1, False, 0.0, "identity", 0.0, "identity", 0.0, False, False)
    x = torch.zeros(shape, dtype=dtype)
    monkeypatch.setattr(processor, "multiplies", lambda dtype: multiplies)
    for autocast in (None, torch.bfloat16, torch.float16):
        with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            chosen = native._around(x, None, (4, 4, *kernel), (None,) * 4, a._replace(**changes))
        of_dtype = dtype == torch.float32 or (dtype == torch.bfloat16 and multiplies)
        of_dtype = of_dtype and autocast in (None, dtype)
        assert (chosen is native._ONE_PIXEL) == (serves and of_dtype)


@pytest.mark.parametrize("multiplies", [False, True])
@pytest.mark.parametrize("weight_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("bias_of", ["chance", "cancelled", "none"])
@pytest.mark.parametrize(("channels", "samples"), [(33, 9), (1, 9), (1, 1), (1, 220)])
@pytest.mark.parametrize("transposed", [False, True])
def test_bfloat16_is_as_exact_as_the_vendor(
    transposed, channels, samples, bias_of, weight_format, multiplies, monkeypatch
):
    monkeypatch.setattr(processor, "multiplies", lambda dtype: multiplies)
    torch.manual_seed(0)
    x = torch.randn((samples, 40, 1, 1) if transposed else (samples, 40, 4, 4)).bfloat16()
    weight = torch.randn((40, channels, 4, 4) if transposed else (channels, 40, 4, 4)).bfloat16()
    weight, bias = weight.contiguous(memory_format=weight_format), torch.randn(channels).bfloat16()
    stock = F.conv_transpose2d if transposed else F.conv2d
    fused = FF.conv_transpose_norm_act if transposed else FF.conv_norm_act
    if bias_of == "cancelled":
        # all that is left is what rounding the product before adding the bias would lose
        x, weight = x.abs() * 8, weight.abs()
        bias = -stock(x, weight).double().mean((0, 2, 3)).bfloat16()
    tensors = [t.requires_grad_() for t in ((x, weight) if bias_of == "none" else (x, weight, bias))]
    with fastgan.use_backend("native"):
        got = fused(*tensors, norm=False, activation="identity")
        found = [got, *torch.autograd.grad(got, tensors, torch.ones_like(got))]
    low = stock(*tensors)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    gold = stock(*exact)
    lows = [low, *torch.autograd.grad(low, tensors, torch.ones_like(low))]
    golds = [gold, *torch.autograd.grad(gold, exact, torch.ones_like(gold))]
    names = ("y", "dx", "dw", "db")[: len(found)]
    for name, *of_one in zip(names, found, golds, lows, strict=True):
        assert_close_to_gold(*of_one, name=name)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_result_may_be_changed_in_place(transposed):
    conv = torch.nn.ConvTranspose2d(8, 4, 4, bias=False) if transposed else torch.nn.Conv2d(8, 4, 4, bias=False)
    x = torch.randn(2, 8, 1, 1) if transposed else torch.randn(2, 8, 4, 4)
    expected = torch.autograd.grad(conv(x).mul_(2).sin().sum(), conv.weight)
    model = fastgan.convert(torch.nn.Sequential(conv))
    with fastgan.use_backend("native"):
        torch.testing.assert_close(torch.autograd.grad(model(x).mul_(2).sin().sum(), conv.weight), expected)


def test_gradients_under_autocast_are_as_exact_as_without():
    torch.manual_seed(0)
    conv, x = torch.nn.Conv2d(64, 32, 4), torch.randn(16, 64, 4, 4)
    (expected,) = torch.autograd.grad(conv(x).sin().sum(), conv.weight)
    with fastgan.use_backend("native"):
        loss = fastgan.convert(torch.nn.Sequential(conv))(x).sin().sum()
        with torch.autocast("cpu", torch.bfloat16):
            (got,) = torch.autograd.grad(loss, conv.weight)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_scale_is_a_factor_of_the_weight(transposed):
    from fastgan import ops

    a = Attributes(
        [1, 1], [0, 0], [1, 1], [0, 0], transposed, 1, False, 0.0, "identity", 0.0, "identity", 0.0, False, False
    )
    x, weight = torch.randn((2, 3, 1, 1) if transposed else (2, 5, 4, 4)).double(), torch.randn(3, 5, 4, 4).double()
    bias, scale = torch.randn(5 if transposed else 3).double(), torch.tensor(0.3).double()
    norm = (None,) * 4
    with fastgan.use_backend("native"):
        got = ops.conv_norm_act.conv_norm_act(x, weight, bias, *norm, *a._replace(scale=scale))[0]
        expected = ops.conv_norm_act.conv_norm_act(x, scale * weight, bias, *norm, *a)[0]
    torch.testing.assert_close(got, expected)
