"""Tables of the files that were measured before ``fastgan bench`` was there, in a format of their own.

Such a file, its name below and its blocks of the README and docs/performance.md go when the machine is measured again.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results" / "amd-epyc-zen3-2-cores"
FILES = (
    "conv_norm_act.bfloat16.json",
    "conv_norm_act.float32.json",
    "gradient_penalty.bfloat16.json",
    "gradient_penalty.float32.json",
    "norm_act.json",
    "spectral_norm.json",
)


def conv_norm_act_table(result: dict[str, Any]) -> str:
    """Return a Markdown table of one ``conv_norm_act.json``: a row for each layer and dtype, and geometric means."""
    cases: dict[tuple, dict[str, float]] = {}
    for row in result["rows"]:
        cases.setdefault((row["dtype"], tuple(row["layer"].values())), {})[row["provider"]] = row["p50_ms"]
    lines = ["| layer | dtype | stock | channels_last | compiled | fastgan | channels_last | ratio of the best |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    ratios: dict[str, list[float]] = {}
    for (dtype, layer), ms in cases.items():
        name, _, c_in, c_out, size, kernel, stride, padding, *_ = layer
        what = f"{name} {c_in} to {c_out}, {size} px, k{kernel} s{stride} p{padding}"
        best = [min(v for k, v in ms.items() if k.startswith("fastgan") == ours) for ours in (False, True)]
        ratios.setdefault(dtype, []).append(best[0] / best[1])
        names = ("stock", "stock channels_last", "stock compiled", "fastgan", "fastgan channels_last")
        times = " | ".join(f"{ms[name]:.2f}" if name in ms else "" for name in names)
        lines.append(f"| {what} | {dtype} | {times} | {best[0] / best[1]:.2f} |")
    for dtype, values in ratios.items():
        mean = math.exp(sum(math.log(v) for v in values) / len(values))
        lines.append(f"| geometric mean; worst | {dtype} | | | | | | {mean:.2f}; {min(values):.2f} |")
    return "\n".join(lines)


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


def provider_table(result: dict[str, Any]) -> str:
    """Return a Markdown table with a row for each provider of each case; ratios are of the best stock provider."""
    cases: dict[tuple, dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        cases.setdefault((row["case"], row["dtype"], row["direction"]), {})[row["provider"]] = row
    lines = [
        "| case | provider | p20 ms | p50 ms | p80 ms | ratio of the best |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for (case, dtype, direction), providers in cases.items():
        best = min(row["p50_ms"] for name, row in providers.items() if "p50_ms" in row and "fastgan" not in name)
        for name, row in providers.items():
            what = f"| {case}, {dtype}, {direction} | {name}"
            if "failed" in row:
                lines.append(f"{what} | {row['failed']} | | | |")
                continue
            ratio = f"{best / row['p50_ms']:.2f}" if "fastgan" in name else ""
            times = " | ".join(f"{row[key]:.2f}" for key in ("p20_ms", "p50_ms", "p80_ms"))
            lines.append(f"{what} | {times} | {ratio} |")
    return "\n".join(lines)


SUITES = {
    "conv_norm_act": (
        "Forward + backward of the layers of DCGAN-64, batch 64, in training, median ms.", conv_norm_act_table,
    ),
    "gradient_penalty": (
        "A WGAN-GP critic step: both scores, penalty, all gradients; batch 64; biases, LeakyReLU, no norm.",
        provider_table,
    ),
    "spectral_norm": (
        "Spectral norm of all layers of DCGAN-64's discriminator in training, without the convolutions.",
        provider_table,
    ),
    "norm_act": ("Forward + backward of batch norm + LeakyReLU(0.2) in training, median ms.", norm_act_table),
}  # fmt: skip


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
