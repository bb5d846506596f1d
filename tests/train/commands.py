"""What tests of the command line share."""

import hashlib
import importlib.util
import os
import re
from pathlib import Path

import fastgan
from fastgan.__main__ import main


def run(*args):
    """Exit code of a command; argparse leaves by SystemExit."""
    try:
        return main([str(arg) for arg in args])
    except SystemExit as leaving:
        return leaving.code


def tree(root):
    """Every path under a directory, and what is in the files."""
    paths = sorted(root.rglob("*"))
    return [
        (str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in paths
    ]


def check_refused(capsys, root, sentence, *args):
    """One sentence on stderr, exit code 2, nothing else said, and nothing under ``root`` changed."""
    before = tree(root)
    assert run(*args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(sentence, err), err
    assert len(err.splitlines()) == 1, err
    assert "Traceback" not in err
    assert tree(root) == before


def hide(monkeypatch, package):
    """Let a package look as if it was not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))


def environment():
    """That of a child process in any directory, which imports the fastgan under test."""
    return {**os.environ, "PYTHONPATH": str(Path(fastgan.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
