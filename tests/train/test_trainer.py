"""The trainer: what a run leaves behind, the same seed, resume, and who may write."""

import json
import math
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import fastgan
from fastgan.models import Batch, dcgan
from fastgan.train import BadInput, TrainConfig, Trainer, TrainingFailed, checkpoint, losses, progress, streams
from fastgan.train.command import command_line

from .runs import losses_of, same


def test_run_leaves_everything_behind(tiny, tmp_path):
    config = tiny(out=str(tmp_path / "run"))
    result = Trainer(config).fit(progress=False)
    run = tmp_path / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.metrics
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(row["d_loss"]) and row["d_loss"] > 0 and row["g_loss"] > 0 for row in rows)
    assert all(row["images_per_second"] > 0 for row in rows)
    assert TrainConfig.read(run / "config.toml") == config
    assert "steps = 4\n" in (run / "config.toml").read_text()
    assert checkpoint.checkpoint_steps(run / "checkpoints") == [0, 2, 4]
    assert sorted(path.name for path in (run / "samples").iterdir()) == [f"step_{n:06d}.png" for n in (0, 2, 4)]


def test_samples_are_a_grid_of_the_fixed_latents(tiny, tmp_path):
    Trainer(tiny(out=str(tmp_path / "run"))).fit(progress=False)
    pictures = [Image.open(path) for path in sorted((tmp_path / "run/samples").iterdir())]
    assert {picture.size for picture in pictures} == {(3 * 34 + 2, 3 * 34 + 2)}
    assert {picture.mode for picture in pictures} == {"L"}
    assert pictures[0].tobytes() != pictures[-1].tobytes()


def test_nothing_is_written_without_out(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Trainer(tiny()).fit(progress=False).step == 4
    assert list(tmp_path.iterdir()) == []


def test_same_seed_same_losses(tiny):
    first = losses_of(Trainer(tiny(seed=3)).fit(progress=False))
    torch.randn(1)
    assert losses_of(Trainer(tiny(seed=3)).fit(progress=False)) == first
    assert losses_of(Trainer(tiny(seed=4)).fit(progress=False)) != first


def test_converted_training_is_stock_training(tiny):
    stock = losses_of(Trainer(tiny(convert=False)).fit(progress=False))
    converted = losses_of(Trainer(tiny(convert=True)).fit(progress=False))
    assert torch.allclose(torch.tensor(stock), torch.tensor(converted), rtol=1e-4)


def test_convert_is_called_unless_switched_off(tiny):
    assert type(Trainer(tiny()).generator.main) is fastgan.nn.Sequential
    assert type(Trainer(tiny(convert=False)).generator.main) is nn.Sequential


def test_bfloat16_keeps_float32_parameters(tiny):
    subject = Trainer(tiny(dtype="bfloat16"))
    result = subject.fit(progress=False)
    assert {parameter.dtype for parameter in subject.generator.parameters()} == {torch.float32}
    assert losses_of(result) != losses_of(Trainer(tiny()).fit(progress=False))


def test_resume_is_bit_identical(tiny, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(tiny(out=str(whole), steps=7)).fit(progress=False)
    Trainer(tiny(out=str(parts), steps=3)).fit(progress=False)
    torch.manual_seed(99)
    Trainer.resume(parts, steps=7).fit(progress=False)
    states = [checkpoint.load_checkpoint(root / "checkpoints") for root in (whole, parts)]
    assert states[0]["step"] == 7
    assert same(*states)
    rows = [[json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()] for root in (whole, parts)]
    for row in rows[0] + rows[1]:
        del row["images_per_second"]
    assert rows[0] == rows[1]
    pictures = [(root / "samples/step_000006.png").read_bytes() for root in (whole, parts)]
    assert pictures[0] == pictures[1]


def test_resume_drops_what_was_logged_after_the_checkpoint(tiny, tmp_path):
    Trainer(tiny(out=str(tmp_path / "run"))).fit(progress=False)
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "d_loss": 0}\n{"step": 6, "d_l')
    Trainer.resume(tmp_path / "run", steps=6).fit(progress=False)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert json.loads(lines[4])["d_loss"] != 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_and_saves(tiny, tmp_path, signum):
    subject = Trainer(tiny(out=str(tmp_path / "run"), steps=1000, checkpoint_every=1000))
    step = subject.train_step
    handler = signal.getsignal(signum)

    def interrupted():
        if subject.step == 2:
            os.kill(os.getpid(), signum)
        return step()

    subject.train_step = interrupted
    result = subject.fit(progress=False)
    assert (result.step, result.signum) == (3, signum)
    assert checkpoint.checkpoint_steps(tmp_path / "run/checkpoints") == [0, 3]
    assert signal.getsignal(signum) is handler


def test_discriminator_gets_no_gradient_from_the_generator_step(tiny):
    subject = Trainer(tiny())
    seen = []
    subject.players.loss = losses.Loss(
        losses.non_saturating_d,
        lambda logits: (
            seen.append([parameter.requires_grad for parameter in subject.discriminator.parameters()])
            or losses.non_saturating_g(logits)
        ),
    )
    batch = Batch(torch.zeros(8, 1, 32, 32), (torch.randn(8, 8, 1, 1),))
    subject.players.generator_step(batch, subject.players.generate(batch))
    assert not any(seen[0])
    assert all(parameter.grad is None for parameter in subject.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in subject.discriminator.parameters())
    assert all(parameter.grad is not None for parameter in subject.generator.parameters())


def test_frozen_parameters_stay_frozen(tiny):
    discriminator = dcgan.Discriminator(32, 1, 4)
    discriminator.main[0].weight.requires_grad_(False)
    before = discriminator.main[0].weight.clone()
    Trainer(tiny(), discriminator=discriminator).fit(progress=False)
    assert not discriminator.main[0].weight.requires_grad
    assert torch.equal(discriminator.main[0].weight, before)


def test_own_models_are_trained_in_place(tiny):
    generator = dcgan.Generator(32, 1, 8, 4)
    before = generator.main[0].weight.clone()
    subject = Trainer(tiny(), generator=generator)
    subject.fit(progress=False)
    assert subject.generator is generator
    assert not torch.equal(generator.main[0].weight, before)


def test_resume_of_own_models(tiny, tmp_path):
    models = [(dcgan.Generator(32, 1, 8, 6), dcgan.Discriminator(32, 1, 6)) for _ in range(2)]
    Trainer(tiny(out=str(tmp_path / "run")), *models[0]).fit(progress=False)
    subject = Trainer.resume(tmp_path / "run", *models[1], steps=5)
    assert subject.generator is models[1][0]
    assert same(dict(models[0][0].state_dict()), dict(models[1][0].state_dict()))
    assert subject.fit(progress=False).step == 5


def test_diverged_training_says_so(tiny):
    subject = Trainer(tiny())
    subject.players.loss = losses.Loss(losses.non_saturating_d, lambda logits: logits.mean() * float("nan"))
    with pytest.raises(TrainingFailed, match="diverged: g_loss is not finite at step 1; try smaller g_lr"):
        subject.fit(progress=False)


def test_second_trainer_cannot_take_a_running_directory(tiny, tmp_path):
    first, second = (Trainer(tiny(out=str(tmp_path / "run"))) for _ in range(2))
    first.keeper.open(opened=False)
    with pytest.raises(BadInput, match="is in use by another run"):
        Trainer(tiny(out=str(tmp_path / "run")))
    with pytest.raises(BadInput, match="is in use by another run"):
        second.fit(progress=False)
    first.keeper.start()
    with pytest.raises(BadInput, match="is in use by another run"):
        Trainer.resume(tmp_path / "run")


def test_losses_are_cross_entropy():
    real, fake = torch.randn(6), torch.randn(6)
    entropy = nn.functional.binary_cross_entropy_with_logits
    expected = entropy(real, torch.ones(6)) + entropy(fake, torch.zeros(6))
    assert losses.non_saturating_d(real, fake).item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses.non_saturating_g(fake).item() == pytest.approx(entropy(fake, torch.ones(6)).item(), rel=1e-6)
    assert losses.non_saturating_g(fake.bfloat16()).dtype == torch.float32


def test_progress_bar_shows_what_was_measured():
    row = {"step": 7, "d_loss": 1.0, "g_loss": -2.0, "penalty": 0.25, "images_per_second": 812.4, "warning": "w"}
    assert progress.postfix(row) == {"d_loss": "1.000", "g_loss": "-2.000", "penalty": "0.250", "img/s": "812"}


def test_streams_of_random_numbers_differ():
    numbers = range(1, streams.SHOWN + 1)
    draws = [streams.seeded_generator(seed, stream).initial_seed() for seed in (0, 1) for stream in numbers]
    assert all(first < second for first, second in pairwise(draws))


def test_run_says_how_it_was_made(tiny, tmp_path):
    subject = Trainer(tiny(out=str(tmp_path / "run")))
    subject.fit(progress=False)
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["parameters"]["generator"] == sum(parameter.numel() for parameter in subject.generator.parameters())
    assert (facts["images"], facts["device"], facts["processes"]) == (32, "cpu", 1)
    assert facts["torch"] == torch.__version__
    assert facts["command"] == command_line()


def test_command_that_made_a_run_can_be_typed_again(monkeypatch):
    there = "/environment/bin"
    main = str(Path(fastgan.__file__).with_name("__main__.py"))
    monkeypatch.setattr("shutil.which", lambda name: f"{there}/{name}")
    monkeypatch.setattr(sys, "executable", f"{there}/python")
    for program, typed in {
        f"{there}/fastgan": "fastgan",
        main: f"{there}/python -m fastgan",
        "my script.py": f"{there}/python 'my script.py'",
        "/other/__main__.py": f"{there}/python /other/__main__.py",
    }.items():
        monkeypatch.setattr(sys, "argv", [program, "train", "--out", "my run"])
        assert command_line() == f"{typed} train --out 'my run'"


def test_run_that_was_killed_before_its_first_checkpoint_begins_anew(tiny, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(tiny(out=str(whole))).fit(progress=False)
    killed = Trainer(tiny(out=str(parts)))
    killed.keeper.open(opened=False)
    killed.run.unlock()
    (parts / "samples/step_000000.png.tmp").write_bytes(b"half")
    (parts / "metrics.jsonl").write_text('{"step": 1, "d_l')
    assert Trainer.resume(parts).fit(progress=False).step == 4
    states = [checkpoint.load_checkpoint(root / "checkpoints") for root in (whole, parts)]
    assert same(*states)
    assert sorted(path.name for path in parts.rglob("step_*")) == sorted(path.name for path in whole.rglob("step_*"))
    assert len((parts / "metrics.jsonl").read_text().splitlines()) == 4
