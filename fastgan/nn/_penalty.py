"""The two ways to a gradient penalty: by a tape of the critic in the least number of passes, and by autograd."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastgan import ops
from fastgan.backends.layout import accumulate_dtype
from fastgan.nn._tape import Curved, Tape

Critic = Callable[[Tensor], Tensor]
# weight, target and one_sided of the op
Form = tuple[float, float, bool]
# loss, wasserstein, penalty
Step = tuple[Tensor, Tensor, Tensor]
# by critic and by whether it was a whole step: in which mode that was, and why the general path, empty for the fast one
_paths: weakref.WeakKeyDictionary[nn.Module, dict[bool, tuple[bool, str]]] = weakref.WeakKeyDictionary()


def paths_of(critic: nn.Module) -> dict[str, str]:
    """Return why a critic's penalties and critic steps take the general path, empty for the fast one; no entry for
    what never ran."""
    names = {False: "gradient penalty", True: "critic step"}
    return {names[step]: reason for step, (_, reason) in sorted(_paths.get(critic, {}).items())}


def taped(critic: Any, x: Tensor, start: int) -> Tape | None:
    """Return the tape of the critic's call on x; None, with the critic as it was, where it takes the general path."""
    if not isinstance(critic, nn.Module) or torch.compiler.is_compiling() or x.numel() == 0:
        return None
    known = _paths.setdefault(critic, {})
    training, reason = known.get(start > 0, (critic.training, ""))
    if reason and training == critic.training:
        return None
    tape, reason = Tape(x, start), ""
    try:
        with _undone_on_error(critic, x, several_calls=start > 0):
            tape.record(critic)
    except Curved as curved:
        reason = str(curved)
    known[start > 0] = (critic.training, reason)
    return None if reason else tape


@contextlib.contextmanager
def _undone_on_error(critic: nn.Module, x: Tensor, several_calls: bool) -> Iterator[None]:
    """Put buffers and random numbers back where they were, should the block raise.

    Args:
        several_calls: the block does in one call what takes several by hand; it raises Curved if that shows.
    """
    buffers = [(m, b, b._version, b.detach().clone()) for m in critic.modules() for b in m.buffers(recurse=False)]
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(x.device)] if x.is_cuda else [])]
    try:
        yield
        for module, buffer, version, _ in buffers:
            # spectral norm that iterates once a step does so however often it is read
            if several_calls and buffer._version != version and getattr(module, "per", "") != "step":
                raise Curved("it changes its buffers at each call, and a step by hand has three")
    except BaseException:
        for _, buffer, version, value in buffers:
            if buffer._version != version:
                buffer.detach().copy_(value)
        torch.set_rng_state(states[0])
        if x.is_cuda:
            torch.cuda.set_rng_state(states[1], x.device)
        raise


class _FastPenalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tape: Tape, form: Form, *roots: Tensor) -> Tensor:
        with _as_recorded(tape.x):
            g = tape.input_gradient(torch.ones_like(tape.values[tape.result]))
            penalty, ctx.seed = ops.gradient_penalty.gradient_penalty(g, *form)
        ctx.tape = tape
        return penalty

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dpenalty: Tensor) -> tuple:
        with _as_recorded(ctx.seed):
            found = ctx.tape.weight_gradients(ctx.seed * dpenalty.to(ctx.seed.dtype))
        return None, None, *(gradient for _, gradient in found)


@contextlib.contextmanager
def _as_recorded(x: Tensor) -> Iterator[None]:
    """Without a graph, and without autocast, whose casts are on the tape."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        yield


def fast_penalty(tape: Tape, form: Form) -> Tensor:
    """Return the penalty at the points that the tape was recorded at."""
    return _FastPenalty.apply(tape, form, *tape.weights())


def general_penalty(critic: Critic, points: Tensor, form: Form) -> Tensor:
    """Return the penalty at points by autograd, any critic."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        scores = critic(points)
        if not isinstance(scores, Tensor) or not scores.requires_grad:
            raise TypeError(f"gradient_penalty: critic must return a Tensor that depends on its input, got {_say(scores)}")
        (g,) = torch.autograd.grad(scores, points, torch.ones_like(scores), create_graph=graph)
    penalty, _ = ops.gradient_penalty.gradient_penalty(g, *form)
    return penalty


def _say(scores: Any) -> str:
    return "one that does not" if isinstance(scores, Tensor) else type(scores).__name__


def general_step(critic: nn.Module, stacked: Tensor, form: Form, scale: float) -> Step:
    """Run a critic step on (3N, ...) of real, fake and the points between them by autograd."""
    real, fake, points = stacked.chunk(3)
    wide = accumulate_dtype(stacked.dtype)
    with torch.enable_grad():
        wasserstein = critic(real).mean(dtype=wide) - critic(fake).mean(dtype=wide)
        penalty = general_penalty(critic, points, form)
        loss = penalty - wasserstein
        (loss * scale).backward()
    return loss.detach(), wasserstein.detach(), penalty.detach()


@torch.no_grad()
def fast_step(tape: Tape, form: Form, scale: float) -> Step:
    """Run a critic step on a tape of (3N, ...) of real, fake and the points between them."""
    scores = tape.values[tape.result]
    count, wide = scores.numel() // 3, accumulate_dtype(scores.dtype)
    seed = torch.empty_like(scores)
    for part, value in zip(seed.chunk(3), (-scale / count, scale / count, 1.0), strict=True):
        part.fill_(value)
    real, fake, _ = (part.mean(dtype=wide) for part in scores.chunk(3))
    wasserstein = real - fake
    with _as_recorded(tape.x):
        penalty, v = ops.gradient_penalty.gradient_penalty(tape.input_gradient(seed), *form)
        found = tape.weight_gradients(v if scale == 1 else v * scale)
    if found:
        roots, gradients = zip(*found, strict=True)
        torch.autograd.backward(roots, gradients)
    return penalty - wasserstein, wasserstein, penalty
