"""The presets on the DCGAN's networks train, resume to the bit and log what they have; each setting does its part."""

import copy
import json
import math

import pytest
import torch
from PIL import Image
from torch import nn

import fastgan
from fastgan.models import Batch, dcgan
from fastgan.train import TrainConfig, Trainer, checkpoint
from fastgan.train.data import BatchSampler, normalise
from fastgan.train.losses import LOSSES
from fastgan.train.streams import ORDER, seeded_generator

from .runs import losses_of, same

MEASURED = {
    "dcgan": {"d_accuracy"},
    "wgan": {"wasserstein"},
    "wgan-gp": {"wasserstein", "penalty"},
    "sngan": {"d_accuracy"},
    "r3gan-loss": {"penalty", "d_accuracy"},
}
NAMES = list(MEASURED)
CONVERSIONS = pytest.mark.parametrize("convert", [True, False], ids=["converted", "stock"])


@pytest.fixture
def recipe(tiny):
    """Makes the config of a preset, but as small as that of ``tiny``."""
    small = {name: getattr(tiny(), name) for name in ("data", "features", "latent_dim", "batch_size", "device")}
    often = {"log_every": 1, "sample_every": 2, "checkpoint_every": 2, "sample_count": 4}
    return lambda name, **settings: TrainConfig.preset(name, **{**small, **often, "steps": 3, **settings})


def batches(count=8):
    draw = torch.Generator().manual_seed(0)
    return [torch.rand(count, 1, 32, 32, generator=draw) * 2 - 1 for _ in range(2)]


def d_step(players, real, fake):
    return players.discriminator_step(Batch(real, ()), fake)


def gradients(model):
    return [parameter.grad for parameter in model.parameters()]


def check_close(got, expected, rtol=1e-4):
    for left, right in zip(got, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=rtol, atol=rtol * right.abs().max().item())


@CONVERSIONS
@pytest.mark.parametrize("name", NAMES)
def test_preset_trains(recipe, name, convert):
    result = Trainer(recipe(name, convert=convert)).fit(progress=False)
    assert len(result.metrics) == 3
    for row in result.metrics:
        assert row.keys() == {"step", "d_loss", "g_loss", "diversity", "images_per_second"} | MEASURED[name]
        assert all(map(math.isfinite, row.values()))
    assert len({row["d_loss"] for row in result.metrics}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_preset_trains_on_colour(recipe, name, tmp_path):
    for index in range(3):
        Image.new("RGB", (40, 40), (index * 90, 200, 30)).save(tmp_path / f"{index}.png")
    trainer = Trainer(recipe(name, data=f"folder:{tmp_path}", steps=1, batch_size=4))
    assert trainer.discriminator.main[0].in_channels == 3
    assert all(map(math.isfinite, trainer.fit(progress=False).metrics[0].values()))


@pytest.mark.parametrize("name", NAMES)
def test_preset_trains_in_bfloat16(recipe, name):
    trainer = Trainer(recipe(name, dtype="bfloat16"))
    assert all(map(math.isfinite, trainer.fit(progress=False).metrics[-1].values()))
    assert {parameter.dtype for parameter in trainer.discriminator.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", NAMES)
def test_converted_training_is_stock_training(recipe, name):
    stock, converted = (
        losses_of(Trainer(recipe(name, convert=convert)).fit(progress=False)) for convert in (False, True)
    )
    # critics' losses start near zero
    assert torch.allclose(torch.tensor(stock), torch.tensor(converted), rtol=1e-3, atol=1e-4)


RESUMED = [
    ("wgan-gp", {}),
    ("wgan-gp", {"d_steps": 3}),
    ("sngan", {}),
    ("sngan", {"d_steps": 2}),
    ("wgan", {"d_steps": 2}),
    ("r3gan-loss", {"penalty_every": 2, "d_steps": 3}),
    ("r3gan-loss", {"penalty": "dragan", "penalty_every": 4}),
]


@pytest.mark.parametrize(("name", "settings"), RESUMED, ids=lambda value: value if type(value) is str else str(value))
def test_resume_is_bit_identical(recipe, tmp_path, name, settings):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(recipe(name, out=str(whole), steps=6, **settings)).fit(progress=False)
    Trainer(recipe(name, out=str(parts), steps=3, **settings)).fit(progress=False)
    torch.manual_seed(99)
    Trainer.resume(parts, steps=6).fit(progress=False)
    states = [checkpoint.load_checkpoint(root / "checkpoints") for root in (whole, parts)]
    assert states[0]["step"] == 6
    assert same(*states)
    rows = [[json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()] for root in (whole, parts)]
    for row in rows[0] + rows[1]:
        del row["images_per_second"]
    assert rows[0] == rows[1]


def test_random_numbers_of_the_penalty_are_its_own(recipe):
    with_penalty, without = (Trainer(recipe("r3gan-loss", penalty=kind)) for kind in ("dragan", "none"))
    for trainer in (with_penalty, without):
        trainer.train_step()
    streams = [trainer.state_dict()["random"] for trainer in (with_penalty, without)]
    assert same(*streams)
    assert "penalties" in with_penalty.state_dict()
    assert "penalties" not in without.state_dict()


def test_clip_clamps_the_discriminator(recipe):
    trainer = Trainer(recipe("wgan", d_lr=1e-2, g_lr=1e-2))
    trainer.fit(progress=False)
    limits = [parameter.abs().max().item() for parameter in trainer.discriminator.parameters()]
    assert max(limits) == pytest.approx(0.01, rel=1e-6)
    assert min(limits) > 0
    assert max(parameter.abs().max() for parameter in trainer.generator.parameters()) > 0.1


def test_clip_leaves_frozen_parameters(recipe):
    discriminator = dcgan.Discriminator(32, 1, 4)
    frozen = discriminator.main[3].weight.requires_grad_(False)
    Trainer(recipe("wgan"), discriminator=discriminator).fit(progress=False)
    assert (frozen == 1).all()


def test_discriminator_steps_see_new_images(recipe):
    trainer = Trainer(recipe("wgan-gp", d_steps=3))
    seen, judged = [], []
    step, g_step = trainer.players.discriminator_step, trainer.players.generator_step
    trainer.players.discriminator_step = lambda batch, fake: seen.append((batch, fake)) or step(batch, fake)
    trainer.players.generator_step = lambda batch, fake: judged.append((batch, fake)) or g_step(batch, fake)
    trainer.train_step()
    trainer.train_step()
    assert (len(seen), len(judged)) == (6, 2)
    order = BatchSampler(len(trainer.data), 8, seeded_generator(trainer.config.seed, ORDER))
    for batch, fake in seen:
        assert torch.equal(batch.real, normalise(trainer.data.sets[0].images[order.next()]))
        assert not fake.requires_grad
    for part in (lambda entry: entry[1], lambda entry: entry[0].inputs[0]):
        assert all(not torch.equal(part(a), part(b)) for i, a in enumerate(seen) for b in seen[:i])
    for (batch, fake), last in zip(judged, (seen[2], seen[5]), strict=True):
        assert fake.requires_grad
        assert batch is last[0]
        assert torch.equal(fake, last[1])


def penalty_by_hand(critic, images, weight):
    images = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return weight / 2 * slope.square().sum((1, 2, 3)).mean()


@pytest.mark.parametrize(("kind", "of_real", "of_fake"), [("r1", 1, 0), ("r2", 0, 1), ("r1+r2", 1, 1)])
def test_penalty_is_added_to_the_loss(recipe, kind, of_real, of_fake):
    players = Trainer(recipe("r3gan-loss", penalty=kind, penalty_weight=3.0)).players
    critic, (real, fake) = copy.deepcopy(players.discriminator), batches()
    penalty = of_real * penalty_by_hand(critic, real, 3.0) + of_fake * penalty_by_hand(critic, fake, 3.0)
    loss = nn.functional.softplus(critic(fake) - critic(real)).mean() + penalty
    loss.backward()
    measured = d_step(players, real, fake)
    assert measured["d_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert measured["penalty"].item() == pytest.approx(penalty.item(), rel=1e-5)
    # the last bias cancels in the difference of two logits
    check_close(gradients(players.discriminator)[:-1], gradients(critic)[:-1])


def test_penalty_every_leaves_steps_out(recipe):
    players = Trainer(recipe("r3gan-loss", penalty="r1", penalty_every=2)).players
    real, fake = batches()
    rows = [d_step(players, real, fake) for _ in range(4)]
    assert rows[0]["penalty"] == rows[1]["penalty"] != rows[2]["penalty"] == rows[3]["penalty"]
    critic = copy.deepcopy(players.discriminator)
    twice = 2 * penalty_by_hand(critic, real, players.config.penalty_weight)
    loss = nn.functional.softplus(critic(fake) - critic(real)).mean()
    fifth = d_step(players, real, fake)
    assert fifth["d_loss"].item() == pytest.approx((loss + twice).item(), rel=1e-5)
    assert fifth["penalty"].item() == pytest.approx(twice.item() / 2, rel=1e-5)
    critic = copy.deepcopy(players.discriminator)
    loss = nn.functional.softplus(critic(fake) - critic(real)).mean()
    assert d_step(players, real, fake)["d_loss"].item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["wgan-gp", "wgan-lp"])
def test_critic_step_with_its_penalty_is_the_step_in_parts(recipe, monkeypatch, kind):
    calls = []
    fused = fastgan.critic_step_wgan_gp
    monkeypatch.setattr(
        fastgan, "critic_step_wgan_gp", lambda *args, **kwargs: calls.append(kwargs["kind"]) or fused(*args, **kwargs)
    )
    whole, parts = (Trainer(recipe("wgan-gp", penalty=kind, penalty_weight=2.0)).players for _ in range(2))
    parts._with_penalty = False
    rows = [d_step(players, *batches()) for players in (whole, parts)]
    assert calls == [kind]
    assert rows[0].keys() == rows[1].keys() == {"d_loss", "penalty", "wasserstein"}
    for name in rows[0]:
        assert rows[0][name].item() == pytest.approx(rows[1][name].item(), rel=1e-4)
    assert rows[0]["d_loss"].item() == pytest.approx((rows[0]["penalty"] - rows[0]["wasserstein"]).item(), rel=1e-4)
    check_close(gradients(whole.discriminator)[:-1], gradients(parts.discriminator)[:-1], rtol=1e-3)


def test_wasserstein_is_the_distance_of_the_means(recipe):
    players = Trainer(recipe("wgan", d_lr=1e-9)).players
    real, fake = batches()
    with torch.no_grad():
        critic = copy.deepcopy(players.discriminator)
        distance = critic(real).mean() - critic(fake).mean()
    measured = d_step(players, real, fake)
    assert measured["wasserstein"].item() == pytest.approx(distance.item(), rel=1e-4)
    assert measured["d_loss"].item() == pytest.approx(-distance.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["wgan-gp", "r3gan-loss", "dcgan"])
def test_gradient_scaler_changes_no_step(recipe, name):
    plain, scaled = (Trainer(recipe(name)).players for _ in range(2))
    for scaler in ("d_scaler", "g_scaler"):
        setattr(scaled, scaler, torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=True))
    for players in (plain, scaled):
        real, fake = batches()
        d_step(players, real, fake)
        batch = Batch(real, (torch.ones(8, 8, 1, 1),))
        players.generator_step(batch, players.generate(batch))
    for model in ("discriminator", "generator"):
        check_close(getattr(scaled, model).parameters(), getattr(plain, model).parameters(), rtol=1e-5)


def test_relativistic_generator_is_judged_beside_real_images(recipe):
    players = Trainer(recipe("r3gan-loss")).players
    batch = Batch(batches()[0], (torch.randn(8, 8, 1, 1),))
    fake = players.generate(batch)
    with torch.no_grad():
        # logits far enough apart for the pairs to count
        for parameter in players.discriminator.parameters():
            parameter.mul_(8)
        expected = LOSSES["relativistic"].generator(players.discriminator(fake), players.discriminator(batch.real))
    assert players.generator_step(batch, fake)["g_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(parameter.grad is None for parameter in players.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in players.discriminator.parameters())
    assert all(parameter.grad is not None for parameter in players.generator.parameters())


def test_optimizer(recipe):
    adam, rmsprop = (Trainer(recipe(name)).players for name in ("wgan-gp", "wgan"))
    assert type(adam.d_optimizer) is type(adam.g_optimizer) is torch.optim.Adam
    assert adam.d_optimizer.defaults["betas"] == (0.0, 0.9)
    assert type(rmsprop.d_optimizer) is type(rmsprop.g_optimizer) is torch.optim.RMSprop
    lrs = Trainer(recipe("wgan", g_lr=1e-3, d_lr=2e-3)).players
    assert (lrs.g_optimizer.defaults["lr"], lrs.d_optimizer.defaults["lr"]) == (1e-3, 2e-3)
