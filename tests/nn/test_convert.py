"""``convert`` and ``revert``."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import fastgan
import fastgan.nn as fnn

from . import zoo
from .common import assert_same, assert_twins, critic, fused_calls, fused_ops, generator, images, latents, twins

x = images(size=8)


def types(model):
    return [(type(m), sorted(vars(m))) for m in model.modules()]


def flat(results):
    return [t for r in results for t in (flat(r) if isinstance(r, tuple) else [r])]


def assert_equal_nets(stock, ours):
    a, b = flat(stock(x)), flat(ours(x))
    assert_same(a, b)
    for model, result in ((stock, a), (ours, b)):
        model.zero_grad()
        sum(t.sin().sum() for t in result).backward()
    assert_same([p.grad for p in stock.parameters()], [p.grad for p in ours.parameters()])
    assert_same(list(stock.buffers()), list(ours.buffers()))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return zoo.Net().double()


def test_same_object_and_silence(net, capsys):
    children, parameters = list(net.modules()), list(net.parameters())
    before = repr(net)
    assert fastgan.convert(net) is net
    assert all(a is b for a, b in zip(children, net.modules(), strict=True))
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
    assert repr(net) == before
    assert fastgan.revert(net) is net
    assert capsys.readouterr() == ("", "")


def test_results(backend, net):
    ours = fastgan.convert(copy.deepcopy(net))
    assert fused_ops(ours.main, x) == 2 and fused_ops(ours.block, x) == zoo.OPS_OF_BLOCK
    for training in (True, False):
        assert_equal_nets(net.train(training), ours.train(training))


def test_every_sequential_at_any_depth(backend):
    inner = critic()[:5]
    model = nn.Sequential(nn.ModuleDict({"a": nn.ModuleList([nn.Sequential(inner)])}), generator())
    fastgan.convert(model)
    assert all(type(m) is not nn.Sequential for m in model.modules())
    assert type(model) is fnn.Sequential and type(inner) is fnn.Sequential


def test_revert_is_the_inverse(net):
    before, state = types(net), copy.deepcopy(net.state_dict())
    fastgan.convert(net)
    assert types(net) != before
    fastgan.revert(net)
    assert types(net) == before
    assert_same(list(state.values()), list(net.state_dict().values()))


def test_twice_is_once(net):
    once = types(fastgan.convert(net))
    assert types(fastgan.convert(net)) == once


def test_revert_of_what_was_not_converted():
    model = nn.Sequential(fnn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), fnn.BatchNormAct2d(3), zoo.Block())
    before = types(model)
    fastgan.revert(model)
    assert types(model) == before
    fastgan.revert(fastgan.convert(model))
    assert types(model) == before


def test_slices_of_a_converted_model_revert():
    model = fastgan.convert(generator())
    assert type(fastgan.revert(model[:6])) is nn.Sequential and type(model) is fnn.Sequential


@pytest.mark.parametrize("function", [fastgan.convert, fastgan.revert, fastgan.explain])
@pytest.mark.parametrize("wrong", [None, "model", torch.zeros(1), nn.ReLU, [nn.ReLU()]])
def test_only_modules(function, wrong):
    with pytest.raises(TypeError, match=r"(convert|revert|explain): model must be a torch.nn.Module, got \w+$"):
        function(wrong)


def test_shared_modules(backend):
    def make():
        torch.manual_seed(0)
        norm, act = nn.BatchNorm2d(4), nn.ReLU(True)
        block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm, act)
        return nn.Sequential(nn.Conv2d(3, 4, 3), norm, act, block, block, norm).double()

    stock, ours = make(), fastgan.convert(make())
    assert_twins(stock, ours, x)
    assert ours[3] is ours[4] and ours[5] is ours[1] and ours[1].num_batches_tracked == 4
    assert type(fastgan.revert(ours)[3]) is nn.Sequential


@pytest.mark.parametrize("start", ["stock", "converted"])
def test_state_dict_both_ways(backend, start):
    a, b = nn.Sequential(critic()).double(), fastgan.convert(nn.Sequential(critic()).double())
    if start == "converted":
        a, b = b, a
    assert list(a.state_dict()) == list(b.state_dict()) and a.state_dict()._metadata == b.state_dict()._metadata
    optimizer = torch.optim.SGD(a.parameters(), 0.1)
    a(images()).square().mean().backward()
    optimizer.step()
    fastgan.revert(a)
    b.load_state_dict(a.state_dict())
    assert_same([a(images())], [b(images())])


def test_optimizers_keep_their_parameters(backend):
    model = nn.Sequential(critic()).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = [p.detach().clone() for p in model.parameters()]
    for change in (fastgan.convert, fastgan.revert):
        change(model)
        optimizer.zero_grad()
        model(images()).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None for p in model.parameters())
    assert not any(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))


def test_sequential_of_the_users_own(backend):
    stock = zoo.Named(4).double()
    ours = fastgan.convert(copy.deepcopy(stock))
    assert isinstance(ours, zoo.Named) and type(ours).__name__ == "Named" and repr(ours) == repr(stock)
    assert ours.width == 4 and fused_ops(ours, x) == 2
    assert_twins(copy.deepcopy(stock), copy.deepcopy(ours), x)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), copy.copy(ours)):
        assert isinstance(other, zoo.Named) and other.width == 4 and fused_ops(other, x) == 2
        assert type(fastgan.revert(other)) is zoo.Named
        other.__class__ = type(ours)


def test_pickles_name_the_users_class(net):
    file = io.BytesIO()
    torch.save(fastgan.convert(net), file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    assert type(other) is zoo.Net and type(other.block) is type(net.block)
    assert types(fastgan.revert(other)) == types(fastgan.revert(net))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_of_traced_models(backend, net, copier):
    other = copier(fastgan.convert(copy.deepcopy(net)))
    assert fused_ops(other.block, x) == zoo.OPS_OF_BLOCK
    assert_equal_nets(copy.deepcopy(net), copier(other))


def test_pickling_in_the_users_own_way(backend):
    class_state = []

    class Own(zoo.Named):
        def __getstate__(self):
            return {**self.__dict__, "extra": 1}

        def __setstate__(self, state):
            class_state.append(state.pop("extra"))
            super().__setstate__(state)

    other = copy.deepcopy(fastgan.convert(Own(4)))
    assert class_state == [1] and "extra" not in vars(other)


def test_replicas_of_traced_models(backend, net):
    ours = fastgan.convert(copy.deepcopy(net))
    replica = ours.block._replicate_for_data_parallel()
    replica._modules = {k: m._replicate_for_data_parallel() for k, m in ours.block._modules.items()}
    replica.more = copy.deepcopy(ours.block.more)
    replica.gain = ours.block.gain * 1
    for name, module in ours.block._modules.items():
        for key, p in module._parameters.items():
            setattr(replica._modules[name], key, None if p is None else p * 1)
        replica._modules[name]._buffers = {k: b.clone() for k, b in module._buffers.items()}
    assert fused_ops(replica, x) == zoo.OPS_OF_BLOCK
    assert type(replica) is type(ours.block)


def test_half_and_memory_format(backend, net):
    ours = fastgan.convert(copy.deepcopy(net)).half().to(memory_format=torch.channels_last)
    net = net.half().to(memory_format=torch.channels_last)
    data = x.half().contiguous(memory_format=torch.channels_last)
    for a, b in zip(flat(net(data)), flat(ours(data)), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(b, a, rtol=0.03, atol=0.03)


def test_models_of_others_inside(backend):
    """Wrappers keep their class, what is inside is converted."""
    model = nn.DataParallel(generator()).double()
    fastgan.convert(model)
    assert type(model) is nn.DataParallel and fused_ops(model, latents()) == 3


def test_forward_replaced_on_the_object(backend):
    model = critic().double()
    model.forward = lambda t: t
    assert fastgan.convert(model)(x) is x and fused_ops(model, x) == 0


def test_import_is_cheap():
    import subprocess
    import sys

    code = "import torch, sys; before = set(sys.modules); import fastgan; print(*(set(sys.modules) - before))"
    added = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in added if name.split(".")[0] not in ("fastgan", "torch", "logging", "json")], added
    assert "torch._dynamo" not in added


def test_generator_and_critic_are_all_fused(backend):
    for make, data in ((generator, latents()), (critic, images())):
        assert fused_calls(twins(make())[1], data) == {"conv_norm_act": 3}
