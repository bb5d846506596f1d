"""Lives of one training run, each in a process of its own that ends as asked; run as a script by test_kill.py.

The processes are forked from one that has imported all but computed nothing, so that a life costs no start of Python.
"""

import json
import os
import random
import resource
import signal
import sys
import zipfile
from pathlib import Path

import matplotlib.pyplot  # noqa: F401
import tomli_w  # noqa: F401
import torch._dynamo  # noqa: F401
import tqdm  # noqa: F401

import fastgan.train.report  # noqa: F401
from fastgan.__main__ import main
from fastgan.train import checkpoint, cli, trainer  # noqa: F401

STEPS = 40
KILLS = 10
# no step that is saved anyway
ASKED = STEPS - 6


def live(args, prepare):
    """Run a command in a child process; returns its exit code, or minus the signal that killed it, and its stderr."""
    # a pipe, since a limit of the size of files would hold for a file, too
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(writing, 2)
        os.close(writing)
        prepare()
        os._exit(main(args))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def at_event(number):
    """Die at a call or return, of Python or C, so many after the first step of this life began."""

    def prepare():
        step, left = trainer.Trainer.train_step, [number]

        def count(*_):
            left[0] -= 1
            if not left[0]:
                die()

        def counted(self):
            trainer.Trainer.train_step = step
            sys.setprofile(count)
            return step(self)

        trainer.Trainer.train_step = counted

    return prepare


def at_call(owner, name, number, before=lambda *args: None):
    """Die at a function's call of this number."""

    def prepare():
        function, left = getattr(owner, name), [number]

        def counted(*args, **settings):
            left[0] -= 1
            if not left[0]:
                before(*args)
                die()
            return function(*args, **settings)

        setattr(owner, name, counted)

    return prepare


def halve(descriptor):
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)


def moments(seed):
    """Ten ends: four while a checkpoint is written, moved or others are removed, the rest anywhere."""
    draw = random.Random(seed)
    writing = [
        at_call(checkpoint.os, "fsync", 2),
        at_call(checkpoint.os, "fsync", 1, halve),
        at_call(checkpoint.os, "replace", draw.randrange(4, 9)),
        at_call(checkpoint.Path, "unlink", draw.randrange(4, 9)),
    ]
    anywhere = [at_event(draw.randrange(2_000, 160_000)) for _ in range(KILLS - len(writing))]
    ends = writing + anywhere
    draw.shuffle(ends)
    return ends


def terminate_at(step):
    def prepare():
        train_step = trainer.Trainer.train_step

        def asked(self):
            if self.step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return train_step(self)

        trainer.Trainer.train_step = asked

    return prepare


def limit_files(size):
    # Python ignores SIGXFSZ, which leaves an OSError as on a full disk
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def whole(run):
    """Steps of a run's checkpoints; each must be a whole archive."""
    steps = checkpoint.checkpoint_steps(run / "checkpoints")
    for step in steps:
        with zipfile.ZipFile(checkpoint.checkpoint_path(run / "checkpoints", step)) as archive:
            assert archive.testzip() is None
    return steps


def chain(directory, start, seed):
    """Start a run, kill it ten times, ask it once to stop, and let it end."""
    run, found = directory / "killed", []
    for end in moments(seed):
        args = ["train", "--resume", str(run)] if (run / "config.toml").exists() else [*start, "--out", str(run)]
        code, said = live(args, end)
        found.append({"code": code, "said": said, "steps": whole(run)})
    ask = terminate_at(ASKED)
    for prepare in (ask, lambda: None):
        code, said = live(["train", "--resume", str(run)], prepare)
        found.append({"code": code, "said": said, "steps": whole(run)})
    return found


def full_disk(directory, start):
    """Let a run of four steps go on where files may not grow: first none, then no checkpoint, then all."""
    run, found = directory / "full", []
    live([*start, "--out", str(run), "--steps", "4"], lambda: None)
    size = checkpoint.checkpoint_path(run / "checkpoints", 4).stat().st_size
    go_on = ["train", "--resume", str(run), "--steps", "8"]
    for prepare in (limit_files(100), limit_files(size // 2), lambda: None):
        code, said = live(go_on, prepare)
        left = [str(path) for path in run.rglob("*.tmp")]
        found.append({"code": code, "said": said, "steps": whole(run), "left": left})
    return found


if __name__ == "__main__":
    directory, data, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    small = {
        "features": 4,
        "latent_dim": 8,
        "sample_count": 4,
        "log_every": 1,
        "sample_every": 2,
        "checkpoint_every": 2,
    }
    start = ["train", "--data", f"idx:{data}", "--batch-size", "4", "--device", "cpu", "--steps", str(STEPS)]
    start += [part for name, value in small.items() for part in ("--set", f"{name}={value}")]
    results = {"killed": chain(directory, start, seed), "full": full_disk(directory, start)}
    results["uninterrupted"] = live([*start, "--out", str(directory / "uninterrupted")], lambda: None)[0]
    (directory / "results.json").write_text(json.dumps(results))
