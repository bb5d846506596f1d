"""What a reader needs to judge figures: the machine, its measured ceilings, versions, commit, date, command."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benchmarks import cases, timing
from fastgan.backends import processor
from fastgan.info import version

ROOT = Path(__file__).parents[1]


def name(device: str) -> str:
    """Return the name of the GPU, or of the processor with its instruction set: one name has several of these."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return f"{model}, {_instruction_set()}"


def _instruction_set() -> str:
    try:
        from fastgan import _C
    except ImportError:
        return torch.backends.cpu.get_cpu_capability().lower()
    return _C.instruction_set()


def folder(device: str) -> str:
    """Return the name of the directory of a machine's results."""
    title = name(device) if device == "cuda" else f"{name(device)} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _commit() -> str | None:
    sha = _run("git", "rev-parse", "HEAD")
    return f"{sha}, changed" if sha and _run("git", "status", "--porcelain", "--", "fastgan", "csrc") else sha


def header(suite: str, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Return the head of a result file, without ceilings."""
    cuda = device == "cuda"
    driver = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if cuda else None
    return {
        "suite": suite,
        "dtype": cases.name(dtype),
        "device": name(device),
        "driver": driver,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version("triton"),
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "onednn": torch.backends.mkldnn.is_available(),
        "jax": version("jax"),
        "git": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["fastgan", *sys.argv[1:]]),
    }


def ceilings(dtype: torch.dtype, device: str, quick: bool) -> dict[str, float]:
    """Return what this machine does at best: a copy in GB/s, a matrix product in GFLOP/s by dtype.

    Beside dtype's own the product in float32 is measured: on a processor without 16-bit arithmetic it is the ceiling.
    """
    big = device == "cuda"
    source = torch.randn(1 << (28 if big else 22 if quick else 25), device=device)
    target = torch.empty_like(source)
    repeats = 3 if quick else 9

    def fastest(run: Callable[[], object]) -> float:
        return timing.interleaved({"": run}, repeats, 2, device)[""]["p20_ms"]

    found = {"copy_gb_s": round(2 * source.nbytes / fastest(lambda: target.copy_(source)) / 1e6, 1)}
    for each in {torch.float32: 0, dtype: 0}:
        # a product in 16 bits takes very long on a CPU without arithmetic for it
        slow = each.itemsize == 2 and not processor.multiplies(each)
        n = 8192 if big else 256 if slow or quick else 2048
        a, b = (torch.randn(n, n, device=device).to(each) for _ in range(2))
        ms = fastest(lambda a=a, b=b: a @ b)  # type: ignore[misc]
        found[f"matmul_{cases.name(each)}_gflop_s"] = round(2 * n**3 / ms / 1e6, 1)
    return found


def roofline_percent(ms: float, size: int, flops: int, ceiling: dict[str, float]) -> float:
    """Return the least time that the ceilings allow for so many bytes and operations, in percent of ms."""
    speed = max(value for key, value in ceiling.items() if key.startswith("matmul"))
    least = max(size / ceiling["copy_gb_s"], flops / speed) / 1e6
    return round(100 * least / ms, 1)
