"""The report of a run: one HTML file with its pictures, curves, scores and settings, that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastgan.train import curves
from fastgan.train.config import TrainConfig
from fastgan.train.errors import BadInput, require_extra
from fastgan.train.files import replacing
from fastgan.train.film import sample_grids, spread
from fastgan.train.run_dir import RunDir

_COURSE, _THUMBNAIL = 12, 320  # grids, and the longer side of each in pixels
_FILM = 8 * 2**20  # bytes; a longer film stays beside the report
_SCORES = {
    "kid": "KID",
    "frechet": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "classifier_score": "classifier score",
}
_ROWS = {"floor": "real against real (floor)", "before": "before training", "after": "after training"}


def write_report(run: RunDir) -> Path:
    """Write ``report.html`` into a run's directory; replaces the file in one move.

    The file holds its pictures and curves and asks for nothing else, so it can be opened from disk or sent by mail. The
    same run gives the same file. What a run does not have yet (measurements, grids, scores) is left out or said to be
    missing; a last line of measurements that a killed run has left unfinished is left out.

    Returns: the file's path.
    Raises: BadInput when there is no run, one of its files cannot be read, or a package is missing.
    """
    require_extra("PIL", "matplotlib", "jinja2")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["figure"] = _figure
    path = run.root / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page.get_template("report.html.j2").render(_collect(run)), encoding="utf-8")
    return path


def _collect(run: RunDir) -> dict[str, Any]:
    settings = asdict(TrainConfig.read(run.config))
    facts, scores = _read_json(run.root / "run.json"), _read_json(run.root / "scores.json")
    rows, grids = run.rows(run.metrics), sample_grids(run)
    floor: dict[str, Any] = next((row for row in scores.get("rows", []) if row["name"] == "floor"), {})
    reached = max([row["step"] for row in rows[-1:]] + [step for step, _ in grids[-1:]], default=0)
    film = run.root / "course.gif"
    return {
        "title": f"{settings['name'] or settings['model']} on {settings['data']}",
        "reached": reached,
        "steps": _text(settings["steps"]),
        "size": f"{settings['image_size']} x {settings['image_size']}",
        "loss": settings["loss"],
        "settings": _flat(settings, _exact),
        "command": facts.pop("command", ""),
        "facts": _flat(facts, _text),
        "warnings": [(row["step"], row["warning"]) for row in rows if row.get("warning")],
        "newest": (grids[-1][0], _data_uri(grids[-1][1].read_bytes(), "png")) if grids else None,
        "course": [(step, _thumbnail(path)) for step, path in spread(grids, _COURSE)],
        "film": _data_uri(film.read_bytes(), "gif") if film.exists() and film.stat().st_size <= _FILM else "",
        "film_beside": film.name if film.exists() else "",
        "smooth": curves.SMOOTH,
        "charts": curves.metric_charts(rows),
        "score_charts": curves.score_charts(run.rows(run.scores), floor),
        "scores": _score_table(scores),
    }


def _score_table(scores: dict[str, Any]) -> dict[str, Any]:
    rows = scores.get("rows", [])
    names = [name for name in _SCORES if any(name in row for row in rows)]
    steps = [f", step {row['step']:,}" if row["name"] == "after" and "step" in row else "" for row in rows]
    table = [
        [_ROWS.get(row["name"], row["name"]) + step] + [_text(row.get(name)) for name in names]
        for row, step in zip(rows, steps, strict=True)
    ]
    about = {name: scores[name] for name in ("network", "n", "data", "seed") if name in scores}
    return {"heads": [_SCORES[name] for name in names], "rows": table, "about": about}


def _text(value: Any) -> str:
    """A measured value as a reader wants it: 0.01234 ± 0.00056 for a pair, 5,000 for a count, - for none."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ± ".join(f"{part:.5f}" for part in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _flat(settings: dict[str, Any], text: Callable[[Any], str], before: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in settings.items():
        pairs += _flat(value, text, f"{before}{name}.") if isinstance(value, dict) else [(before + name, text(value))]
    return pairs


def _exact(value: Any) -> str:
    """A setting as config.toml has it."""
    return value if isinstance(value, str) and value else json.dumps(value)


def _figure(chart: curves.Chart) -> Any:
    from markupsafe import Markup

    return Markup(curves.draw(chart))


def _thumbnail(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        if max(image.size) <= _THUMBNAIL:
            return _data_uri(path.read_bytes(), "png")
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        file = io.BytesIO()
        image.save(file, format="PNG")
    return _data_uri(file.getvalue(), "png")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from None
