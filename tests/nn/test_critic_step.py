"""A critic step of WGAN-GP equals the one by hand, with its three forwards."""

import copy
import functools

import pytest
import torch
from torch import nn

import fastgan
from fastgan.nn.utils import spectral_norm

from .common import generator, images, latents
from .penalty_critics import (
    CRITICS,
    FAST,
    SPECTRAL,
    build,
    copies,
    dcgan,
    draws,
    gradients_of,
    mlp,
    normed,
    pair,
    path,
    penalty_at,
    same,
    step_by_hand,
)


def ours(critic, real, fake, **options):
    """Return what the step returns and all gradients."""
    step = fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws(), **options)
    return [*step, *gradients_of(critic)]


def by_hand(critic, real, fake, **options):
    return [*step_by_hand(critic, real, fake, **options), *gradients_of(critic)]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CRITICS)
def test_equals_three_forwards(name, training):
    real, fake = pair()
    stock, plain, converted = copies(build(CRITICS[name]).train(training), 3)
    gold = by_hand(stock, real, fake)
    for model in (plain, converted):
        same(ours(model, real, fake), gold)
        same(list(model.buffers()), list(stock.buffers()))
        fast = name in FAST or (name in SPECTRAL and not training)
        assert path(model, step=True) == ("fast" if fast else "general")


def test_spectral_norm_per_step_takes_the_passes():
    """The reads of a step share sigma, so that one forward does what three do; each step iterates."""
    real, fake = pair()
    base = build(normed(functools.partial(spectral_norm, per="step")))
    stock, plain, converted = copies(base, 3)
    for model in (plain, converted):
        before = [b.clone() for b in model.buffers()]
        same(ours(model, real, fake), by_hand(copy.deepcopy(stock), real, fake))
        assert path(model, step=True) == "fast"
        assert not all(map(torch.equal, before, model.buffers()))


@pytest.mark.parametrize("name", ["mlp", "dcgan", "residual", "tanh"])
def test_reference_backend(name):
    real, fake = pair()
    base = build(CRITICS[name])
    with fastgan.use_backend("reference"):
        for critic in copies(base):
            same(ours(critic, real, fake), by_hand(copy.deepcopy(base), real, fake))


@pytest.mark.parametrize("name", ["dcgan", "image", "layer-norm"])
def test_one_sided_weight_and_target(name):
    real, fake = pair(5)
    for critic in copies(build(CRITICS[name])):
        for target in (0.0, 0.08, 5.0):
            gold = by_hand(critic, real, fake, weight=4.0, target=target, one_sided=True)
            same(ours(critic, real, fake, weight=4, target=target, kind="wgan-lp"), gold)


@pytest.mark.parametrize("name", ["dcgan", "residual", "silu"])
def test_gradients_add_up_and_are_scaled(name):
    real, fake = pair()
    for critic in copies(build(CRITICS[name])):
        once = by_hand(critic, real, fake)
        first = fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws())
        second = fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws(), scale=64.0)
        same(list(first), list(second))
        same(gradients_of(critic), [65 * g for g in once[3:]])


@pytest.mark.parametrize("name", ["mlp", "dcgan", "spectral", "tanh"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_what_is_passed_stays_and_what_is_returned_has_no_graph(name, layout):
    real, fake = (x.contiguous(memory_format=layout).requires_grad_() for x in pair())
    before = [x.detach().clone() for x in (real, fake)]
    critic = build(CRITICS[name]).eval()
    gold = by_hand(copy.deepcopy(critic), *before)
    step = fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws())
    assert real.grad is None and fake.grad is None and real._version == fake._version == 0
    assert torch.equal(real, before[0]) and torch.equal(fake, before[1])
    assert step._fields == ("loss", "wasserstein", "penalty")
    assert all(t.shape == () and not t.requires_grad for t in step)
    same([*step, *gradients_of(critic)], gold)


def test_samples_may_share_memory():
    """Real images that are one, repeated, and fakes that are the real ones."""
    real = pair()[0][:1].expand(3, -1, -1, -1)
    for critic in copies(build(dcgan(True))):
        same(ours(critic, real, real), by_hand(critic, real, real))


@pytest.mark.parametrize("name", [*SPECTRAL, "two-heads", "residual"])
def test_in_no_grad(name):
    """Gradients are what the call is for: weights that are computed get theirs, too."""
    real, fake = pair()
    base = build(CRITICS[name]).eval()
    for critic in copies(base):
        gold = by_hand(copy.deepcopy(base), real, fake)
        with torch.no_grad():
            got = ours(critic, real, fake)
        same(got, gold)
        assert path(critic, step=True) == "fast"


@pytest.mark.parametrize("name", ["dcgan", "two-heads", "shared", "spectral", "silu"])
@pytest.mark.parametrize("every", [2, 3])
def test_frozen_parameters_get_no_gradient(name, every):
    real, fake = pair()
    base = build(CRITICS[name]).eval()
    for p in list(base.parameters())[1::every]:
        p.requires_grad_(False)
    for critic in copies(base):
        gold = by_hand(copy.deepcopy(base), real, fake)
        fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws())
        assert all(p.grad is None for p in critic.parameters() if not p.requires_grad)
        same(gradients_of(critic), gold[3:])


def test_only_biases_learn():
    real, fake = pair()
    base = build(dcgan(True))
    for p in base.parameters():
        p.requires_grad_(p.dim() == 1)
    for critic in copies(base):
        same(ours(critic, real, fake), by_hand(copy.deepcopy(base), real, fake))


@pytest.mark.parametrize("name", ["mlp", "dcgan", "group-norm"])
def test_one_sample(name):
    for critic in copies(build(CRITICS[name])):
        same(ours(critic, *pair(1)), by_hand(critic, *pair(1)))


@pytest.mark.parametrize("name", ["mlp", "dcgan", "residual", "upsampling", "silu"])
@pytest.mark.parametrize("converted", [False, True], ids=["stock", "converted"])
def test_autocast(name, converted):
    """About as far from float64 as stock autocast is, in the norm of each gradient."""
    # enough samples that a few activations with another sign in bfloat16 do not decide
    real, fake = (x.float() for x in pair(48))
    gold_critic, *models = copies(build(CRITICS[name]).float(), 3)
    stock, critic = models[0], models[converted] if converted else copy.deepcopy(models[0])
    t = torch.rand(len(real), generator=draws()).view(-1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        wasserstein = stock(real).mean(dtype=torch.float32) - stock(fake).mean(dtype=torch.float32)
        penalty = penalty_at(stock, t * real + (1 - t) * fake)
        step = fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws())
    (penalty.float() - wasserstein).backward()
    gold_critic.double()
    gold_penalty = penalty_at(gold_critic, (t * real + (1 - t) * fake).double())
    gold_wasserstein = (gold_critic(real.double()) - gold_critic(fake.double())).mean()
    (gold_penalty - gold_wasserstein).backward()
    gold = [gold_wasserstein, gold_penalty, *gradients_of(gold_critic)]
    low = [wasserstein, penalty, *gradients_of(stock)]
    got = [step.wasserstein, step.penalty, *gradients_of(critic)]
    for a, b, c in zip(got, low, gold, strict=True):
        assert a.dtype == torch.float32
        assert (a - c).norm() <= 2 * (b - c).norm() + 0.03 * c.norm() + 1e-3


def test_one_hook_one_gradient():
    """Hooks of parameters see each step's whole gradient, once."""
    critic, seen = build(CRITICS["shared"]), []
    critic.weight.register_hook(lambda g: seen.append(g.clone()))
    fastgan.critic_step_wgan_gp(critic, *pair(), generator=draws())
    assert len(seen) == 1 and torch.equal(seen[0], critic.weight.grad)


def test_training_by_step_equals_training_by_hand():
    """20 steps of WGAN-GP with two critic steps each, stock by hand and converted by the step."""
    base = [build(dcgan(True), 1), nn.Sequential(generator(2)[:6], nn.ConvTranspose2d(2, 3, 1), nn.Tanh()).double()]
    twins = [[copy.deepcopy(m) for m in base], [fastgan.convert(copy.deepcopy(m)) for m in base]]
    losses = [train(*twins[0], step_by_hand), train(*twins[1], step_by_fastgan)]
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-9)
    for a, b in zip(*twins, strict=True):
        for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)
    assert (twins[0][0][0].weight - base[0][0].weight).abs().max() > 1e-3


def step_by_fastgan(critic, real, fake, seed):
    return fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws(seed))


def train(critic, generate, step):
    """Return the losses of 20 steps."""
    critics, generators = (torch.optim.Adam(m.parameters(), 1e-3, (0.0, 0.9)) for m in (critic, generate))
    losses = []
    for i in range(40):
        critics.zero_grad()
        fake = generate(latents(4, seed=i)).detach()[..., :8, :8]
        losses.append(step(critic, images(4, seed=i, size=8), fake, i)[0])
        critics.step()
        if i % 2:
            generators.zero_grad()
            loss = -critic(generate(latents(4, seed=100 + i))[..., :8, :8]).mean()
            loss.backward()
            generators.step()
            losses.append(loss.detach())
    return torch.stack(losses)


@pytest.mark.parametrize("critic", [mlp, CRITICS["silu"]], ids=["fast", "general"])
def test_empty_batch_is_nan_as_by_hand(critic):
    step = fastgan.critic_step_wgan_gp(build(critic), *pair(0))
    assert step.penalty == 0 and step.wasserstein.isnan() and step.loss.isnan()


@pytest.mark.parametrize("kind", ["r1", "r2", "dragan", "gp"])
def test_rejects_kinds(kind):
    message = f"critic_step_wgan_gp: kind must be one of wgan-gp, wgan-lp, got {kind!r}"
    with pytest.raises(ValueError) as error:
        fastgan.critic_step_wgan_gp(build(mlp), *pair(), kind=kind)
    assert str(error.value) == message
