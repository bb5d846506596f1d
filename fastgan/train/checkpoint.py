"""Checkpoints of a run: ``DIR/checkpoints/step_000000.pt``, each complete or not there at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import fastgan
from fastgan.train.errors import BadInput, first_line
from fastgan.train.files import replacing, step_file, step_files

if TYPE_CHECKING:
    from fastgan.train.config import TrainConfig
    from fastgan.train.feed import Feed

_FORMAT = 1
_NEEDED = {"format", "step", "generator", "channels", "classes"}
# settings that a checkpoint is bound to
_BOUND = (
    *("model", "options", "image_size", "latent_dim", "features", "norm", "spectral_norm"),
    *("loss", "penalty", "optimizer", "name"),
)


def checkpoint_path(directory: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return step_file(directory, step, ".pt")


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in a directory, ascending; empty when there is no directory."""
    return [step for step, _ in step_files(directory, ".pt")]


def save_checkpoint(directory: Path, step: int, state: dict[str, Any], keep: int, best: int | None = None) -> Path:
    """Write a checkpoint beside its place, move it there, then remove all but the newest ``keep``, step 0 and ``best``.

    Raises: OSError when it cannot be written; then those before it are all there.
    """
    path = checkpoint_path(directory, step)
    # what torch writes to a full disk by itself raises no OSError
    content = io.BytesIO()
    torch.save(state, content)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    for old in [old for old in checkpoint_steps(directory) if 0 < old < step][: -(keep - 1) or None]:
        if old != best:
            checkpoint_path(directory, old).unlink()
    return path


def load_checkpoint(directory: Path, step: int | None = None) -> dict[str, Any]:
    """Read the checkpoint of a step, or the newest; tensors arrive on the CPU.

    Raises: BadInput when it is not there, cannot be read, or is of a newer fastgan.
    """
    steps = checkpoint_steps(directory)
    if not steps or (step is not None and step not in steps):
        there = f", those of {', '.join(map(str, steps))} are there" if steps else ""
        raise BadInput(f"{directory} holds no checkpoint" + ("" if step is None else f" of step {step}") + there)
    path = checkpoint_path(directory, steps[-1] if step is None else step)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadInput(f"{path} cannot be read{_way_back(steps, path)}: {first_line(error)}") from None
    if not isinstance(state, dict) or not state.keys() >= _NEEDED or not isinstance(state["format"], int):
        raise BadInput(f"{path} is no checkpoint of this version of fastgan ({fastgan.__version__})")
    if state["format"] > _FORMAT:
        raise BadInput(f"{path} is of fastgan {state.get('fastgan')}, newer than this one ({fastgan.__version__})")
    return state


def describe(config: TrainConfig, data: Feed) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    bound = {name: getattr(config, name) for name in _BOUND}
    data_facts = {"channels": data.channels, "classes": data.classes}
    return {"format": _FORMAT, "fastgan": fastgan.__version__, **bound, **data_facts}


def check_state(state: dict[str, Any], config: TrainConfig, data: Feed, directory: Path) -> None:
    """Raise BadInput unless a checkpoint is of such a run."""
    for name, wanted in describe(config, data).items():
        if name not in ("format", "fastgan") and state.get(name) != wanted:
            got = state.get(name)
            raise BadInput(f"the checkpoint in {directory} is of another run: its {name} is {got!r}, not {wanted!r}")


@contextmanager
def fitting(directory: Path) -> Iterator[None]:
    """Say in one sentence that the states of a checkpoint do not fit what they are loaded into."""
    try:
        yield
    except BadInput:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError):
        sentence = f"the checkpoint in {directory} does not fit its config.toml, one of them was changed"
        raise BadInput(sentence) from None


def _way_back(steps: list[int], path: Path) -> str:
    before = [step for step in steps if checkpoint_path(path.parent, step) != path]
    return f", remove it to go on from step {before[-1]}" if before else ""
