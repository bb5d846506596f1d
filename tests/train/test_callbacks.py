"""Callbacks are told of everything in its turn; what they raise ends the training; models of one's own."""

import pytest
from torch import nn

from fastgan.models import MODELS, Recipe, dcgan
from fastgan.train import BadInput, TrainConfig, Trainer, checkpoint
from fastgan.train.callbacks import Callback
from fastgan.train.run_dir import RunDir
from fastgan.train.sampling import load_generator

HOOKS = ("started", "logged", "sampled", "saved", "ended")


class Witness(Callback):
    """Writes down what it is told, and raises at one of it."""

    def __init__(self, raises_at=""):
        self.told, self.raises_at = [], raises_at

    def note(self, what, step, detail=None):
        self.told.append((what, step, detail) if detail is not None else (what, step))
        if what == self.raises_at:
            raise RuntimeError(f"a callback failed when {what}")

    def started(self, trainer):
        assert trainer.run.config.exists()
        self.note("started", trainer.step)

    def logged(self, trainer, row):
        self.note("logged", trainer.step, row["step"])

    def sampled(self, trainer, path):
        assert path.exists()
        self.note("sampled", trainer.step, path.name)

    def saved(self, trainer, path):
        assert path.exists()
        self.note("saved", trainer.step, path.name)

    def ended(self, trainer, result):
        self.note("ended", trainer.step, result.step)


def told_of(first, last):
    """What is told of the steps between, with samples and checkpoint at every other."""
    for step in range(first, last + 1):
        yield "logged", step, step
        if step % 2 == 0:
            yield "sampled", step, f"step_{step:06d}.png"
            yield "saved", step, f"step_{step:06d}.pt"


def test_callbacks_are_told_in_turn(tiny, tmp_path):
    witnesses = [Witness(), Witness()]
    Trainer(tiny(out=str(tmp_path / "run")), callbacks=witnesses).fit(progress=False)
    begin = [("sampled", 0, "step_000000.png"), ("saved", 0, "step_000000.pt")]
    told = witnesses[0].told
    assert told == witnesses[1].told
    assert sorted(told[:3]) == sorted([("started", 0), *begin])
    assert told[3:] == [*told_of(1, 4), ("ended", 4, 4)]


def test_callbacks_of_a_run_that_goes_on(tiny, tmp_path):
    Trainer(tiny(out=str(tmp_path / "run"))).fit(progress=False)
    witness = Witness()
    Trainer.resume(tmp_path / "run", callbacks=[witness], steps=6).fit(progress=False)
    assert witness.told == [("started", 4), *told_of(5, 6), ("ended", 6, 6)]


@pytest.mark.parametrize("hook", HOOKS)
def test_exception_ends_training_and_frees_the_directory(tiny, tmp_path, hook):
    witness = Witness(raises_at=hook)
    with pytest.raises(RuntimeError, match=f"a callback failed when {hook}"):
        Trainer(tiny(out=str(tmp_path / "run")), callbacks=[witness]).fit(progress=False)
    assert witness.told[-1][0] == hook
    assert [entry[0] for entry in witness.told].count(hook) == 1
    run = RunDir(tmp_path / "run")
    run.lock()
    run.unlock()
    assert Trainer.resume(tmp_path / "run", steps=6).fit(progress=False).step == 6


def test_directory_is_free_when_a_run_cannot_begin(tiny, tmp_path):
    Trainer(tiny(out=str(tmp_path / "run"))).fit(progress=False)
    subject = Trainer.resume(tmp_path / "run", steps=6)
    log = (tmp_path / "run/metrics.jsonl").read_text()
    (tmp_path / "run/metrics.jsonl").write_text("damaged\n")
    with pytest.raises(BadInput, match="must have a JSON object"):
        subject.fit(progress=False)
    (tmp_path / "run/metrics.jsonl").write_text(log)
    assert Trainer.resume(tmp_path / "run", steps=6).fit(progress=False).step == 6


class Mine(Recipe):
    """A model of one's own, with an option."""

    name = "mine"

    def __init__(self, setup, slope: float = 0.2):
        super().__init__(setup)
        if slope < 0:
            raise ValueError(f"slope must be at least 0, got {slope}")
        self.slope = slope

    def generator(self):
        setup = self.setup
        return dcgan.Generator(setup.image_size, setup.channels, setup.latent_dim, setup.features)

    def discriminator(self):
        pixels = self.setup.channels * self.setup.image_size**2
        return nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, 4), nn.LeakyReLU(self.slope), nn.Linear(4, 1), nn.Flatten(0)
        )


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.setitem(MODELS, "mine", Mine)


def test_own_model_is_trained_resumed_and_sampled(tiny, tmp_path, mine):
    config = tiny(model="mine", options={"slope": 0.1}, out=str(tmp_path / "run"))
    Trainer(config).fit(progress=False)
    subject = Trainer.resume(tmp_path / "run", steps=6)
    assert (type(subject.recipe), subject.recipe.slope) == (Mine, 0.1)
    assert subject.fit(progress=False).step == 6
    assert type(load_generator(tmp_path / "run").recipe) is Mine
    assert checkpoint.load_checkpoint(tmp_path / "run/checkpoints")["model"] == "mine"


def test_own_options_are_checked(mine):
    with pytest.raises(BadInput, match="model mine has no option 'slop', its options are: slope"):
        TrainConfig(model="mine", options={"slop": 1})
    with pytest.raises(BadInput, match="slope must be at least 0, got -1"):
        TrainConfig(model="mine", options={"slope": -1})
    with pytest.raises(BadInput, match=r"options\.slope must be a float, got 'x'"):
        TrainConfig(model="mine", options={"slope": "x"})
