"""fastgan with the implicit matrix product of its Triton backend everywhere, which ``auto`` takes only where it won."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.peers import cuda_graph, fastgan
from fastgan import use_backend


def _on_triton(step: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with use_backend("triton"):
            return step()

    return run


PEER = dataclasses.replace(
    fastgan.PEER, name="fastgan_triton", step=_on_triton, suites=("layers",), refuses=cuda_graph.needs_cuda
)
