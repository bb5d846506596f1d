"""The course of the learning rates, the moving average of the generator, and gradients scaled down."""

import copy
import math

import pytest
import torch
from PIL import Image

from fastgan.models import Batch
from fastgan.train import Trainer, checkpoint
from fastgan.train.images import make_grid
from fastgan.train.optimizers import lr_factor
from fastgan.train.sampling import generate, load_generator

from .runs import same

COURSE = {"lr_decay_start": 2, "lr_decay_end": 6}


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]),
        ("cosine", [1, 1, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0, 0]),
    ],
)
def test_course(tiny, schedule, factors):
    config = tiny(lr_schedule=schedule, **COURSE)
    assert [lr_factor(config, step) for step in range(8)] == pytest.approx(factors)


def rates(trainer):
    """The learning rates of generator and discriminator in each step."""
    seen, step = [], trainer.players.generator_step

    def watched(*args):
        seen.append(
            tuple(getattr(trainer.players, name).param_groups[0]["lr"] for name in ("g_optimizer", "d_optimizer"))
        )
        return step(*args)

    trainer.players.generator_step = watched
    trainer.fit(progress=False)
    return seen


def test_both_players_follow_the_course_in_steps_from_the_beginning_of_the_run(tiny, tmp_path):
    settings = {"lr_schedule": "linear", "g_lr": 4e-4, "d_lr": 8e-4, **COURSE}
    expected = [(4e-4 * factor, 8e-4 * factor) for factor in (1, 1, 1, 0.75, 0.5, 0.25)]
    first = rates(Trainer(tiny(steps=4, out=str(tmp_path / "run"), **settings)))
    second = rates(Trainer.resume(tmp_path / "run", steps=6))
    assert first == [pytest.approx(pair) for pair in expected[:4]]
    assert second == [pytest.approx(pair) for pair in expected[4:]]


def test_steps_without_a_rate_change_nothing(tiny):
    trainer = Trainer(tiny(steps=9, lr_schedule="cosine", **COURSE))
    trainer.config = trainer.config.replace(steps=6)
    trainer.fit(progress=False)
    before = copy.deepcopy(dict(trainer.discriminator.named_parameters()))
    trainer.config = trainer.config.replace(steps=9)
    trainer.fit(progress=False)
    assert all(torch.equal(before[name], value) for name, value in trainer.discriminator.named_parameters())


def test_resume_is_bit_identical(tiny, tmp_path):
    settings = {"lr_schedule": "cosine", "lr_decay_end": 6, "ema": 0.5, "clip_grad": 0.1, "label_smoothing": 0.1}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(tiny(out=str(whole), steps=5, **settings)).fit(progress=False)
    Trainer(tiny(out=str(parts), steps=2, **settings)).fit(progress=False)
    Trainer.resume(parts, steps=5).fit(progress=False)
    states = [checkpoint.load_checkpoint(root / "checkpoints") for root in (whole, parts)]
    assert "ema" in states[0]
    assert same(*states)


def test_average_follows_its_recurrence(tiny):
    trainer, average = Trainer(tiny(ema=0.75)), []
    for step in range(4):
        trainer.train_step()
        now = [parameter.detach().clone() for parameter in trainer.generator.parameters()]
        # the average begins with the weights after the first step
        average = now if step == 0 else [0.75 * old + 0.25 * new for old, new in zip(average, now, strict=True)]
    for got, wanted in zip(trainer.players.sampler.parameters(), average, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-8)
    assert not same(list(trainer.players.sampler.parameters()), now)
    # statistics of batch norm are those of the generator
    assert same(dict(trainer.players.sampler.named_buffers()), dict(trainer.generator.named_buffers()))


def test_samples_are_drawn_from_the_average(tiny, tmp_path):
    trainer = Trainer(tiny(ema=0.9, g_lr=0.01, out=str(tmp_path / "run")))
    trainer.fit(progress=False)
    drawn, other = (
        make_grid(generate(model, trainer.fixed))[0] for model in (trainer.players.sampler, trainer.generator)
    )
    picture = Image.open(tmp_path / "run/samples/step_000004.png")
    shown = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(drawn.shape)
    assert torch.equal(shown, drawn)
    assert not torch.equal(shown, other)
    loaded = load_generator(tmp_path / "run").generator
    assert same(dict(loaded.state_dict()), dict(trainer.players.sampler.state_dict()))
    assert not same(dict(loaded.state_dict()), dict(trainer.generator.state_dict()))


def norm(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_gradients_are_scaled_down_to_clip_grad(tiny, network):
    plain, clipped, loose = (Trainer(tiny(clip_grad=limit)).players for limit in (0, 1e-3, 1e6))
    draw = torch.Generator().manual_seed(0)
    batch = Batch(torch.rand(8, 1, 32, 32, generator=draw), (torch.randn(8, 8, 1, 1, generator=draw),))
    for players in (plain, clipped, loose):
        fake = players.generate(batch)
        players.discriminator_step(batch, fake.detach()) if network == "discriminator" else players.generator_step(
            batch, fake
        )
    whole, small, same_as_whole = (
        [parameter.grad for parameter in getattr(players, network).parameters()] for players in (plain, clipped, loose)
    )
    assert norm(whole) > 1e-2
    assert norm(small) == pytest.approx(1e-3, rel=1e-3)
    for got, wanted in zip(small, whole, strict=True):
        torch.testing.assert_close(got, wanted * (1e-3 / norm(whole)), rtol=1e-3, atol=1e-9)
    assert same(same_as_whole, whole)
