"""Times several providers of one computation in turn, A B C A B C, so that drift of the machine hits all alike."""

from __future__ import annotations

import argparse
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


def interleaved(
    providers: dict[str, Callable[[], object]], repeats: int = 15, warm_up: int = 3, device: str = "cpu"
) -> dict[str, dict]:
    """Return for each provider p20, p50, p80 in milliseconds and n."""
    times: dict[str, list[float]] = {name: [] for name in providers}
    measure = _on_gpu() if device == "cuda" else _on_cpu
    for _ in range(warm_up):
        for run in providers.values():
            run()
    for _ in range(repeats):
        for name, run in providers.items():
            times[name].append(measure(run))
    return {name: _percentiles(values) for name, values in times.items()}


def _on_cpu(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e3


def _on_gpu() -> Callable[[Callable[[], object]], float]:
    """Return a timer by events that empties the second-level cache first."""
    cache = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def measure(run: Callable[[], object]) -> float:
        cache.zero_()
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end)

    return measure


def roofline(dtype: torch.dtype, device: str = "cpu") -> tuple[float, float]:
    """Return measured bytes and floating point operations per millisecond: of a copy, and of a matrix product."""
    n = 8192 if device == "cuda" else 2048 if dtype == torch.float32 else 256
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    source = torch.randn(1 << (28 if device == "cuda" else 25), device=device)
    target = torch.empty_like(source)
    runs: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(source), "product": lambda: a @ b}
    fastest = {name: m["p20_ms"] for name, m in interleaved(runs, 9, 3, device).items()}
    return 2 * source.nbytes / fastest["copy"], 2 * n**3 / fastest["product"]


def _percentiles(values: list[float]) -> dict[str, Any]:
    p20, p50, p80 = (statistics.quantiles(values, n=10)[k] for k in (1, 4, 7))
    return {"p20_ms": round(p20, 4), "p50_ms": round(p50, 4), "p80_ms": round(p80, 4), "n": len(values)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def header(device: str = "cpu") -> dict[str, Any]:
    """Return what a reader needs to judge the figures: machine, versions, commit, date, command."""
    sha = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "git": sha,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", "benchmarks." + Path(sys.argv[0]).stem, *sys.argv[1:]]),
    }


def parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Return the command line that all benchmarks share: --out, --repeats with its default, --device."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--out", type=Path, required=True, help="JSON file to write")
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return made


def write(path: Path, rows: list[dict[str, Any]], device: str = "cpu") -> None:
    """Write header and rows as JSON, appearing whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(header(device) | {"rows": rows}, indent=1) + "\n")
    partial.replace(path)
