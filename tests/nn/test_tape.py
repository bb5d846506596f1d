"""The tape of a critic: right for any function in it, in the least number of passes, and without a trace where it gives up."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan
from fastgan import backends
from fastgan.nn._penalty import paths_of

from .common import assert_same
from .penalty_critics import (
    CRITICS, between, build, copies, dcgan, draws, gradients_of, mlp, pair, path, penalty_at, sequence, step_by_hand,
)  # fmt: skip
from .penalty_functions import ANY, FAST, Around

same = functools.partial(assert_same, rtol=1e-10, atol=1e-10)
OPS = ("conv_norm_act", "conv_norm_act_dx", "conv_norm_act_dw")


def penalty_by_hand(critic, real, fake):
    penalty = penalty_at(critic, between(real, fake))
    penalty.backward()
    return [penalty.detach()]


def penalty_of_ours(critic, real, fake):
    penalty = fastgan.gradient_penalty(critic, real, fake, generator=draws())
    penalty.backward()
    return [penalty.detach()]


def step_of_ours(critic, real, fake):
    return fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws())


WAYS = pytest.mark.parametrize(
    ("by_hand", "ours"), [(penalty_by_hand, penalty_of_ours), (step_by_hand, step_of_ours)], ids=["penalty", "step"]
)


def assert_right(base, by_hand, ours, calls=2, n=3):
    """Assert that results, gradients, buffers and random numbers are those by hand, call after call; return ours."""
    real, fake = pair(n)
    stock, *others = copies(base, 3)
    for run, models in ((by_hand, [stock]), (ours, others)):
        for model in models:
            torch.manual_seed(0)
            found = []
            for _ in range(calls):
                found += [*run(model, real, fake), *gradients_of(model), *(b.clone() for b in model.buffers())]
            found.append(torch.rand(3))
            if model is stock:
                gold = found
            same(found, gold)
    return others


@WAYS
@pytest.mark.parametrize("name", FAST)
def test_functions_on_the_fast_path(name, by_hand, ours):
    for model in assert_right(build(lambda: Around(FAST[name])), by_hand, ours, calls=1):
        assert path(model, step=ours is step_of_ours) == "fast", paths_of(model)


@WAYS
@pytest.mark.parametrize("name", ANY)
def test_any_function(name, by_hand, ours):
    assert_right(build(lambda: Around(ANY[name])), by_hand, ours)


class Log:
    """The batch sizes that each op of convolutions ran with, and whether one ran on nothing but zeros."""

    def __init__(self, monkeypatch, backend):
        self.sizes, self.zeros = {name: [] for name in OPS}, 0
        module = backends.load(backend, "conv_norm_act")
        for name in OPS:
            monkeypatch.setattr(module, name, functools.partial(self._run, name, getattr(module, name)))

    def clear(self):
        for sizes in self.sizes.values():
            sizes.clear()
        self.zeros = 0

    def _run(self, name, run, *args):
        images = [t for t in args if isinstance(t, torch.Tensor) and t.dim() == 4]
        self.zeros += any(not t.any() for t in images)
        self.sizes[name].append(images[0].shape[0])
        return run(*args)


@pytest.fixture
def log(monkeypatch):
    with fastgan.use_backend("reference"):
        yield Log(monkeypatch, "reference")


PASSES = {"dcgan": 3, "dcgan-no-bias": 3, "patch": 3, "residual": 6}


@pytest.mark.parametrize("converted", [False, True], ids=["stock", "converted"])
@pytest.mark.parametrize("name", PASSES)
def test_passes_of_a_penalty(log, name, converted):
    critic, layers = copies(build(CRITICS[name]))[converted], PASSES[name]
    log.clear()
    penalty = fastgan.gradient_penalty(critic, *pair(3))
    assert log.sizes == {"conv_norm_act": [3] * layers, "conv_norm_act_dx": [3] * layers, "conv_norm_act_dw": []}
    penalty.backward()
    # the tangent of what comes last is needed by nobody; after the residual critic's convolutions comes a linear layer
    tangents = layers if name == "residual" else layers - 1
    assert log.sizes["conv_norm_act"] == [3] * (layers + tangents)
    assert log.sizes["conv_norm_act_dx"] == log.sizes["conv_norm_act_dw"] == [3] * layers
    assert log.zeros == 0


@pytest.mark.parametrize("converted", [False, True], ids=["stock", "converted"])
@pytest.mark.parametrize("name", PASSES)
def test_passes_of_a_step(log, name, converted):
    critic, layers = copies(build(CRITICS[name]))[converted], PASSES[name]
    calls = []
    critic.register_forward_hook(lambda *_: calls.append(1))
    log.clear()
    fastgan.critic_step_wgan_gp(critic, *pair(3))
    tangents = layers if name == "residual" else layers - 1
    assert calls == [1]
    assert log.sizes["conv_norm_act"] == [9] * layers + [3] * tangents
    # by the first layer's input only the points' gradient is needed
    assert log.sizes["conv_norm_act_dx"] == [9] * (layers - 1) + [3]
    assert log.sizes["conv_norm_act_dw"] == [9] * layers
    assert log.zeros == 0


def test_frozen_layers_take_fewer_passes(log):
    critic = build(dcgan(True))
    critic[2].requires_grad_(False)
    critic[4].requires_grad_(False)
    log.clear()
    fastgan.gradient_penalty(critic, *pair(3)).backward()
    assert [len(log.sizes[name]) for name in OPS] == [3, 3, 1]


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
    m.average = 0.9 * m.average + 0.1
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
            nn.Conv2d(3, 4, 3), nn.Dropout2d(0.2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 1)
        )

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
            return self.last(h.float())

    real, fake = (x.float() for x in pair(16))
    base = build(Inside).float()
    for critic in copies(base):
        step = fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws())
        assert path(critic, step=True) == "fast"
        gold = copy.deepcopy(base).double()
        gold.forward = lambda x, m=gold: m.last(m.first(x))
        t = torch.rand(16, generator=draws()).view(-1, 1, 1, 1)
        penalty = penalty_at(gold, (t * real + (1 - t) * fake).double())
        (penalty - (gold(real.double()) - gold(fake.double())).mean()).backward()
        assert abs(step.penalty - penalty) < 0.01 * penalty
        for p, q in zip(critic.parameters(), gold.parameters(), strict=True):
            assert p.dtype == p.grad.dtype == torch.float32
            assert (p.grad - q.grad).norm() < 0.05 * q.grad.norm() + 1e-3


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


@pytest.mark.parametrize("call", [fastgan.gradient_penalty, fastgan.critic_step_wgan_gp])
@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: (m(x), x), "critic must return a Tensor, got tuple"),
        (lambda m, x: None, "critic must return a Tensor, got NoneType"),
        (lambda m, x: m(torch.ones_like(x)), "critic must return a Tensor that depends on its input, got one that does not"),
        (lambda m, x: x.new_ones(len(x)), "critic must return a Tensor that depends on its input, got one that does not"),
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


@WAYS
def test_a_critic_that_changes_its_input(by_hand, ours):
    """Torch refuses it, as by hand, and nobody's images change."""
    real, fake = pair()
    before = real.clone()
    critic = build(lambda: nn.Sequential(nn.LeakyReLU(0.2), mlp()))
    critic[0].inplace = True
    for call in (fastgan.gradient_penalty, fastgan.critic_step_wgan_gp):
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            call(critic, real, fake)
        assert torch.equal(real, before)
