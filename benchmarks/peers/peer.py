"""What sets one way to run a GAN apart from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from benchmarks.work import Run, Work


class Refused(Exception):
    """A provider cannot do this; the message is one sentence that says why."""


def as_it_is(thing: Any) -> Any:
    """Return the argument."""
    return thing


def _anything(work: Work) -> None:
    return None


@dataclass(frozen=True)
class Peer:
    """One provider: what its users do to stock models, losses and steps.

    Args:
        name: on the command line and in result files.
        ours: whether it is fastgan; the fastest of the others is the best stock.
        channels_last: models and images are in that format.
        tuned: cuDNN picks its algorithms by trial, Adam is fused.
        model: makes the module that is run from a stock one, which may be changed.
        loss: makes the loss that is run from ``loss(*tensors) -> Tensor``.
        step: makes the step that is run from one without arguments.
        capturable: the optimisers keep their counters on the device, for a CUDA graph.
        penalty: ``autograd`` as by hand, or ``fastgan``'s functions.
        suites: it takes part in; empty: all.
        slow: left out by --quick.
        refuses: raises Refused for what it cannot do.
        build: makes the run in a way of its own.
    """

    name: str
    ours: bool = False
    channels_last: bool = False
    tuned: bool = True
    model: Callable[[nn.Module], nn.Module] = as_it_is
    loss: Callable[[Callable[..., Any]], Callable[..., Any]] = as_it_is
    step: Callable[[Callable[[], Any]], Callable[[], Any]] = as_it_is
    capturable: bool = False
    penalty: str = "autograd"
    suites: tuple[str, ...] = ()
    slow: bool = False
    refuses: Callable[[Work], None] = _anything
    build: Callable[[Work], Run] | None = None
