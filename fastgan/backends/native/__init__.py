"""C++ on the CPU and CUDA C++ on NVIDIA GPUs, from the optional extension ``fastgan._C``."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch

STEMS = {
    "cpu": ("bias_act", "norm_act", "conv_norm_act", "gradient_penalty", "spectral_norm"),
    "cuda": ("bias_act", "conv_norm_act", "gradient_penalty", "spectral_norm"),
}


@functools.cache
def build_info() -> dict:
    """Return what setup.py recorded: ``build`` (cpu, cuda or none), ``reason``, ``torch``, ``flags``."""
    record = Path(__file__).parents[2] / "_build.json"
    if not record.exists():
        return {"build": "none", "reason": "fastgan was not installed: setup.py has not run"}
    return json.loads(record.read_text())


@functools.cache
def missing() -> str:
    """Return why ``fastgan._C`` cannot be used at all, empty if it can."""
    info = build_info()
    if info["build"] == "none":
        return info["reason"]
    try:
        import fastgan._C  # noqa: F401
    except ImportError as error:
        return (
            f"fastgan._C does not load (built for torch {info['torch']}, this is torch {torch.__version__}; "
            f"reinstall fastgan to rebuild it): {error}"
        )
    return ""


def unavailable(stem: str, device_type: str, dtype: torch.dtype) -> str:
    """Return why this backend cannot run ``stem`` on such tensors, empty if it can."""
    if missing():
        return missing()
    if device_type == "cuda" and build_info()["build"] != "cuda":
        reason = build_info().get("reason")
        return f"fastgan._C was built without CUDA{': ' + reason if reason else ''}"
    if stem not in STEMS.get(device_type, ()):
        return f"there is no native kernel for {stem} on {device_type}"
    return ""
