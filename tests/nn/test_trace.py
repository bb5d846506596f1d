"""Models with a ``forward`` written by hand: traced only where the source proves that the trace is the whole of it."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan

from . import zoo
from .common import assert_same, assert_twins, fused_calls, fused_ops, images

x = images(size=8)


class Simple(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)
        self.act = nn.ReLU(True)
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Tanh())

    def forward(self, x):
        x = F.leaky_relu(self.bn(self.conv(x)), 0.2, inplace=True)
        return self.act(self.bn(self.inner(x)))


def pair(cls):
    torch.manual_seed(0)
    stock = cls().double()
    return stock, fastgan.convert(copy.deepcopy(stock))


def test_traced(backend):
    stock, ours = pair(Simple)
    assert isinstance(ours, Simple) and type(ours).__name__ == "Simple" and type(ours).__doc__ == Simple.__doc__
    assert type(ours).__module__ == Simple.__module__ and type(fastgan.revert(copy.deepcopy(ours))) is Simple
    for training in (True, False):
        assert_twins(stock.train(training), ours.train(training), x, orders=2)
        norms = {"norm_act_eval": 2, "norm_act": 1} if training else {"norm_act_eval": 3}
        assert fused_calls(ours, x) == {"conv_norm_act": 2, **norms}


def test_keywords_and_defaults(backend):
    stock, ours = pair(zoo.Block)
    with torch.no_grad():
        assert_same([stock(input=x, scale=3.0)[0], stock(x, 3.0)[0]], [ours(input=x, scale=3.0)[0], ours(x, 3.0)[0]])
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        ours()


@pytest.mark.parametrize("cls", zoo.UNPROVEN, ids=lambda c: c.__name__)
def test_unproven_forwards_are_left(backend, cls):
    model = cls()
    fastgan.convert(model)
    assert type(model) is cls
    assert f"layer by layer: {zoo.UNPROVEN[cls]}" in fastgan.explain(model).replace("layer: forward ", "layer: ")


@pytest.mark.parametrize("cls", zoo.NOTHING_TO_FUSE, ids=lambda c: c.__name__)
def test_groups_that_are_none(backend, cls):
    stock, ours = pair(cls)
    assert fused_ops(ours, x.clone()) == 0
    assert_same([stock(x.clone())], [ours(x.clone())])
    assert "no batch norm or convolution stands next to an activation in forward" in fastgan.explain(ours)


def test_source_that_cannot_be_read(backend):
    namespace = {"nn": nn, "F": F}
    exec(
        "class Hidden(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.bn = nn.BatchNorm2d(3)\n"
        "    def forward(self, x):\n"
        "        return F.relu(self.bn(x))\n",
        namespace,
    )
    model = fastgan.convert(namespace["Hidden"]())
    assert type(model) is namespace["Hidden"] and "source of forward cannot be read" in fastgan.explain(model)


def test_hooks_on_children_and_on_the_model(backend):
    stock, ours = pair(Simple)
    calls = [[], []]
    for model, seen in zip((stock, ours), calls, strict=True):
        model.bn.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out.clone()))
        model.register_forward_hook(lambda m, a, out: out + 1)
        model.conv.register_full_backward_hook(lambda m, a, b, seen=seen: seen.append(b[0]))
    assert_twins(stock, ours, x)
    assert len(calls[0]) >= 3
    assert_same(*calls)
    assert fused_calls(ours, x) == {"conv_norm_act": 1, "norm_act_eval": 1}


def test_convolution_seen_by_a_hook_and_changed_in_place(backend):
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return F.leaky_relu(self.conv(x), 0.2, inplace=True)

    stock, ours = pair(Critic)
    assert fused_ops(ours, x) == 1
    calls = [[], []]
    for model, seen in zip((stock, ours), calls, strict=True):
        model.conv.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out))
    assert_same([stock(x)], [ours(x)])
    assert_same(*calls)


def test_training_flags_of_children(backend):
    stock, ours = pair(Simple)
    for model in (stock, ours):
        model.bn.eval()
        model.bn.weight.requires_grad_(False)
    assert_twins(stock, ours, x)


def test_children_may_be_replaced(backend):
    stock, ours = pair(Simple)
    for model in (stock, ours):
        model.bn = nn.InstanceNorm2d(3)
        model.act = nn.GELU()
        model.conv = nn.Identity()
    assert_twins(stock, ours, x)
    assert fused_calls(ours, x) == {"conv_norm_act": 1, "norm_act_eval": 1}
    assert "replaced by one of a type fastgan does not know" in fastgan.explain(ours)


def test_attributes_and_methods_of_the_user(backend):
    _, ours = pair(Simple)
    ours.note = "kept"
    assert ours.note == "kept" and list(ours._modules) == ["conv", "bn", "act", "inner"]
    with torch.no_grad():
        assert Simple.forward(ours, x).shape == x.shape
    assert fused_ops(ours, x) == 5


def test_models_of_one_class_share_one_subclass():
    a, b = fastgan.convert(Simple()), fastgan.convert(Simple())
    assert type(a) is type(b) and [c for c in Simple.__subclasses__() if c is type(a)] == [type(a)]
    del a, b
    gc.collect()
    assert not Simple.__subclasses__()


def test_subclass_inherits_a_forward(backend):
    class Child(Simple):
        pass

    stock, ours = pair(Child)
    assert isinstance(ours, Child) and type(ours).__qualname__ == Child.__qualname__ and fused_ops(ours, x) == 5
    assert_twins(stock, ours, x)


def test_training_flag_of_the_model_is_kept():
    for training in (True, False):
        model = Simple().train(training)
        flags = [m.training for m in model.modules()]
        fastgan.convert(model)
        assert [m.training for m in model.modules()] == flags
