"""Optimisers, the course of their learning rates, and the moving average of the generator."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fastgan.train.config import TrainConfig


def make_optimizer(config: TrainConfig, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """The optimiser that ``config.optimizer`` names, over all parameters."""
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), lr=lr, capturable=config.graph)
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(model.parameters(), lr=lr, betas=betas, fused=True, capturable=config.graph)


def lr_factor(config: TrainConfig, step: int) -> float:
    """Factor of both learning rates in a step, counted from 0: 1 before lr_decay_start, 0 from lr_decay_end on.

    It depends on the step alone, so that a run that is stopped and goes on has the same course.
    """
    if config.lr_schedule == "constant":
        return 1.0
    share = (step - config.lr_decay_start) / (config.lr_decay_end - config.lr_decay_start)
    share = min(max(share, 0.0), 1.0)
    return 1.0 - share if config.lr_schedule == "linear" else (1.0 + math.cos(math.pi * share)) / 2


def make_average(config: TrainConfig, generator: nn.Module) -> AveragedModel | None:
    """A moving average of the generator's parameters with ``config.ema`` as its decay a step; None for 0.

    Buffers are those of the generator at its last step. Source: Karras et al. 2018, section 6.1.
    """
    if not config.ema:
        return None
    return AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
