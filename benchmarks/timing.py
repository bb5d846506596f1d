"""Times several providers of one computation in turn, A B C B A C, so that drift of the machine hits all alike."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Measure = Callable[[Callable[[], object]], float]


# rounds in which percentiles are settled
_ENOUGH = 201


def interleaved(
    providers: dict[str, Callable[[], object]],
    repeats: int = 15,
    warm_up: int = 3,
    device: str = "cpu",
    seconds: float = 0.0,
) -> dict[str, dict[str, Any]]:
    """Return for each provider p20, p50, p80 in milliseconds and n, which is ``repeats``, at least 2, or more.

    Each round has an order of its own: who always ran after the same other would always find the caches and the
    allocator as that one leaves them.

    Args:
        seconds: for which rounds are added, up to 201.
    """
    times: dict[str, list[float]] = {name: [] for name in providers}
    measure = _on_gpu() if device == "cuda" else _on_cpu
    for _ in range(warm_up):
        for run in providers.values():
            run()
    order, draw = list(providers), random.Random(0)
    rounds, end = 0, time.perf_counter() + seconds
    while rounds < repeats or (rounds < _ENOUGH and time.perf_counter() < end):
        draw.shuffle(order)
        for name in order:
            times[name].append(measure(providers[name]))
        rounds += 1
    return {name: _percentiles(values) for name, values in times.items()}


def _on_cpu(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e3


def _on_gpu() -> Measure:
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


def _percentiles(values: list[float]) -> dict[str, Any]:
    p20, p50, p80 = (statistics.quantiles(values, n=10, method="inclusive")[k] for k in (1, 4, 7))
    return {"p20_ms": round(p20, 4), "p50_ms": round(p50, 4), "p80_ms": round(p80, 4), "n": len(values)}


def on_gpu(run: Callable[[], object]) -> dict[str, Any]:
    """Return MiB that one run takes at most beyond what was there before, and how many kernels it launches."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    launches = sum(not event.name.startswith(("Memcpy", "Memset")) for event in kernels)
    return {"peak_mib": round(peak / 2**20, 1), "launches": launches}


def on_cpu(run: Callable[[], object]) -> dict[str, Any]:
    """Return MiB that one run takes at most beyond what was there before, as torch's allocator tells its profiler."""
    # the profiler's own messages
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run()
    changes = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(changes, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return {"peak_mib": round(peak / 2**20, 1)}
