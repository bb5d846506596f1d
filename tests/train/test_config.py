"""The settings: what is refused, and with which sentence."""

import re

import pytest

from fastgan.train import BadInput, TrainConfig
from fastgan.train.config import PRESETS, parse_settings

from .commands import run

WRONG = [
    ({"loss": "bce"}, "loss must be one of non-saturating, minimax, least-squares, hinge, wasserstein, relativistic"),
    ({"norm": "instance"}, "norm must be one of batch, none, layer, got 'instance'"),
    ({"penalty": "gp"}, "penalty must be one of none, wgan-gp, wgan-lp, dragan, r1, r2, r1+r2, got 'gp'"),
    ({"optimizer": "sgd"}, "optimizer must be one of adam, rmsprop, got 'sgd'"),
    ({"d_steps": 0}, "d_steps must be at least 1, got 0"),
    ({"d_steps": 1.5}, "d_steps must be an integer, got 1.5"),
    ({"penalty_every": 0}, "penalty_every must be at least 1, got 0"),
    ({"penalty_weight": -1}, "penalty_weight must be at least 0 and finite, got -1.0"),
    ({"penalty_weight": float("inf")}, "penalty_weight must be at least 0 and finite, got inf"),
    ({"penalty_weight": float("nan")}, "penalty_weight must be at least 0 and finite, got nan"),
    ({"penalty_weight": "10"}, "penalty_weight must be a float, got '10'"),
    ({"clip": -0.01}, "clip must be at least 0 and finite, got -0.01"),
    ({"spectral_norm": 1}, "spectral_norm must be a bool, got 1"),
]
PENALISED = {"penalty": "r1", "norm": "none"}
SPECTRAL = {"spectral_norm": True, "norm": "none"}
UNFIT = [
    ({"penalty": "wgan-gp"}, "norm must be none or layer with a penalty, which is per sample, got 'batch'"),
    ({"spectral_norm": True}, "norm must be none with spectral_norm, which any norm undoes, got 'batch'"),
    ({**SPECTRAL, "norm": "layer"}, "norm must be none with spectral_norm, which any norm undoes, got 'layer'"),
    ({**PENALISED, "clip": 0.01}, "clip must be 0 with a penalty, which takes its place, got 0.01"),
    ({**SPECTRAL, "clip": 0.01}, "clip must be 0 with spectral_norm, which takes its place, got 0.01"),
    ({"loss": "wasserstein"}, "loss wasserstein needs a penalty, spectral_norm or clip, without which it has no bound"),
]
FIT = [
    {**PENALISED, "norm": "layer"},
    {**PENALISED, **SPECTRAL, "loss": "wasserstein"},
    {"loss": "wasserstein", "clip": 0.01},
    {**SPECTRAL, "loss": "wasserstein"},
    {**PENALISED, "penalty": "r1+r2", "penalty_weight": 0, "loss": "relativistic"},
]


@pytest.mark.parametrize(("settings", "sentence"), WRONG + UNFIT, ids=str)
def test_refused(settings, sentence):
    with pytest.raises(BadInput, match=re.escape(sentence)) as refused:
        TrainConfig(**settings)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("settings", FIT, ids=str)
def test_taken(settings):
    assert TrainConfig(**settings).replace(steps=3).steps == 3


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_presets_come_back_from_their_file(path, tmp_path):
    config = TrainConfig.preset(path.stem)
    assert config.name == path.stem
    config.write(tmp_path / "config.toml")
    assert TrainConfig.read(tmp_path / "config.toml") == config


def test_presets_are_the_recipes_of_their_papers():
    names = ("dcgan", "wgan", "wgan-gp", "sngan", "r3gan-loss")
    dcgan, wgan, wgan_gp, sngan, r3gan = configs = [TrainConfig.preset(name) for name in names]
    assert {(config.image_size, config.features, config.batch_size) for config in configs} == {(32, 32, 64)}
    assert (dcgan.loss, dcgan.norm, dcgan.penalty, dcgan.d_steps) == ("non-saturating", "batch", "none", 1)
    assert (wgan.loss, wgan.clip, wgan.optimizer, wgan.d_steps) == ("wasserstein", 0.01, "rmsprop", 5)
    assert (wgan_gp.loss, wgan_gp.penalty, wgan_gp.penalty_weight) == ("wasserstein", "wgan-gp", 10)
    assert (wgan_gp.norm, wgan_gp.beta1, wgan_gp.beta2) == ("none", 0, 0.9)
    assert (sngan.loss, sngan.spectral_norm, sngan.norm) == ("hinge", True, "none")
    assert (r3gan.loss, r3gan.penalty, r3gan.norm) == ("relativistic", "r1+r2", "none")


@pytest.mark.parametrize(
    ("assignments", "settings"),
    [
        (["steps=30", "g_lr=1e-3", "ema=0.5"], {"steps": 30, "g_lr": 1e-3, "ema": 0.5}),
        (["flip=true", "convert=false"], {"flip": True, "convert": False}),
        (["data=mnist5k", 'data_b="emoji"'], {"data": "mnist5k", "data_b": "emoji"}),
        (["data=folder:a=b"], {"data": "folder:a=b"}),
        (["data=mnist5k:3", "augment=color,cutout"], {"data": "mnist5k:3", "augment": "color,cutout"}),
        (["data_b="], {"data_b": ""}),
        (["steps=3", "steps=4"], {"steps": 4}),
        (["options.frames=16", "options.kind=concat"], {"options": {"frames": 16, "kind": "concat"}}),
        ([], {}),
    ],
    ids=str,
)
def test_assignments_are_read(assignments, settings):
    found = parse_settings(assignments)
    assert found == settings
    assert [type(value) for value in found.values()] == [type(value) for value in settings.values()]


WRONG_ASSIGNMENTS = [
    ("steps", "--set must be NAME=VALUE, got 'steps'"),
    ("stepz=3", "--set knows no setting 'stepz'"),
    ("options=3", "--set knows no setting 'options'"),
    ("data.x=3", "--set knows options.NAME=VALUE, got 'data.x=3'"),
]


@pytest.mark.parametrize(("assignment", "sentence"), WRONG_ASSIGNMENTS)
def test_assignments_that_are_refused(assignment, sentence):
    with pytest.raises(BadInput, match=re.escape(sentence)):
        parse_settings(["seed=1", assignment])


def test_options_are_overridden_one_by_one():
    config = TrainConfig.preset("srgan", options={"content_weight": 3.0})
    assert config.options == {**TrainConfig.preset("srgan").options, "content_weight": 3.0}
    assert config.options["scale"] == 4


def test_presets_command_lists_every_file(capsys):
    assert run("presets") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in PRESETS.glob("*.toml"))
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("name", TrainConfig.preset_names())
def test_printed_preset_can_be_read(name, capsys, tmp_path):
    assert run("presets", name) == 0
    (tmp_path / "printed.toml").write_text(capsys.readouterr().out)
    assert TrainConfig.read(tmp_path / "printed.toml") == TrainConfig.preset(name)
