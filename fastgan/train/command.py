"""The command that a person would type to do again what this process does, or to go on."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import fastgan

_MAIN = Path(fastgan.__file__).with_name("__main__.py").resolve()


def command_line() -> str:
    """The command of this process, that of the user's own script included."""
    own = Path(sys.argv[0]).name == "fastgan" or Path(sys.argv[0]).resolve() == _MAIN
    program = _fastgan() if own else [sys.executable, sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


def resume_command(out: Path) -> str:
    """The command that goes on with a run."""
    return shlex.join([*_fastgan(), "train", "--resume", str(out)])


def _fastgan() -> list[str]:
    # under `python -m fastgan` there may be no fastgan on the path, or that of another environment
    ours = shutil.which("fastgan") is not None and Path(sys.argv[0]).name == "fastgan"
    return ["fastgan"] if ours else [sys.executable, "-m", "fastgan"]
