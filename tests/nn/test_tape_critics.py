"""Critics with side effects, hooks, casts and compilers of their own: as by hand, whichever path they take."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan

from .penalty_critics import (
    CRITICS,
    WAYS,
    assert_right,
    build,
    copies,
    dcgan,
    draws,
    gradients_of,
    mlp,
    pair,
    path,
    penalty_at,
    penalty_by_hand,
    penalty_of_ours,
    same,
    sequence,
    step_of_ours,
)


class Wrapped(nn.Module):
    """A critic, and what a test does before it."""

    def __init__(self, critic, before):
        super().__init__()
        self.critic, self.before = critic, before
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.ones(3))

    def forward(self, x):
        return self.critic(self.before(self, x))


def count_in_place(m, x):
    m.count += 1
    return x


def replace_a_buffer(m, x):
    m.average = 0.9 * m.average
    return x


def noise_on_a_weight(m, x):
    noise = torch.randn(3, 3, 1, 1, dtype=x.dtype)
    return F.conv2d(x, noise * 0.3)


def noise(m, x):
    return x + 0.1 * torch.randn_like(x)


def second_call_differs(m, x):
    m.calls = getattr(m, "calls", 0) + 1
    return x * 2 if m.calls % 2 else F.relu(x)


SIDE_EFFECTS = {
    "counts": count_in_place,
    "replaces": replace_a_buffer,
    "noisy-weight": noise_on_a_weight,
    "noise": noise,
    "dropout": lambda m, x: F.dropout(x, 0.3, m.training),
}


@WAYS
@pytest.mark.parametrize("last", [nn.Identity, nn.Tanh], ids=["fast", "curved"])
@pytest.mark.parametrize("name", SIDE_EFFECTS)
def test_side_effects_are_those_by_hand(name, last, by_hand, ours):
    """Buffers and random numbers; where the attempt to take the fast path ends, too."""

    def make():
        return Wrapped(nn.Sequential(mlp(), last()), SIDE_EFFECTS[name])

    assert_right(build(make), by_hand, ours, calls=3)


@WAYS
def test_buffers_after_batch_norm_and_dropout(by_hand, ours):
    def make():
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Dropout2d(0.2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
            nn.Linear(144, 1),
        )  # fmt: skip

    base = build(make)
    assert_right(base, by_hand, ours, calls=3)
    base[1:].eval()
    assert_right(base, by_hand, ours)


def test_the_path_may_change_from_call_to_call():
    real, fake = pair()
    base = build(lambda: Wrapped(mlp(), second_call_differs))
    for critic in copies(base):
        reference = copy.deepcopy(base)
        for _ in range(3):
            gold = [*penalty_by_hand(reference, real, fake), *gradients_of(reference)]
            same([*penalty_of_ours(critic, real, fake), *gradients_of(critic)], gold)
            assert path(critic) == "fast"


def test_the_fast_path_is_tried_again_in_another_mode():
    critic = build(lambda: nn.Sequential(CRITICS["spectral"](), nn.Identity()))
    fastgan.critic_step_wgan_gp(critic, *pair())
    assert path(critic, step=True) == "general"
    fastgan.critic_step_wgan_gp(critic.eval(), *pair())
    assert path(critic, step=True) == "fast"


def test_one_sample_does_not_decide_for_many():
    """Squeezing takes its dimension away."""
    critic = build(dcgan(True, "none"))
    taken = []
    for n in (3, 1, 3, 1):
        fastgan.gradient_penalty(critic, *pair(n))
        taken.append(path(critic))
    assert taken == ["fast", "general"] * 2


@WAYS
def test_a_compiled_critic_is_not_compiled_at_each_call(by_hand, ours):
    graphs = []
    base, real, fake = build(sequence()), *pair()
    gold = [*by_hand(base, real, fake), *gradients_of(base)]
    critic = torch.compile(base, backend=lambda graph, inputs: graphs.append(graph) or graph)
    for _ in range(3):
        same([*ours(critic, real, fake), *gradients_of(base)], gold)
    assert not graphs and path(critic, step=ours is step_of_ours) == "fast"


SHAPES = {
    "channels": lambda x: x[:, :2],
    "small": lambda x: x[..., :1],
    "dtype": lambda x: x.float(),
    "dimensions": lambda x: x[..., None],
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("call", [fastgan.gradient_penalty, fastgan.critic_step_wgan_gp])
def test_inputs_that_do_not_fit_have_torchs_error(call, name):
    real, fake = (SHAPES[name](x) for x in pair())
    base = build(sequence())
    with pytest.raises(RuntimeError) as error:
        base(real)
    for critic in copies(base):
        with pytest.raises(RuntimeError) as ours:
            call(critic, real, fake)
        assert str(ours.value) == str(error.value)


def test_autocast_inside_a_critic():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = sequence()()[:2], sequence()()[2:]

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                h = self.first(x)
            return self.last(h.to(x.dtype))

    real, fake = (x.float() for x in pair(48))
    base = build(Inside).float()
    t = torch.rand(48, generator=draws()).view(-1, 1, 1, 1)

    def by_hand(model, dtype):
        penalty = penalty_at(model, (t * real + (1 - t) * fake).to(dtype))
        (penalty - (model(real.to(dtype)) - model(fake.to(dtype))).mean()).backward()
        return [penalty.detach(), *gradients_of(model)]

    # autocast leaves float64 alone
    gold, low = by_hand(copy.deepcopy(base).double(), torch.float64), by_hand(copy.deepcopy(base), torch.float32)
    for critic in copies(base):
        step = fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws())
        assert path(critic, step=True) == "fast"
        for a, b, c in zip([step.penalty, *gradients_of(critic)], low, gold, strict=True):
            assert a.dtype == torch.float32
            assert (a - c).norm() <= 2 * (b - c).norm() + 0.02 * c.norm() + 1e-3


@WAYS
@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_backward_hooks_are_called(kind, by_hand, ours):
    base = build(sequence())
    seen = {by_hand: 0, ours: 0}
    for run in (by_hand, ours):
        critic = copy.deepcopy(base)

        def hook(*_, run=run):
            seen[run] += 1

        getattr(critic[2], kind)(hook)
        run(critic, *pair())
    assert seen[ours] == seen[by_hand] > 0


@WAYS
def test_forward_hooks_are_called_and_may_change_what_they_see(by_hand, ours):
    for hook in (lambda m, i, o: o * 2, lambda m, i, o: o.tanh(), lambda m, i, o: None):
        base = build(sequence())
        base[2].register_forward_hook(hook)
        base[4].register_forward_pre_hook(lambda m, i: (i[0] * 0.5,))
        assert_right(base, by_hand, ours)


@WAYS
def test_lazy_layers(by_hand, ours):
    """A critic that has not seen its first batch: its layers get their sizes, as by hand."""
    real, fake = pair()
    for layer in (nn.LazyBatchNorm2d(), nn.Identity()):
        found = []
        for run in (by_hand, ours):
            torch.manual_seed(0)
            critic = nn.Sequential(nn.LazyConv2d(4, 3), layer, nn.ReLU(), nn.Flatten(), nn.LazyLinear(1)).double()
            found.append([*run(critic, real, fake), *gradients_of(critic), *critic.buffers()])
        same(*found)


DEPENDS = "critic must return a Tensor that depends on its input"


@pytest.mark.parametrize("call", [fastgan.gradient_penalty, fastgan.critic_step_wgan_gp])
@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: (m(x), x), "critic must return a Tensor, got tuple"),
        (lambda m, x: None, "critic must return a Tensor, got NoneType"),
        (lambda m, x: m(torch.ones_like(x)), f"{DEPENDS}, got one that does not"),
        (lambda m, x: x.new_ones(len(x)), f"{DEPENDS}, got one that does not"),
    ],
    ids=["tuple", "none", "constant", "number"],
)  # fmt: skip
def test_critics_that_are_none(call, forward, message):
    model = build(mlp)

    class Critic(nn.Module):
        def forward(self, x):
            return forward(model, x)

    for critic in (Critic(), lambda x: forward(model, x)):
        with pytest.raises(TypeError) as error:
            call(critic, *pair())
        assert str(error.value) == f"gradient_penalty: {message}"


def test_a_critic_that_changes_its_input():
    """Torch refuses it, as by hand, and nobody's images change."""
    real, fake = pair()
    before = real.clone()
    critic = build(lambda: nn.Sequential(nn.LeakyReLU(0.2), mlp()))
    critic[0].inplace = True
    for call in (fastgan.gradient_penalty, fastgan.critic_step_wgan_gp):
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            call(critic, real, fake)
        assert torch.equal(real, before)
