"""Writes the tables of the README from the committed result files: ``python -m benchmarks.report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- norm_act: made by python -m benchmarks.report -->", "<!-- end -->"


def norm_act_table(result: dict[str, Any]) -> str:
    """Return a Markdown table of one ``norm_act.json``, a row for each case."""
    cases: dict[tuple, dict[str, float]] = {}
    for row in result["rows"]:
        case = (tuple(row["shape"]), row["dtype"], row["layout"])
        cases.setdefault(case, {})[row["provider"]] = row["p50_ms"]
    lines = ["| shape | dtype | layout | stock | stock in place | fastgan | ratio to stock | to the best stock |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (shape, dtype, layout), ms in cases.items():
        stock, in_place, ours = ms["stock"], ms["stock inplace"], ms["fastgan"]
        ratios = f"{stock / ours:.2f} | {min(stock, in_place) / ours:.2f}"
        lines.append(f"| {shape} | {dtype} | {layout} | {stock:.2f} | {in_place:.2f} | {ours:.2f} | {ratios} |")
    return "\n".join(lines)


def readme(text: str) -> str:
    """Return the README's text with its table made anew."""
    parts = []
    for path in sorted(RESULTS.glob("*/norm_act.json")):
        result = json.loads(path.read_text())
        machine = f"{result['device']}, {result['threads']} threads, torch {result['torch']}, {result['date'][:10]}"
        what = "Forward + backward of batch norm + LeakyReLU(0.2) in training, median ms."
        parts.append(f"{what} {machine}, `{result['command']}`:\n\n{norm_act_table(result)}")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + "\n\n".join(parts) + "\n" + END + rest.split(END, 1)[1]


def main() -> None:
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text()))


if __name__ == "__main__":
    main()
