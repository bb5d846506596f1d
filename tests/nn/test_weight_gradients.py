"""A gradient penalty made by hand computes no weight gradient that nobody asked for, and convolves no zeros."""

import copy
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import fastgan
from fastgan import backends

from .common import assert_same, critic, images, twins

OPS = ("conv_norm_act", "conv_norm_act_dx", "conv_norm_act_dw")
ATEN = ("convolution", "convolution_backward", "_convolution_double_backward")


class Log:
    """Which convolutions ran, and which of them had an image or a weight of nothing but zeros."""

    def __init__(self):
        self.calls, self.zeros = Counter(), Counter()

    def __call__(self, name, args):
        self.calls[name] += 1
        self.zeros[name] += any(t.dim() == 4 and not t.any() for t in args if isinstance(t, torch.Tensor))

    def clear(self):
        self.calls.clear(), self.zeros.clear()


class Convolutions(TorchDispatchMode):
    """Logs what goes through torch's dispatcher, fused or not."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in OPS + ATEN:
            self.log(name, args)
        return func(*args, **(kwargs or {}))


def without_norms():
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(4, 5, 3), nn.LeakyReLU(0.1),
        nn.Conv2d(5, 6, 3, 1, 1, bias=False), nn.ReLU(True), nn.Conv2d(6, 1, 4, 2), nn.Flatten(),
    )  # fmt: skip


class ByHand(nn.Module):
    """The same convolutions, called in a forward of the user's own."""

    def __init__(self):
        super().__init__()
        self.conv1, _, self.conv2, _, self.conv3, _, self.conv4, _ = without_norms()

    def forward(self, x):
        x = F.leaky_relu(self.conv1(x), 0.2, inplace=True)
        x = F.leaky_relu(self.conv2(x), 0.1)
        return self.conv4(torch.relu(self.conv3(x))).flatten()


CRITICS = pytest.mark.parametrize("make", [without_norms, ByHand, critic], ids=["plain", "by-hand", "norms"])


@pytest.fixture(params=["direct", "dispatcher"])
def logged(request, backend, monkeypatch):
    """Log the convolutions of a test; the ops have a way of their own past torch's dispatcher, so both ways run."""
    log = Log()
    if request.param == "dispatcher":
        with Convolutions(log):
            yield log
        return
    module = backends.load(backend, "conv_norm_act")
    for name in OPS:
        run = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, name=name, run=run: log(name, args) or run(*args))
    yield log


def input_gradient(model, seed=0):
    """Return the gradient of the sum of the model's results by its input, with a graph."""
    x = images(seed=seed).requires_grad_()
    return torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]


def penalty(dx):
    return (dx.flatten(1).norm(dim=1) - 1).square().mean()


@CRITICS
def test_the_gradient_by_the_input_computes_no_weight_gradient(logged, make):
    _, model = twins(make())
    input_gradient(model)
    convolutions = 3 if make is critic else 4
    assert logged.calls == {"conv_norm_act": 2 * convolutions}


@CRITICS
def test_without_a_graph_there_is_no_weight_gradient_either(logged, make):
    _, model = twins(make())
    x = images().requires_grad_()
    torch.autograd.grad(model(x).sum(), x)
    convolutions = 3 if make is critic else 4
    assert logged.calls == {"conv_norm_act": convolutions, "conv_norm_act_dx": convolutions}


@CRITICS
def test_the_penalty_convolves_no_zeros(logged, make):
    _, model = twins(make())
    loss = penalty(input_gradient(model))
    logged.clear()
    loss.backward()
    assert sum(logged.calls.values()) > 0 and not sum(logged.zeros.values()), logged.zeros


def test_the_penalty_without_norms_is_one_tangent_forward_and_the_weight_gradients(logged):
    _, model = twins(without_norms())
    loss = penalty(input_gradient(model))
    logged.clear()
    loss.backward()
    # the tangent does not go through the last convolution: its result has a constant gradient
    assert logged.calls == {"conv_norm_act_dx": 3, "conv_norm_act_dw": 4}


def test_stock_convolves_zeros():
    """What the others look for is there to be found."""
    stock, log = without_norms().double(), Log()
    with Convolutions(log):
        penalty(input_gradient(stock)).backward()
    assert log.zeros["convolution_backward"] >= 3


@CRITICS
def test_weight_gradients_of_the_penalty_equal_stock(backend, make):
    stock, ours = twins(make())
    results = []
    for model in (stock, ours):
        loss = penalty(input_gradient(model))
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)])
    assert_same(*results, rtol=1e-10, atol=1e-10)
    assert all(p.abs().max() > 1e-6 for p in results[1][1:] if p is not None and p.dim() == 4)


@CRITICS
def test_frozen_weights_get_no_gradient_from_the_penalty(logged, make):
    stock, model = twins(make())
    for m in (stock, model):
        next(c for c in m.modules() if isinstance(c, nn.Conv2d)).weight.requires_grad_(False)
        penalty(input_gradient(m)).backward()
    # through the norm, whose gradient depends on its input, the weight before it is reached a second time
    assert logged.calls["conv_norm_act_dw"] == 3
    assert_same([p.grad for p in stock.parameters()], [p.grad for p in model.parameters()])


def test_a_step_of_wgan_gp_equals_stock(backend):
    """Critic loss and penalty in one backward pass, and the critic twice in one graph."""
    stock, _ = twins(without_norms())
    ours = fastgan.convert(copy.deepcopy(stock))
    results = []
    for model in (stock, ours):
        loss = model(images(seed=1)).mean() - model(images(seed=2)).mean() + 10 * penalty(input_gradient(model, 3))
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters())])
    assert_same(*results, rtol=1e-10, atol=1e-10)
