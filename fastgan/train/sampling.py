"""Images from a generator: of a model at hand, or of a run on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastgan.models import Recipe
from fastgan.train.checkpoint import load_checkpoint
from fastgan.train.config import TrainConfig
from fastgan.train.errors import BadInput
from fastgan.train.run_dir import RunDir

_BATCH = 256


@torch.no_grad()
def generate(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Images of a generator's arguments, (N, ...) each, with the running statistics of batch norm.

    Returns: (N, ...) in [-1, 1], float32, on the CPU. The model's training flags are as before.
    """
    device = next(model.parameters()).device
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        parts = zip(*(value.split(_BATCH) for value in inputs), strict=True)
        return torch.cat([model(*(value.to(device) for value in part)).float().cpu() for part in parts])
    finally:
        for module, training in flags.items():
            module.training = training


class Trained(NamedTuple):
    """A run's generator, in evaluation mode on the CPU, with what belongs to it."""

    generator: nn.Module
    recipe: Recipe
    config: TrainConfig
    step: int


def load_generator(directory: str | Path, step: int | None = None) -> Trained:
    """The generator of a run at a checkpoint (default: the newest); its moving average where the run has one.

    Raises: BadInput when there is no such run.
    """
    run = RunDir(directory)
    run.check_there()
    config = TrainConfig.read(run.config)
    state = load_checkpoint(run.checkpoints, step)
    recipe = config.recipe(state["channels"], state["classes"])
    model = recipe.generator()
    try:
        model.load_state_dict(_weights(state))
    except RuntimeError:
        raise BadInput(f"the generator in {directory} is not the {config.model} of its config.toml") from None
    return Trained(model.eval(), recipe, config, state["step"])


def _weights(state: dict[str, Any]) -> dict[str, Tensor]:
    if not state.get("ema"):
        return state["generator"]
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in state["ema"].items() if name.startswith(prefix)}
