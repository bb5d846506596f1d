"""Images from a generator: of a model at hand, or of a run on disk."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fastgan.models import dcgan
from fastgan.train.checkpoint import load_checkpoint
from fastgan.train.config import TrainConfig
from fastgan.train.errors import BadInput
from fastgan.train.run_dir import RunDir

_BATCH = 256


def seeded_generator(seed: int, stream: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers on a device, the CPU's being the same everywhere; each (seed, stream < 16) has its own."""
    return torch.Generator(device).manual_seed(seed * 16 + stream)


def draw_latents(count: int, latent_dim: int, generator: torch.Generator) -> Tensor:
    """Standard normal latents (count, latent_dim, 1, 1), float32, on the CPU."""
    return torch.randn(count, latent_dim, 1, 1, generator=generator)


@torch.no_grad()
def generate(model: nn.Module, latents: Tensor) -> Tensor:
    """Images of latents (N, latent_dim, 1, 1) with the running statistics of batch norm.

    Returns: (N, C, S, S) in [-1, 1], float32, on the CPU. The model's training flags are as before.
    """
    device = next(model.parameters()).device
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return torch.cat([model(part.to(device)).float().cpu() for part in latents.split(_BATCH)])
    finally:
        for module, training in flags.items():
            module.training = training


def load_generator(directory: str | Path, step: int | None = None) -> tuple[nn.Module, TrainConfig, int]:
    """The generator of a run at a checkpoint (default: the newest), in evaluation mode on the CPU.

    Returns: generator, the run's config, step of the checkpoint. Raises: BadInput when there is no such run.
    """
    run = RunDir(directory)
    if not run.config.exists():
        raise BadInput(f"{directory} holds no run: there is no {run.config.name} in it")
    config = TrainConfig.read(run.config)
    state = load_checkpoint(run.checkpoints, step)
    model = dcgan.Generator(config.image_size, state["channels"], config.latent_dim, config.features)
    try:
        model.load_state_dict(state["generator"])
    except RuntimeError:
        raise BadInput(f"the generator in {directory} is not the {config.model} of its config.toml") from None
    return model.to(memory_format=torch.channels_last).eval(), config, state["step"]  # type: ignore[call-overload]
