"""Text files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from fastgan.train.errors import BadInput


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file; replaces it in one move. Raises BadInput when it cannot be written."""
    temporary = Path(f"{path}.tmp")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
