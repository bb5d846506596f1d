"""What a suite gives to its peers: stock models and inputs, and how right a result must be to be timed."""

from __future__ import annotations

import contextlib
import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.peers.peer import Peer

Results = dict[str, Tensor]
# errors allowed, as a share of a norm: of values, and of what comes through the gradients of ReLUs, which jump:
# one unit of 10^5 at its kink is 3e-3 of the norm
SMOOTH = {torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
JUMPS = {torch.float32: 3e-2, torch.float16: 8e-2, torch.bfloat16: 0.2}
VALUES = ("result", "loss", "losses")
# how many times as far off as eager PyTorch a gradient may be, and eager's error above which it measures nothing
SLACK, LOST = 1.5, 0.3


def _nothing() -> None:
    pass


@dataclass
class Run:
    """One provider of one case.

    Args:
        step: what is timed.
        results: what the last step gave, by name, in any shape and dtype.
        restore: brings all that steps change back to the beginning, in place; before the step that is checked.
        images: that one step trains on.
        in_torch: whether torch allocates its memory.
    """

    step: Callable[[], Any]
    results: Callable[[], Results]
    restore: Callable[[], None] = _nothing
    images: int = 0
    in_torch: bool = True

    def checked(self) -> Results:
        """Run from the beginning, warmed up by a step before."""
        self.step()
        self.restore()
        self.step()
        return self.results()


class Work(ABC):
    """One case on one device.

    Args:
        dtype: float32 and float64 are computed in themselves, types of 16 bits by autocast, parameters in float32.
        device: cpu or cuda.
    """

    def __init__(self, case: Case, dtype: torch.dtype, device: str) -> None:
        self.case, self.dtype, self.device = case, dtype, device
        self.parameter_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        torch.manual_seed(0)

    @abstractmethod
    def run(self, peer: Peer) -> Run:
        """A run as the peer's users write it."""

    @abstractmethod
    def shape(self) -> list[Any]:
        """Of the input."""

    @abstractmethod
    def ideal(self) -> tuple[int, int]:
        """Bytes and operations of one step, each input read once and each result written once."""

    def exactly(self) -> Work:
        """The same in float64."""
        return type(self)(self.case, torch.float64, self.device)

    def build(self, peer: Peer) -> Run:
        """A run of a peer. Raises Refused where it cannot do this, and whatever goes wrong in making it."""
        peer.refuses(self)
        torch.manual_seed(0)
        return peer.build(self) if peer.build else self.run(peer)

    def errors(self, found: Results, exact: Results) -> dict[str, float]:
        """How far each result is off, as a share of ``size``; infinity where it is missing or not a number."""
        errors = {}
        for name, right in exact.items():
            right = right.cpu().double().flatten()
            got = found[name].detach().cpu().double().flatten() if name in found else right * math.nan
            error = ((got - right).norm() / self.size(name, right)).item()
            errors[name] = error if error < math.inf else math.inf
        return errors

    def wrong(self, errors: dict[str, float], plain: dict[str, float]) -> str:
        """A sentence on the first result that is off by too much, empty where none is.

        Args:
            plain: errors of eager PyTorch in the same dtype, the measure of gradients where rounding alone takes more
                than is allowed; empty where it takes no part.
        """
        for name, error in errors.items():
            eager = 0.0 if name in VALUES else plain.get(name, 0.0)
            bound = max(self.allowed(name), SLACK * eager if eager <= LOST else 0.0)
            if error > bound:
                return f"{name} off by {error:.1e} of its size, {bound:.1e} is allowed"
        return ""

    def size(self, name: str, right: Tensor) -> float:
        """What an error is a share of: the norm of the exact result."""
        return max(right.norm().item(), 1e-30)

    def allowed(self, name: str) -> float:
        """How far a result may be off, as a share of ``size``, whatever eager PyTorch is."""
        # cuDNN multiplies float32 as TF32, whose fraction has as many bits as that of float16
        dtype = torch.float16 if self.device == "cuda" and self.dtype == torch.float32 else self.dtype
        return (SMOOTH if name in VALUES else JUMPS)[dtype]

    def model(self, stock: nn.Module, peer: Peer) -> tuple[nn.Module, nn.Module]:
        """A copy of a stock model, and what a peer runs of it."""
        own = copy.deepcopy(stock).to(self.device, self.parameter_dtype)
        own = own.to(memory_format=torch.channels_last if peer.channels_last else torch.contiguous_format)
        return own, peer.model(own)

    def place(self, x: Tensor, peer: Peer, dtype: torch.dtype | None = None) -> Tensor:
        """A float32 tensor as a peer wants it, in a dtype, as a rule that of parameters."""
        last = peer.channels_last and x.dim() == 4
        # a copy, since it gets a gradient
        x = x.clone(memory_format=torch.channels_last if last else torch.contiguous_format)
        return x.to(self.device, dtype or self.parameter_dtype)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast where the dtype is of 16 bits."""
        if self.dtype.itemsize > 2:
            return contextlib.nullcontext()
        return torch.autocast(self.device, self.dtype)


def gradient(t: Tensor) -> Tensor:
    """The gradient that a tensor has; zeros for none, which is what a result that does not depend on it leaves."""
    return torch.zeros_like(t) if t.grad is None else t.grad


def gradients(model: nn.Module) -> Tensor:
    """All gradients of a model, one after the other; of all together, since one by itself may be 0 but for rounding."""
    return torch.cat([gradient(p).flatten() for p in model.parameters()])


def parameters(model: nn.Module) -> Tensor:
    """All parameters of a model, one after the other."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def exact(work: Work) -> Results:
    """The results in float64, of eager PyTorch on NCHW."""
    run = work.exactly().run(Peer("exact", tuned=False))
    run.step()
    return run.results()


def in_place(*models: nn.Module) -> Callable[[], None]:
    """A function that gives models the parameters and buffers that they have now, in the same memory."""
    saved = [(t, t.detach().clone()) for model in models for t in (*model.parameters(), *model.buffers())]

    @torch.no_grad()
    def restore() -> None:
        for tensor, value in saved:
            tensor.copy_(value)

    return restore
