"""Eager PyTorch, channels_last, the whole step captured once as a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.peers.peer import Peer, Refused

if TYPE_CHECKING:
    from benchmarks.work import Work

WARM_UP = 3


def needs_cuda(work: Work) -> None:
    """Raise Refused on a CPU."""
    if work.device != "cuda":
        raise Refused("it needs a CUDA device")


def captured(step: Callable[[], Any]) -> Callable[[], Any]:
    """Return a step that captures itself at its first call and is replayed from then on."""
    graph = torch.cuda.CUDAGraph()
    kept: list[Any] = []

    def run() -> Any:
        if not kept:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                kept.append(step())
        graph.replay()
        return kept[0]

    return run


PEER = Peer("cuda_graph", channels_last=True, capturable=True, step=captured, refuses=needs_cuda)
