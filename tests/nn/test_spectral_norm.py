"""Spectral norm as modules does what torch's does: the newer parametrization, and the older hook once converted."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

import fastgan
from fastgan.nn import utils

from .common import assert_same, assert_twins, images, replica
from .spectral import LAYERS, converted, iterations, layer, newer, older, original, ours, sn_critic, vectors

KINDS = {"ours": (newer, ours), "newer": (newer, None), "older": (older, None)}


@pytest.fixture(params=["reference", "auto"])
def backend(request):
    with fastgan.use_backend(request.param):
        yield request.param


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def pair(kind, make, *args, **options):
    """Return what ``make`` makes with torch's spectral norm, and with fastgan's, made so or converted."""
    stock, other = KINDS[kind]
    if other is not None:
        return make(*args, stock), make(*args, other, **options)
    return make(*args, stock), fastgan.convert(make(*args, stock))


def state(module):
    """Return weight, vectors and sigma of a layer."""
    module.eval()
    weight = module.weight
    module.train()
    return [weight, *vectors(module), original(module).norm() / weight.norm()]


@pytest.mark.parametrize("name", LAYERS)
def test_same_random_numbers(name):
    stock, _ = layer(name, newer, torch.float32)
    after = torch.rand(3)
    module, _ = layer(name, ours, torch.float32)
    assert torch.equal(after, torch.rand(3))
    for s, t in zip(stock.state_dict().items(), module.state_dict().items(), strict=True):
        assert s[0] == t[0] and torch.equal(s[1], t[1])
    norm = module.parametrizations.weight[0]
    assert isinstance(norm, _SpectralNorm) and norm.dim == ("Transpose" in name) and repr(module) == repr(stock)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(backend, kind, name):
    def run(made):
        module, x = made
        results = []
        for i in range(1, 101):
            y = module(x)
            if i in (1, 10, 100):
                module.zero_grad()
                y.sin().sum().backward()
                results += [y, original(module).grad.clone(), *(t.clone() for t in vectors(module))]
                if kind != "older":
                    # an older layer in evaluation has a weight only after a call
                    results += state(module)
        module.eval()
        return [*results, module(x)]

    make = lambda apply: layer(name, apply)  # noqa: E731
    if kind == "ours":
        stock, mine = make(newer), make(ours)
    else:
        stock, mine = make(KINDS[kind][0]), make(KINDS[kind][0])
        fastgan.convert(mine[0])
    assert iterations(mine[0], mine[1]) == 1
    stock[0](stock[1])
    assert_same(run(stock), run(mine))


@pytest.mark.parametrize("name", ["Linear", "Conv2d", "ConvTranspose2d"])
def test_float32(backend, kind, name):
    make = KINDS[kind][0]
    (stock, x), (mine, _) = layer(name, make, torch.float32), layer(name, make, torch.float32)
    fastgan.convert(mine)
    for _ in range(100):
        a, b = stock(x), mine(x)
    torch.testing.assert_close(b, a, rtol=0, atol=1e-6 * a.abs().max().item())
    for s, t in zip(vectors(stock), vectors(mine), strict=True):
        torch.testing.assert_close(t, s, rtol=0, atol=1e-6)


OPTIONS = ({"n_power_iterations": 3, "eps": 0.1}, {"dim": 1})


# torch's older hook takes no dimension below 0
@pytest.mark.parametrize(
    ("make", "options"), [*((make, o) for make in (newer, older) for o in OPTIONS), (newer, {"dim": -1})]
)
def test_options(backend, make, options):
    stock, x = layer("Conv2d", make, **options)
    mine = converted(stock)
    for _ in range(3):
        assert_same([stock(x)], [mine(x)])
    assert_same(vectors(stock), vectors(mine))


def test_vectors_of_one_dimension(backend):
    stock, mine = newer(nn.BatchNorm1d(4).double()), ours(nn.BatchNorm1d(4).double())
    for module in (stock, mine):
        original(module).data.copy_(torch.arange(4.0))
    assert_same([stock.weight], [mine.weight])
    assert list(mine.state_dict()) == list(stock.state_dict())


def hinge_step(model, optimizer, real, fake):
    loss = torch.relu(1 - model(real)).mean() + torch.relu(1 + model(fake)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    tensors = [loss, *(p.grad for p in model.parameters()), *model.parameters(), *model.buffers()]
    return [t.detach().clone() for t in tensors]


def test_training(backend, kind):
    stock, mine = pair(kind, sn_critic)
    fastgan.convert(mine)
    results = []
    for model in (stock, mine):
        # not Adam: real and fake cancel in a bias's gradient, and Adam makes whole steps of what rounding leaves
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        results.append([hinge_step(model, optimizer, images(seed=i), images(seed=i + 9)) for i in range(5)])
        model.eval()
        results[-1].append([model(images(seed=20))])
    for a, b in zip(*results, strict=True):
        assert_same(a, b, rtol=1e-10)


@pytest.mark.parametrize("orders", [1, 2])
def test_gradients(backend, kind, orders):
    stock, mine = pair(kind, sn_critic)
    assert_twins(stock, fastgan.convert(mine), images(), orders)


def penalty(model, x):
    x = x.clone().requires_grad_()
    (dx,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return (dx.flatten(1).norm(dim=1) - 1).square().mean()


def test_gradient_penalty_by_hand(backend, kind):
    stock, mine = pair(kind, sn_critic)
    results = []
    for model in (stock, fastgan.convert(mine)):
        loss = model(images()).mean() - model(images(seed=1)).mean() + 10 * penalty(model, images(seed=2))
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters()), *model.buffers()])
    assert_same(*results)


def test_gradient_of_the_gradient_by_the_weight(backend):
    stock, x = layer("Conv2d", newer)
    results = []
    for module in (stock, converted(stock)):
        weight = original(module)
        (dw,) = torch.autograd.grad(module(x).sin().sum(), weight, create_graph=True)
        results.append(torch.autograd.grad(dw.square().sum(), weight))
    assert_same(*results)


def test_evaluation_does_not_iterate(backend, kind):
    stock, mine = pair(kind, sn_critic)
    before = [b.clone() for b in mine.buffers()]
    assert_same([stock.eval()(images())], [fastgan.convert(mine).eval()(images())])
    assert_same(list(mine.buffers()), before, rtol=0, atol=0)


def test_a_model_under_autocast_has_the_sigma_of_its_weights(backend, kind):
    _, mine = pair(kind, sn_critic)
    mine = fastgan.convert(mine).float()
    plain = copy.deepcopy(mine)
    x = images(dtype=torch.float32)
    plain(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = mine(x)
    assert y.dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), mine.buffers(), strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        module, x = layer("Linear", ours, torch.float32)
        module.eval()
        within = module.weight
    assert within.dtype == torch.float32 and torch.equal(within, module.weight)


def test_copies(backend, kind):
    stock, mine = pair(kind, sn_critic)
    fastgan.convert(mine)
    copies = [copy.deepcopy(mine), replica(mine)]
    if kind == "older":
        # torch refuses to pickle parametrized modules
        copies.append(pickle.loads(pickle.dumps(mine)))
    expected = stock(images())
    for other in copies:
        assert iterations(other, images()) == 1
        assert_same(list(other.buffers()), list(stock.buffers()))
    assert_same([mine(images())], [expected])


def test_parametrizations_are_pickled(backend):
    module, x = layer("Linear", ours, per="step")
    module(x)
    norm = module.parametrizations.weight[0]
    other = pickle.loads(pickle.dumps(norm))
    assert type(other) is type(norm) and other.per == "step"
    assert_same(list(other.buffers()), list(norm.buffers()))


def test_remove(backend, kind):
    _, module = pair(kind, lambda apply: layer("Conv2d", apply)[0])
    _, x = layer("Conv2d", newer)
    y = module.eval()(x)
    assert utils.remove_spectral_norm(module) is module
    assert type(module) is nn.Conv2d and list(module.state_dict()) == ["bias", "weight"]
    assert_same([module(x)], [y])
    module.load_state_dict(LAYERS["Conv2d"][0]().state_dict())


def test_rejects():
    module = nn.Linear(3, 4)
    with pytest.raises(ValueError, match=r"spectral_norm: per must be 'read' or 'step', got 'epoch'"):
        ours(module, per="epoch")
    with pytest.raises(ValueError, match="no parameter or buffer with name 'gain'"):
        ours(module, "gain")
    with pytest.raises(IndexError):
        ours(module, dim=2)
    with pytest.raises(ValueError, match="positive"):
        ours(module, n_power_iterations=0)
    with pytest.raises(ValueError, match=r"remove_spectral_norm: name must be that of a weight .*, got 'weight'"):
        utils.remove_spectral_norm(module)
    assert type(module) is nn.Linear
    parametrize.register_parametrization(ours(module), "weight", nn.Identity())
    with pytest.raises(ValueError, match=r"name must have no other parametrization, got 'weight'"):
        utils.remove_spectral_norm(module)
    with pytest.raises(TypeError, match=r"SpectralNormGroup: model must be a torch.nn.Module, got int"):
        utils.SpectralNormGroup(3)


def test_transforms_go_torchs_way(backend):
    module, x = layer("Linear", ours)
    assert iterations(module, x) == 1
    parameters = dict(module.eval().named_parameters())
    f = torch.func.grad(lambda p: torch.func.functional_call(module, p, (x,)).sin().sum())
    module(x).sin().sum().backward()
    assert_same([f(parameters)["parametrizations.weight.original"]], [original(module).grad])
    stock, _ = layer("Linear", newer)
    assert ours(nn.Linear(3, 4, device="meta")).weight.shape == (4, 3)
    stock(x)
    results = []
    for norm in (stock.eval().parametrizations.weight[0], module.parametrizations.weight[0]):
        results.append(torch.func.jvp(norm, (x[:, :4].T @ x,), (original(module).detach(),)))
    assert_same(*results)


@pytest.mark.parametrize("make", [ours, older])
def test_compile(make):
    stock = sn_critic(newer if make is ours else older)
    model = fastgan.convert(sn_critic(make))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        results = []
        for f, m in ((stock, stock), (compiled, model)):
            m.zero_grad()
            y = f(images())
            y.sin().sum().backward()
            results.append([y, *(p.grad for p in m.parameters()), *m.buffers()])
        assert_same(*results)


def test_export():
    model = fastgan.convert(sn_critic(ours)).eval()
    assert_same([torch.export.export(model, (images(),)).module()(images())], [model(images())])
