"""Finds the benchmarks beside a clone's package: they are no part of an installed one."""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from pathlib import Path

ROOT = Path(__file__).parents[1]


def bench(args: Namespace) -> int:
    """Run ``fastgan bench``; an exit code, 2 with one sentence on stderr where it cannot be done."""
    if not (ROOT / "benchmarks" / "command.py").is_file():
        print("fastgan: bench needs a clone of fastgan's repository, which the benchmarks are part of", file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    # under no static name: a checker of the installed package would follow it
    command = importlib.import_module("benchmarks.command")
    try:
        return command.main(args)
    except ValueError as error:
        print(f"fastgan: {error}", file=sys.stderr)
        return 2
