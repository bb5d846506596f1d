"""The streams of random numbers of a run, each with a generator of its own, so that none moves another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LATENTS, ORDER, FIXED, SAMPLES, PENALTY, ORDER_B, MOVES, AUGMENT, NOISE, SCORES, SHOWN = range(1, 12)


def seeded_generator(seed: int, stream: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers on a device, the CPU's being the same everywhere; each (seed, stream < 16) has its own."""
    return torch.Generator(device).manual_seed(seed * 16 + stream)


@contextmanager
def seeded_cpu(seed: int) -> Iterator[None]:
    """Torch's own random numbers on the CPU start from a seed; afterwards they go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs as well, and training goes on with theirs
        torch.default_generator.manual_seed(seed)
        yield
