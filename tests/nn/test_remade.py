"""A discriminator's first activations, which are made again in backward instead of kept."""

import copy
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.utils.checkpoint import checkpoint

import fastgan
from fastgan.ops.conv_norm_act import Remade
from fastgan.testing import CountOps


def critic(activation=None, channels=3, width=32, norm=True):
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


@pytest.mark.parametrize("model", [critic(width=8), critic(channels=9)], ids=["narrow", "many channels"])
def test_an_input_that_is_not_much_smaller_is_no_reason(backend, model):
    ours, x = fastgan.convert(model), torch.randn(2, model[0].in_channels, 16, 16, dtype=torch.float64)
    y = ours(x)
    with CountOps() as count:
        y.sum().backward()
    assert count["conv_norm_act"] == 0


def left(model, x, take):
    """Return what is left of the first activations after a backward, and how many calls of the op it took."""
    with recorded() as made:
        y = model(x)
    with CountOps() as count:
        take(y)
    return [remade._shared for remade in made], count["conv_norm_act"]


@contextmanager
def recorded():
    made, init = [], Remade.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Remade, "__init__", lambda self, a: (made.append(self), init(self, a))[1])
        yield made


@pytest.mark.parametrize("graph", [False, True], ids=["once", "with a graph"])
@pytest.mark.parametrize("of", [slice(None), slice(2, 4), slice(0, 1), slice(4, None)], ids=str)
def test_nothing_is_left_after_backward(twins, of, graph):
    _, ours, x = twins
    wanted = list(ours.parameters())[of]
    shared, _ = left(ours, x, lambda y: grad(y.sin().sum(), wanted, create_graph=graph))
    assert shared == [None]


def test_nothing_is_made_again_where_the_next_layer_keeps_it_anyway(backend):
    ours = critic()
    ours[2].register_forward_pre_hook(lambda *_: None)
    shared, calls = left(fastgan.convert(ours), torch.randn(2, 3, 16, 16).double(), lambda y: y.sum().backward())
    assert shared in ([], [None]) and calls <= 1


def test_a_frozen_first_layer_keeps_what_stock_keeps(twins):
    found = []
    for model in twins[:2]:
        model[0].requires_grad_(False)
        buffer = twins[2].clone()
        y = model(buffer)
        buffer.mul_(2)
        found.append(grad(y.sin().sum(), list(model[2].parameters())))
    close(*found[::-1])


def test_an_input_made_under_inference_mode(twins):
    for model in twins[:2]:
        model[0].requires_grad_(False)
        with torch.inference_mode():
            x = twins[2] * 2
        model(x).sum().backward()


def test_a_bias_may_change_before_backward(twins):
    found = []
    for model in twins[:2]:
        y = model(twins[2])
        with torch.no_grad():
            model[0].bias.add_(1)
        found.append(grad(y.sin().sum(), list(model.parameters())))
    close(*found[::-1])


def test_features_that_a_hook_sees_are_plain_tensors(backend):
    torch.manual_seed(0)
    stock, head = critic(), nn.Sequential(nn.Conv2d(32, 1, 3), nn.Tanh()).double()
    x, found = torch.randn(2, 3, 16, 16).double().contiguous(memory_format=torch.channels_last), []
    for convert in (lambda model: model, fastgan.convert):
        model, aux = (convert(copy.deepcopy(m).to(memory_format=torch.channels_last)) for m in (stock, head))
        features = []
        model[2].register_forward_pre_hook(lambda _, given, features=features: features.append(given[0]))
        model(x)
        (f,) = features
        assert not vars(f)
        f.detach_().mul_(2)
        found.append(grad(aux(f).sum(), list(aux.parameters())))
    close(*found[::-1])


def test_activations_kept_on_the_cpu_by_torch(twins):
    *models, x = twins
    found = []
    for model in models:
        with torch.autograd.graph.save_on_cpu():
            y = model(x)
        found.append(grad(y.sin().sum(), list(model.parameters())))
    close(*found[::-1])


def test_a_checkpoint_with_reentry(twins):
    *models, x = twins
    found = []
    for model in models:
        leaf = x.clone().requires_grad_()
        checkpoint(model, leaf, use_reentrant=True).sin().sum().backward()
        found.append([leaf.grad, *(p.grad for p in model.parameters())])
    close(*found[::-1])


def test_spectral_norm_of_the_first_layer(backend):
    torch.manual_seed(0)
    stock = critic(norm=False)
    nn.utils.parametrizations.spectral_norm(stock[0])
    ours, x = fastgan.convert(copy.deepcopy(stock)), torch.randn(3, 3, 16, 16).double()
    close(*(grad(model(x).sin().sum(), list(model.parameters())) for model in (ours, stock)))


def test_autocast(backend):
    torch.manual_seed(0)
    stock = critic(norm=False).float()
    ours, x = fastgan.convert(copy.deepcopy(stock)), torch.randn(3, 3, 16, 16)
    found = []
    for model in (ours, stock):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(x)
        found.append(grad(y.float().sin().sum(), list(model.parameters())))
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 0.1 * b.norm() + 1e-3
