"""Files that appear whole or not at all, and files named by their step."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastgan.train.errors import BadInput


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write beside a path; moved there when the block ends, removed where it fails."""
    temporary = Path(f"{os.fspath(path)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file; replaces it in one move. Raises BadInput when it cannot be written."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(text)
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror or error})") from None


def step_file(directory: Path, step: int, suffix: str) -> Path:
    """Where a file of a step lies, such as ``step_000500.pt``."""
    return directory / f"step_{step:06d}{suffix}"


def step_files(directory: Path, suffix: str) -> list[tuple[int, Path]]:
    """Steps and paths of such files in a directory, ascending; empty when there is no directory."""
    found = ((re.fullmatch(r"step_(\d+)", path.stem), path) for path in directory.glob(f"step_*{suffix}"))
    return sorted((int(match[1]), path) for match, path in found if match)
