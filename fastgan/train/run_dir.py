"""The directory of a run: who may write to it, and where things lie in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fastgan.train.errors import BadInput
from fastgan.train.files import write_text

if TYPE_CHECKING:
    from fastgan.train.config import TrainConfig

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCK = ".lock"


class RunDir:
    """Paths of a run, and the lock that keeps a second process out.

    The lock is the operating system's (flock): it goes with the process, however that ends. Windows has none.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.config = self.root / "config.toml"
        self.metrics = self.root / "metrics.jsonl"
        self.scores = self.root / "scores.jsonl"
        self.samples = self.root / "samples"
        self.checkpoints = self.root / "checkpoints"
        self._lock: IO[str] | None = None

    def check_new(self) -> None:
        """Raise BadInput unless a new run may start here: no directory, or an empty one. Writes nothing."""
        there = next(path for path in [self.root, *self.root.absolute().parents] if path.exists())
        if not there.is_dir():
            raise BadInput(f"{there} is a file, not a directory")
        if not os.access(there, os.W_OK | os.X_OK):
            raise BadInput(f"{there} cannot be written to")
        if not self.root.exists() or not self._holds_files():
            return
        if self._is_locked():
            raise BadInput(f"{self.root} is in use by another run, choose another directory with --out")
        if self.config.exists():
            raise BadInput(
                f"{self.root} holds another run, go on with it (fastgan train --resume {self.root})"
                " or choose another directory with --out"
            )
        raise BadInput(f"{self.root} is not empty, choose another directory with --out")

    def check_there(self) -> None:
        """Raise BadInput unless there is a run here."""
        if not self.config.exists():
            raise BadInput(f"{self.root} holds no run: there is no {self.config.name} in it")

    def check_old(self) -> None:
        """Raise BadInput unless there is a run here whose logs can be read. Writes nothing."""
        if not self.config.exists():
            raise BadInput(f"{self.root} holds no run to go on with")
        for path in (self.metrics, self.scores):
            self.rows(path)

    def create(self, config: TrainConfig) -> None:
        """Make the directory of a new run, lock it and write its settings. Raises BadInput when another was first.

        With the settings there the run can be gone on with, whenever it is killed.
        """
        self.check_new()
        self.root.mkdir(parents=True, exist_ok=True)
        self.lock()
        if self._holds_files():
            self.unlock()
            raise BadInput(f"{self.root} is in use by another run, choose another directory with --out")
        config.write(self.config)
        self._make_directories()

    def reopen(self, step: int) -> None:
        """Lock an existing run to go on after a step; what was left half-written, or logged after it, goes."""
        self.lock()
        self._make_directories()
        for directory in (self.root, self.samples, self.checkpoints):
            for temporary in directory.glob("*.tmp"):
                temporary.unlink()
        for path in (self.metrics, self.scores):
            self._drop_after(path, step)

    def lock(self) -> None:
        """Lock an existing directory until ``unlock`` or the end of the process. Raises BadInput when it is taken."""
        if self._lock is not None or fcntl is None:
            return
        file = (self.root / _LOCK).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise BadInput(f"{self.root} is in use by another run") from None
        self._lock = file

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def append(self, path: Path, row: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl or scores.jsonl. Raises BadInput when it cannot be written."""
        try:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise BadInput(f"{path} cannot be written ({error.strerror or error})") from None

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl or scores.jsonl; none when there is no such file.

        Raises: BadInput when one is no JSON object with a step.
        """
        if not path.exists():
            return []
        lines = [line for line in path.read_text(errors="replace").splitlines(keepends=True) if line.endswith("\n")]
        return [_row(path, line) for line in lines]

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run; replaces it in one move."""
        write_text(self.root / name, json.dumps(content, indent=1) + "\n")

    def _drop_after(self, path: Path, step: int) -> None:
        rows = self.rows(path)
        if rows or path.exists():
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))

    def _make_directories(self) -> None:
        self.samples.mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)

    def _holds_files(self) -> bool:
        return any(path.name != _LOCK and path.suffix != ".tmp" for path in self.root.iterdir())

    def _is_locked(self) -> bool:
        if fcntl is None or not (self.root / _LOCK).exists():
            return False
        with (self.root / _LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False


def _row(path: Path, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise BadInput(f"{path} must have a JSON object with a step on each line, got {line.strip()[:40]!r}")
    return row
