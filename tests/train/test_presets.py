"""Every preset, made small: both networks learn, samples are pictures of the right size, resume is exact to the bit."""

import inspect
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.utils import parametrize

from fastgan.models import MODELS, dcgan
from fastgan.train import TrainConfig, Trainer, checkpoint
from fastgan.train.run_dir import RunDir
from fastgan.train.sampling import generate, load_generator

from .conftest import idx_bytes
from .runs import same

SMALL = {"features": 4, "latent_dim": 8, "batch_size": 4, "device": "cpu", "score_every": 0, "tensorboard": False}
OFTEN = {"log_every": 1, "sample_every": 3, "checkpoint_every": 3, "sample_count": 5}
# so that a few steps come to all stages of a model that grows
SHORT, GROWN_SIZE = {"grow_every": 2}, 16


@dataclass
class Runs:
    """A run of six steps in one go, and one that was stopped after three and went on, in that directory."""

    whole: RunDir
    parts: RunDir


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve grey images with labels of three classes, another such set, and six clips of nine frames."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        (root / name / "train-images-idx3-ubyte").write_bytes(idx_bytes(draw.integers(0, 256, (12, 28, 28), np.uint8)))
        labels = struct.pack(">4BI", 0, 0, 8, 1, 12) + bytes(range(3)) * 4
        (root / name / "train-labels-idx1-ubyte").write_bytes(labels)
    (root / "clips").mkdir()
    for index in range(6):
        first, *others = [Image.fromarray(draw.integers(0, 256, (28, 28), np.uint8)) for _ in range(9)]
        first.save(root / f"clips/{index}.gif", save_all=True, append_images=others)
    return root


def small(name: str, pictures: Path, **settings: object) -> TrainConfig:
    preset = TrainConfig.preset(name)
    model = MODELS[preset.model]
    data = {"data": f"clips:{pictures}/clips" if preset.recipe().clip_length else f"idx:{pictures}/a"}
    if model.needs_second_set:
        data["data_b"] = f"idx:{pictures}/b"
    options = {key: value for key, value in SHORT.items() if key in inspect.signature(model).parameters}
    side = GROWN_SIZE if options else 32
    size = {"image_size": min(preset.image_size, side), "d_steps": min(preset.d_steps, 2)}
    return TrainConfig.preset(name, **{**SMALL, **OFTEN, **data, **size, "options": options, **settings})


@pytest.fixture(scope="module", params=TrainConfig.preset_names())
def runs(request, pictures, tmp_path_factory):
    whole, parts = (tmp_path_factory.mktemp(request.param) / part for part in ("whole", "parts"))
    Trainer(small(request.param, pictures, steps=6, out=str(whole))).fit(progress=False)
    Trainer(small(request.param, pictures, steps=3, out=str(parts))).fit(progress=False)
    torch.manual_seed(99)
    Trainer.resume(parts, steps=6).fit(progress=False)
    return Runs(RunDir(whole), RunDir(parts))


def test_losses_are_finite_and_move(runs):
    rows = runs.whole.rows(runs.whole.metrics)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for name in ("d_loss", "g_loss"):
        values = [row[name] for row in rows]
        assert all(map(math.isfinite, values))
        assert len(set(values)) == 6


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_network_learns(runs, network):
    before, after = (checkpoint.load_checkpoint(runs.whole.checkpoints, step)[network] for step in (0, 6))
    weights = [name for name in before if name.endswith(("weight", "original"))]
    changed = [name for name in weights if not torch.equal(before[name], after[name])]
    assert changed == weights
    assert all(torch.isfinite(value).all() for value in after.values())


def test_samples_are_pictures_of_the_right_size(runs):
    trained = load_generator(runs.whole.root)
    config, recipe = trained.config, trained.recipe
    trainer = Trainer(config.replace(out=""))
    shown = recipe.picture(trainer.fixed, generate(trained.generator, trainer.fixed))
    count, channels, height, width = shown.shape
    assert (count, channels, height) == (5, 1, config.image_size)
    assert width % config.image_size == 0
    for step in (0, 3, 6):
        picture = Image.open(runs.whole.samples / f"step_{step:06d}.png")
        # five in two rows of three, two pixels of white around each
        assert picture.size == (3 * (width + 2) + 2, 2 * (height + 2) + 2)
        assert picture.mode == "L"


def test_resume_is_bit_identical(runs):
    states = [checkpoint.load_checkpoint(run.checkpoints) for run in (runs.whole, runs.parts)]
    assert states[0]["step"] == states[1]["step"] == 6
    assert same(*states)
    rows = [run.rows(run.metrics) for run in (runs.whole, runs.parts)]
    for row in rows[0] + rows[1]:
        del row["images_per_second"]
    assert rows[0] == rows[1]
    assert (runs.whole.samples / "step_000006.png").read_bytes() == (
        runs.parts.samples / "step_000006.png"
    ).read_bytes()


def judged(config: TrainConfig, together: bool) -> dict[str, torch.Tensor]:
    """Return losses, gradients and buffers of one discriminator step in float64."""
    trainer = Trainer(config)
    players, discriminator = trainer.players, trainer.discriminator.double()
    assert players.together
    players.together = together
    for module in discriminator.modules():
        # what draws numbers or iterates at each call
        if isinstance(module, (nn.Dropout, parametrize.ParametrizationList)):
            module.eval()
    players.begin(0)
    batch = trainer._batch()
    with torch.no_grad():
        fake = players.generate(batch).double()
    losses = players.discriminator_step(batch._replace(real=batch.real.double()), fake)
    logits = dict(zip(("real", "fake"), players.logits or (), strict=False))
    gradients = {name: parameter.grad for name, parameter in discriminator.named_parameters()}
    return {**losses, **logits, **gradients, **dict(discriminator.named_buffers())}


@pytest.mark.parametrize("name", [name for name in TrainConfig.preset_names() if name != "progressive"])
def test_one_pass_over_real_and_generated_images_is_two(name, pictures):
    one, two = (judged(small(name, pictures), together) for together in (True, False))
    torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-9)


def test_what_looks_at_its_batch_or_is_not_ours_has_two_passes(pictures):
    assert not Trainer(small("progressive", pictures)).players.together
    assert Trainer(small("progressive", pictures, options={**SHORT, "minibatch_stddev": False})).players.together
    assert not Trainer(small("dcgan", pictures), discriminator=dcgan.Discriminator(32, 1, 4)).players.together
