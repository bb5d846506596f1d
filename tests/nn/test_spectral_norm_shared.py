"""One call for all spectral norms of a Sequential, sigma shared within a step, groups, and the folded weight."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import fastgan
import fastgan.nn as fnn
from fastgan.nn import utils
from fastgan.nn._power_iteration import _ahead, forget
from fastgan.nn._spectral_norm import folded_weight, prefetch
from fastgan.testing import CountOps

from .common import assert_same, images
from .spectral import converted, iterations, layer, newer, older, original, ours, sn_critic, vectors

OPTIMIZERS = {
    "foreach": lambda p: torch.optim.SGD(p, 0.1, foreach=True),
    "fused": lambda p: torch.optim.Adam(p, 0.1, fused=True),
    "loop": lambda p: torch.optim.Adam(p, 0.1, foreach=False),
}
x = images()


@pytest.fixture(params=["reference", "auto"])
def backend(request):
    with fastgan.use_backend(request.param):
        yield request.param
    assert not _ahead.pending


def by_hand(model, x):
    """Run a model's layers one by one."""
    for child in model:
        x = by_hand(child, x) if isinstance(child, nn.Sequential) else child(x)
    return x


@pytest.mark.parametrize("make", [newer, older, ours])
def test_a_sequential_iterates_in_one_call_with_the_same_bits(backend, make):
    model = fastgan.convert(sn_critic(make))
    other = copy.deepcopy(model)
    for training in (True, True, False):
        model.train(training), other.train(training)
        assert iterations(model, x) == 1 and iterations(by_hand, other, x) == 4
        assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True))


def test_one_call_for_each_type_and_number_of_iterations(backend):
    model = fnn.Sequential(*(ours(nn.Linear(3, 3).double(), n_power_iterations=n) for n in (1, 2, 1, 2)))
    assert iterations(model, x[:, 0, 0, :3]) == 2
    model[0].eval()
    model[2].eval()
    assert iterations(model, x[:, 0, 0, :3]) == 2
    layers = [fnn.ConvNormAct2d(3, 3, 3, dtype=torch.float64) for _ in range(3)]
    for each in layers:
        ours(each.conv)
    assert iterations(fnn.Sequential(*layers), x) == 1


def test_a_child_that_runs_twice_iterates_twice(backend):
    def make(apply):
        torch.manual_seed(0)
        twice, once = apply(nn.Linear(4, 4).double()), apply(nn.Linear(4, 4).double())
        return nn.Sequential(twice, nn.Tanh(), once, nn.Tanh(), twice)

    stock, model, data = make(newer), fastgan.convert(make(newer)), x[:, 0, 0, :4]
    for _ in range(2):
        assert_same([stock(data)], [model(data)])
        assert_same(list(stock.buffers()), list(model.buffers()))
    assert iterations(model, data) == 2


def test_an_exception_leaves_what_was_not_read(backend):
    model = fastgan.convert(sn_critic(newer))
    before = [b.clone() for b in model.buffers()]
    model[0][2].forward = lambda t: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model(x)
    changed = [not torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True)]
    assert changed == [True] * 2 + [False] * 6 and not _ahead.pending


def flip(*arguments):
    for t in arguments:
        if isinstance(t, torch.Tensor) and t.is_leaf:
            t.detach().copy_(t.detach().flip(0))


@pytest.mark.parametrize("make", [newer, older])
def test_hooks_see_and_change_what_they_would(backend, make):
    stock, model, seen = sn_critic(make), fastgan.convert(sn_critic(make)), []
    for m in (stock, model):
        m[0][0].register_forward_hook(partial(flip, original(m[1])))
        m[0][2].register_forward_pre_hook(partial(flip, *vectors(m[3])))
        m[1].register_forward_pre_hook(lambda layer, args: seen.append(type(layer)))
        m[3].register_full_backward_hook(lambda layer, dx, dy: (dx[0] * 3,))
        y = m(x)
        y.sin().sum().backward()
    assert_same([stock(x), *stock.buffers()], [model(x), *model.buffers()])
    assert_same([p.grad for p in stock.parameters()], [p.grad for p in model.parameters()])
    assert len(seen) == 4


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_per_step(backend, optimizer):
    module, data = layer("Linear", ours, per="step")
    stock, _ = layer("Linear", newer)
    optimizers = [OPTIMIZERS[optimizer](m.parameters()) for m in (stock, module)]
    for _ in range(3):
        assert iterations(lambda: (module(data), module(data), module(2 * data))) == 1
        stock(data)
        for m, o in zip((stock.eval(), module), optimizers, strict=True):
            o.zero_grad()
            (m(data).sin().sum() - m(2 * data).cos().sum()).backward()
            o.step()
        assert_same(list(stock.train().parameters()), list(module.parameters()))
        assert_same(list(stock.buffers()), list(module.buffers()))
    for change in (lambda: module.load_state_dict(stock.state_dict()), lambda: vectors(module)[0].neg_()):
        module(data)
        change()
        assert iterations(module, data) == 1 and iterations(module, data) == 0


def test_per_step_elsewhere(backend):
    module, data = layer("Linear", ours, per="step")
    module(data)
    before = [b.clone() for b in module.buffers()]
    module.eval()(data)
    assert_same(before, list(module.buffers()), rtol=0, atol=0)
    assert iterations(module.train(), data) == 0
    other = copy.deepcopy(module)
    assert iterations(other, data) == 1 and iterations(other, data) == 0
    with torch.no_grad():
        original(module).mul_(2)
    with torch.inference_mode():
        module(data)
    module(data).sum().backward()


def test_per_step_in_a_sequential(backend):
    model = fastgan.convert(sn_critic(ours, per="step"))
    stock = sn_critic(newer)
    assert iterations(lambda: (model(x), model(x + 1))) == 1
    stock(x)
    assert_same([model(x)], [stock.eval()(x)])
    with torch.no_grad():
        original(model[1]).mul_(2)
    assert iterations(model, x) == 1
    assert "per='step'" in repr(model)


def test_group(backend):
    model = nn.Sequential(sn_critic(ours, per="step"), ours(nn.Linear(1, 1).double()), older(nn.Linear(1, 1).double()))
    group = utils.SpectralNormGroup(fastgan.convert(model))
    assert len(group) == 6 and list(group) == [f"{p}.weight" for p in ("0.0.0", "0.0.2", "0.1", "0.3", "1", "2")]
    stock = sn_critic(newer)
    for _ in range(2):
        stock(x)
        before = [b.clone() for b in model[1:].buffers()]
        assert iterations(group.step) == 1 and iterations(model[0], x) == 0
        assert_same(list(model[0].buffers()), list(stock.buffers()))
        assert_same(list(model[1:].buffers()), before, rtol=0, atol=0)
    model.eval()
    assert iterations(group.step) == 0


@pytest.mark.parametrize("make", [newer, older, ours])
def test_folded_weight(backend, make):
    model = fastgan.convert(sn_critic(make))
    stock = sn_critic(older if make is older else newer)
    original(model[1]).requires_grad_(False)
    layers, others = [[m[0][0], m[0][2], m[1], m[3]] for m in (model, stock)]
    keys = prefetch(list(model))
    folded = [folded_weight(m) for m in layers]
    forget(keys)
    stock(x)
    loss = 0
    for (weight, reciprocal), m, other in zip(folded, layers, others, strict=True):
        assert reciprocal.shape == () and not reciprocal.requires_grad
        assert_same([weight * reciprocal], [other.eval().weight])
        assert torch.equal(weight, original(m))
        assert weight.requires_grad == original(m).requires_grad
        # the op's gradient for it is that of the scaled weight
        if weight.requires_grad:
            loss = loss + (weight * (weight * reciprocal).detach().cos()).sum()
    with CountOps() as count:
        loss.backward()
    assert count["spectral_norm_bwd"] == 1
    for m, other in zip(layers, others, strict=True):
        if original(m).requires_grad:
            other.weight.sin().sum().backward()
            assert_same([original(m).grad], [original(other).grad])
    assert_same(list(model.buffers()), list(stock.buffers()))
    if make is older:
        assert_same([m.weight for m in layers], [m.weight for m in others])


def test_folded_weight_without_gradients(backend):
    model = fastgan.convert(sn_critic(newer))
    keys = prefetch(list(model))
    with torch.no_grad():
        assert folded_weight(model[0][0])[0].grad_fn is None
    assert folded_weight(model[0][2])[0].grad_fn is not None
    forget(keys)
    assert iterations(folded_weight, model[1]) == 1


def test_what_is_not_folded(backend):
    def second(m):
        parametrize.register_parametrization(m, "weight", nn.Identity())

    def hooked(m):
        m.parametrizations.weight[0].register_forward_hook(lambda *_: None)

    for change in (second, hooked, fastgan.revert):
        module, _ = layer("Conv2d", ours if change is not fastgan.revert else newer)
        change(fastgan.convert(module))
        before = [b.clone() for b in module.buffers()]
        assert folded_weight(module) is None
        assert_same(before, list(module.buffers()), rtol=0, atol=0)
    module = layer("Conv2d", ours)[0]
    with parametrize.cached():
        assert folded_weight(module) is None
    assert folded_weight(nn.Conv2d(1, 1, 1)) is None
    assert folded_weight(layer("Conv2d", older)[0]) is None
    both = converted(layer("Conv2d", older)[0])
    both.register_forward_pre_hook(lambda *_: None)
    assert folded_weight(both) is None
