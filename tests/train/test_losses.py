"""The losses: values by formulas written apart, signs of gradients, 16-bit logits."""

import math

import pytest
import torch

from fastgan.models import Batch
from fastgan.train import Trainer
from fastgan.train.losses import LOSSES


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


# (discriminator, generator), of lists of numbers
FORMULAS = {
    "non-saturating": (
        lambda real, fake: -mean(math.log(sigmoid(r)) for r in real) - mean(math.log(1 - sigmoid(f)) for f in fake),
        lambda real, fake: -mean(math.log(sigmoid(f)) for f in fake),
    ),
    "minimax": (
        lambda real, fake: -mean(math.log(sigmoid(r)) for r in real) - mean(math.log(1 - sigmoid(f)) for f in fake),
        lambda real, fake: mean(math.log(1 - sigmoid(f)) for f in fake),
    ),
    "least-squares": (
        lambda real, fake: 0.5 * mean((r - 1) ** 2 for r in real) + 0.5 * mean(f**2 for f in fake),
        lambda real, fake: 0.5 * mean((f - 1) ** 2 for f in fake),
    ),
    "hinge": (
        lambda real, fake: mean(max(0, 1 - r) for r in real) + mean(max(0, 1 + f) for f in fake),
        lambda real, fake: -mean(fake),
    ),
    "wasserstein": (lambda real, fake: mean(fake) - mean(real), lambda real, fake: -mean(fake)),
    "relativistic": (
        lambda real, fake: -mean(math.log(sigmoid(r - f)) for r, f in zip(real, fake, strict=True)),
        lambda real, fake: -mean(math.log(sigmoid(f - r)) for r, f in zip(real, fake, strict=True)),
    ),
}
PAIRED = [name for name, loss in LOSSES.items() if loss.needs_real]


def logits(name, dtype=torch.float32, spread=2.0):
    """Real and generated logits, of unequal number where the loss allows it."""
    draw = torch.Generator().manual_seed(0)
    return [(spread * torch.randn(n, generator=draw)).to(dtype) for n in (7, 7 if name in PAIRED else 5)]


def both(name, real, fake):
    loss = LOSSES[name]
    return loss.discriminator(real, fake), loss.generator(*((fake, real) if loss.needs_real else (fake,)))


def test_every_loss_is_tested():
    assert LOSSES.keys() == FORMULAS.keys()
    assert PAIRED == ["relativistic"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_values(name, dtype):
    real, fake = logits(name, dtype)
    got = both(name, real, fake)
    for value, formula in zip(got, FORMULAS[name], strict=True):
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert value.shape == ()
        assert value.item() == pytest.approx(formula(real.tolist(), fake.tolist()), rel=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_values_are_those_without_autocast(name):
    real, fake = logits(name, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        got = both(name, real, fake)
    assert {value.dtype for value in got} == {torch.float32}
    assert [value.item() for value in got] == [value.item() for value in both(name, real, fake)]


@pytest.mark.parametrize("name", FORMULAS)
def test_each_player_pulls_its_own_way(name):
    # within the margins of the hinge and short of the targets of least squares
    real, fake = (values.requires_grad_() for values in logits(name, spread=0.3))
    for_d, for_g = both(name, real, fake)
    d_real, d_fake = torch.autograd.grad(for_d, (real, fake), retain_graph=True)
    (g_fake,) = torch.autograd.grad(for_g, fake)
    assert (d_real < 0).all()
    assert (g_fake < 0).all()
    # that of least squares pulls to 0
    assert (d_fake * (fake.sign() if name == "least-squares" else 1) > 0).all()


def test_least_squares_pulls_generated_logits_to_their_targets():
    fake = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    for_d, for_g = both("least-squares", torch.ones(3), fake)
    assert torch.autograd.grad(for_d, fake)[0].sign().tolist() == [-1, 1, 1]
    assert torch.autograd.grad(for_g, fake)[0].sign().tolist() == [-1, -1, 1]


@pytest.mark.parametrize("name", FORMULAS)
def test_large_logits_of_16_bits_stay_finite(name):
    real = torch.full((300,), -60000.0, dtype=torch.float16)
    values = both(name, real, -real)
    # squares of 60000 are beyond float16
    assert all(torch.isfinite(value) for value in values)


def test_minimax_saturates():
    fake = torch.tensor([-8.0], requires_grad=True)
    slow, fast = (torch.autograd.grad(LOSSES[name].generator(fake), fake)[0] for name in ("minimax", "non-saturating"))
    assert abs(slow.item()) < 1e-3 < 0.9 < abs(fast.item())


def test_relativistic_depends_on_who_is_beside_whom():
    real, fake = logits("relativistic")
    assert both("relativistic", real, fake)[0] != both("relativistic", real, fake.flip(0))[0]


def test_relativistic_needs_pairs():
    message = r"real_logits and fake_logits must be pairs, got shapes \(3,\) and \({}\)"
    for other in (1, 4):
        with pytest.raises(ValueError, match=message.format(f"{other},")):
            LOSSES["relativistic"].discriminator(torch.ones(3), torch.ones(other))
        with pytest.raises(ValueError, match=message.format(f"{other},")):
            LOSSES["relativistic"].generator(torch.ones(other), torch.ones(3))


@pytest.mark.parametrize("name", ["non-saturating", "minimax"])
@pytest.mark.parametrize("smoothing", [0.1, 0.4])
def test_smoothing_is_cross_entropy_with_softer_targets(name, smoothing):
    real, fake = (values.requires_grad_() for values in logits(name))
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    expected = entropy(real, torch.full_like(real, 1 - smoothing)) + entropy(fake, torch.zeros_like(fake))
    loss = LOSSES[name].discriminator(real, fake, smoothing=smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for got, wanted in zip(
        torch.autograd.grad(loss, (real, fake)), torch.autograd.grad(expected, (real, fake)), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_setting_smooths_the_targets_of_real_images(tiny):
    players = Trainer(tiny(label_smoothing=0.2, convert=False)).players
    draw = torch.Generator().manual_seed(0)
    real, fake = (torch.rand(8, 1, 32, 32, generator=draw) for _ in range(2))
    measured = players.discriminator_step(Batch(real, ()), fake)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    (on_real, on_fake), ones = players.logits, torch.ones(8)
    expected = entropy(on_real, 0.8 * ones) + entropy(on_fake, 0 * ones)
    assert measured["d_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
