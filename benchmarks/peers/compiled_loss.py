"""``torch.compile`` of whole losses, the penalty's inner ``autograd.grad`` included (trace_autograd_ops)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peers.peer import Peer


def _compile(loss: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(loss)

    def run(*tensors: Any) -> Any:
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return compiled(*tensors)

    return run


PEER = Peer("compiled_loss", channels_last=True, loss=_compile, suites=("gradient_penalty", "step"))
