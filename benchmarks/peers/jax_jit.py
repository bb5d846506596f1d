"""JAX: each step of a player as one jitted function, NHWC, buffers donated; the penalty by jax.grad of jax.grad."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from benchmarks.peers.peer import Peer, Refused
from benchmarks.work import Run

if TYPE_CHECKING:
    from benchmarks.work import Work


def _refuses(work: Work) -> None:
    if importlib.util.find_spec("jax") is None:
        raise Refused('JAX is not installed: pip install "fastgan[peers]"')
    if work.device == "cuda":
        import jax

        if jax.default_backend() != "gpu":
            raise Refused("the JAX installed here has no GPU support")


def _build(work: Work) -> Run:
    from benchmarks.peers import jax_steps

    made: dict[str, Any] = {"step": jax_steps.training, "gradient_penalty": jax_steps.critic}
    return made[work.case.suite](work)


PEER = Peer("jax_jit", suites=("step", "gradient_penalty"), refuses=_refuses, build=_build)
