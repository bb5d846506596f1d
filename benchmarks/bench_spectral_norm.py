"""Spectral norm of all layers of a discriminator: ``pytest benchmarks --benchmark-only``."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import once
from benchmarks.cases import Case


@once.parametrized("spectral_norm")
def test_spectral_norm(benchmark: Callable[..., object], case: Case, provider: str) -> None:
    once.time(benchmark, case, provider)
