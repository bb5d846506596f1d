"""Checkpoints of a run: ``DIR/checkpoints/step_000000.pt``, each complete or not there at all."""

import os
import re
from pathlib import Path
from typing import Any

import torch

from fastgan.train.errors import BadInput

_NAME = re.compile(r"step_(\d+)\.pt")


def checkpoint_path(directory: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return directory / f"step_{step:06d}.pt"


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in a directory, ascending; empty when there is no directory."""
    matches = (_NAME.fullmatch(path.name) for path in directory.glob("step_*.pt"))
    return sorted(int(match[1]) for match in matches if match)


def save_checkpoint(directory: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint beside its place, move it there, then remove all but step 0 and the newest ``keep``."""
    path = checkpoint_path(directory, step)
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    for old in [old for old in checkpoint_steps(directory) if 0 < old < step][: -(keep - 1) or None]:
        checkpoint_path(directory, old).unlink()
    return path


def load_checkpoint(directory: Path, step: int | None = None) -> dict[str, Any]:
    """Read the checkpoint of a step, or the newest; tensors arrive on the CPU. Raises BadInput when it is not there."""
    steps = checkpoint_steps(directory)
    if not steps or (step is not None and step not in steps):
        raise BadInput(f"{directory} holds no checkpoint" + ("" if step is None else f" of step {step}"))
    path = checkpoint_path(directory, steps[-1] if step is None else step)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadInput(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
