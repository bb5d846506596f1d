"""What the launch of every Triton kernel needs."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor


def device_of(x: Tensor) -> contextlib.AbstractContextManager:
    """Return a context in which x's GPU is the current one; Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def channels_inner(x: Tensor) -> bool:
    """Return whether neighbouring elements of the dense x belong to neighbouring channels."""
    return x.dim() == 2 or x.shape[1] == 1 or not x.is_contiguous()


def inner_size(x: Tensor) -> int:
    """Return how many elements of the dense x lie between one channel and the next."""
    return 1 if channels_inner(x) else math.prod(x.shape[2:])


def processors(x: Tensor) -> int:
    """Return the number of multiprocessors; 4 for the interpreter, so that split reductions are tested there."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 4
