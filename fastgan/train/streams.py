"""The streams of random numbers of a run, each with a generator of its own, so that none moves another."""

from __future__ import annotations

import torch

LATENTS, ORDER, FIXED, SAMPLES, PENALTY, ORDER_B, MOVES, AUGMENT, NOISE, SCORES, SHOWN = range(1, 12)


def seeded_generator(seed: int, stream: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers on a device, the CPU's being the same everywhere; each (seed, stream < 16) has its own."""
    return torch.Generator(device).manual_seed(seed * 16 + stream)
