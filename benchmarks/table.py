"""The table at the end of a run: each case's best stock provider and best of fastgan's."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Best(NamedTuple):
    """The best stock row and the best of ours in one case, and how many times better ours is."""

    case: str
    direction: str
    batch: int
    stock: dict[str, Any]
    ours: dict[str, Any]
    ratio: float

    @property
    def of_batch(self) -> str:
        """What a label says of the batch: nothing for weights alone."""
        return f", batch {self.batch}" if self.batch else ""


def value(row: dict[str, Any]) -> float:
    """What is small where a row is good: milliseconds, or bytes kept."""
    return row["p50_ms"] if "p50_ms" in row else row["kept_bytes"]


def by_case(rows: list[dict[str, Any]]) -> dict[tuple[str, str, int], list[dict[str, Any]]]:
    """Rows by case, direction and batch, in their order."""
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["case"], row["direction"], row["batch"]), []).append(row)
    return found


def best(rows: list[dict[str, Any]]) -> list[Best]:
    """The cases in which both a stock provider and fastgan have a figure."""
    found = []
    for key, members in by_case(rows).items():
        good = [row for row in members if row["status"] == "ok"]
        sides = [[row for row in good if row["ours"] == ours] for ours in (False, True)]
        if all(sides):
            stock, ours = (min(side, key=value) for side in sides)
            found.append(Best(*key, stock, ours, value(stock) / value(ours)))
    return found


def geometric_mean(ratios: list[float]) -> float:
    """The geometric mean of positive numbers."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def text(result: dict[str, Any]) -> str:
    """A table for a terminal: ratios are of the best stock provider, above 1 where fastgan is better."""
    unit = "KiB kept" if result["suite"] == "memory" else "ms"
    scale = 1024 if result["suite"] == "memory" else 1
    lines = [f"{result['suite']}, {result['dtype']}, {result['device']}, {result['threads']} threads ({unit})"]
    found = best(result["rows"])
    for each in found:
        sides = (f"{row['provider']} {value(row) / scale:.2f}" for row in (each.stock, each.ours))
        lines.append(f"  {each.ratio:6.2f}x  {each.case}{each.of_batch}, {each.direction}: {', '.join(sides)}")
    if found:
        worst = min(found, key=lambda each: each.ratio)
        mean = geometric_mean([each.ratio for each in found])
        lines.append(f"  geometric mean {mean:.2f}x, worst {worst.ratio:.2f}x: {worst.case}, {worst.direction}")
    bad = [row for row in result["rows"] if row["status"] in ("wrong", "failed")]
    lines += [f"  {row['status']}: {row['case']}, {row['provider']}: {row['reason']}" for row in bad]
    if not result["complete"]:
        lines.append("  not all cases: the time budget was spent")
    return "\n".join(lines)
