"""A norm left to the next convolution: materialised wherever somebody else would see it, and never noticed."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from .common import assert_same, assert_twins, critic, fused_calls, generator, images, latents, replica, twins

x = images()


def stack(*between, first=nn.Conv2d):
    """Return convolution, norm and ReLU, the layers between, and a second convolution."""
    return nn.Sequential(first(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(True), *between, nn.Conv2d(6, 4, 3))


@pytest.mark.parametrize(
    ("between", "materialised"),
    [
        ([], 0),
        ([nn.Dropout(0.0)], 1),
        ([nn.Dropout2d(0.0), nn.Identity()], 1),
        ([nn.Upsample(scale_factor=2)], 1),
        ([nn.AvgPool2d(2)], 1),
        ([nn.Sequential()], 1),
        ([nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.LeakyReLU(0.1)], 0),
        ([nn.ConvTranspose2d(6, 6, 2, 2), nn.Sigmoid(), nn.BatchNorm2d(6)], 0),
    ],
    ids=["conv", "dropout", "dropout2d", "upsample", "pool", "sequential", "two", "act-norm"],
)
def test_what_follows_decides(backend, between, materialised):
    stock, ours = twins(stack(*between))
    assert fused_calls(ours, x).get("norm_act_eval", 0) == materialised
    assert_twins(stock, ours, x, orders=2)


def test_last_group_is_materialised(backend):
    stock, ours = twins(stack()[:3].append(nn.Flatten()))
    assert fused_calls(ours, x) == {"conv_norm_act": 1, "norm_act_eval": 1}
    assert_twins(stock, ours, x)


def test_the_next_sequential_gets_a_tensor(backend):
    stock, ours = twins(nn.Sequential(critic()[:5], nn.Sequential(nn.Conv2d(16, 2, 3), nn.Tanh())))
    assert fused_calls(ours, x) == {"conv_norm_act": 3, "norm_act_eval": 1}
    assert_twins(stock, ours, x)


@pytest.mark.parametrize("change", [
    lambda m, seen: m.register_forward_pre_hook(lambda m, args: seen.append(args[0])),
    lambda m, seen: m.register_forward_hook(lambda m, args, out: seen.append(args[0])),
    lambda m, seen: setattr(m, "forward", lambda t, run=m.forward: seen.append(t) or run(t)),
    lambda m, seen: setattr(m, "__class__", type("Own", (nn.Conv2d,), {
        "forward": lambda self, t: seen.append(t) or nn.Conv2d.forward(self, t)
    })),
], ids=["pre hook", "hook", "forward", "subclass"])  # fmt: skip
def test_who_looks_at_the_next_convolution_sees_what_stock_shows(backend, change):
    seen = [[], []]
    for model, tensors in zip(twins(stack()), seen, strict=True):
        change(model[3], tensors)
        model(x).sum().backward()
    for stock, ours in zip(*seen, strict=True):
        assert_same([stock], [ours])
        assert stock.stride() == ours.stride() and stock.requires_grad == ours.requires_grad
    assert len(seen[0]) == 1


@pytest.mark.parametrize("after", [nn.Dropout(0.0), nn.Flatten()], ids=["dropout", "flat"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last], ids=["w-nchw", "w-nhwc"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_memory_formats_are_those_of_stock(backend, after, layout, weights, training):
    """Between two convolutions the format is free; where a stock layer or the caller sees it, it is torch's."""
    seen = [[], []]
    for model, tensors in zip(twins(stack(nn.Conv2d(6, 6, 3), nn.ReLU()).append(after)), seen, strict=True):
        model.to(memory_format=weights).train(training)
        model[-1].register_forward_pre_hook(lambda m, args, tensors=tensors: tensors.append(args[0]))
        data = x.contiguous(memory_format=layout)
        for part in (model, model[:-1], model[:3], model[:4]):
            tensors.append(part(data))
    assert_same(*seen)
    assert [t.stride() for t in seen[0]] == [t.stride() for t in seen[1]]


def test_activations_in_place_change_nothing_else(backend):
    stock, ours = twins(stack(nn.Conv2d(6, 6, 1), nn.LeakyReLU(0.2, inplace=True)))
    a, b = x.clone(), x.clone()
    assert_same([stock(a)], [ours(b)])
    assert torch.equal(a, x) and torch.equal(b, x)
    assert_twins(stock, ours, x)


@pytest.mark.parametrize(
    "act", [nn.LeakyReLU(0.2, inplace=True), nn.ReLU(), nn.Tanh(), nn.SiLU()], ids=lambda a: type(a).__name__
)
def test_activation_then_norm(backend, act):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), act, nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 3, 3), act, nn.BatchNorm2d(3)
    )
    stock, ours = twins(model.append(nn.Conv2d(3, 2, 2)))
    assert_twins(stock, ours, x, orders=2)
    assert_twins(stock.eval(), ours.eval(), x)
    # silu needs its own input for backward, so it and the norm are an op of their own
    fused = {"conv_norm_act": 3} | ({"norm_act": 2} if isinstance(act, nn.SiLU) else {})
    assert fused_calls(ours.train(), x) == fused


def frozen(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@pytest.mark.parametrize("make", [generator, critic])
def test_frozen_norms_in_training(backend, make):
    data = latents() if make is generator else x
    stock, ours = twins(make())
    stock(data), ours(data)
    frozen(stock), frozen(ours)
    before = [b.clone() for b in ours.buffers()]
    assert_twins(stock, ours, data, orders=2)
    assert all(torch.equal(a, b) for a, b in zip(before, ours.buffers(), strict=True))


@pytest.mark.parametrize("layers", ["all", "convolutions", "norms", "first", "last", "biases"])
def test_layers_without_gradients(backend, layers):
    stock, ours = twins(critic())
    for model in (stock, ours):
        chosen = {
            "all": list(model.parameters()),
            "convolutions": [model[i].weight for i in (0, 2, 5)],
            "norms": list(model[3].parameters()),
            "first": list(model[0].parameters()),
            "last": list(model[5].parameters()),
            "biases": [p for p in model.parameters() if p.dim() == 1],
        }[layers]
        for p in chosen:
            p.requires_grad_(False)
    for wants_x in (True, False):
        results = []
        for model in (stock, ours):
            model.zero_grad()
            data = x.clone().requires_grad_(wants_x)
            y = model(data)
            if y.requires_grad:
                y.sin().sum().backward()
            results.append([y, data.grad, *(p.grad for p in model.parameters())])
        assert [t is None for t in results[0]] == [t is None for t in results[1]]
        assert_same(*results)


@pytest.mark.parametrize(
    ("part", "channels"),
    [(slice(3), 10), (slice(4), 10), (slice(3, None), 16), (slice(1, 5), 16), (slice(3, 5), 16), (slice(6, None), 8)],
    ids=["0:3", "0:4", "3:", "1:5", "3:5", "6:"],
)
def test_slices(backend, part, channels):
    stock, ours = (m[part] for m in twins(generator()))
    assert_twins(stock, ours, images(channels=channels, size=4))


def test_halves_of_a_model_make_the_whole(backend):
    stock, ours = twins(generator())
    assert_same([ours[3:](ours[:3](latents()))], [stock(latents())])
    assert_same(list(ours.buffers()), list(stock.buffers()))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies(backend, copier):
    stock, ours = twins(generator())
    ours(latents()).sum().backward()
    ours.zero_grad()
    ours.load_state_dict(stock.state_dict())
    other = copier(ours)
    assert fused_calls(other, latents()) == {"conv_norm_act": 3}
    assert_twins(stock, other, latents())


def test_data_parallel_replicas_in_threads(backend):
    stock, ours = twins(generator())
    pool, results = ThreadPoolExecutor(2), []
    for model in (stock, ours):
        replicas = [replica(model) for _ in range(2)]
        parts = pool.map(lambda m, i: m(latents(seed=i)), replicas, range(2))
        y = torch.cat(list(parts))
        y.sin().sum().backward()
        results.append([y, *(p.grad for p in model.parameters())])
    assert fused_calls(replica(ours), latents()) == {"conv_norm_act": 3}
    assert_same(*results)


def test_double_backward_through_norms(backend):
    for make, data in ((generator, latents()), (critic, x)):
        assert_twins(*twins(make()), data, orders=2)


def test_strided_gradients(backend):
    """A batch of real and fake images at once: the gradients of the fakes are a slice of a larger tensor."""
    results = []
    for g, d in zip(twins(generator()), twins(critic()), strict=True):
        fake = g(latents())
        scores = d(torch.cat([x, fake]))
        real, fakes = scores.view(2, -1)
        (real.sin().sum() - fakes.cos().sum() + torch.cat([x, fake], dim=3).square().mean()).backward()
        results.append([scores, *(p.grad for m in (g, d) for p in m.parameters())])
    assert_same(*results)


def test_two_forwards_before_one_backward(backend):
    """As D(real) and D(fake) in one loss; each has statistics of its own."""
    results = []
    for model in twins(critic()):
        loss = model(images(seed=1)).sin().sum() - model(images(seed=2)).cos().sum()
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters()), *model.buffers()])
    assert_same(*results)


def test_a_graph_kept_for_two_backwards(backend):
    results = []
    for model in twins(generator()):
        y = model(latents())
        y.sin().sum().backward(retain_graph=True)
        y.cos().sum().backward()
        results.append([p.grad for p in model.parameters()])
        with pytest.raises(RuntimeError, match="a second time"):
            y.sum().backward()
    assert_same(*results)


def test_weights_changed_between_forward_and_backward_are_noticed(backend):
    for model in twins(critic()):
        y = model(x)
        with torch.no_grad():
            model[2].weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
