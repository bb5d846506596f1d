"""Weights of several panels and blocks, for so few pixels that there is one task, whose panels threads share."""

from itertools import product

import pytest
import torch

from fastgan import ops
from fastgan.backends import processor
from fastgan.backends.geometry import Attributes
from fastgan.backends.layout import accumulate_dtype, wanted_format
from fastgan.testing import random_values

from .conv_cases import FORMATS
from .grid import NATIVE

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="native was not tested here"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
]
NO_NORM = (None,) * 4
# kernel, stride, padding, dilation
SIZES = [((4, 4), 2, 1, 1), ((3, 3), 1, 1, 1), ((3, 5), 2, 2, 1), ((1, 1), 1, 0, 1), ((2, 3), 1, 1, 2)]
CHANNELS = [(131, 150), (9, 70), (70, 3), (24, 33)]
MOST = {torch.float32: 2e-6, torch.float64: 1e-14, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def close(got, right, dtype):
    return (got.double() - right).norm() <= MOST[dtype] * right.norm()


def layers():
    for i, (sizes, channels, transposed) in enumerate(product(SIZES, CHANNELS, (False, True))):
        for dtype in (torch.float32, (torch.float64, torch.float16, torch.bfloat16)[i % 3]):
            yield pytest.param(
                sizes, channels, transposed, dtype, id=f"{sizes}-{channels}-{'T' * transposed}-{str(dtype)[6:]}"
            )


def attributes(sizes, transposed, last, scale=None):
    _, *each = sizes
    plain = (False, 0.0, "identity", 0.0, "identity", 0.0, False, last, scale)
    return Attributes(*[[value] * 2 for value in (*each, 0)], transposed, 1, *plain)


def convolve(x, weight, dy, a):
    """Return the result, and both gradients."""
    y = ops.conv_norm_act.conv_norm_act(x, weight, None, *NO_NORM, *a)[0]
    dy = y if dy is None else dy
    dx = ops.conv_norm_act.conv_norm_act_dx(dy, None, weight, x, *NO_NORM, *a)[0]
    plain = a._replace(scale=None)
    return y, dx, ops.conv_norm_act.conv_norm_act_dw(x, *NO_NORM, dy, None, list(weight.shape[2:]), *plain)


def tensors(channels, sizes, transposed, dtype, weight_format):
    """Return x, the weight, and whether it has channels innermost."""
    last = weight_format == "channels_last"
    x = random_values((1, channels[0] if transposed else channels[1], 4, 5), 1).to(dtype)
    return x, random_values((*channels, *sizes[0]), 2).to(dtype, memory_format=wanted_format(4, last)), last


@pytest.mark.parametrize("scaled", [False, True], ids=["", "scaled"])
@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize(("sizes", "channels", "transposed", "dtype"), layers())
def test_one_image(backend, sizes, channels, transposed, dtype, weight_format, scaled, monkeypatch):
    # the vendor's would run where the processor multiplies 16-bit types
    monkeypatch.setattr(processor, "multiplies", lambda _: False)
    x, weight, last = tensors(channels, sizes, transposed, dtype, weight_format)
    scale = torch.tensor(0.37, dtype=accumulate_dtype(dtype)) if scaled else None
    a = attributes(sizes, transposed, last, scale)
    dy = random_values(tuple(convolve(x, weight, None, a)[0].shape), 3).to(dtype)
    y, dx, dw = convolve(x, weight, dy, a)
    exact = x.double(), weight.double() * (1 if scale is None else scale.double())
    backward = torch.ops.aten.convolution_backward
    right_dx, right_dw, _ = backward(dy.double(), *exact, None, *a.sizes(), [True, True, False])
    assert close(y, torch.convolution(*exact, None, *a.sizes()), dtype)
    assert close(dx, right_dx, dtype) and close(dw, right_dw, dtype)
    assert dw.is_contiguous(memory_format=wanted_format(4, last))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_any_number_of_threads_gives_the_same_bits(backend, weight_format, transposed, dtype, threads, monkeypatch):
    monkeypatch.setattr(processor, "multiplies", lambda _: False)
    x, weight, last = tensors((132, 150), SIZES[0], transposed, dtype, weight_format)
    found = []
    for count in (1, 3):
        threads(count)
        found.append(convolve(x, weight, None, attributes(SIZES[0], transposed, last)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_weight_of_16_bits_beside_float64(backend, weight_format, dtype):
    x, weight, last = tensors((24, 33), SIZES[0], False, torch.float64, weight_format)
    a, weight = attributes(SIZES[0], False, last), weight.to(dtype)
    y = ops.conv_norm_act.conv_norm_act(x, weight, None, *NO_NORM, *a)[0]
    assert close(y, torch.convolution(x, weight.double(), None, *a.sizes()), torch.float64)
