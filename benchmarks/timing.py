"""Times several providers of one computation in turn, A B C A B C, so that drift of the machine hits all alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch


def interleaved(providers: dict[str, Callable[[], object]], repeats: int = 15, warm_up: int = 3) -> dict[str, dict]:
    """Return for each provider p20, p50, p80 in milliseconds and n, on the CPU."""
    times: dict[str, list[float]] = {name: [] for name in providers}
    for _ in range(warm_up):
        for run in providers.values():
            run()
    for _ in range(repeats):
        for name, run in providers.items():
            begin = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: _percentiles(values) for name, values in times.items()}


def _percentiles(values: list[float]) -> dict[str, Any]:
    p20, p50, p80 = (statistics.quantiles(values, n=10)[k] for k in (1, 4, 7))
    return {"p20_ms": round(p20, 4), "p50_ms": round(p50, 4), "p80_ms": round(p80, 4), "n": len(values)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def header() -> dict[str, Any]:
    """Return what a reader needs to judge the figures: machine, versions, commit, date, command."""
    sha = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "device": _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "git": sha,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", "benchmarks." + Path(sys.argv[0]).stem, *sys.argv[1:]]),
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write header and rows as JSON, appearing whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(header() | {"rows": rows}, indent=1) + "\n")
    partial.replace(path)
