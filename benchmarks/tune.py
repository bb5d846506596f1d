"""Chooses block sizes of the implicit matrix product on this GPU, and where it beats the vendor's convolution.

What it finds is used by the suites that follow in the same process, and written beside the results; copied over
fastgan/backends/triton/tuning.json it holds for good.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fastgan
from benchmarks import cases, machine, networks, results, timing
from benchmarks.run import Settings
from fastgan.backends.triton import tuning

BATCH = 64
# of the budget
SHARE = 0.3
Measure = Callable[[tuning.Key, bool], float]


def candidates(now: tuning.Config) -> list[tuning.Config]:
    """Block sizes to try: those of today first, then half and twice each."""
    sizes = [sorted({max(16, n // 2), n, min(128, n * 2)}) for n in now[:3]]
    shapes = [shape for shape in itertools.product(*sizes) if shape[0] * shape[1] <= 128 * 128]
    found = [tuning.Config(*shape, 8 if shape[0] * shape[1] > 64 * 64 else 4, now.num_stages) for shape in shapes]
    return [now, *(config for config in found if config != now)]


def choose(keys: list[tuning.Key], measure: Measure, device: str, deadline: float) -> list[str]:
    """Put the fastest block sizes of each key, and who won, into the tables of this process.

    Args:
        measure: milliseconds of a key's pass, by the implicit product or else by the vendor's convolution.
        device: the GPU's name.
        deadline: on the monotonic clock; keys not begun by then stay as they are.
    Returns: a line for each key.
    """
    lines, table = [], tuning.configs()
    for key in keys:
        if time.monotonic() > deadline:
            break
        found, before = {}, table[key]
        for config in candidates(before):
            table[key] = config
            try:
                found[config] = measure(key, True)
            except Exception:  # too much shared memory, or a compiler's failure: not a candidate
                continue
        vendor = measure(key, False)
        table[key] = best = min(found, key=lambda config: found[config], default=before)
        ours = found.get(best, float("inf"))
        won = ours < vendor
        tuning.measured()[(device, key)] = "implicit_gemm" if won else "vendor"
        lines.append(
            f"{key.which} {key.kind} {key.bucket}: {best}, {found.get(best, 0):.3f} ms, vendor {vendor:.3f} ms"
        )
    return lines


def write(path: Path) -> None:
    """Write the tables of this process in the format of tuning.json."""
    known = {key for _, key in tuning.measured()}
    rows = [_row(key) | config._asdict() | {"measured": key in known} for key, config in tuning.configs().items()]
    winners = [{"device": device} | _row(key) | {"winner": who} for (device, key), who in tuning.measured().items()]
    text = ",\n".join(
        f'  "{name}": [\n' + ",\n".join(f"    {json.dumps(row)}" for row in table) + "\n  ]"
        for name, table in (("configs", rows), ("measured", winners))
    )
    results.write_text(path, "{\n" + text + "\n}\n")


def _row(key: tuning.Key) -> dict[str, Any]:
    return {"pass": key.which, "kind": key.kind, "bucket": key.bucket}


def tune(settings: Settings) -> list[str]:
    """Tune for the GPU at hand within a third of the budget; what was found, as lines. Raises ValueError on a CPU."""
    if settings.device != "cuda":
        raise ValueError("--tune chooses block sizes for a GPU and needs --device cuda")
    layers = _layers_by_key(settings.dtype)
    deadline = time.monotonic() + SHARE * settings.budget

    def measure(key: tuning.Key, ours: bool) -> float:
        model, x = layers[key]
        with fastgan.use_backend("triton" if ours else "auto"):
            ms = _time(model, x, settings.dtype, key.which == "dw")
            # the weight's gradient by itself
            return ms - (_time(model, x, settings.dtype, False) if key.which == "dw" else 0.0)

    # auto is to mean the vendor here
    tuning.measured().clear()
    lines = choose(list(layers), measure, machine.name("cuda"), deadline)
    path = settings.out / f"tuning.{machine.folder('cuda')}.json"
    write(path)
    return [*lines, f"written: {path}"]


def _time(model: nn.Module, x: torch.Tensor, dtype: torch.dtype, backward: bool) -> float:
    def run() -> None:
        with torch.set_grad_enabled(backward), torch.autocast("cuda", dtype, enabled=dtype.itemsize == 2):
            y = model(x)
        if backward:
            y.backward(y.detach())

    return timing.interleaved({"": run}, 21, 3, "cuda")[""]["p50_ms"]


def _layers_by_key(dtype: torch.dtype) -> dict[tuning.Key, tuple[nn.Module, torch.Tensor]]:
    """One layer of DCGAN-64 for each key that its passes ask for, forward ones first."""
    found: dict[tuning.Key, tuple[nn.Module, torch.Tensor]] = {}
    seen: list[tuning.Key] = []
    ask = tuning.key

    def recorded(*args: Any) -> tuning.Key:
        seen.append(ask(*args))
        return seen[-1]

    tuning.key = recorded
    try:
        for layer in cases.dcgan(64):
            model = fastgan.convert(nn.Sequential(*networks.layer(layer)).to("cuda", memory_format=torch.channels_last))
            x = torch.randn(BATCH, layer.in_channels, layer.size, layer.size, device="cuda").to(dtype)
            x = x.contiguous(memory_format=torch.channels_last)
            with fastgan.use_backend("triton"):
                _time(model, x, dtype, True)
            found |= dict.fromkeys(seen, (model, x))
            seen.clear()
    finally:
        tuning.key = ask
    return dict(sorted(found.items(), key=lambda item: item[0].which, reverse=True))
