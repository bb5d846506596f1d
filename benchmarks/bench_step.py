"""Whole training steps: ``pytest benchmarks --benchmark-only``."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import once
from benchmarks.cases import Case


@once.parametrized("step")
def test_step(benchmark: Callable[..., object], case: Case, provider: str) -> None:
    once.time(benchmark, case, provider)
