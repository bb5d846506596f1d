"""BatchNorm + LeakyReLU, stock and fused.

``pytest benchmarks --benchmark-only``, or ``python -m benchmarks.bench_norm_act --out FILE``: the latter times
all providers in turn and writes one JSON file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import cases, timing
from fastgan.nn import BatchNormAct2d


def _inputs(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, dy = (torch.randn(shape).to(dtype).contiguous(memory_format=cases.LAYOUTS[layout]) for _ in range(2))
    return x.requires_grad_(), dy


def _modules(channels: int) -> dict[str, nn.Module]:
    return {
        "stock": nn.Sequential(nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)),
        "stock inplace": nn.Sequential(nn.BatchNorm2d(channels), nn.LeakyReLU(0.2, inplace=True)),
        "fastgan": BatchNormAct2d(channels, activation="leaky_relu", negative_slope=0.2),
    }


def _step(module: nn.Module, x: Tensor, dy: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        x.grad = None
        y = module(x)
        y.backward(dy)
        return y.detach()

    return run


def _providers(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> dict[str, Callable[[], Tensor]]:
    x, dy = _inputs(shape, dtype, layout)
    providers = {name: _step(module, x, dy) for name, module in _modules(shape[1]).items()}
    exact = nn.functional.batch_norm(x.detach().double(), None, None, training=True)
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 4e-2, "rtol": 1e-2}
    # a wrong provider is not timed
    for run in providers.values():
        torch.testing.assert_close(run().double(), nn.functional.leaky_relu(exact, 0.2), **tolerance)
    return providers


@pytest.mark.parametrize("provider", ["stock", "stock inplace", "fastgan"])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("shape", cases.NORM_ACT, ids=str)
def test_norm_act(benchmark: Callable, shape: tuple[int, ...], dtype: torch.dtype, layout: str, provider: str) -> None:
    benchmark.group = f"{shape} {cases.name(dtype)} {layout}"
    benchmark(_providers(shape, dtype, layout)[provider])


def _rows(repeats: int) -> list[dict]:
    rows = []
    for shape in cases.NORM_ACT:
        for dtype in cases.DTYPES:
            for layout in cases.LAYOUTS:
                measured = timing.interleaved(_providers(shape, dtype, layout), repeats)
                best = min(m["p50_ms"] for name, m in measured.items() if name != "fastgan")
                case = {"shape": shape, "dtype": cases.name(dtype), "layout": layout, "direction": "forward+backward"}
                rows += [case | {"provider": name} | m for name, m in measured.items()]
                stock, ours = measured["stock"]["p50_ms"], measured["fastgan"]["p50_ms"]
                ratios = f"{stock / ours:.2f}x stock, {best / ours:.2f}x best stock"
                print(f"{shape!s:<20} {cases.name(dtype):<9} {layout:<14} {ours:8.3f} ms  {ratios}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=21)
    arguments = parser.parse_args()
    timing.write(arguments.out, _rows(arguments.repeats))


if __name__ == "__main__":
    main()
