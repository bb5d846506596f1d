"""A whole step of the game, all players, as one CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.models import MODELS, Batch
from fastgan.train.config import TrainConfig
from fastgan.train.errors import BadInput
from fastgan.train.steps import Players

_WARM_UP = 3


class GraphedStep:
    """``Players.step`` launched kernel by kernel for three steps, then recorded, and replayed from there on.

    What is recorded reads its batches from buffers that each call fills. Source: PyTorch's notes on CUDA graphs,
    whole-network capture.

    Args:
        players: of a config that ``check_graph`` passed.
    """

    def __init__(self, players: Players) -> None:
        self.players, self._left = players, _WARM_UP
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(players.device)
        self._buffers: list[Batch] = []
        self._measured: dict[str, Tensor] = {}

    def __call__(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """As ``Players.step``; the scalars returned are overwritten by the next call."""
        if self._graph is None and self._left:
            self._left -= 1
            return self._one_by_one(batches)
        if self._graph is None:
            self._record(batches)
        for buffer, batch in zip(self._buffers, batches, strict=True):
            _copy(buffer, batch)
        assert self._graph is not None
        self._graph.replay()
        return self._measured

    def _one_by_one(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        # the memory of steps before the recording must not be that of the current stream
        current = torch.cuda.current_stream(self.players.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            measured = self.players.step(batches)
        current.wait_stream(self._stream)
        return measured

    def _record(self, batches: Sequence[Batch]) -> None:
        graph = torch.cuda.CUDAGraph()
        for generator in self.players.device_generators():
            graph.register_generator_state(generator)
        self._buffers = [_clone(batch) for batch in batches]
        with torch.cuda.graph(graph, stream=self._stream):
            self._measured = self.players.step(self._buffers)
        self._graph = graph


def check_graph(config: TrainConfig, device: torch.device, size: int) -> None:
    """Raise BadInput where a step is not the same kernels each time, or waits for one of their results."""
    fixed = {
        "device": (device.type == "cuda", "cuda"),
        "dtype": (config.dtype != "float16", "float32 or bfloat16"),
        "penalty_every": (config.penalty_every == 1, "1"),
        "instance_noise_steps": (config.instance_noise_steps == 0, "0"),
        "lr_schedule": (config.lr_schedule == "constant", "constant"),
        "model": (not MODELS[config.model].grows, "one that does not grow"),
    }
    for name, (holds, contract) in fixed.items():
        if not holds:
            raise BadInput(f"{name} must be {contract} with graph, got {getattr(config, name)!r}")
    if size > 1:
        raise BadInput(f"graph is for one process, got {size}")


def _clone(batch: Batch) -> Batch:
    return Batch(batch.real.clone(), tuple(map(torch.clone, batch.inputs)), tuple(map(torch.clone, batch.given)))


def _copy(buffer: Batch, batch: Batch) -> None:
    buffer.real.copy_(batch.real)
    for old, new in zip((*buffer.inputs, *buffer.given), (*batch.inputs, *batch.given), strict=True):
        old.copy_(new)
