"""Plots of result files as SVG text: speed by shape, roofline, memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import table

STOCK, OURS = "#8a8f98", "#d1495b"
Drawing = Callable[[Axes, dict[str, Any]], None]


def _svg(figure: Figure) -> str:
    # the same text from the same figures
    with matplotlib.rc_context({"svg.hashsalt": "fastgan", "svg.fonttype": "none"}):
        out = io.StringIO()
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _label(each: table.Best) -> str:
    plain = each.direction in ("step", "kept for backward")
    return each.case if plain else f"{each.case}, {each.direction}{each.of_batch}"


def _bars(axes: Axes, result: dict[str, Any], unit: str, scale: float) -> None:
    found = table.best(result["rows"])[::-1]
    places = range(len(found))
    for shift, name, color in ((0.2, "stock", STOCK), (-0.2, "ours", OURS)):
        values = [table.value(getattr(each, name)) / scale for each in found]
        label = "best stock" if name == "stock" else "fastgan"
        axes.barh([place + shift for place in places], values, 0.38, color=color, label=label)
    axes.set_yticks(list(places), [_label(each) for each in found])
    axes.set_xlabel(unit)
    axes.legend()


def _memory(axes: Axes, result: dict[str, Any]) -> None:
    _bars(axes, result, "MiB kept for backward", 2**20)


def _speed(axes: Axes, result: dict[str, Any]) -> None:
    found = table.best(result["rows"])[::-1]
    axes.barh(range(len(found)), [each.ratio for each in found], 0.7, color=OURS)
    axes.axvline(1.0, color=STOCK)
    axes.set_yticks(range(len(found)), [_label(each) for each in found])
    axes.set_xlabel("times as fast as the best stock provider")


def _shapes(axes: Axes, result: dict[str, Any]) -> None:
    found = table.best(result["rows"])
    names = list(dict.fromkeys(each.case for each in found))[::-1]
    batches = sorted({each.batch for each in found})
    for batch, color in zip(batches, matplotlib.colormaps["plasma"].resampled(len(batches) + 1).colors, strict=False):
        members = [each for each in found if each.batch == batch]
        places = [names.index(each.case) for each in members]
        axes.scatter([each.ratio for each in members], places, color=color, s=18, label=f"batch {batch}")
    axes.axvline(1.0, color=STOCK)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-1, len(names))
    axes.set_xlabel(f"{found[0].direction}, times as fast as the best stock provider")
    axes.legend()


def _roofline(axes: Axes, result: dict[str, Any]) -> None:
    ceiling = result["ceilings"]
    peak = max(value for key, value in ceiling.items() if key.startswith("matmul"))
    intensities = [2.0**k for k in range(-2, 13)]
    roof = [min(peak, x * ceiling["copy_gb_s"]) for x in intensities]
    axes.loglog(intensities, roof, color="black", label="measured ceilings")
    for name, color in (("stock", STOCK), ("ours", OURS)):
        rows = [getattr(each, name) for each in table.best(result["rows"])]
        x, y = [r["flops"] / r["bytes"] for r in rows], [r["flops"] / r["p50_ms"] / 1e6 for r in rows]
        axes.loglog(x, y, "o", color=color, markersize=4, label="best stock" if name == "stock" else "fastgan")
    axes.set_xlabel("operations a byte, of the ideal")
    axes.set_ylabel("GFLOP/s")
    axes.legend()


# how each suite is drawn, and whether by a row for each case
KINDS: dict[str, list[tuple[str, Drawing, bool]]] = {
    "memory": [("memory", _memory, True)],
    "layers": [("roofline", _roofline, False)],
    "step": [("speed", _speed, True)],
    "gradient_penalty": [("speed", _speed, True)],
    "spectral_norm": [("speed", _speed, True)],
}


def drawn(found: list[tuple[Path, dict[str, Any]]]) -> dict[str, str]:
    """The plots of result files as SVG text, by file name."""
    made = {}
    for path, result in found:
        for name, draw, rows, lines in _wanted(result):
            figure = Figure(figsize=(7, 1 + 0.3 * lines if lines else 4.5))
            axes = figure.add_subplot()
            draw(axes, result | {"rows": rows})
            axes.set_title(f"{result['suite']}, {result['dtype']}, {result['device']}", fontsize=10)
            kind = f"{result['suite']}-{result['dtype']}" + ("" if name == result["suite"] else f"-{name}")
            made[f"bench-{path.parent.name}-{kind}.svg"] = _svg(figure)
    return made


def _wanted(result: dict[str, Any]) -> Iterator[tuple[str, Drawing, list[dict[str, Any]], int]]:
    """Yield name, drawing, rows and how many lines of text it has, 0 for none, of the plots of one file."""
    rows = result["rows"]
    found = table.best(rows)
    for name, draw, tall in KINDS[result["suite"]] if found else []:
        yield name, draw, rows, len(found) if tall else 0
    for direction in dict.fromkeys(each.direction for each in found) if result["suite"] == "layers" else []:
        members = [row for row in rows if row["direction"] == direction]
        names = {each.case for each in found if each.direction == direction}
        yield direction.replace(" ", "-").replace("+", "-"), _shapes, members, len(names)
