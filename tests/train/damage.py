"""What can happen to the files of a run and its data; each function gives one that does it in a directory."""

import io
import os
import shutil
import struct

import numpy as np
import torch
from PIL import Image

from fastgan.train.run_dir import RunDir

from .conftest import idx_bytes

NEWEST = "run/checkpoints/step_000004.pt"


def write(path, content):
    return lambda here: (here / path).write_bytes(content if isinstance(content, bytes) else content.encode())


def remove(path):
    return lambda here: shutil.rmtree(here / path) if (here / path).is_dir() else (here / path).unlink()


def displace(path):
    """A directory in the place of a file."""

    def prepare(here):
        (here / path).unlink()
        (here / path).mkdir()

    return prepare


def replace(path, old, new):
    def prepare(here):
        text = (here / path).read_text()
        assert old in text
        (here / path).write_text(text.replace(old, new))

    return prepare


def copy(source, target):
    return lambda here: shutil.copy(here / source, here / target)


def truncate(path, share):
    return lambda here: os.truncate(here / path, int((here / path).stat().st_size * share))


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return write(NEWEST, file.getvalue())


def change(**entries):
    def prepare(here):
        state = torch.load(here / NEWEST, weights_only=True)
        torch.save({**state, **entries}, here / NEWEST)

    return prepare


def pictures(directory, count=12, side=28, labels=12, mode="L"):
    """Labelled IDX images, or with mode RGB a folder of pictures."""
    draw = np.random.default_rng(0)
    directory.mkdir(exist_ok=True)
    if mode == "RGB":
        for index in range(count):
            Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)).save(directory / f"{index}.png")
        return
    images = draw.integers(0, 256, (count, side, side), np.uint8)
    (directory / "train-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (directory / "train-labels-idx1-ubyte").write_bytes(
        struct.pack(">4BI", 0, 0, 8, 1, labels) + bytes(i % 3 for i in range(labels))
    )


def colour(here):
    shutil.rmtree(here / "data")
    pictures(here / "data", mode="RGB")
    replace("run/config.toml", "idx:data", "folder:data")(here)


def locked(here):
    run = RunDir(here / "run")
    run.lock()
    return run
