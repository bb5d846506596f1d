"""The checkpoint with the best score is kept and found; samples of any checkpoint, and of drawn-again latents."""

import json

import pytest
import torch
from PIL import Image

from fastgan.train import Trainer, best, checkpoint
from fastgan.train.sampling import load_generator
from fastgan.train.scores import Kid

from .commands import run


@pytest.fixture
def scored(here, tiny, monkeypatch):
    """Makes a run whose scores are those given, lower being better."""

    def make(kids, **settings):
        left, given = iter(kids), []

        class Given:
            def __init__(self, real, seed, device):
                self.real = real

            def __call__(self, images):
                given.append((self.real, images))
                return Kid(next(left), 0.5)

        monkeypatch.setattr(best, "check_packages", lambda: None)
        monkeypatch.setattr(best, "KidScore", Given)
        often = {"score_every": 1, "checkpoint_every": 100, "score_count": 5, "keep_checkpoints": 1}
        Trainer(tiny(out="run", steps=len(kids), **often, **settings)).fit(progress=False)
        return given

    return make


def test_best_checkpoint_stays(scored, here):
    given = scored([3.0, 1.0, 2.0, 2.5, 1.5])
    assert checkpoint.checkpoint_steps(here / "run/checkpoints") == [0, 2, 5]
    rows = [json.loads(line) for line in (here / "run/scores.jsonl").read_text().splitlines()]
    assert [(row["step"], row["kid"]) for row in rows] == [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, 1.5)]
    assert {(row["kid_std"], row["n"]) for row in rows} == {(0.5, 5)}
    assert {(tuple(real.shape), tuple(images.shape)) for real, images in given} == {((5, 1, 32, 32), (5, 1, 32, 32))}
    assert all(images.dtype == torch.uint8 for _, images in given)
    # the same real images and latents each time, another generator
    assert all(torch.equal(real, given[0][0]) for real, _ in given)
    assert not torch.equal(given[0][1], given[-1][1])


def test_best_of_a_run_that_goes_on(scored, here, monkeypatch):
    scored([3.0, 1.0, 2.0])
    monkeypatch.setattr(best.KidScore, "__call__", lambda self, images: Kid(0.5, 0.1))
    Trainer.resume("run", steps=5).fit(progress=False)
    assert checkpoint.checkpoint_steps(here / "run/checkpoints") == [0, 4, 5]
    assert best.best_step(Trainer.resume("run", steps=6).run) == 4


def test_scoring_changes_no_training(scored, tiny, here):
    scored([3.0, 1.0, 2.0])
    plain = Trainer(tiny(steps=3))
    plain.fit(progress=False)
    trained = load_generator("run").generator.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in plain.generator.state_dict().items())


@pytest.mark.parametrize(("asked", "step"), [("best", 2), ("last", 5), ("0", 0), (None, 5)])
def test_sample_of_a_checkpoint(scored, here, capsys, asked, step):
    scored([3.0, 1.0, 2.0, 2.5, 1.5], g_lr=0.05)
    assert run("sample", "run", "--n", 4, *(["--step", asked] if asked else [])) == 0
    assert f"4 images of step {step} in grid.png" in capsys.readouterr().out
    shown = (here / "grid.png").read_bytes()
    pictures = {}
    for other in (0, 2, 5):
        run("sample", "run", "--n", 4, "--step", other)
        pictures[other] = (here / "grid.png").read_bytes()
    assert len(set(pictures.values())) == 3
    assert shown == pictures[step]


def test_truncated_samples_are_other_ones(here, tiny, monkeypatch):
    Trainer(tiny(out="run")).fit(progress=False)
    seen = []
    recipe = type(load_generator("run").recipe)
    samples = recipe.samples
    monkeypatch.setattr(recipe, "samples", lambda *args: seen.append(samples(*args)[0]) or (seen[-1],))
    for truncation in (0, 0.5):
        assert run("sample", "run", "--n", 4, "--truncation", truncation) == 0
    assert seen[0].abs().max() > 1
    assert seen[1].abs().max() <= 0.5
    inside = seen[0].abs() <= 0.5
    # only those beyond it are drawn again
    assert torch.equal(seen[0][inside], seen[1][inside])
    assert Image.open("grid.png").size == (2 * 34 + 2, 2 * 34 + 2)


def test_setting_truncates_the_grids_of_a_run(tiny):
    assert Trainer(tiny(truncation=0.5)).fixed[0].abs().max() <= 0.5
    assert Trainer(tiny()).fixed[0].abs().max() > 1
