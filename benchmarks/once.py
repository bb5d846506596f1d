"""The cases of a suite for pytest-benchmark, which times and compares in its own way."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch

from benchmarks import cases, peers, work

PROVIDERS = ("eager", "channels_last", "fastgan")


def parametrized(suite: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parametrise a test by the quick cases of a suite and the providers that need no compiler."""
    found = cases.of(suite, quick=True)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        test = pytest.mark.parametrize("provider", PROVIDERS)(test)
        return pytest.mark.parametrize("case", found, ids=lambda case: f"{case.name}-{case.direction}")(test)

    return decorate


def time(benchmark: Callable[..., object], case: cases.Case, provider: str) -> None:
    """Check one provider of one case, in float32 on the CPU, and let pytest-benchmark time it."""
    suite: work.Work = importlib.import_module(f"benchmarks.suites.{case.suite}").WORK(case, torch.float32, "cpu")
    run = suite.build(peers.load([provider])[0])
    reason = suite.wrong(suite.errors(run.checked(), work.exact(suite)), {})
    assert not reason
    benchmark.group = f"{case.name}, {case.direction}"  # type: ignore[attr-defined]
    benchmark(run.step)
