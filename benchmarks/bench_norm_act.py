"""BatchNorm + LeakyReLU forward and backward, stock and fused: ``pytest benchmarks --benchmark-only``.

The table in docs/performance.md is of ``COMMAND`` in ``benchmarks/norm_act.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks import cases
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
    benchmark.group = f"{shape} | {cases.name(dtype)} | {layout}"
    benchmark.extra_info.update(provider=provider, threads=torch.get_num_threads(), torch=torch.__version__)
    benchmark(_providers(shape, dtype, layout)[provider])
