"""The presets of images to images and of clips train, go on to the bit, and show what is made of what."""

import math

import pytest
import torch
from PIL import Image

from fastgan.train import TrainConfig, Trainer, checkpoint

from .runs import losses_of, same

# losses beside the game's, and the size of one picture of 32 pixels a side in a grid
PRESETS = {
    "srgan": ({"content"}, (64, 32)),
    "inpaint": ({"reconstruction"}, (64, 32)),
    "cyclegan": ({"cycle"}, (128, 32)),
    "videogan": (set(), (256, 32)),
}
EVERY = pytest.mark.parametrize("name", PRESETS)


@pytest.fixture
def small(idx_dir, tmp_path):
    """Makes the config of a preset as small as it gets."""
    often = {"log_every": 1, "sample_every": 2, "checkpoint_every": 2, "sample_count": 4}
    sizes = {"features": 4, "latent_dim": 8, "batch_size": 4, "device": "cpu"}

    def make(name, **settings):
        data = {} if name == "videogan" else {"data": f"idx:{idx_dir}"}
        if name == "cyclegan":
            data["data_b"] = data["data"]
        return TrainConfig.preset(name, **{**sizes, **often, **data, "steps": 2, **settings})

    return make


@EVERY
def test_preset_trains_and_shows(small, tmp_path, name):
    result = Trainer(small(name, out=str(tmp_path / "run"))).fit(progress=False)
    losses, (width, height) = PRESETS[name]
    for row in result.metrics:
        assert row.keys() >= {"d_loss", "g_loss", "d_accuracy", *losses}
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    assert len({row["d_loss"] for row in result.metrics}) == 2
    with Image.open(tmp_path / "run/samples/step_000002.png") as grid:
        assert grid.size == (2 * (width + 2) + 2, 2 * (height + 2) + 2)


@EVERY
def test_converted_training_is_stock_training(small, name):
    stock, converted = (
        losses_of(Trainer(small(name, convert=convert)).fit(progress=False)) for convert in (False, True)
    )
    torch.testing.assert_close(torch.tensor(converted), torch.tensor(stock), rtol=1e-3, atol=1e-4)


@EVERY
def test_resume_is_bit_identical(small, tmp_path, name):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(small(name, out=str(whole), steps=4)).fit(progress=False)
    Trainer(small(name, out=str(parts), steps=2)).fit(progress=False)
    torch.manual_seed(99)
    Trainer.resume(parts, steps=4).fit(progress=False)
    states = [checkpoint.load_checkpoint(root / "checkpoints") for root in (whole, parts)]
    assert states[0]["step"] == 4
    assert same(*states)


@EVERY
def test_preset_trains_in_bfloat16(small, name):
    trainer = Trainer(small(name, dtype="bfloat16"))
    assert all(math.isfinite(row["g_loss"]) for row in trainer.fit(progress=False).metrics)
    assert {parameter.dtype for parameter in trainer.generator.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["srgan", "inpaint", "cyclegan"])
def test_preset_trains_on_two_folders_of_colour(small, tmp_path, name):
    for place in "ab":
        (tmp_path / place).mkdir()
        for index in range(3):
            picture = Image.new("RGB", (40, 40), (index * 90, 200, 30))
            picture.save(tmp_path / place / f"{index}.png")
    data = {"data": f"folder:{tmp_path / 'a'}"}
    if name == "cyclegan":
        data["data_b"] = f"folder:{tmp_path / 'b'}"
    trainer = Trainer(small(name, **data))
    assert trainer.recipe.setup.channels == 3
    assert all(math.isfinite(row["g_loss"]) for row in trainer.fit(progress=False).metrics)


@EVERY
@pytest.mark.parametrize(
    "game",
    [
        {"loss": "relativistic", "norm": "none", "penalty": "r1+r2"},
        {"loss": "wasserstein", "norm": "layer", "penalty": "wgan-gp"},
        {"loss": "hinge", "norm": "none", "spectral_norm": True},
    ],
    ids=lambda game: game["loss"],
)
def test_other_games_can_be_played(small, name, game):
    metrics = Trainer(small(name, **{"spectral_norm": False, **game})).fit(progress=False).metrics
    assert all(math.isfinite(row["d_loss"]) and math.isfinite(row["g_loss"]) for row in metrics)


@EVERY
def test_augmentation_takes_what_the_model_makes(small, name):
    settings = {"augment": "color,translation,cutout", "flip": True, "crop": 2, "ema": 0.5}
    metrics = Trainer(small(name, **settings)).fit(progress=False).metrics
    assert all(math.isfinite(row["d_loss"]) and math.isfinite(row["g_loss"]) for row in metrics)
