"""Tables of the files that were measured before ``fastgan bench`` was there, in a format of their own.

Such a file, its name below and its blocks of the README and docs/performance.md go when the machine is measured again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results" / "amd-epyc-zen3-2-cores"
FILES = ("norm_act.json",)


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


SUITES = {
    "norm_act": ("Forward + backward of batch norm + LeakyReLU(0.2) in training, median ms.", norm_act_table),
}


def blocks() -> dict[str, str]:
    """Return what the README says of each of these suites, by the name of its block."""
    found = {}
    for suite, (what, table) in SUITES.items():
        parts = []
        for name in FILES:
            if name.startswith(suite):
                result = json.loads((FOLDER / name).read_text())
                about = f"{result['threads']} threads, torch {result['torch']}, {result['date'][:10]}"
                parts.append(f"{what} {result['device']}, {about}, `{result['command']}`:\n\n{table(result)}")
        found[suite] = "\n\n".join(parts)
    return found


def ratios() -> list[tuple[str, str, str, str, float]]:
    """Return (file, case, best stock provider, best of ours, ratio) of each case."""
    found = []
    for name in FILES:
        result = json.loads((FOLDER / name).read_text())
        cases: dict[str, dict[str, float]] = {}
        for row in result["rows"]:
            parts = [row["layer"]["name"]] if "layer" in row else []
            parts += [row[key] for key in ("case", "shape", "dtype", "layout", "direction") if key in row]
            if "p50_ms" in row:
                cases.setdefault(", ".join(map(str, parts)), {})[row["provider"]] = row["p50_ms"]
        for case, ms in cases.items():
            stock, ours = (min((p for p in ms if ("fastgan" in p) == side), key=ms.__getitem__) for side in (0, 1))
            found.append((f"{name.split('.')[0]}, {result['device']}", case, stock, ours, ms[stock] / ms[ours]))
    return found
