"""Several processes that train one pair of networks: each one's share of a batch, and what they say to each other.

Every process draws the same random numbers and the same batch and keeps its own part, so that a run has one state, can
go on with another number of processes, and gives the losses of one process. Gradients are averaged after the backward
passes and not by DistributedDataParallel, whose hooks do not see ``torch.autograd.grad`` and ``critic_step_wgan_gp``.
"""

from __future__ import annotations

import atexit
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastgan.config import first_process, local_rank, several_processes
from fastgan.train.errors import BadInput, TrainingFailed, first_line

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """This process among those of a run.

    Args:
        rank: 0 to size - 1; rank 0 writes files and speaks.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> World:
        """The processes of ``torchrun``, or of the process group that is there; gloo, and nccl for CUDA tensors.

        Raises: BadInput when the processes do not find each other.
        """
        if not dist.is_available():
            return cls()
        if not dist.is_initialized():
            if not several_processes():
                return cls()
            # messages between the processes themselves go by gloo, which waits for no work of a GPU
            cuda = torch.cuda.is_available() and dist.is_nccl_available()
            try:
                dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_TIMEOUT)
            except (ValueError, RuntimeError) as error:
                raise BadInput(f"the processes of this run cannot find each other: {first_line(error)}") from None
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def check(self, batch_size: int, model: nn.Module, convert: bool, device: torch.device) -> None:
        """Raise BadInput unless a batch can be shared out and batch norm can be synchronised."""
        if batch_size % self.size:
            raise BadInput(f"batch_size must be a multiple of the {self.size} processes, got {batch_size}")
        norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
        if self.size > 1 and norms and not convert and device.type == "cpu":
            raise BadInput("convert must be true for batch norm in several processes on a CPU, got false")

    def synchronise(self, model: nn.Module) -> nn.Module:
        """Give batch norm the statistics of all processes, as ``torch.nn.SyncBatchNorm``."""
        return nn.SyncBatchNorm.convert_sync_batchnorm(model) if self.size > 1 else model

    def seed(self, *numbers: int) -> int:
        """A seed of 32 bits for these numbers, another one in each process."""
        return zlib.crc32(repr((self.rank, *numbers)).encode())

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch (N, ...): (N / size, ...)."""
        if self.size == 1:
            return batch
        count = len(batch) // self.size
        return batch[self.rank * count : (self.rank + 1) * count]

    def average(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace tensors by their means over all processes, in one message for each dtype."""
        if self.size == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            if tensor is not None:
                kinds.setdefault(tensor.dtype, []).append(tensor)
        for group in kinds.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            flat.div_(self.size)
            for tensor, mean in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(mean.view(tensor.shape))

    @torch.no_grad()
    def equalise(self, model: nn.Module | None) -> None:
        """Give a model the parameters and buffers that it has in rank 0."""
        if self.size == 1 or model is None:
            return
        with self.all_alive():
            for tensor in model.state_dict().values():
                if isinstance(tensor, Tensor):
                    value = tensor.contiguous()
                    dist.broadcast(value, 0)
                    tensor.copy_(value)

    def gather(self, value: Any) -> list[Any]:
        """What each process has for a value that can be pickled, in the order of ranks."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            with self.all_alive():
                dist.all_gather_object(values, value)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails in one process fails in all; they wait for each other at the end, and must not inside.

        Raises: the BadInput, TrainingFailed or OSError of the lowest rank; for another error elsewhere TrainingFailed.
        """
        if self.size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        failures = [told for told in self.gather(self._told(failure)) if told is not None]
        if failure is not None and not isinstance(failure, _EXPECTED):
            raise failure
        if failures:
            raise failures[0]

    @contextmanager
    def all_alive(self) -> Iterator[None]:
        """Raise TrainingFailed where a message fails because another process has ended or does not answer."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise TrainingFailed(
                f"another process of this run has ended or does not answer: {first_line(error)}"
            ) from None

    def _told(self, failure: Exception | None) -> Exception | None:
        if failure is None or isinstance(failure, _EXPECTED):
            return failure
        return TrainingFailed(f"process {self.rank} has failed: {type(failure).__name__}: {first_line(failure)}")


_EXPECTED = (BadInput, TrainingFailed, OSError)


def speaks() -> bool:
    """Whether this process is the one of its run that prints."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return not several_processes() or first_process()


def local_device(device: torch.device) -> torch.device:
    """The CUDA device of this process under ``torchrun``; any other device as it is. Raises BadInput for too few."""
    number = local_rank()
    if device.type != "cuda" or number is None:
        return device
    count = torch.cuda.device_count()
    if number >= count:
        raise BadInput(f"each process needs a CUDA device of its own, and there are {count} on this machine")
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
