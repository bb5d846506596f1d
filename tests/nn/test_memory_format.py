"""Tensors of one channel or one pixel are contiguous and channels last at once: their strides decide, as in torch."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import fastgan.nn.functional as FF
from tests.nn.common import assert_same, twins

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def laid_out(t, layout):
    """Return a copy whose strides are those of the layout even where they do not matter."""
    return torch.empty(t.shape, dtype=t.dtype, memory_format=FORMATS[layout]).copy_(t)


def results(model, x):
    """Return the output and all gradients."""
    x = x.detach().requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])]


@pytest.mark.parametrize(
    ("conv", "channels", "side"),
    [(nn.Conv2d, 1, 6), (nn.ConvTranspose2d, 1, 4), (nn.ConvTranspose2d, 4, 1)],
    ids=["one channel", "one channel, transposed", "one pixel, transposed"],
)
@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("layout", FORMATS)
def test_convolutions(backend, layout, weights, conv, channels, side):
    stock, ours = twins(nn.Sequential(conv(channels, 5, 3), nn.LeakyReLU(0.2)))
    for model in (stock, ours):
        model[0].weight.data = laid_out(model[0].weight.data, weights)
    x = laid_out(torch.randn(2, channels, side, side, dtype=torch.float64), layout)
    theirs, got = results(stock, x), results(ours, x)
    assert_same(theirs, got)
    assert theirs[0].stride() == got[0].stride()
    assert theirs[0].is_contiguous() == ((layout, weights) == ("nchw", "nchw"))


def calls(x):
    """Return what the functions make of an image, and the gradients of each."""
    channels = x.shape[1]
    v = torch.ones(channels, dtype=x.dtype)
    w = torch.ones(channels, 1, 3, 3, dtype=x.dtype)
    y = [FF.bias_act(x, v), FF.batch_norm_act(x, v, v, activation="silu"), FF.conv_norm_act(x, w, padding=1)]
    return [*y, *(torch.autograd.grad(t, x, torch.ones_like(t))[0] for t in y)]


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (3, 1, 1, 1), (3, 1, 1, 4)])
@pytest.mark.parametrize("layout", FORMATS)
def test_shape_functions_say_the_strides_that_results_have(backend, layout, shape):
    x = laid_out(torch.randn(shape, dtype=torch.float64), layout).requires_grad_()
    real = calls(x)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = calls(mode.from_tensor(x))
    assert [t.stride() for t in real] == [t.stride() for t in fake]
