"""A critic's step with its gradient penalty: ``pytest benchmarks --benchmark-only``."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import once
from benchmarks.cases import Case


@once.parametrized("gradient_penalty")
def test_gradient_penalty(benchmark: Callable[..., object], case: Case, provider: str) -> None:
    once.time(benchmark, case, provider)
