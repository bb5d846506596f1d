"""The two ways to a gradient penalty: by a tape of the critic in the least number of passes, and by autograd."""

from __future__ import annotations

import contextlib
import itertools
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fastgan import ops
from fastgan.backends.layout import accumulate_dtype
from fastgan.nn._tape import Curved, Tape
from fastgan.nn._tape_rules import record_call

Critic = Callable[[Tensor], Tensor]
# weight, target and one_sided of the op
Form = tuple[float, float, bool]
# loss, wasserstein, penalty
Step = tuple[Tensor, Tensor, Tensor]
# whether the critic was in training mode, and whether it got one sample, whose dimension many a squeeze takes away
Mode = tuple[bool, bool]
# by critic and by whether it was a whole step: in which mode that was, and why the general path, empty for the fast one
_paths: weakref.WeakKeyDictionary[nn.Module, dict[bool, tuple[Mode, str]]] = weakref.WeakKeyDictionary()


def paths_of(critic: nn.Module) -> dict[str, str]:
    """Return why a critic's penalties and critic steps take the general path, empty for the fast one; no entry for
    what never ran."""
    names = {False: "gradient penalty", True: "critic step"}
    return {names[step]: reason for step, (_, reason) in sorted(_paths.get(critic, {}).items())}


def taped(critic: Any, x: Tensor, start: int) -> Tape | None:
    """Return the tape of the critic's call on x; None, with the critic as it was, where it takes the general path."""
    if not isinstance(critic, nn.Module) or torch.compiler.is_compiling() or x.numel() == 0 or _lazy(critic):
        return None
    known = _paths.setdefault(critic, {})
    mode = (critic.training, x.shape[0] == 1)
    tried, reason = known.get(start > 0, (mode, ""))
    if reason and tried == mode:
        return None
    tape, reason = Tape(x, start, record_call), ""
    try:
        if any(m._backward_hooks or m._backward_pre_hooks for m in critic.modules()):
            raise Curved("a layer has backward hooks")
        with _undone_on_error(critic, x, several_calls=start > 0), _not_compiled():
            tape.record(critic)
    except Curved as curved:
        reason = str(curved)
    known[start > 0] = (mode, reason)
    return None if reason else tape


def _lazy(critic: nn.Module) -> bool:
    """Return whether a layer waits for its first input to know its sizes."""
    return any(is_lazy(t) for t in itertools.chain(critic.parameters(), critic.buffers()))


def _not_compiled() -> contextlib.AbstractContextManager:
    """Run what torch.compile made as it was before: else it would compile the tape, anew at each call."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextlib.contextmanager
def _undone_on_error(critic: nn.Module, x: Tensor, several_calls: bool) -> Iterator[None]:
    """Put buffers and random numbers back where they were, should the block raise.

    Args:
        several_calls: the block does in one call what takes several by hand; it raises Curved if that shows.
    """
    buffers = [
        (m, name, b, b._version, b.detach().clone())
        for m in critic.modules()
        for name, b in m.named_buffers(recurse=False, remove_duplicate=False)
    ]
    states = _random_states(x)
    try:
        yield
        for module, name, buffer, version, _ in buffers:
            changed = module._buffers[name] is not buffer or buffer._version != version
            # spectral norm that iterates once a step does so however often it is read
            if several_calls and changed and getattr(module, "per", "") != "step":
                raise Curved("it changes its buffers at each call, and a step by hand has three")
        if several_calls and not all(map(torch.equal, states, _random_states(x))):
            raise Curved("it draws random numbers at each call, and a step by hand has three")
    except BaseException:
        for module, name, buffer, version, value in buffers:
            module._buffers[name] = buffer
            if buffer._version != version:
                buffer.detach().copy_(value)
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], x.device)
        raise


def _random_states(x: Tensor) -> list[Tensor]:
    # a CUDA graph that is being captured holds the state
    on_gpu = x.is_cuda and not torch.cuda.is_current_stream_capturing()
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(x.device)] if on_gpu else [])]


class _FastPenalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tape: Tape, form: Form, *roots: Tensor) -> Tensor:
        with _as_recorded(tape.x):
            g = tape.input_gradient(torch.ones_like(tape.values[tape.result]))
            penalty, ctx.seed = ops.gradient_penalty.gradient_penalty(g, *form)
        ctx.tape = tape
        # torch then refuses weights that have changed, and a graph that was freed
        ctx.save_for_backward(*roots, *tape.read_weights())
        ctx.count = len(roots)
        return penalty

    @staticmethod
    def backward(ctx: Any, dpenalty: Tensor) -> tuple:
        roots = ctx.saved_tensors[: ctx.count]
        found = _FastGradients.apply(ctx.tape, ctx.seed, dpenalty, *roots)
        # biases have no part in the penalty
        return None, None, *found, *(None,) * (len(roots) - len(found))


class _FastGradients(torch.autograd.Function):
    """The gradients of ``_FastPenalty``: depends on the roots, so that who differentiates it again gets to know."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, seed: Tensor, dpenalty: Tensor, *roots: Tensor) -> tuple[Tensor, ...]:
        with _as_recorded(seed):
            return tuple(gradient for _, gradient in tape.weight_gradients(seed * dpenalty.to(seed.dtype)))

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError(
            "gradient_penalty: in 4 passes it is differentiable once; pass the critic as a function that calls it,"
            " lambda x: critic(x), for more orders"
        )


@contextlib.contextmanager
def _as_recorded(x: Tensor) -> Iterator[None]:
    """Without a graph, and without autocast, whose casts are on the tape."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        yield


def fast_penalty(tape: Tape, form: Form) -> Tensor:
    """Return the penalty at the points that the tape was recorded at."""
    return _FastPenalty.apply(tape, form, *tape.weights(), *tape.biases())


def general_penalty(critic: Critic, points: Tensor, form: Form) -> Tensor:
    """Return the penalty at points by autograd, any critic."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        scores = _scores(critic, points)
        if scores.requires_grad:
            seed = torch.ones_like(scores)
            (g,) = torch.autograd.grad(scores, points, seed, create_graph=graph, allow_unused=True)
        else:
            g = None
        if g is None:
            contract = "critic must return a Tensor that depends on its input"
            raise TypeError(f"gradient_penalty: {contract}, got one that does not")
    penalty, _ = ops.gradient_penalty.gradient_penalty(g, *form)
    return penalty


def _scores(critic: Critic, x: Tensor) -> Tensor:
    scores = critic(x)
    if not isinstance(scores, Tensor):
        raise TypeError(f"gradient_penalty: critic must return a Tensor, got {type(scores).__name__}")
    return scores


def general_step(critic: nn.Module, stacked: Tensor, form: Form, scale: float) -> Step:
    """Run a critic step on (3N, ...) of real, fake and the points between them by autograd."""
    real, fake, points = stacked.chunk(3)
    wide = accumulate_dtype(stacked.dtype)
    with torch.enable_grad():
        wasserstein = _scores(critic, real).mean(dtype=wide) - _scores(critic, fake).mean(dtype=wide)
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
