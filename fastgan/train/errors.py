"""What goes wrong in training, as one sentence for the person who started it."""

import importlib.util


class BadInput(ValueError):
    """Something that the user gave cannot be used; the message is one sentence, the command line exits with 2."""


class TrainingFailed(RuntimeError):
    """Training cannot go on (a loss is no longer finite); the message is one sentence, the exit code 1."""


def first_line(error: Exception) -> str:
    """What an error says in its first line, its type's name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def find_package(name: str) -> bool:
    """Whether a package is installed; nothing is imported."""
    return importlib.util.find_spec(name) is not None


def require_extra(*packages: str) -> None:
    """Raise BadInput when one of the packages of the ``train`` extra is missing."""
    missing = [name for name in packages if not find_package(name)]
    if missing:
        raise BadInput(f'training needs {", ".join(missing)}, so install them with `pip install "fastgan[train]"`')
