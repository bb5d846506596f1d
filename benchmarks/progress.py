"""A progress bar where tqdm is installed, else a line for each case."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """How far a suite has come, on stderr.

    Args:
        total: cases in the suite.
    """

    def __init__(self, suite: str, total: int) -> None:
        self.suite, self.total, self.count = suite, total, 0
        try:
            from tqdm import tqdm

            self._bar: Any = tqdm(total=total, desc=suite, unit="case", dynamic_ncols=True)
        except ImportError:
            self._bar = None

    def say(self, what: str) -> None:
        """What is being done now."""
        if self._bar is not None:
            self._bar.set_postfix_str(what)

    def done(self, rows: list[dict[str, Any]]) -> None:
        """One more case is done; a provider that is wrong or failed is named."""
        self.count += 1
        for row in rows:
            if row["status"] in ("wrong", "failed"):
                self._write(f"{row['case']}, {row['direction']}: {row['provider']} {row['status']}: {row['reason']}")
        if self._bar is not None:
            self._bar.update()
        else:
            self._write(f"{self.suite} {self.count}/{self.total}: {rows[0]['case'] if rows else ''}")

    def _write(self, line: str) -> None:
        print(line, file=sys.stderr) if self._bar is None else self._bar.write(line, file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
