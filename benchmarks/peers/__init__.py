"""Those that are timed against each other, one file each; a name on the command line is a file's name."""

from __future__ import annotations

import importlib

from benchmarks.peers.peer import Peer

# the order in which they are run; the first is what speed-ups are told against
NAMES = (
    "eager",
    "channels_last",
    "compiled",
    "fastgan",
    "fastgan_nchw",
    "dcgan_example",
    "torch_hook",
    "compiled_loss",
    "jax_jit",
    "cuda_graph",
    "fastgan_graph",
    "fastgan_triton",
    "max_autotune",
)


def load(names: list[str] | None = None) -> list[Peer]:
    """Return peers by name, all of them where no names are given. Raises ValueError for an unknown name."""
    unknown = sorted(set(names or ()) - set(NAMES))
    if unknown:
        raise ValueError(f"--providers must be of {', '.join(NAMES)}, got {', '.join(unknown)}")
    return [importlib.import_module(f"benchmarks.peers.{name}").PEER for name in NAMES if not names or name in names]
