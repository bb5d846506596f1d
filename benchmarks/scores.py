"""The table of scores in docs/training.md, from the files of ``fastgan evaluate`` in docs/presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PRESETS = Path(__file__).parents[1] / "docs" / "presets"
# what the page says above the table
DATA, COUNT = "mnist5k", 1000


def block() -> str:
    """A Markdown table: a row for each preset that was scored on so many images of that data set."""
    lines = ["| preset | KID before | KID after | Fréchet | precision | recall | classifier |"]
    lines.append(f"| --- |{' ---: |' * 6}")
    for path in sorted(PRESETS.glob("*.scores.json")):
        scores = json.loads(path.read_text())
        if (scores["data"], scores["n"]) == (DATA, COUNT):
            lines.append(_row(path.name.removesuffix(".scores.json"), scores["rows"]))
    return "\n".join(lines)


def _row(preset: str, rows: list[dict[str, Any]]) -> str:
    before, after = (next(row for row in rows if row["name"] == name) for name in ("before", "after"))
    mean, std = after["kid"]
    kid = f"{before['kid'][0]:.3f} | {mean:.3f} +- {std:.3f}"
    others = f"{after['frechet']:.1f} | {after['precision']:.2f} | {after['recall']:.2f}"
    return f"| `{preset}` | {kid} | {others} | {after['classifier_score']:.2f} |"
