"""The directory of a run: who may write to it, and where things lie in it."""

import json
import os
from pathlib import Path
from typing import IO, Any

from fastgan.train.checkpoint import checkpoint_steps
from fastgan.train.errors import BadInput

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
        if checkpoint_steps(self.checkpoints):
            raise BadInput(
                f"{self.root} holds another run, go on with it (fastgan train --resume {self.root})"
                " or choose another directory with --out"
            )
        raise BadInput(f"{self.root} is not empty, choose another directory with --out")

    def create(self) -> None:
        """Make the directory of a new run and lock it. Raises BadInput when another process was first."""
        self.check_new()
        self.root.mkdir(parents=True, exist_ok=True)
        self.lock()
        if self._holds_files():
            self.unlock()
            raise BadInput(f"{self.root} is in use by another run, choose another directory with --out")
        self.samples.mkdir()
        self.checkpoints.mkdir()

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

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def drop_metrics_after(self, step: int) -> None:
        """Remove the lines that a killed run wrote after the checkpoint from which it goes on."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            self.metrics.write_text("".join(kept))

    def _holds_files(self) -> bool:
        return any(path.name != _LOCK for path in self.root.iterdir())

    def _is_locked(self) -> bool:
        if fcntl is None or not (self.root / _LOCK).exists():
            return False
        with (self.root / _LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False
