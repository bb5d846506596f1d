"""How fast a run is, and its progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

_QUIET = ("step", "images_per_second", "warning")


class Clock:
    """Steps a second since the last question, without the time spent on saving."""

    def __init__(self, step: int) -> None:
        self._mark, self._step = time.perf_counter(), step

    def rate(self, step: int) -> float:
        now = time.perf_counter()
        steps, seconds = step - self._step, now - self._mark
        self._mark, self._step = now, step
        return steps / seconds

    def leave_out(self, work: Callable[[], None]) -> None:
        start = time.perf_counter()
        work()
        self._mark += time.perf_counter() - start


def progress_bar(step: int, steps: int, progress: bool) -> Any:
    """A tqdm bar on stderr; a file instead of a terminal gets a line every ten seconds."""
    from tqdm import tqdm

    wait = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm(initial=step, total=steps, unit="step", disable=not progress, mininterval=wait, dynamic_ncols=True)


def postfix(row: dict[str, Any]) -> dict[str, str]:
    """A row of metrics.jsonl as the bar shows it."""
    losses = {name: f"{value:.3f}" for name, value in row.items() if name not in _QUIET}
    return {**losses, "img/s": f"{row['images_per_second']:.0f}"}
