"""What two processes do one after another, to be compared with one process; functions that a spawned process finds."""

import contextlib
import functools
import io
import os
import signal
import time

import torch

from fastgan.__main__ import main
from fastgan.models import dcgan
from fastgan.train import TrainConfig, Trainer, saving
from fastgan.train.callbacks import Callback

# with learning rates at which the losses move, but rounding is not yet multiplied by a thousand within five steps
GAMES = {
    "dcgan": {},
    "wgan-gp": {"g_lr": 0.001, "d_lr": 0.001},
    "sngan": {"g_lr": 0.004, "d_lr": 0.004},
    "r3gan-loss": {"g_lr": 0.004, "d_lr": 0.004},
    "wgan": {"g_lr": 0.0004, "d_lr": 0.0004, "clip": 0.02},
    "dcgan clipped and averaged": {"clip_grad": 0.1, "ema": 0.5},
    "wgan-gp in turn": {"penalty_every": 3, "d_steps": 1, "g_lr": 0.001, "d_lr": 0.001},
}
GOING_ON = {
    "plain": {},
    "dropout": {"model": "mlp", "norm": "none", "augment": "color,cutout", "instance_noise": 0.1},
}


SIGNALS = {"to the second": (signal.SIGTERM, [1]), "to both": (signal.SIGINT, [0, 1])}


def settings(data, preset="dcgan", **more):
    small = {"image_size": 32, "features": 4, "latent_dim": 8, "batch_size": 8, "steps": 5, "device": "cpu"}
    seldom = {"log_every": 1, "sample_every": 2, "checkpoint_every": 2, "sample_count": 4}
    return TrainConfig.preset(preset, **{"data": data, **small, **seldom, **more})


def outcome(trainer):
    """Rows without the time they took, and the weights that samples are drawn with."""
    rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in trainer.fit(progress=False).metrics]
    return rows, [value.clone() for value in trainer.players.sampler.state_dict().values()]


def play(data, name):
    return outcome(Trainer(settings(data, name.split()[0], **GAMES[name])))


def go_on(data, out, name):
    """A run of 3 steps, gone on with to 5, and the same without a stop: all in these processes."""
    config = settings(data, **GOING_ON[name])
    Trainer(config.replace(steps=3, out=str(out))).fit(progress=False)
    return outcome(Trainer.resume(out, steps=5)), outcome(Trainer(config))


class Full(Callback):
    def logged(self, trainer, row):
        if trainer.step == 2:
            raise OSError(28, "No space left on device", "metrics.jsonl")


class Wrong(Callback):
    def logged(self, trainer, row):
        raise KeyError("no such thing")


def refusals(data, root, rank):
    """What each process says to what cannot be done; some of it is seen by the first alone."""
    fine = settings(data)

    def full_disk():
        before = saving.save_checkpoint
        try:
            saving.save_checkpoint = functools.partial(fail_at, 4, before)
            Trainer(fine.replace(out=str(root / "full"))).fit(progress=False)
        finally:
            saving.save_checkpoint = before

    def taken():
        trainer = Trainer(fine.replace(out=str(root / "taken")))
        if rank == 0:
            (root / "taken").mkdir()
            (root / "taken/file").touch()
        trainer.fit(progress=False)

    cases = {
        "share": lambda: Trainer(fine.replace(batch_size=7)),
        "data": lambda: Trainer(fine.replace(data=f"folder:{root}/nothing")),
        "unconverted": lambda: Trainer(fine.replace(convert=False)),
        "occupied": lambda: Trainer(fine.replace(out=str(root / "occupied"))),
        "taken": taken,
        "locked": lambda: Trainer.resume(root / "locked"),
        "nothing": lambda: Trainer.resume(root / "nothing"),
        "one has no data": lambda: Trainer(fine.replace(data=data if rank == 0 else f"folder:{root}/nothing")),
        "full disk": full_disk,
        "full disk for rows": lambda: Trainer(fine, callbacks=[Full()]).fit(progress=False),
        "wrong callback": lambda: Trainer(fine, callbacks=[Wrong()]).fit(progress=False),
        "diverged": lambda: Trainer(fine.replace(g_lr=1e30, d_lr=1e30)).fit(progress=False),
    }
    return {name: said(case) for name, case in cases.items()}


def fail_at(step, save, directory, at, *more):
    if at == step:
        raise OSError(28, "No space left on device")
    return save(directory, at, *more)


def said(case):
    try:
        case()
    except Exception as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def stopped(data, out, rank, signum, to):
    """Where a run stops whose third step some processes are asked to stop in."""
    trainer = Trainer(settings(data, out=str(out)))
    step = trainer.train_step

    def interrupted():
        if trainer.step == 2 and rank in to:
            os.kill(os.getpid(), signum)
        return step()

    trainer.train_step = interrupted
    result = trainer.fit(progress=False)
    return result.step, result.signum


def commanded(*arguments):
    """Exit code of a command, and what it says on stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as err:
        return main(["train", *map(str, arguments)]), err.getvalue()


def own_networks(data, rank):
    torch.manual_seed(rank)
    sizes = {"image_size": 32, "channels": 1, "features": 4}
    trainer = Trainer(settings(data, ema=0.5), dcgan.Generator(latent_dim=8, **sizes), dcgan.Discriminator(**sizes))
    return [list(model.parameters()) for model in (trainer.generator, trainer.discriminator, trainer.players.ema)]


class SlowScore:
    def __init__(self, config, device):
        pass

    def score(self, trainer):
        time.sleep(1)
        return {"step": trainer.step, "kid": -trainer.step, "kid_std": 0.0, "n": 4}


def scored(data, out):
    before, saving.Best = saving.Best, SlowScore
    try:
        return outcome(Trainer(settings(data, out=str(out), score_every=2, score_count=4)))[0]
    finally:
        saving.Best = before


def work(data, root, rank):
    return {
        "games": {name: play(data, name) for name in GAMES},
        "going on": {name: go_on(data, root / name, name) for name in GOING_ON},
        "two, then one": outcome(Trainer(settings(data, steps=3, out=str(root / "two")))),
        "one, then two": outcome(Trainer.resume(root / "one", steps=5)),
        "refusals": refusals(data, root, rank),
        "signals": {name: stopped(data, root / name, rank, *SIGNALS[name]) for name in SIGNALS},
        "commands": {
            "directory": commanded("--data", data, "--device", "cpu", "--out", root / "occupied"),
            "setting": commanded("--data", data, "--set=d_steps=0"),
        },
        "own networks": own_networks(data, rank),
        "scored": scored(data, root / "scored"),
    }
