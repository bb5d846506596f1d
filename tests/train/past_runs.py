"""Directories as runs leave them, without the training."""

import torch

from fastgan.train import TrainConfig
from fastgan.train.images import save_png
from fastgan.train.run_dir import RunDir


def make_run(root, rows=(), grids=(), side=20, channels=1, **settings):
    """A run with rows of metrics and random grids of the given steps."""
    run = RunDir(root)
    run.create(TrainConfig(**{"image_size": 32, "steps": 100, **settings}))
    run.unlock()
    for row in rows:
        run.append(run.metrics, row)
    for step in grids:
        add_grid(run, step, side, channels)
    return run


def add_grid(run, step, side=20, channels=1):
    pixels = torch.randint(
        256, (channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(step)
    )
    save_png(pixels, run.samples / f"step_{step:06d}.png")
