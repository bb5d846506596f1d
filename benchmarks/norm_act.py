"""The table of batch norm with LeakyReLU alone, from what pytest-benchmark wrote of ``bench_norm_act.py``."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.results import RESULTS

PATH = RESULTS / "amd-epyc-avx2-2-cores" / "pytest-benchmark" / "norm_act.json"
COMMAND = (
    f"pytest benchmarks/bench_norm_act.py --benchmark-only --benchmark-json {PATH.relative_to(RESULTS.parents[1])}"
)


def _read() -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """What the file says of the machine, and median ms by case and provider."""
    content = json.loads(PATH.read_text())
    cases: dict[str, dict[str, float]] = {}
    for each in content["benchmarks"]:
        cases.setdefault(each["group"], {})[each["extra_info"]["provider"]] = each["stats"]["median"] * 1e3
    about = content["benchmarks"][0]["extra_info"]
    return {**about, "date": content["datetime"][:10], "device": content["machine_info"]["cpu"]["brand_raw"]}, cases


def block() -> str:
    """A Markdown table with a row for each case, and what was measured above it."""
    about, cases = _read()
    machine = f"{about['device']}, {about['threads']} threads, torch {about['torch']}, {about['date']}"
    what = "Forward + backward of batch norm + LeakyReLU(0.2) in training, median ms."
    lines = [f"{what} {machine}, `{COMMAND}`:", ""]
    lines.append("| shape | dtype | layout | stock | stock in place | fastgan | ratio to stock | to the best stock |")
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for case, ms in cases.items():
        stock, in_place, ours = ms["stock"], ms["stock inplace"], ms["fastgan"]
        ratios = f"{stock / ours:.2f} | {min(stock, in_place) / ours:.2f}"
        lines.append(f"| {case} | {stock:.2f} | {in_place:.2f} | {ours:.2f} | {ratios} |")
    return "\n".join(lines)


def ratios() -> list[tuple[str, str, str, str, float]]:
    """(table, case, best stock provider, ours, ratio) of each case."""
    about, cases = _read()
    found = []
    for case, ms in cases.items():
        best = min(("stock", "stock inplace"), key=ms.__getitem__)
        row = case.replace(" | ", ", ")
        found.append((f"norm_act, {about['device']}", row, best, "fastgan", ms[best] / ms["fastgan"]))
    return found
