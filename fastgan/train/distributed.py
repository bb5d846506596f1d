"""Several processes that train one pair of networks: who they are, their share of a batch, and sums over all of them.

Every process draws the same random numbers and the same batch and keeps its own part, so that a run has one state, can
go on with another number of processes, and gives the losses of one process. Gradients are averaged after the backward
passes and not by DistributedDataParallel, whose hooks do not see ``torch.autograd.grad`` and ``critic_step_wgan_gp``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastgan.train.errors import BadInput

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
    def join(cls, device: torch.device) -> World:
        """The processes of ``torchrun``, or of the process group that is there; nccl for CUDA, else gloo."""
        if not dist.is_available():
            return cls()
        if not dist.is_initialized():
            if int(os.environ.get("WORLD_SIZE", "1")) == 1:
                return cls()
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
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

    def largest(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.size == 1:
            return value
        values: list[int] = [0] * self.size
        dist.all_gather_object(values, value)
        return max(values)

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.size > 1:
            dist.barrier()


def local_device(device: torch.device) -> torch.device:
    """The CUDA device of this process under ``torchrun``; any other device as it is."""
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device
