"""What the user can get wrong: each time one sentence, exit code 2, and nothing lost or changed in the directory."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastgan.__main__ import main
from fastgan.train import TrainConfig, Trainer

from .commands import check_refused
from .damage import NEWEST, change, colour, copy, displace, locked, pictures, remove, replace, saved, truncate, write

GO_ON = "train --resume run --steps 9"


def nothing(here: Path) -> Any:
    """The directory as it is: a finished run of the dcgan, one each of two other presets, and three data sets."""


class Case(NamedTuple):
    command: str
    sentence: str
    prepare: Callable[[Path], Any] = nothing


SETTINGS = [
    Case("--preset dcgam", rf"unknown preset 'dcgam', the known ones are: {', '.join(TrainConfig.preset_names())}$"),
    Case("--preset ../presets/dcgan", "unknown preset '../presets/dcgan'"),
    Case("--nonsense", "unrecognized arguments: --nonsense"),
    Case("--out ''", "--out must name a directory"),
    Case("--steps 0", "steps must be at least 1, got 0"),
    Case("--steps -3", "steps must be at least 1, got -3"),
    Case("--steps many", "--steps: invalid int value: 'many'"),
    Case("--batch-size 0", "batch_size must be at least 1, got 0"),
    Case("--image-size 48", "image_size must be one of 32, 64, 128 for model dcgan, got 48"),
    Case("--seed -1", r"seed must be at least 0 and below 2\^32, got -1"),
    Case("--seed 4294967296", r"seed must be at least 0 and below 2\^32, got 4294967296"),
    Case("--device tpu", "device must be one of auto, cpu, cuda, got 'tpu'"),
    Case("--dtype float64", "dtype must be one of float32, bfloat16, float16, got 'float64'"),
    Case("--dtype float16 --device cpu", "dtype float16 needs a CUDA device"),
    Case("--set steps", "--set must be NAME=VALUE, got 'steps'"),
    Case("--set =3", "--set must be NAME=VALUE, got '=3'"),
    Case("--set stepz=3", "--set knows no setting 'stepz'"),
    Case("--set options=3", "--set knows no setting 'options'"),
    Case("--set option.x=3", "--set knows options.NAME=VALUE, got 'option.x=3'"),
    Case("--set options.=3", "--set knows options.NAME=VALUE, got 'options.=3'"),
    Case("--set steps=1.5", "steps must be an integer, got 1.5"),
    Case("--set steps=true", "steps must be an integer, got True"),
    Case("--set flip=yes", "flip must be a bool, got 'yes'"),
    Case("--set g_lr=fast", "g_lr must be a float, got 'fast'"),
    Case("--set g_lr=nan", "g_lr must be above 0, got nan"),
    Case("--set model=vae", "model must be one of .*dcgan.*, got 'vae'"),
    Case("--set loss=bce", "loss must be one of non-saturating, .*, got 'bce'"),
    Case("--set penalty=r1", "norm must be none or layer with a penalty, which is per sample, got 'batch'"),
    Case("--set augment=blur", "augment must be a comma-separated list of color, translation, cutout, got 'blur'"),
    Case("--set label_smoothing=0.5", "label_smoothing must be at least 0 and below 0.5, got 0.5"),
    Case("--set crop=16", "crop must be below half of image_size, got 16"),
    Case("--set ema=1", "ema must be at least 0 and below 1, got 1.0"),
    Case("--set truncation=-1", "truncation must be at least 0 and finite, got -1.0"),
    Case("--set truncation=1e-9", "truncation must be 0 or at least 0.01, got 1e-09"),
    Case("--set lr_schedule=linear", r"lr_decay_end must be above lr_decay_start \(0\), got 0"),
    Case("--set score_count=3", "score_count must be at least 4, got 3"),
    Case("--set data_b=digits", "data_b must be empty for model dcgan, which takes one data set, got 'digits'"),
    Case("--set options.depth=3", "model dcgan has no option 'depth', it has none"),
    Case("--preset cyclegan --set data_b=", "data_b must be a data set for model cyclegan, which needs two, got ''"),
    Case("--preset gan --set options.depth=3", "model mlp has no option 'depth', its options are: dropout"),
    Case("--preset gan --set options.dropout=half", "options.dropout must be a float, got 'half'"),
    Case("--preset gan --set options.dropout=1", "dropout must be at least 0 and below 1, got 1$"),
    Case("--preset videogan --set options.frames=7", "frames must be a multiple of 8 for model videogan, got 7"),
    Case("--preset videogan --set options.frames=8.0", "options.frames must be an integer, got 8.0"),
    Case("--preset srgan --set options.scale=true", "options.scale must be an integer, got True"),
    Case("--preset cgan --set options.conditioning=sum", "conditioning must be concat or projection, got 'sum'"),
]
DATA = [
    Case("--data mnist", r"unknown data set 'mnist', the known ones are: mnist5k\[:CLASSES\], emoji"),
    Case("--data folder:", "unknown data set 'folder:'"),
    Case("--data folder:nowhere", "there is no directory nowhere"),
    Case("--data idx:nowhere", "there is no directory nowhere"),
    Case("--data folder:run/checkpoints", "run/checkpoints holds no images"),
    Case("--data idx:run/checkpoints", "run/checkpoints holds no IDX image file"),
    Case("--data mnist5k:12", "classes of mnist5k must be among 0, .*, 9, got 12"),
    Case("--data folder:bad", r"none of the 1 images in bad can be read, the first is bad/a\.png"),
    Case("--data idx:data", "train-images-idx3-ubyte", truncate("data/train-images-idx3-ubyte", 0.5)),
    Case("--data idx:data", "train-labels-idx1-ubyte", lambda here: pictures(here / "data", labels=11)),
    Case("--data moving-digits", "data must be images for this model, .*; moving-digits has clips"),
    Case("--preset videogan --data idx:data", "data must be clips for this model, .*; idx:data has images"),
    Case("--preset cgan --data folder:colour", "data must have labels for model cgan, and folder:colour has none"),
    Case(
        "--preset cyclegan --data idx:data --set data_b=folder:colour",
        "data and data_b must have as many colour channels, got 1 and 3",
    ),
]
DIRECTORIES = [
    Case("--out run", r"run holds another run, go on with it \(fastgan train --resume run\) or choose another"),
    Case("--out bad", "bad is not empty, choose another directory"),
    Case("--out bad/a.png", r"a\.png is a file, not a directory"),
    Case("--out bad/a.png/deep", r"a\.png is a file, not a directory"),
    Case("--out run", "run is in use by another run", locked),
    Case("--resume nowhere", "nowhere holds no run to go on with"),
    Case("--resume ''", "--resume must name a directory"),
    Case("--resume bad/a.png", r"bad/a\.png holds no run to go on with"),
    Case("--resume run", "run has done 4 steps already, ask for more with --steps"),
    Case("--resume run --steps 9", "run is in use by another run", locked),
    *(
        Case(f"--resume run --steps 9 {option} {value}", f"{option.replace('no-', '')} cannot be changed with --resume")
        for option, value in {
            "--preset": "dcgan",
            "--data": "idx:data",
            "--out": "other",
            "--seed": "0",
            "--dtype": "float32",
            "--batch-size": "4",
            "--image-size": "32",
            "--no-convert": "",
            "--set": "g_lr=0.1",
        }.items()
    ),
]
RESUMED = [
    Case(GO_ON, "run holds no run to go on with", remove("run/config.toml")),
    Case(GO_ON, r"config\.toml is not valid TOML", write("run/config.toml", "steps = = 3")),
    Case(GO_ON, r"config\.toml is not valid TOML", write("run/config.toml", b"\xff\x00\x00")),
    Case(GO_ON, "settings that fastgan does not know: stepz", write("run/config.toml", "stepz = 3")),
    Case(
        GO_ON,
        "batch_size must be an integer, got 'x'",
        replace("run/config.toml", "batch_size = 4", 'batch_size = "x"'),
    ),
    Case(GO_ON, r"steps must be at least 1, got -1", write("run/config.toml", "d_steps = -1")),
    Case(GO_ON, r"run/config\.toml cannot be used: Is a directory", displace("run/config.toml")),
    Case(GO_ON, r"run/\.lock cannot be used: Is a directory", displace("run/.lock")),
    Case(GO_ON, "there is no directory data", remove("data")),
    Case(
        GO_ON,
        "the data set has 11 images now, the run was started with 12",
        lambda here: pictures(here / "data", count=11, labels=11),
    ),
    Case(GO_ON, "is of another run: its channels is 1, not 3", colour),
    Case(GO_ON, "is of another run: its classes is 3, not 0", remove("data/train-labels-idx1-ubyte")),
    Case(
        GO_ON, "is of another run: its features is 4, not 8", replace("run/config.toml", "features = 4", "features = 8")
    ),
    Case(GO_ON, "is of another run: its latent_dim is 8, not 9", replace("run/config.toml", "dim = 8", "dim = 9")),
    Case(GO_ON, "its loss is 'least-squares', not 'non-saturating'", copy("lsgan/checkpoints/step_000004.pt", NEWEST)),
    Case(GO_ON, "is of another run: its model is 'mlp', not 'dcgan'", copy("gan/checkpoints/step_000004.pt", NEWEST)),
    Case(GO_ON, r"step_000004\.pt cannot be read, remove it to go on from step 2", truncate(NEWEST, 0.5)),
    Case(GO_ON, r"step_000004\.pt cannot be read, remove it to go on from step 2", truncate(NEWEST, 0.99)),
    Case(GO_ON, r"step_000004\.pt cannot be read, remove it to go on from step 2", truncate(NEWEST, 0)),
    Case(GO_ON, r"step_000004\.pt cannot be read, remove it to go on from step 2", write(NEWEST, "not a checkpoint")),
    Case(GO_ON, r"step_000004\.pt is no checkpoint of this version of fastgan", saved([1, 2])),
    Case(GO_ON, r"step_000004\.pt is no checkpoint of this version of fastgan", saved({"step": 4})),
    Case(GO_ON, r"step_000004\.pt is no checkpoint of this version of fastgan", change(format="one")),
    Case(GO_ON, r"step_000004\.pt is of fastgan 9\.0, newer than this one", change(format=99, fastgan="9.0")),
    Case(GO_ON, "checkpoint in run/checkpoints does not fit", change(generator={})),
    Case(GO_ON, "checkpoint in run/checkpoints does not fit", change(g_optimizer={"state": {}, "param_groups": []})),
    Case(GO_ON, r"metrics\.jsonl must have a JSON object with a step", write("run/metrics.jsonl", "\0\0\0\n")),
    Case(GO_ON, r"metrics\.jsonl must have a JSON object with a step", write("run/metrics.jsonl", '{"d_loss": 1}\n')),
]
LOOKED_AT = [
    Case("presets dcgam", "unknown preset 'dcgam'"),
    Case("sample nowhere", r"nowhere holds no run: there is no config\.toml in it"),
    Case("sample bad/a.png", r"bad/a\.png holds no run"),
    Case("sample run --n 0", "--n must be at least 1, got 0"),
    Case("sample run --out grid.jpg", r"--out must be a \.png file, got grid\.jpg"),
    Case("sample run --out absent/grid.png", r"there is no directory absent to write grid\.png to"),
    Case("sample run --out is.png", r"--out must be a \.png file, got is\.png", lambda here: (here / "is.png").mkdir()),
    Case("sample run --seed -1", "--seed must be at least 0"),
    Case("sample run --step 3", "run/checkpoints holds no checkpoint of step 3, those of 0, 2, 4 are there"),
    Case("sample run --step first", "--step must be a number, best or last, got 'first'"),
    Case("sample run --step -1", "--step must be a number, best or last, got '-1'"),
    Case("sample run --step best", "run has no best step"),
    Case("sample run --step best", r"scores\.jsonl must have a JSON object", write("run/scores.jsonl", "half\n")),
    Case("sample run --truncation -1", "--truncation must be 0 or at least 0.01, got -1.0"),
    Case("sample run --truncation nan", "--truncation must be 0 or at least 0.01, got nan"),
    Case("sample run --truncation few", "--truncation: invalid float value: 'few'"),
    Case("sample run", "holds no checkpoint", remove("run/checkpoints")),
    Case("sample run", r"step_000004\.pt cannot be read", truncate(NEWEST, 0.5)),
    Case("sample run", r"step_000004\.pt is no checkpoint of this version of fastgan", saved({"format": 1})),
    Case("sample run", r"step_000004\.pt is of fastgan 9\.0, newer than this one", change(format=2, fastgan="9.0")),
    Case("sample run", "is not the dcgan of its config", copy("gan/checkpoints/step_000004.pt", NEWEST)),
    Case("evaluate nowhere", "nowhere holds no run"),
    Case("evaluate run --n 3", "--n must be at least 4, got 3"),
    Case("evaluate run --step 7", "holds no checkpoint of step 7"),
    Case("evaluate run --n 4", "there is no directory data", remove("data")),
    Case("report nowhere", "nowhere holds no run"),
]
CASES = [Case(f"train {case.command}", *case[1:]) for case in SETTINGS + DATA + DIRECTORIES] + RESUMED + LOOKED_AT


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    before = Path.cwd()
    os.chdir(root)
    try:
        pictures(root / "data")
        pictures(root / "colour", mode="RGB")
        (root / "bad").mkdir()
        (root / "bad/a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        small = {"features": 4, "latent_dim": 8, "batch_size": 4, "steps": 4, "sample_count": 4, "image_size": 32}
        often = {"log_every": 1, "sample_every": 2, "checkpoint_every": 2, "device": "cpu", "data": "idx:data"}
        for name, preset in {"run": "dcgan", "lsgan": "lsgan", "gan": "gan"}.items():
            Trainer(TrainConfig.preset(preset, out=name, **small, **often)).fit(progress=False)
    finally:
        os.chdir(before)
    return root


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.command}-{case.sentence[:24]}")
def test_refused_in_one_sentence(here, original, capsys, case):
    shutil.copytree(original, here, dirs_exist_ok=True)
    held = case.prepare(here)
    check_refused(capsys, here, case.sentence, *shlex.split(case.command))
    del held


def test_there_are_enough_cases():
    assert len(CASES) >= 40
    assert len(set(CASES)) == len(CASES)


def test_what_the_cases_start_from_is_in_order(here, original):
    shutil.copytree(original, here, dirs_exist_ok=True)
    assert main(shlex.split(GO_ON)) == 0
    steps = [json.loads(line)["step"] for line in (here / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 10))
    assert main(["sample", "run", "--n", "2"]) == 0
