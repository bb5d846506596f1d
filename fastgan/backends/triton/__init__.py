"""Triton kernels: compiled on NVIDIA GPUs, interpreted on CPU tensors for tests."""

from __future__ import annotations

import functools

import torch

from fastgan import config
from fastgan.backends import WITHOUT_TRITON


@functools.cache
def missing() -> str:
    """Return why Triton cannot be used at all, empty if it can."""
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"triton does not import: {error}"
    return ""


def unavailable(stem: str, device_type: str, dtype: torch.dtype) -> str:
    """Return why this backend cannot run ``stem`` on such tensors, empty if it can."""
    if stem in WITHOUT_TRITON:
        return WITHOUT_TRITON[stem]
    if missing():
        return missing()
    if config.triton_interpret():
        # the interpreter truncates on bfloat16 stores and multiplies bit patterns in bfloat16 dots
        return "Triton's interpreter is wrong for bfloat16" if dtype == torch.bfloat16 else ""
    if device_type != "cuda":
        return (
            f"on {device_type} tensors Triton kernels run only interpreted: set TRITON_INTERPRET=1 before Python starts"
        )
    if torch.version.hip is None and torch.cuda.get_device_capability() < (7, 0):
        return "Triton needs a GPU of compute capability 7.0 or newer"
    return ""
