"""Registers an op with torch: its schema, its dispatch to a backend, its shape function and its derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastgan import backends

# torch forgets the registrations when the library object goes
_library = torch.library.Library("fastgan", "FRAGMENT")


def define(
    stem: str,
    schema: str,
    fake: Callable[..., Any],
    x_index: int = 0,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> None:
    """Register ``fastgan::<schema>``, run by the function of its name in the chosen backend's module for ``stem``.

    Args:
        x_index: which argument decides the backend, by its device and dtype.
        setup_context, backward: as in ``torch.library.register_autograd``; without them there is no derivative.
    """
    name = schema.split("(")[0]

    def run(*args: Any) -> Any:
        return getattr(backends.load(backends.choose(stem, args[x_index]), stem), name)(*args)

    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    _library.define(schema, tags=tags)
    _library.impl(name, run, "CPU")
    _library.impl(name, run, "CUDA")
    torch.library.register_fake(f"fastgan::{name}", fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(f"fastgan::{name}", backward, setup_context=setup_context, lib=_library)
