"""What stands against doing a layer's work without calling it: each function returns the reason, empty if nothing."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as _module

from fastgan.nn._parts import Parted

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def why_not_module(module: nn.Module, called: tuple[type, ...] = ()) -> str:
    """Return why a module has to be called itself, empty if a fused op may do its work.

    Args:
        called: types of forward pre-hooks that whoever asks calls himself.
    """
    reason = ""
    before = module._forward_pre_hooks
    if module._forward_hooks or (before and not all(type(hook) in called for hook in before.values())):
        reason = "has forward hooks"
    elif module._backward_hooks or module._backward_pre_hooks:
        reason = "has backward hooks"
    elif type(module.__dict__.get("forward")) not in (type(None), Parted):
        reason = "has its forward replaced"
    elif module._compiled_call_impl is not None:
        reason = "is compiled on its own"
    return f"{type(module).__name__} {reason}" if reason else ""


def why_not_here() -> str:
    """Return what, outside the group, would see that the layers are not called one by one; empty if nothing."""
    if (
        _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    ):
        return "global module hooks are registered"
    return why_not_mode()


def why_not_mode() -> str:
    """Return which tracer or transform would not see through an op, empty if none runs."""
    if torch.compiler.is_compiling():
        # dynamo of torch 2.11 answers is_exporting() with True
        return "the model is being exported" if torch.compiler._is_exporting_flag else ""
    if torch._C._get_tracing_state() is not None:
        return "the model is being traced"
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return "torch.func transforms and forward-mode derivatives go through stock layers only"
    return ""
