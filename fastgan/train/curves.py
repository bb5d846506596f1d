"""Curves of a run as SVG elements that take their colours from the page around them."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

# titles of charts, and what they show, by key
Groups = dict[str, tuple[str, tuple[str, ...]]]
_POINTS = 1000  # a curve
SMOOTH = 100  # a curve with more points is drawn with its moving average
_MEASURED: Groups = {
    "losses": ("Losses", ("d_loss", "g_loss")),
    "penalty": ("Gradient penalty", ("penalty",)),
    "wasserstein": ("Wasserstein estimate", ("wasserstein",)),
    "accuracy": ("Accuracy of the discriminator", ("d_accuracy",)),
    "diversity": ("Diversity of the samples, 1 for real images", ("diversity",)),
}
_PACE: Groups = {"speed": ("Images a second", ("images_per_second",))}
_SCORED: Groups = {"kid": ("KID", ("kid",))}
_LABELS = {"d_loss": "discriminator", "g_loss": "generator", "kid": "generated images"}
# matplotlib knows no CSS variables: a colour that stands for each, and has no other use
_COLOURS = {
    "#010101": "--ink",
    "#010102": "--faint",
    "#010103": "--line-1",
    "#010104": "--line-2",
    "#010105": "--line-3",
}
_INK, _FAINT, *_LINES = _COLOURS
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "grid.color": _FAINT,
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
}


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes.

    Args:
        key: unique in the page.
        title: what the values are.
        curves: steps and values by label.
        floor: what a perfect generator would reach, or None.
    """

    key: str
    title: str
    curves: dict[str, tuple[list[int], list[float]]]
    floor: float | None = None

    def last(self) -> str:
        """The newest values in words."""
        names = [f"{label} " if len(self.curves) > 1 else "" for label in self.curves]
        values = [f"{name}{values[-1]:.4g}" for name, (_, values) in zip(names, self.curves.values(), strict=True)]
        return f"{', '.join(values)} at step {max(steps[-1] for steps, _ in self.curves.values()):,}"


def metric_charts(rows: list[dict[str, Any]]) -> list[Chart]:
    """Charts of the rows of metrics.jsonl: the losses first, what only some models measure, then the pace."""
    known = {name for _, names in [*_MEASURED.values(), *_PACE.values()] for name in names}
    others = [
        name for name in dict.fromkeys(name for row in rows for name in row) if name not in known | {"step", "warning"}
    ]
    rest = {f"other-{name}": (name.replace("_", " ").capitalize(), (name,)) for name in others}
    return _charts(rows, {**_MEASURED, **rest, **_PACE}, {})


def score_charts(rows: list[dict[str, Any]], floor: dict[str, Any]) -> list[Chart]:
    """Charts of the rows of scores.jsonl, with the scores of real images as floors."""
    return _charts(rows, _SCORED, floor)


def number(value: Any) -> float | None:
    """A measured value, or the mean of a [mean, standard deviation] pair; None for anything that is not finite."""
    if isinstance(value, list) and len(value) == 2:
        value = value[0]
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def thin(values: np.ndarray, most: int = _POINTS) -> list[int]:
    """Indices of at most so many of the values, ascending: the ends, and the least and the greatest between."""
    if len(values) <= most:
        return list(range(len(values)))
    stretches = np.array_split(values, (most - 2) // 2)
    starts = np.cumsum([0] + [len(stretch) for stretch in stretches[:-1]])
    kept = {0, len(values) - 1}
    for start, stretch in zip(starts.tolist(), stretches, strict=True):
        kept |= {start + int(stretch.argmin()), start + int(stretch.argmax())}
    return sorted(kept)


def draw(chart: Chart) -> str:
    """An SVG element; the same chart gives the same text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "svg.hashsalt": chart.key}):
        # fixed margins: to measure the labels first takes as long as to draw
        figure = Figure(figsize=(6, 2.6))
        figure.subplots_adjust(left=0.1, right=0.985, bottom=0.175, top=0.88)
        FigureCanvasSVG(figure)
        _plot(figure.add_subplot(), chart)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _embed(file.getvalue(), chart)


def _charts(rows: list[dict[str, Any]], groups: Groups, floor: dict[str, Any]) -> list[Chart]:
    charts = []
    for key, (title, names) in groups.items():
        curves = {_LABELS.get(name, name.replace("_", " ")): _curve(rows, name) for name in names}
        curves = {label: curve for label, curve in curves.items() if curve[0]}
        if curves:
            charts.append(Chart(key, title, curves, number(floor.get(names[0])) if len(names) == 1 else None))
    return charts


def _curve(rows: Iterable[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], value) for row in rows if (value := number(row.get(name))) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _plot(axes: Any, chart: Chart) -> None:
    for colour, (label, curve) in zip(_LINES, chart.curves.items(), strict=False):
        steps, values = map(np.asarray, curve)
        if len(values) > SMOOTH:
            kept = thin(values)
            axes.plot(steps[kept], values[kept], color=colour, alpha=0.3, linewidth=0.8)
            evenly = np.linspace(0, len(values) - 1, min(len(values), _POINTS)).round().astype(int)
            axes.plot(steps[evenly], _moving_average(values)[evenly], color=colour, label=label, linewidth=1.6)
        else:
            marker = "o" if len(values) < 20 else ""
            axes.plot(steps, values, color=colour, label=label, linewidth=1.5, marker=marker, markersize=3)
    if chart.floor is not None:
        axes.axhline(chart.floor, color=_INK, linestyle="--", linewidth=0.8, label="real images (floor)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.35, linewidth=0.6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("step")
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)


def _moving_average(values: np.ndarray) -> np.ndarray:
    # centred; near the ends over fewer values
    half = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    start, end = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[end] - total[start]) / (end - start)


def _embed(svg: str, chart: Chart) -> str:
    # names are unique in a page, and the page has a style sheet of its own
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{chart.key}-", svg)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, f"var({variable})")
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box
    head = f'<svg viewBox="{box[1]}" role="img" aria-labelledby="title-{chart.key}">'
    return re.sub(r"<svg.*?>", head, svg, count=1, flags=re.DOTALL)
