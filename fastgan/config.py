"""Every environment variable fastgan reads, in one place; ``fastgan info`` lists them."""

from __future__ import annotations

import os

VARIABLES = {
    "FASTGAN_BACKEND": "backend for every op: auto (default), reference, native or triton",
    "FASTGAN_BUILD": "what setup.py builds: cpu, cuda or none; default cuda where a CUDA torch and nvcc are, else cpu",
    "LOCAL_RANK": "number of this process among those of torchrun on this machine, and of its CUDA device",
    "RANK": "number of this process among those of torchrun, which sets it; 0 speaks",
    "TRITON_INTERPRET": "1 runs Triton kernels on CPU tensors, slowly, for tests; read when Python starts",
    "WORLD_SIZE": "number of processes of torchrun, which sets it",
}
BACKENDS = ("auto", "reference", "native", "triton")


def environment() -> dict[str, str | None]:
    """Return the value of each variable in ``VARIABLES``, None where it is not set."""
    return {name: os.environ.get(name) for name in VARIABLES}


def backend() -> str:
    """Return FASTGAN_BACKEND, ``auto`` where it is not set.

    Raises: ValueError for a name that is not in ``BACKENDS``.
    """
    name = os.environ.get("FASTGAN_BACKEND") or "auto"
    if name not in BACKENDS:
        raise ValueError(f"FASTGAN_BACKEND must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def first_process() -> bool:
    """Return whether this process has rank 0 among those of ``torchrun``, or is alone."""
    return os.environ.get("RANK", "0") == "0"


def local_rank() -> int | None:
    """Return the number of this process among those of ``torchrun`` on this machine, None where it is of none."""
    rank = os.environ.get("LOCAL_RANK")
    return None if rank is None else int(rank)


def several_processes() -> bool:
    """Return whether ``torchrun`` started this process beside others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def triton_interpret() -> bool:
    """Return whether Triton kernels are interpreted on the CPU instead of compiled."""
    return os.environ.get("TRITON_INTERPRET") == "1"
