"""What the discriminator sees: augmentation of real and generated images alike, noise that fades, images moved."""

import pytest
import torch

from fastgan.models import Batch
from fastgan.train import Trainer, checkpoint
from fastgan.train.augment import Augment
from fastgan.train.streams import AUGMENT, seeded_generator

from .runs import same

EVERYTHING = {
    "augment": "color,translation,cutout",
    "instance_noise": 0.2,
    "instance_noise_steps": 10,
    "flip": True,
    "crop": 3,
}


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(0)
    return Batch(torch.rand(8, 1, 32, 32, generator=draw) - 0.5, (torch.randn(8, 8, 1, 1, generator=draw),))


def inputs_of(players):
    """What the discriminator is given, from now on."""
    seen = []
    players.discriminator.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


@pytest.mark.parametrize(("steps", "stds"), [(10, [0.4, 0.36, 0.2, 0, 0]), (0, [0.4] * 5)])
def test_noise_fades(tiny, steps, stds):
    players = Trainer(tiny(instance_noise=0.4, instance_noise_steps=steps)).players
    images = torch.zeros(64, 1, 32, 32)
    seen = []
    for step in (0, 1, 5, 10, 11):
        players.begin(step)
        seen.append(players.seeing(images).std().item())
    assert seen == pytest.approx(stds, rel=0.02)


def test_noise_follows_the_steps_of_the_run(tiny):
    trainer = Trainer(tiny(instance_noise=0.4, instance_noise_steps=2, steps=3, convert=False))
    noises = []
    trainer.players.seeing._noise, noise = lambda: noises.append(noise()) or noises[-1], trainer.players.seeing._noise
    trainer.fit(progress=False)
    # real and generated images, and those of the generator's step
    assert noises == pytest.approx([0.4] * 3 + [0.2] * 3 + [0] * 3)


def test_real_and_generated_images_are_augmented(tiny, batch):
    players = Trainer(tiny(augment="color,cutout", convert=False)).players
    seen, fake = inputs_of(players), torch.full((8, 1, 32, 32), 0.25)
    players.discriminator_step(batch, fake)
    augment = Augment("color,cutout", seeded_generator(players.config.seed, AUGMENT))
    assert len(seen) == 1
    for got, images in zip(seen[0].chunk(2), (batch.real, fake), strict=True):
        torch.testing.assert_close(got, augment(images))
        assert not torch.equal(got, images)


def test_generator_gets_gradients_through_the_augmentation(tiny, batch):
    players = Trainer(tiny(augment="cutout", convert=False)).players
    seen, fake = inputs_of(players), players.generate(batch)
    fake.retain_grad()
    players.generator_step(batch, fake)
    hole = (seen[0] == 0).all(1, keepdim=True) & (fake.detach() != 0)
    assert 0.05 < hole.float().mean() < 0.3
    assert (fake.grad[hole] == 0).all()
    assert (fake.grad[~hole] != 0).float().mean() > 0.9
    assert all(parameter.grad.abs().max() > 0 for parameter in players.generator.parameters())


def test_relativistic_generator_is_judged_beside_augmented_images(tiny, batch):
    players = Trainer(tiny(loss="relativistic", augment="cutout", convert=False)).players
    seen = inputs_of(players)
    players.generator_step(batch, players.generate(batch))
    assert len(seen) == 2
    assert all((images == 0).any() for images in seen)


def test_images_stay_as_they_are_without_settings(tiny, batch):
    players = Trainer(tiny()).players
    assert players.seeing(batch.real) is batch.real


def test_flip_and_crop_move_real_images_only(tiny):
    plain, moved = (Trainer(tiny(**settings)) for settings in ({}, {"flip": True, "crop": 3}))
    images, varied = (trainer.data.next()[0] for trainer in (plain, moved))
    assert images.shape == varied.shape
    assert not torch.equal(images, varied)
    assert same(plain.fixed, moved.fixed)


@pytest.mark.parametrize(
    "settings", [EVERYTHING, {**EVERYTHING, "loss": "relativistic", "penalty": "r1", "norm": "none"}]
)
def test_resume_is_bit_identical(tiny, tmp_path, settings):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(tiny(out=str(whole), steps=5, **settings)).fit(progress=False)
    Trainer(tiny(out=str(parts), steps=2, **settings)).fit(progress=False)
    torch.manual_seed(99)
    Trainer.resume(parts, steps=5).fit(progress=False)
    states = [checkpoint.load_checkpoint(root / "checkpoints") for root in (whole, parts)]
    assert same(*states)
    assert (whole / "samples/step_000004.png").read_bytes() == (parts / "samples/step_000004.png").read_bytes()
