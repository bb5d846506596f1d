"""Checkpoints are whole or not there, old ones go; generators come back from them; grids of images as PNG."""

import os

import pytest
import torch
from PIL import Image

from fastgan.models import dcgan
from fastgan.train import BadInput, Trainer, checkpoint
from fastgan.train.images import make_grid, save_png, to_uint8
from fastgan.train.sampling import generate, load_generator

from .runs import same


def test_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    state = {"step": 1, "format": 1, "generator": {}, "channels": 1, "classes": 0}
    checkpoint.save_checkpoint(tmp_path, 1, state, keep=2)

    def half(descriptor):
        os.ftruncate(descriptor, 100)
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", half)
    for step in (1, 2):
        with pytest.raises(OSError, match="no space left"):
            checkpoint.save_checkpoint(tmp_path, step, {"step": 0}, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001.pt"]
    assert checkpoint.load_checkpoint(tmp_path) == state


@pytest.mark.parametrize(("keep", "left"), [(1, [0, 4]), (2, [0, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_old_checkpoints_go(tmp_path, keep, left):
    for step in range(5):
        checkpoint.save_checkpoint(tmp_path, step, {}, keep)
    assert checkpoint.checkpoint_steps(tmp_path) == left


def test_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "step_000001.pt").write_bytes(b"half")
    with pytest.raises(BadInput, match=r"step_000001\.pt cannot be read"):
        checkpoint.load_checkpoint(tmp_path)


def test_generate_leaves_the_model_as_it_was(tiny):
    model = dcgan.Generator(32, 1, 8, 4)
    model.main[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    images = generate(model, (torch.randn(5, 8, 1, 1),))
    assert images.shape == (5, 1, 32, 32)
    assert same(dict(model.state_dict()), before)
    assert [module.training for module in model.modules()] == flags


def test_load_generator_gives_the_trained_weights(tiny, tmp_path):
    subject = Trainer(tiny(out=str(tmp_path / "run")))
    subject.fit(progress=False)
    model, recipe, config, step = load_generator(tmp_path / "run")
    assert step == 4
    assert config == subject.config
    assert (type(recipe), recipe.setup) == (type(subject.recipe), subject.recipe.setup)
    assert not any(module.training for module in model.modules())
    assert same(dict(model.state_dict()), dict(subject.generator.state_dict()))
    first = load_generator(tmp_path / "run", 0)
    assert first.step == 0
    assert not same(dict(model.state_dict()), dict(first.generator.state_dict()))


def test_grid_places_images_in_rows():
    images = torch.arange(5).reshape(5, 1, 1, 1).expand(5, 3, 2, 2) / 2.5 - 1
    grid = make_grid(images, columns=3, padding=1)
    assert grid.shape == (3, 7, 10)
    assert grid[0, 1::3, 1::3].tolist() == [[0, 51, 102], [153, 204, 255]]
    assert (grid[:, 0] == 255).all()


def test_png_round_trip(tmp_path):
    image = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    save_png(image, tmp_path / "a.png")
    read = Image.open(tmp_path / "a.png")
    assert read.size == (5, 4)
    assert torch.frombuffer(bytearray(read.tobytes()), dtype=torch.uint8).reshape(4, 5, 3).permute(2, 0, 1).equal(image)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_to_uint8_rounds_and_clamps():
    assert to_uint8(torch.tensor([-2.0, -1, 0.001, 1, 2])).tolist() == [0, 0, 128, 255, 255]


def test_png_that_cannot_be_put_in_its_place_leaves_nothing(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        save_png(torch.zeros(3, 4, 5, dtype=torch.uint8), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
