"""GradientPenalty as a module, and what the three entry points refuse."""

import pickle
import re

import pytest
import torch

import fastgan
from fastgan.nn import GradientPenalty

from .common import assert_same
from .penalty_critics import between, build, dcgan, draws, mlp, pair, penalty_at

REAL, FAKE = pair()


@pytest.mark.parametrize("make", [mlp, dcgan(True)], ids=["mlp", "dcgan"])
def test_module_equals_function(make):
    critic = build(make)
    for kind in ("wgan-gp", "wgan-lp", "dragan", "r1", "r2"):
        module = GradientPenalty(kind, weight=3.0, target=0.5, generator=draws())
        rng = draws()
        for _ in range(2):
            gold = fastgan.gradient_penalty(critic, REAL, FAKE, kind=kind, weight=3.0, target=0.5, generator=rng)
            assert torch.equal(module(critic, REAL, FAKE), gold)
    assert torch.equal(GradientPenalty("r1")(critic, REAL), fastgan.gradient_penalty(critic, REAL, kind="r1"))


def test_every_fourth_call_counts_four_times():
    critic = build(mlp)
    module = GradientPenalty(every=4)
    seen = []
    critic.register_forward_hook(lambda *_: seen.append(1))
    values = []
    for i in range(9):
        module.generator = draws(i)
        values.append(module(critic, REAL, FAKE))
        assert len(seen) == i // 4 + 1
    for i, value in enumerate(values):
        assert value.dtype == torch.float64 and value.shape == ()
        gold = 4 * penalty_at(critic, between(REAL, FAKE, i)) if i % 4 == 0 else torch.zeros((), dtype=torch.float64)
        assert_same([value], [gold], rtol=1e-10)
        assert value.requires_grad == (i % 4 == 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_calls_between_are_0_in_the_same_type(dtype):
    critic, module = build(mlp).to(dtype), GradientPenalty(every=2)
    first, second = (module(critic, REAL.to(dtype), FAKE.to(dtype)) for _ in range(2))
    assert first.dtype == second.dtype == torch.float32 and first > 0 and second == 0
    # as part of a loss
    (first + second).backward()


def test_the_count_is_kept_in_the_state():
    critic, module = build(mlp), GradientPenalty(every=3)
    for _ in range(2):
        module(critic, REAL, FAKE)
    for other in (GradientPenalty(every=3), pickle.loads(pickle.dumps(module))):
        other.load_state_dict(module.state_dict())
        assert [bool(other(critic, REAL, FAKE) > 0) for _ in range(4)] == [False, True, False, False]
    assert list(module.state_dict()) == ["_extra_state"] and not list(module.parameters())


def test_repr():
    shown = repr(GradientPenalty("r1", weight=2, every=16))
    assert shown == "GradientPenalty(kind='r1', weight=2, target=1.0, every=16)"


KINDS = "wgan-gp, wgan-lp, dragan, r1, r2"
INTEGERS = torch.ones(3, 3, 8, 8, dtype=torch.int64)
SETTINGS = {
    "kind": ({"kind": "gp"}, ValueError, f"kind must be one of {KINDS}, got 'gp'"),
    "no-kind": ({"kind": None}, ValueError, f"kind must be one of {KINDS}, got None"),
    "weight": ({"weight": -1}, ValueError, "weight must be a number >= 0 and finite, got -1"),
    "weight-nan": ({"weight": float("nan")}, ValueError, "weight must be a number >= 0 and finite, got nan"),
    "weight-inf": ({"weight": float("inf")}, ValueError, "weight must be a number >= 0 and finite, got inf"),
    "weight-text": ({"weight": "10"}, ValueError, "weight must be a number >= 0 and finite, got '10'"),
    "weight-tensor": (
        {"weight": torch.tensor(1.0)}, ValueError, "weight must be a number >= 0 and finite, got tensor(1.)",
    ),
    "target": ({"target": -0.5}, ValueError, "target must be a number >= 0 and finite, got -0.5"),
}  # fmt: skip
INPUTS = {
    "real": ((None, FAKE), "wgan-gp", TypeError, "real must be a Tensor for wgan-gp, got NoneType"),
    "real-r2": ((None, FAKE), "r2", TypeError, "real must be a Tensor for r2, got NoneType"),
    "fake": ((REAL, None), "wgan-lp", TypeError, "fake must be a Tensor for wgan-lp, got NoneType"),
    "fake-r2": ((REAL, None), "r2", TypeError, "fake must be a Tensor for r2, got NoneType"),
    "fake-list": ((REAL, [1.0]), "r1", TypeError, "fake must be a Tensor for r1, got list"),
    "integers": (
        (INTEGERS, INTEGERS), "wgan-gp", TypeError,
        "real must be float16, bfloat16, float32 or float64, got torch.int64",
    ),
    "fake-integers": (
        (REAL, INTEGERS), "wgan-gp", TypeError, "fake must be float16, bfloat16, float32 or float64, got torch.int64",
    ),
    "vector": ((REAL[0, 0, 0], FAKE), "r1", ValueError, "real must have shape (N, ...), got (8,)"),
    "shapes": (
        (REAL, FAKE[:2]), "wgan-gp", ValueError,
        "fake must be like real, (3, 3, 8, 8) on cpu, got (2, 3, 8, 8) on cpu",
    ),
    "devices": (
        (REAL, FAKE.to("meta")), "wgan-lp", ValueError,
        "fake must be like real, (3, 3, 8, 8) on cpu, got (3, 3, 8, 8) on meta",
    ),
    "dtypes": (
        (REAL, FAKE.float()), "wgan-gp", TypeError, "fake must be torch.float64, the dtype of real, got torch.float32",
    ),
}  # fmt: skip


def assert_rejects(error, message, call, *args, **options):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call(*args, **options)


@pytest.mark.parametrize("name", SETTINGS)
def test_rejects_settings(name):
    options, error, message = SETTINGS[name]
    assert_rejects(error, f"gradient_penalty: {message}", fastgan.gradient_penalty, build(mlp), REAL, FAKE, **options)
    assert_rejects(error, f"GradientPenalty: {message}", GradientPenalty, **options)
    if "kind" not in options:
        call = fastgan.critic_step_wgan_gp
        assert_rejects(error, f"critic_step_wgan_gp: {message}", call, build(mlp), REAL, FAKE, **options)


@pytest.mark.parametrize("name", INPUTS)
def test_rejects_inputs(name):
    inputs, kind, error, message = INPUTS[name]
    critic = build(mlp)
    assert_rejects(error, f"gradient_penalty: {message}", fastgan.gradient_penalty, critic, *inputs, kind=kind)
    assert_rejects(error, f"gradient_penalty: {message}", GradientPenalty(kind), critic, *inputs)
    if kind.startswith("wgan"):
        call = fastgan.critic_step_wgan_gp
        assert_rejects(error, f"critic_step_wgan_gp: {message}", call, critic, *inputs, kind=kind)


@pytest.mark.parametrize("every", [0, -1, 1.5, "2", None])
def test_rejects_intervals(every):
    message = f"GradientPenalty: every must be an integer >= 1, got {every!r}"
    assert_rejects(ValueError, message, GradientPenalty, every=every)
