"""``fastgan.nn.Sequential``: what it fuses, what it leaves, and that nobody can tell."""

import copy
import io
import pickle
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan
import fastgan.nn as fnn

from .common import (
    assert_same,
    assert_twins,
    critic,
    fused_calls,
    fused_ops,
    generator,
    gradients,
    images,
    latents,
    replica,
    twins,
)

x = images()


def sequential(*layers):
    """Return the layers as a stock and, copied, as a fastgan Sequential in float64."""
    stock = nn.Sequential(*layers).double()
    return stock, fnn.Sequential(*copy.deepcopy(stock))


@pytest.mark.parametrize(
    ("layers", "fused"),
    [
        ([nn.BatchNorm2d(3), nn.ReLU()], 1),
        ([nn.ReLU(), nn.BatchNorm2d(3)], 1),
        ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh()], 2),
        ([nn.Conv2d(3, 4, 3), nn.SiLU(), nn.BatchNorm2d(4)], 2),
        ([nn.Conv2d(3, 4, 3), nn.Sigmoid()], 1),
        ([nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"), nn.LeakyReLU(0.1)], 1),
        ([nn.ConvTranspose2d(3, 4, 3, 2, 1, 1, 1, True, 2), nn.ReLU(True)], 1),
        ([nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)], 3),
        ([nn.BatchNorm2d(3), nn.Identity()], 1),
        ([nn.BatchNorm2d(3)], 0),
        ([nn.ReLU(), nn.Tanh()], 0),
        ([nn.Conv2d(3, 4, 3), nn.Identity()], 1),
        ([nn.Conv2d(3, 4, 3), nn.Dropout(0.0), nn.ReLU()], 1),
        ([nn.BatchNorm2d(3), nn.GELU()], 0),
        ([fnn.BatchNormAct2d(3, activation="identity"), nn.ReLU()], 1),
        ([fnn.BatchNormAct2d(3), nn.ReLU()], 1),
        ([], 0),
    ],
    ids=lambda v: "-".join(type(m).__name__ for m in v) if isinstance(v, list) else str(v),
)
def test_groups(backend, layers, fused):
    stock, ours = sequential(*layers)
    assert_twins(stock, ours, x, orders=2)
    assert_twins(stock.eval(), ours.eval(), x)
    assert fused_ops(ours, x) == fused


@pytest.mark.parametrize("cls", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_norms_of_all_dimensions(backend, cls):
    for dims in {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}[cls]:
        stock, ours = sequential(cls(3), nn.LeakyReLU(0.2))
        data = torch.randn(4, 3, *[5] * (dims - 2), dtype=torch.float64)
        assert_twins(stock, ours, data)
        assert fused_ops(ours, data) == 1


@pytest.mark.parametrize("cls", [nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d])
def test_convolutions_of_all_dimensions(backend, cls):
    stock, ours = sequential(cls(3, 4, 3), nn.LeakyReLU(0.2))
    data = torch.randn(2, 3, *[5] * int(cls.__name__[-2]), dtype=torch.float64)
    assert_twins(stock, ours, data)
    assert fused_ops(ours, data) == 1


def test_a_norm_takes_the_activation_before_it(backend):
    _, ours = sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    assert fused_calls(ours, x) == {"conv_norm_act": 1, "norm_act_eval": 1}


def test_statistics_switched_off_later(backend):
    stock, ours = sequential(nn.BatchNorm2d(3), nn.ReLU())
    for model in (stock, ours):
        model[0].track_running_stats = False
    for training in (True, False):
        assert_twins(stock.train(training), ours.train(training), x)
    assert not ours[0].running_mean.any() and fused_ops(ours, x) == 1


def test_unbatched_convolution(backend):
    stock, ours = sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2))
    assert_twins(stock, ours, x[0])


@pytest.mark.parametrize("state", ["train", "eval", "frozen norms", "no gradients", "frozen weights"])
@pytest.mark.parametrize(("make", "data"), [(generator, latents()), (critic, images())], ids=["generator", "critic"])
def test_states(backend, make, data, state):
    stock, ours = twins(make())
    stock(data), ours(data)
    for model in (stock, ours):
        model.train(state != "eval")
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(state not in ("eval", "frozen norms"))
                if state == "frozen weights":
                    module.weight.requires_grad_(False)
        if state == "no gradients":
            model.requires_grad_(False)
    assert_twins(stock, ours, data, orders=2)
    assert fused_calls(ours, data) == {"conv_norm_act": 3}


def test_no_grad_and_inference_mode(backend):
    stock, ours = twins(generator())
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert_same([stock(latents())], [ours(latents())])
    assert_same(list(stock.buffers()), list(ours.buffers()))


def test_input_is_not_changed(backend):
    """An activation in place that begins a group would change the caller's tensor, and stock does."""
    for first in (nn.ReLU(True), nn.Identity()):
        stock, ours = sequential(first, nn.LeakyReLU(0.2, inplace=True), nn.BatchNorm2d(3))
        a, b = x.clone(), x.clone()
        assert_same([stock(a)], [ours(b)])
        assert_same([a], [b])
        assert fused_ops(ours, x.clone()) == 0


def test_activation_in_place_between_convolution_and_norm(backend):
    stock, ours = sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2, inplace=True), nn.BatchNorm2d(4))
    assert_twins(stock, ours, x)
    assert fused_calls(ours, x) == {"conv_norm_act": 1, "norm_act_eval": 1}
    seen = [[], []]
    for model, outputs in zip((stock, ours), seen, strict=True):
        model[0].register_forward_hook(lambda m, args, out, outputs=outputs: outputs.append(out))
    assert_same([stock(x)], [ours(x)])
    assert_same(*seen)
    assert fused_ops(ours, x) == 0


def test_layers_of_the_users_own_are_called(backend):
    class Doubled(nn.BatchNorm2d):
        def forward(self, input):
            return 2 * super().forward(input)

    class Negative(nn.LeakyReLU):
        def forward(self, input):
            return -input

    for layers in ([Doubled(3), nn.ReLU()], [nn.BatchNorm2d(3), Negative()]):
        stock, ours = sequential(*layers)
        assert_twins(stock, ours, x)
        assert fused_ops(ours, x) == 0


@pytest.mark.parametrize("index", [0, 1])
def test_replaced_forward_is_called(backend, index):
    stock, ours = sequential(nn.BatchNorm2d(3), nn.ReLU())
    for model in (stock, ours):
        model[index].forward = lambda t: t + 1
    assert_same([stock(x)], [ours(x)])
    assert fused_ops(ours, x) == 0


@pytest.mark.parametrize("act", [nn.LeakyReLU(-0.1), nn.LeakyReLU(float("nan"))])
def test_slopes_that_are_not_served(backend, act):
    stock, ours = sequential(nn.BatchNorm2d(3), act)
    torch.testing.assert_close(ours(x), stock(x), equal_nan=True)
    assert fused_ops(ours, x) == 0


@pytest.mark.parametrize(("name", "value"), [("eps", 0), ("eps", -1.0), ("momentum", 1.5), ("momentum", -1)])
@pytest.mark.parametrize("training", [True, False])
def test_states_of_a_norm_that_are_not_served(backend, name, value, training):
    outcomes = []
    for model in sequential(nn.BatchNorm2d(3), nn.ReLU()):
        setattr(model[0], name, value)
        outcomes.append(outcome(model.train(training), x))
        outcomes[-1] += [b.clone() for b in model.buffers()]
    assert_same_outcome(*outcomes)
    assert type(model) is fnn.Sequential


def outcome(model, data):
    """Return the result, or type and message of the error."""
    try:
        return [model(data)]
    except Exception as error:
        return [type(error), str(error)]


def assert_same_outcome(a, b):
    torch.testing.assert_close([t for t in a if torch.is_tensor(t)], [t for t in b if torch.is_tensor(t)])
    assert [t for t in a if not torch.is_tensor(t)] == [t for t in b if not torch.is_tensor(t)]


def test_wrong_inputs_raise_what_stock_raises(backend):
    stock, ours = sequential(nn.BatchNorm2d(3), nn.ReLU())
    wrong = (images(channels=4), x.float(), x.long(), x[0], x[:1, :, :1, :1], [1])
    for data in wrong:
        stock_outcome = outcome(stock, data)
        assert stock_outcome == outcome(ours, data) and issubclass(stock_outcome[0], Exception)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_inputs_with_float32_parameters(backend, dtype):
    stock, ours = (m.float() for m in sequential(nn.BatchNorm2d(3), nn.ReLU()))
    data = images(dtype=dtype)
    torch.testing.assert_close(ours(data), stock(data))
    assert fused_ops(ours, data) == 1


def test_slices_are_fastgan_sequentials(backend):
    stock, ours = twins(generator())
    for part in (slice(6), slice(3, None), slice(None, None, 3)):
        assert type(ours[part]) is fnn.Sequential and list(ours[part]._modules) == list(stock[part]._modules)
    assert ours[:6][1] is ours[1] and type(ours[-1]) is nn.Tanh
    assert_twins(stock[:6], ours[:6], latents())
    assert fused_calls(ours[:6], latents()) == {"conv_norm_act": 2, "norm_act_eval": 1}
    assert [type(m) for m in ours] == [type(m) for m in stock]


def test_children_may_change(backend):
    _, ours = sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    assert fused_ops(ours, x) == 2
    del ours[1]
    assert fused_ops(ours, x) == 1 and len(ours.state_dict()) == 2
    ours.append(nn.BatchNorm2d(4).double())
    assert fused_ops(ours, x) == 2
    ours.insert(3, nn.GELU())
    ours[1] = nn.GELU()
    assert fused_ops(ours, x) == 1
    ours[1] = nn.Tanh()
    ours[2].__class__ = type("Own", (nn.BatchNorm2d,), {"forward": lambda self, t: t})
    assert fused_ops(ours, x) == 1
    assert_same([ours(x)], [F.gelu(torch.tanh(ours[0](x)))])


def test_ordered_dict_names(backend):
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), act=nn.ReLU())
    model = fnn.Sequential(layers)
    assert model.conv is layers["conv"] and list(model.state_dict())[2] == "norm.weight"
    assert fused_ops(model, x.float()) == 2


def test_copies_and_files(backend):
    stock, ours = twins(critic())
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    others = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(file, weights_only=False)]
    for other in others:
        assert type(other) is fnn.Sequential and vars(other).keys() == vars(ours).keys()
        assert_twins(copy.deepcopy(stock), other, x)
        assert fused_ops(other, x) == 3


def test_old_children_are_not_kept_alive(backend):
    import weakref

    _, ours = twins(critic())
    ours(x)
    old = weakref.ref(ours[3])
    ours[3] = nn.BatchNorm2d(16).double()
    assert old() is None


def test_state_dict_hooks(backend):
    _, ours = twins(critic())
    ours._register_state_dict_hook(lambda module, state, prefix, meta: state.update(seen=torch.ones(1)))
    assert "seen" in ours.state_dict()


def test_data_parallel_replicas(backend):
    stock, ours = twins(critic())

    a, b = replica(stock), replica(ours)
    assert type(b) is fnn.Sequential and fused_ops(b, x) == 3
    a, b = replica(stock), replica(ours)
    ya, yb = a(x), b(x)
    assert_same([ya], [yb])
    assert_same(torch.autograd.grad(ya.sum(), stock.parameters()), torch.autograd.grad(yb.sum(), ours.parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_model(backend, dtype):
    stock, ours = twins(critic())
    stock, ours = stock.to(dtype), ours.to(dtype)
    data = images(dtype=dtype)
    torch.testing.assert_close(ours(data), stock(data), rtol=0.03, atol=0.03)
    assert ours(data).dtype == dtype and fused_ops(ours, data) == 3


def test_memory_format(backend):
    stock, ours = (m.to(memory_format=torch.channels_last)[:5] for m in twins(critic()))
    data = x.contiguous(memory_format=torch.channels_last)
    assert ours(data).stride() == stock(data).stride()
    assert_twins(stock, ours, data)


@pytest.mark.parametrize("make", [generator, critic])
def test_autocast_gives_the_types_of_stock(backend, make):
    stock, ours = (m.float() for m in twins(make()))
    data = (latents if make is generator else images)(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        a, b = stock(data), ours(data)
        parts = [(stock[:n](data).dtype, ours[:n](data).dtype) for n in range(1, len(stock) + 1)]
    assert all(s == t for s, t in parts) and a.dtype == b.dtype
    torch.testing.assert_close(b, a, rtol=0.05, atol=0.05)
    assert all(t.dtype == torch.float32 for m in ours for t in (*m.parameters(), *m.buffers()) if t.is_floating_point())


def test_double_backward_of_a_critic_with_norms(backend):
    stock, ours = twins(critic())
    results = []
    for model in (stock, ours):
        data = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad(model(data).sum(), data, create_graph=True)
        penalty = (dx.flatten(1).norm(dim=1) - 1).square().mean()
        penalty.backward()
        results.append([penalty, *(p.grad for p in model.parameters())])
    assert_same(*results)


def test_functional_call(backend):
    stock, ours = twins(critic())
    values = {name: p.detach() * 2 for name, p in stock.named_parameters()}
    a, b = (torch.func.functional_call(m, values, (x,)) for m in (stock, ours))
    assert_same([a], [b])
    with fastgan.use_backend("reference"):
        assert gradients(ours, x)[0].requires_grad
