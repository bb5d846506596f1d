"""Registers an op with torch: its schema, its dispatch to a backend, its shape function and its derivative."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastgan import backends

# torch forgets the registrations when the library object goes
_library = torch.library.Library("fastgan", "FRAGMENT")
_watchers = 0


def _plain(x: torch.Tensor) -> bool:
    """Return whether nothing but autograd looks at a call on x: no compiler, tracer, transform, mode or subclass."""
    return (
        not torch.compiler.is_compiling()
        and (type(x) is torch.Tensor or type(x) is torch.nn.Parameter)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._get_tracing_state() is None
        and not (_watchers and torch._C._len_torch_function_stack() > 0)
    )


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Let modes of torch functions see each call as one of ``torch.ops.fastgan``, whatever the way it takes else."""
    global _watchers
    _watchers += 1
    try:
        yield
    finally:
        _watchers -= 1


def _deciding(argument: Any) -> torch.Tensor:
    return argument[0] if isinstance(argument, (list, tuple)) else argument


def define(
    stem: str,
    schema: str,
    fake: Callable[..., Any],
    x_index: int = 0,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register ``fastgan::<schema>``, run by the function of its name in the chosen backend's module for ``stem``.

    Returns the op as a function. Called where nothing but autograd looks, it goes to the backend through a
    ``torch.autograd.Function`` of the same formulas: torch's dispatcher and register_autograd would add 0.1 ms to each
    step of a layer. Else it is ``torch.ops.fastgan.<name>``.

    Args:
        x_index: which argument, a tensor or a list of them, decides the backend, by its device and dtype.
        setup_context, backward: as in ``torch.library.register_autograd``; without them there is no derivative.
    """
    name = schema.split("(")[0]

    def run(*args: Any) -> Any:
        return getattr(backends.load(backends.choose(stem, _deciding(args[x_index])), stem), name)(*args)

    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    _library.define(schema, tags=tags)
    _library.impl(name, run, "CPU")
    _library.impl(name, run, "CUDA")
    torch.library.register_fake(f"fastgan::{name}", fake, lib=_library)
    op = getattr(torch.ops.fastgan, name)
    if backward is None or setup_context is None:

        def call(*args: Any) -> Any:
            return run(*args) if not torch.is_grad_enabled() and _plain(_deciding(args[x_index])) else op(*args)

        return call

    torch.library.register_autograd(f"fastgan::{name}", backward, setup_context=setup_context, lib=_library)

    def forward(ctx: Any, *args: Any) -> Any:
        output = run(*args)
        setup_context(ctx, args, output)
        return output

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function = type(f"fastgan_{name}", (torch.autograd.Function,), members)

    def call_differentiable(*args: Any) -> Any:
        if not _plain(_deciding(args[x_index])):
            return op(*args)
        return function.apply(*args) if torch.is_grad_enabled() else run(*args)  # type: ignore[attr-defined]

    return call_differentiable
