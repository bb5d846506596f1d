"""The gradient penalty equals one made by hand with torch.autograd, value and all gradients, whatever the critic."""

import copy
import functools
import operator

import pytest
import torch
from torch import nn

import fastgan

from .common import assert_same
from .penalty_critics import (
    CRITICS,
    CURVED,
    FAST,
    SPECTRAL,
    between,
    build,
    copies,
    draws,
    gradients_of,
    mlp,
    pair,
    path,
    penalty_at,
    same,
)

LAYOUTS = {
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda x: torch.cat([x, x], 3)[..., ::2],
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.fixture(params=["reference", "auto"])
def backend(request):
    with fastgan.use_backend(request.param):
        yield request.param


def by_hand(critic, points, **options):
    """Return the penalty by hand and all gradients."""
    penalty = penalty_at(critic, points, **options)
    penalty.backward()
    return [penalty.detach(), *gradients_of(critic)]


def ours(critic, *args, **options):
    """Return the penalty and all gradients."""
    penalty = fastgan.gradient_penalty(critic, *args, **options)
    penalty.backward()
    return [penalty.detach(), *gradients_of(critic)]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CRITICS)
def test_equals_autograd(backend, name, training):
    real, fake = pair()
    stock, plain, converted = copies(build(CRITICS[name]).train(training), 3)
    gold = by_hand(stock, between(real, fake))
    assert sum(g.abs().max() > 1e-6 for g in gold[1:]) >= min(2, len(gold) - 1)
    for model in (plain, converted):
        same(ours(model, real, fake, generator=draws()), gold)
        same(list(model.buffers()), list(stock.buffers()))
        assert path(model) == ("fast" if name in FAST | SPECTRAL else "general")


def points_of(kind, real, fake):
    """Return the points and the options of ``penalty_at`` that a kind stands for."""
    if kind == "dragan":
        rng = draws()
        t = torch.rand(len(real), dtype=torch.float64, generator=rng).view(-1, 1, 1, 1)
        noise = torch.rand(real.shape, dtype=torch.float64, generator=rng)
        return t * real + (1 - t) * (real + real.std() * noise / 2), {}
    if kind in ("r1", "r2"):
        return (real if kind == "r1" else fake), {"weight": 3.5, "target": 0.0}
    return between(real, fake), {"one_sided": kind == "wgan-lp"}


@pytest.mark.parametrize("name", ["mlp", "dcgan", "silu"])
@pytest.mark.parametrize("kind", ["wgan-gp", "wgan-lp", "dragan", "r1", "r2"])
def test_kinds(backend, kind, name):
    real, fake = pair(6)
    for critic in copies(build(CRITICS[name])):
        x = between(real, fake).requires_grad_()
        norms = torch.autograd.grad(critic(x).sum(), x)[0].flatten(1).norm(dim=1).sort().values
        target = norms[2:4].mean().item()
        points, options = points_of(kind, real, fake)
        gold = by_hand(critic, points, **({"weight": 7, "target": target} | options))
        given = None if kind in ("dragan", "r1") else fake
        same(ours(critic, real, given, kind=kind, weight=7, target=target, generator=draws()), gold)
        if kind == "wgan-lp":
            # three norms count and three do not
            assert norms[2] < target < norms[3] and gold[0] > 0


def test_draws_are_torchs_own_without_a_generator():
    real, fake = pair()
    critic = build(mlp)
    torch.manual_seed(0)
    a = fastgan.gradient_penalty(critic, real, fake)
    assert_same([a], [penalty_at(critic, between(real, fake))])
    state = torch.get_rng_state()
    fastgan.gradient_penalty(critic, real, fake, generator=draws())
    fastgan.gradient_penalty(critic, real, kind="r1")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["dcgan", "residual", "group-norm"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend, layout, name):
    real, fake = (LAYOUTS[layout](x) for x in pair())
    for critic in copies(build(CRITICS[name])):
        gold = by_hand(critic, between(real.contiguous(), fake.contiguous()))
        same(ours(critic, real, fake, generator=draws()), gold)
        same(ours(critic, real, kind="r1", weight=2.0), by_hand(critic, real, weight=1.0, target=0.0))


@pytest.mark.parametrize("name", ["mlp", "dcgan", "residual", "layer-norm"])
def test_one_sample(name):
    real, fake = pair(1)
    for critic in copies(build(CRITICS[name])):
        same(ours(critic, real, fake, generator=draws()), by_hand(critic, between(real, fake)))


@pytest.mark.parametrize("name", ["dcgan", "residual", "upsampling", "spectral", "silu"])
@pytest.mark.parametrize("every", [2, 3])
def test_frozen_parameters_get_no_gradient(name, every):
    real, fake = pair()
    base = build(CRITICS[name]).eval()
    for p in list(base.parameters())[::every]:
        p.requires_grad_(False)
    for critic in copies(base):
        gold = by_hand(critic, between(real, fake))
        fastgan.gradient_penalty(critic, real, fake, generator=draws()).backward()
        assert all(p.grad is None for p in critic.parameters() if not p.requires_grad)
        same(gradients_of(critic), gold[1:])


def test_nothing_to_learn():
    real, fake = pair()
    critic = build(mlp).requires_grad_(False)
    penalty = fastgan.gradient_penalty(critic, real, fake, generator=draws())
    assert not penalty.requires_grad
    same([penalty], [penalty_at(critic, between(real, fake))])


@pytest.mark.parametrize("name", ["mlp", "dcgan", "silu"])
@pytest.mark.parametrize("kind", ["wgan-gp", "wgan-lp", "dragan", "r1", "r2"])
def test_a_norm_of_0_has_no_gradient(kind, name):
    critic = build(CRITICS[name])
    with torch.no_grad():
        for p in critic.parameters():
            p.zero_()
    penalty, *found = ours(critic, *pair(), kind=kind)
    assert penalty == (10 if kind in ("wgan-gp", "dragan") else 0)
    assert not any(g.any() for g in found)


def test_some_norms_of_0():
    """All ReLUs of one sample are dead: the others have their gradient."""
    real, _ = pair()
    real[1] = -50
    base = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        base[1].weight.abs_()
        base[1].bias.fill_(2)
    for critic in copies(base):
        got = ours(critic, real, real, generator=draws())
        same(got, by_hand(critic, real))
        assert got[0] >= 10 / 3 and all(g.isfinite().all() for g in got) and got[1].any()


def test_a_lambda_is_a_critic():
    real, fake = pair()
    critic = build(mlp)
    gold = by_hand(critic, between(real, fake))
    penalty = fastgan.gradient_penalty(lambda x: critic(x), real, fake, generator=draws())
    penalty.backward()
    same([penalty.detach(), *gradients_of(critic)], gold)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["mlp", "dcgan", "tanh"])
def test_low_precision(name, dtype):
    real, fake = (x.to(dtype) for x in pair())
    critic = build(CRITICS[name]).to(dtype)
    got = ours(critic, real, fake, generator=draws())
    assert got[0].dtype == torch.float32 and all(g.dtype == dtype for g in got[1:])
    t = torch.rand(len(real), generator=draws()).view(-1, 1, 1, 1)
    points = (t * real + (1 - t) * fake).to(dtype).double()
    for value, gold in zip(got, by_hand(copy.deepcopy(critic).double(), points), strict=True):
        assert (value - gold).abs().max() <= 30 * torch.finfo(dtype).eps * (gold.abs().max() + 1e-2)


@pytest.mark.parametrize("name", ["mlp", "dcgan", "group-norm"])
def test_empty_batch(name):
    real, fake = pair(0)
    critic = build(CRITICS[name])
    penalty, *found = ours(critic, real, fake)
    assert penalty == 0 and not any(g.any() for g in found)


@pytest.mark.parametrize("name", ["dcgan", "spectral", "silu"])
def test_without_gradients_there_is_a_value_and_no_graph(name):
    real, fake = pair()
    critic = build(CRITICS[name]).eval()
    with torch.no_grad():
        penalty = fastgan.gradient_penalty(critic, real, fake, generator=draws())
    assert not penalty.requires_grad and path(critic) == ("general" if name == "silu" else "fast")
    same([penalty], [penalty_at(critic, between(real, fake)).detach()])


@pytest.mark.parametrize("name", [*FAST, "silu"])
def test_backward_twice(name):
    real, fake = pair()
    critic = build(CRITICS[name])
    gold = by_hand(critic, between(real, fake))[1:]
    penalty = fastgan.gradient_penalty(critic, real, fake, generator=draws())
    (3 * penalty).backward(retain_graph=True)
    penalty.backward()
    same(gradients_of(critic), [4 * g for g in gold])
    with pytest.raises(RuntimeError, match="second time"):
        penalty.backward()


def test_weights_that_changed_before_backward_are_refused():
    critic = build(mlp)
    penalty = fastgan.gradient_penalty(critic, *pair())
    with torch.no_grad():
        critic[1].weight.mul_(1.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        penalty.backward()


def test_orders():
    """Once differentiable on the fast path, which says so; to any order on the general one."""
    fast, general = build(mlp), build(CURVED["silu"])
    for critic in (fast, general):
        penalty = fastgan.gradient_penalty(critic, *pair())
        weights = [p for p in critic.parameters() if p.dim() > 1]
        grads = torch.autograd.grad(penalty, weights, create_graph=True)
        loss = functools.reduce(operator.add, (g.square().sum() for g in grads))
        if critic is fast:
            with pytest.raises(RuntimeError, match="in 4 passes it is differentiable once"):
                loss.backward()
        else:
            loss.backward()
            assert all(w.grad.any() for w in weights)


def test_inputs_get_no_gradient_and_stay():
    for name in ("dcgan", "silu"):
        real, fake = (x.requires_grad_() for x in pair())
        before = [x.detach().clone() for x in (real, fake)]
        for kind in ("wgan-gp", "r1", "r2", "dragan"):
            fastgan.gradient_penalty(build(CRITICS[name]), real, fake, kind=kind).backward()
        assert real.grad is None and fake.grad is None
        assert torch.equal(real, before[0]) and torch.equal(fake, before[1])
