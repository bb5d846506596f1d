"""Result files: how they are written, read, validated, and how two are compared."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

from benchmarks import table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MAX_BYTES = 16 << 20
# what tells one row of a file from another
KEY = ("suite", "dtype", "case", "batch", "direction", "provider")
SLOWER = 1.05
# what rows of one file must share
SAME = ("device", "threads", "cores", "python", "torch", "triton", "cudnn", "onednn", "jax", "git")
Rows = list[dict[str, Any]]


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result file, which appears whole or not at all. Raises ValueError above 16 MiB."""
    text = json.dumps(result, indent=1) + "\n"
    if len(text) > MAX_BYTES:
        raise ValueError(f"{path} would have {len(text)} bytes, more than 16 MiB")
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file, and the directories it lies in; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def read(path: Path) -> dict[str, Any]:
    """Read a result file. Raises ValueError, in one sentence, for anything else."""
    try:
        result = json.loads(path.read_text())
        rows = result["rows"]
        assert all(name in row for row in rows for name in ("case", "provider", "status"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (ValueError, KeyError, TypeError, AssertionError):
        raise ValueError(f"{path} is not a result file of `fastgan bench`") from None
    return result


def schema() -> dict[str, Any]:
    """The JSON Schema of result files."""
    return json.loads((HERE / "schema.json").read_text())


def resumed(path: Path, head: dict[str, Any]) -> dict[str, Any]:
    """A result file that is to be gone on with by the command in ``head``, which is added to its own.

    Raises: ValueError where it was made on another machine, by other software, or with fewer repeats.
    """
    result = read(path)
    quick = ["--quick" in shlex.split(command) for command in (result["command"], head["command"])]
    if quick[0] != quick[1]:
        raise ValueError(
            f"--resume: {path} was made {'with' if quick[0] else 'without'} --quick, which must be the same"
        )
    differ = [name for name in SAME if result.get(name) != head[name]]
    if differ:
        name = differ[0]
        raise ValueError(f"--resume: {path} was made with {name} {result.get(name)}, here it is {head[name]}")
    return result | {"command": f"{result['command']} && {head['command']}"}


def split(rows: Rows, name: str, batch: int, direction: str) -> tuple[Rows, Rows]:
    """The rows of a case, and all others."""
    found: tuple[Rows, Rows] = [], []
    for row in rows:
        found[(row["case"], row["batch"], row["direction"]) != (name, batch, direction)].append(row)
    return found


def keyed(result: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of a result by what tells them apart."""
    return {tuple((result | row)[name] for name in KEY): row for row in result["rows"]}


def compare(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[str], bool]:
    """Compare two results row by row.

    A row is worse when it is slower by more than 5 %, keeps more than 5 % more bytes, or is no longer right.

    Returns: a line for each row that both have, worst last, and whether any is worse.
    """
    old, found = keyed(before), []
    for key, row in keyed(after).items():
        if key in old and (pair := _pair(old[key], row)):
            what = ", ".join(str(part) for part in key if part)
            found.append((pair[0], f"{pair[1]}  {what}"))
    found.sort(key=lambda pair: pair[0])
    differ = [name for name in ("device", "threads", "torch") if before.get(name) != after.get(name)]
    notes = [f"{name} differs: {before.get(name)} and {after.get(name)}" for name in differ]
    lines = [f"{_verdict(ratio):6} {line}" for ratio, line in found]
    return notes + lines, any(ratio > SLOWER for ratio, _ in found)


def _verdict(ratio: float) -> str:
    return "WORSE" if ratio > SLOWER else "same" if ratio > 1 / SLOWER else "better"


def _pair(old: dict[str, Any], new: dict[str, Any]) -> tuple[float, str] | None:
    if old["status"] != "ok" or new["status"] == "skipped":
        return None
    if new["status"] != "ok":
        return float("inf"), f"{new['status']}: {new['reason']}"
    before, after = table.value(old), table.value(new)
    ratio = after / before
    return ratio, f"{ratio:5.2f}x  {before} to {after} {'ms' if 'p50_ms' in new else 'bytes'}"
