"""Chooses, per call and on real tensors, the backend that serves an op, and says why the others do not.

A backend is a package with one module per stem and ``unavailable(stem, device_type, dtype) -> str``, the reason why it
cannot serve, empty where it can.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from fastgan import config

logger = logging.getLogger("fastgan")

STEMS = ("bias_act", "norm_act", "conv_norm_act", "gradient_penalty", "spectral_norm")
NAMES = ("reference", "native", "triton")
PREFERENCE = {"cuda": ("triton", "native", "reference"), "cpu": ("native", "reference")}
# why a stem has no Triton kernel and never will: not worth a warning when another backend is chosen
WITHOUT_TRITON = {"spectral_norm": "it needs a barrier across all blocks of a launch, which only CUDA C++ offers"}


class BackendUnavailable(RuntimeError):
    """A backend that was asked for by name cannot serve this call; the message gives the reason."""


# one for the process, not for the thread: the backward of CUDA tensors runs on autograd's own threads
_asked = config.backend()


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every fastgan op inside the ``with`` block on one backend, in all threads.

    Args:
        name: ``reference``, ``native``, ``triton``, or ``auto`` for the fastest that can serve each call.
            It holds for what runs inside the block, so put the backward pass inside, too.
    Raises:
        ValueError: unknown name.
        BackendUnavailable: by the ops inside the block, when the named backend cannot serve them.
    """
    global _asked
    if name not in config.BACKENDS:
        raise ValueError(f"use_backend: name must be one of {', '.join(config.BACKENDS)}, got {name!r}")
    before, _asked = _asked, name
    try:
        yield
    finally:
        _asked = before


def asked() -> str:
    """Return the backend that is asked for at present, ``auto`` for none."""
    return _asked


@functools.cache
def unavailable(name: str, stem: str, device_type: str, dtype: torch.dtype) -> str:
    """Return why backend ``name`` cannot run ``stem`` on such tensors, empty if it can."""
    return importlib.import_module(f"fastgan.backends.{name}").unavailable(stem, device_type, dtype)


@functools.cache
def automatic(stem: str, device_type: str, dtype: torch.dtype) -> str:
    """Return the fastest backend that can run ``stem`` on such tensors; logs once why a faster one cannot."""
    for name in PREFERENCE.get(device_type, ("reference",)):
        if name == "triton" and stem in WITHOUT_TRITON:
            continue
        reason = unavailable(name, stem, device_type, dtype)
        if not reason:
            return name
        logger.warning("%s: not on the %s backend for %s tensors on %s: %s", stem, name, dtype, device_type, reason)
    return "reference"


def choose(stem: str, x: Tensor) -> str:
    """Return the name of the backend that runs ``stem`` on ``x``.

    Raises: BackendUnavailable if a backend asked for by name cannot serve.
    """
    if _asked == "auto":
        return automatic(stem, x.device.type, x.dtype)
    reason = unavailable(_asked, stem, x.device.type, x.dtype)
    if reason:
        raise BackendUnavailable(f"{stem}: the {_asked} backend was asked for but cannot serve: {reason}")
    return _asked


@functools.cache
def load(name: str, stem: str) -> ModuleType:
    """Return the module of one stem in one backend."""
    return importlib.import_module(f"fastgan.backends.{name}.{stem}")
