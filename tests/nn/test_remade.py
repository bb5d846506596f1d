"""A discriminator's first activations, which are made again in backward instead of kept."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.utils.checkpoint import checkpoint

import fastgan
from fastgan.testing import CountOps


def critic(activation=None, channels=3, width=8, norm=True):
    layers = [nn.Conv2d(channels, width, 4, 2, 1), activation or nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(width, 16, 4, 2, 1), *([nn.BatchNorm2d(16)] * norm), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4)]
    return nn.Sequential(*layers).double()


@pytest.fixture
def twins(backend):
    torch.manual_seed(0)
    stock = critic()
    return stock, fastgan.convert(copy.deepcopy(stock)), torch.randn(3, 3, 16, 16, dtype=torch.float64)


def close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


def penalty(model, x, wanted):
    x = x.clone().requires_grad_()
    (g,) = grad(model(x).sum(), x, create_graph=True)
    return grad(g.square().sum(), wanted(model), allow_unused=True)


@pytest.mark.parametrize("of", ["all", "the first weight", "the second weight", "x alone"])
def test_gradients_are_those_of_stock(twins, of):
    *models, x = twins
    found = []
    for model in models:
        mine = x.clone().requires_grad_()
        wanted = {"all": [mine, *model.parameters()], "the first weight": [model[0].weight],
                  "the second weight": [model[2].weight], "x alone": [mine]}[of]  # fmt: skip
        found.append(grad(model(mine).sin().sum(), wanted))
    close(*found[::-1])


@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2), nn.Tanh(), nn.Sigmoid()], ids=str)
def test_second_derivatives_are_those_of_stock(backend, activation):
    torch.manual_seed(0)
    stock = critic(activation)
    ours, x = fastgan.convert(copy.deepcopy(stock)), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    close(*(penalty(model, x, lambda model: list(model.parameters())) for model in (ours, stock)))


def test_a_graph_that_is_used_twice(twins):
    *models, x = twins
    found = []
    for model in models:
        y = model(x)
        grad(y.sum(), list(model.parameters()), retain_graph=True)
        # the second weight alone: nobody takes what was made for the first
        grad(y.sum(), model[2].weight, retain_graph=True)
        found.append(grad(y.sin().sum(), list(model.parameters())))
    close(*found[::-1])


def test_a_weight_changed_before_backward_is_an_error_as_in_torch(twins):
    for model in twins[:2]:
        y = model(twins[2].requires_grad_())
        with torch.no_grad():
            model[0].weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_under_a_checkpoint(twins):
    *models, x = twins
    found = [grad(checkpoint(m, x, use_reentrant=False).sin().sum(), list(m.parameters())) for m in models]
    close(*found[::-1])


def test_it_is_made_once_for_one_backward(twins):
    _, ours, x = twins
    y = ours(x)
    with CountOps() as count:
        y.sum().backward(retain_graph=True)
        assert count["conv_norm_act"] == 1
        y.sum().backward()
    assert count["conv_norm_act"] == 2


@pytest.mark.parametrize("model", [critic(channels=5, width=4), critic(channels=5), critic(width=4)], ids=str)
def test_an_input_that_is_not_much_smaller_is_no_reason(backend, model):
    ours, x = fastgan.convert(model), torch.randn(2, model[0].in_channels, 16, 16, dtype=torch.float64)
    y = ours(x)
    with CountOps() as count:
        y.sum().backward()
    assert count["conv_norm_act"] == 0
