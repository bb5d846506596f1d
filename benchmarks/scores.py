"""The table of scores in docs/training.md, from the files of ``fastgan evaluate`` in docs/presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PRESETS = Path(__file__).parents[1] / "docs" / "presets"
# what the page says above the table
DATA, COUNT = "mnist5k", 1000


def block() -> str:
    """A Markdown table: of each preset that was scored on so many images of that data set, and of its real images."""
    lines = ["| preset | KID before | KID after | Fréchet | precision | recall | classifier |"]
    lines.append(f"| --- |{' ---: |' * 6}")
    for path in sorted(PRESETS.glob("*.scores.json")):
        scores = json.loads(path.read_text())
        if (scores["data"], scores["n"]) == (DATA, COUNT):
            lines += _rows(path.name.removesuffix(".scores.json"), {row["name"]: row for row in scores["rows"]})
    return "\n".join(lines)


def _rows(preset: str, rows: dict[str, dict[str, Any]]) -> list[str]:
    before = f"{rows['before']['kid'][0]:.3f}"
    return [f"| `{preset}` | {before} | {_cells(rows['after'])} |", f"| its floor | | {_cells(rows['floor'])} |"]


def _cells(row: dict[str, Any]) -> str:
    mean, std = row["kid"]
    others = f"{row['frechet']:.1f} | {row['precision']:.2f} | {row['recall']:.2f}"
    return f"{mean:.3f} +- {std:.3f} | {others} | {row['classifier_score']:.2f}"
