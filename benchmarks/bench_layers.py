"""The layers of DCGAN-64 at batch 64, forward and backward: ``pytest benchmarks --benchmark-only``."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import once
from benchmarks.cases import Case


@once.parametrized("layers")
def test_layers(benchmark: Callable[..., object], case: Case, provider: str) -> None:
    once.time(benchmark, case, provider)
