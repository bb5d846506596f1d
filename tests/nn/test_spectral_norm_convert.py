"""``convert``, ``revert``, ``explain`` and state dicts of models with spectral norm."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as Hook

import fastgan
from fastgan.nn._spectral_norm import LegacySpectralNorm, SpectralNorm

from .common import assert_same, fused_calls, images
from .spectral import converted, iterations, newer, older, ours, sn_critic

MAKES = {"newer": newer, "older": older, "ours": ours}
x = images()


@pytest.fixture(params=["reference", "auto"])
def backend(request):
    with fastgan.use_backend(request.param):
        yield request.param


def everything(model):
    """Return all that convert could change: types, attributes, and the types of hooks."""
    found = []
    for m in model.modules():
        hooks = [*m._forward_pre_hooks.values(), *m._load_state_dict_pre_hooks.values(), *m._state_dict_hooks.values()]
        found.append((type(m), sorted(vars(m)), [type(getattr(h, "hook", h)) for h in hooks]))
    return found


@pytest.mark.parametrize("make", MAKES)
def test_convert_and_revert(backend, make):
    model = sn_critic(MAKES[make])
    before, text, tensors = everything(model), repr(model), [*model.parameters(), *model.buffers()]
    keys = list(model.state_dict())
    assert fastgan.convert(model) is model
    once = everything(model)
    assert once != before and repr(model) == text and list(model.state_dict()) == keys
    assert everything(fastgan.convert(model)) == once
    assert all(a is b for a, b in zip(tensors, [*model.parameters(), *model.buffers()], strict=True))
    model(x)
    assert iterations(model, x) == 1
    assert everything(fastgan.revert(model)) == [
        (t, sorted({*names, "weight"} if make == "older" and t in (nn.Conv2d, nn.Linear) else names), hooks)
        for t, names, hooks in before
    ]
    assert iterations(model, x) == (4 if make == "ours" else 0)


@pytest.mark.parametrize("make", MAKES)
def test_copies_of_converted_models_revert(make):
    model = converted(sn_critic(MAKES[make]))
    other = fastgan.revert(copy.deepcopy(model))
    assert_same([other(x)], [model(x)])
    assert iterations(other, x) == (4 if make == "ours" else 0)


def test_types():
    model = fastgan.convert(nn.Sequential(sn_critic(newer), sn_critic(older)))
    norm, hook = model[0][1].parametrizations.weight[0], next(iter(model[1][1]._forward_pre_hooks.values()))
    assert type(norm) is SpectralNorm and isinstance(norm, _SpectralNorm)
    assert type(hook) is LegacySpectralNorm and isinstance(hook, Hook)
    fastgan.revert(model)
    assert type(norm) is _SpectralNorm and type(hook) is Hook


@pytest.mark.parametrize("make", [newer, older, ours])
def test_spectral_norm_after_convert(backend, make):
    stock, model = sn_critic(newer if make is ours else make), fastgan.convert(sn_critic(lambda module: module))
    torch.manual_seed(0)
    sn_critic(lambda module: module)
    for m in (model[0][0], model[0][2], model[1], model[3]):
        make(m)
    for _ in range(2):
        assert_same([stock(x)], [model(x)])
        assert_same(list(stock.buffers()), list(model.buffers()))
        assert iterations(fastgan.convert(model), x) == 1
        stock(x)


@pytest.mark.parametrize("make", MAKES)
def test_convolutions_are_fused(backend, make):
    model = fastgan.convert(sn_critic(MAKES[make]))
    assert fused_calls(model, x) == {"conv_norm_act": 3}
    model[1].register_forward_pre_hook(lambda *_: None)
    assert fused_calls(model, x) == {"conv_norm_act": 2}
    other = fastgan.convert(nn.Sequential(nn.Conv2d(3, 4, 3), older(nn.BatchNorm2d(4), "weight", dim=0), nn.ReLU()))
    assert fused_calls(other.double(), x) == {"conv_norm_act": 1}


def keys_of(model):
    return {key.rsplit(".", 1)[1] for key in model.state_dict()}


@pytest.mark.parametrize("target", ["ours", "newer", "older"])
@pytest.mark.parametrize("source", ["ours", "newer", "older", "converted newer", "converted older"])
def test_state_dicts(source, target):
    def make(name):
        model = nn.ModuleDict({"critic": sn_critic(MAKES[name.split()[-1]])})
        return fastgan.convert(model) if name.startswith("converted") else model

    a, b = make(source), make(target)
    for p in a.parameters():
        p.data.mul_(1.5)
    a.critic(x)
    a.critic(x)
    if target != "ours":
        fastgan.convert(b)
    keys = keys_of(b)
    file = io.BytesIO()
    torch.save(a.state_dict(), file)
    file.seek(0)
    state = torch.load(file)
    before = list(state)
    found = b.load_state_dict(state)
    assert not found.missing_keys and not found.unexpected_keys and list(state) == before
    assert keys_of(b) == keys == ({"weight_orig", "weight_u", "weight_v", "bias"} if target == "older" else keys)
    assert_same([a.eval().critic(x)], [b.eval().critic(x)])
    # torch's own loads what fastgan's writes
    stock = sn_critic(older if target == "older" else newer)
    stock.load_state_dict(b.critic.state_dict())
    assert_same([stock.eval()(x)], [b.critic(x)])


@pytest.mark.parametrize("make", MAKES)
def test_what_is_missing_is_reported(make):
    for source in (newer, older):
        model, state = fastgan.convert(sn_critic(MAKES[make])), sn_critic(source).state_dict()
        del state["1.parametrizations.weight.0._u" if source is newer else "1.weight_u"]
        with pytest.raises(RuntimeError, match="Missing key"):
            model.load_state_dict(state)
    model, state = fastgan.convert(sn_critic(MAKES[make])), sn_critic(lambda m: m).state_dict()
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)


def test_a_parametrization_among_others(backend):
    class Double(nn.Module):
        def forward(self, w):
            return 2 * w

        def right_inverse(self, w):
            return w / 2

    def make(order):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3).double()
        for apply in order:
            if apply is Double:
                parametrize.register_parametrization(conv, "weight", Double())
            else:
                apply(conv)
        return conv

    for order in ((newer, Double), (Double, newer), (newer, newer)):
        stock, model = make(order), fastgan.convert(nn.Sequential(make(order), nn.ReLU()))
        for _ in range(2):
            assert_same([stock(x).relu()], [model(x)])
            assert_same(list(stock.buffers()), list(model.buffers()))


def test_users_subclasses_are_left(backend):
    class Own(_SpectralNorm):
        def forward(self, weight):
            return super().forward(weight) * 2

    conv = nn.Conv2d(3, 4, 3)
    parametrize.register_parametrization(conv, "weight", Own(conv.weight))
    fastgan.convert(conv)
    assert type(conv.parametrizations.weight[0]) is Own
    assert "it is a subclass of torch's" in fastgan.explain(conv)


def rows(model):
    lines = (" ".join(line.split()) for line in fastgan.explain(model).splitlines())
    return {line.split(" spectral norm ")[0]: line.split(" spectral norm ")[1] for line in lines if " spectral" in line}


@pytest.mark.parametrize("make", MAKES)
def test_explain(make):
    model = nn.Sequential(sn_critic(MAKES[make]))
    names = ["0.0.0.weight", "0.0.2.weight", "0.1.weight", "0.3.weight"]
    before = [b.clone() for b in model.buffers()]
    with fastgan.use_backend("reference"):
        if make != "ours":
            assert rows(model) == dict.fromkeys(names, "no torch's: not converted")
        found = rows(fastgan.convert(model))
    together = "a converted Sequential iterates all its layers in one call"
    hook = "torch.nn.utils' hook: " if make == "older" else ""
    assert found == dict.fromkeys(names, f"yes reference {hook}iterates at each read; {together}")
    text = fastgan.explain(model)
    assert "parametrizations" not in text and "has forward hooks" not in text
    assert_same(before, list(model.buffers()), rtol=0, atol=0)
    elsewhere = fastgan.convert(newer(nn.Linear(2, 2, device="meta")))
    assert rows(elsewhere)["weight"].startswith("no torch's: the op takes plain, dense weights")
    step = ours(nn.Linear(2, 2), per="step")
    assert "iterates once the weight has changed" in rows(step)["weight"]


@pytest.mark.parametrize("make", [newer, older])
def test_a_folded_weight_in_torchs_convolution(no_fast_backend, make):
    """Where only the reference is left, a convolution that has folded its weight runs as torch's, gradients too."""
    stock, mine = sn_critic(make), fastgan.convert(sn_critic(make))
    for _ in range(2):
        x, results = images(4), []
        for model in (stock, mine):
            y = model(x)
            results.append([y, *torch.autograd.grad(y.sin().sum(), list(model.parameters()))])
        assert_same(*results)
