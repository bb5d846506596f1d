"""Rows of ``explain`` for the weights that have a spectral norm."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as _Hook

from fastgan import backends
from fastgan.nn._power_iteration import Weight
from fastgan.nn._spectral_norm import LegacySpectralNorm, SpectralNorm, parametrizations

_TOGETHER = "a converted Sequential iterates all its layers in one call"
_HOW = {
    "read": f"iterates at each read; {_TOGETHER}",
    "step": f"iterates once the weight has changed; {_TOGETHER}",
}
Row = tuple[str, str, str, str, str]


def spectral_norms(path: str, module: nn.Module) -> tuple[list[Row], list[str]]:
    """Return a row for each weight of a module itself that has a spectral norm, and the paths that they stand for."""
    prefix = f"{path}." if path else ""
    rows: list[Row] = []
    hidden: list[str] = []
    lists = dict(parametrizations(module))
    for name, each in lists.items():
        known = [(index, norm) for index, norm in each._modules.items() if isinstance(norm, _SpectralNorm)]
        rows += [(prefix + name, "spectral norm", *_parametrization(norm, each)) for _, norm in known]
        under = f"{prefix}parametrizations.{name}"
        hidden += [f"{under}.{index}" for index, _ in known]
        if len(known) == len(each._modules):
            hidden.append(under)
    if lists and all(f"{prefix}parametrizations.{name}" in hidden for name in lists):
        hidden.append(f"{prefix}parametrizations")
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, _Hook):
            rows.append((prefix + hook.name, "spectral norm", *_hook(hook, module)))
    return rows, hidden


def _parametrization(norm: Any, each: Any) -> tuple[str, str, str]:
    if type(norm) is not SpectralNorm:
        return _torchs(type(norm) is _SpectralNorm)
    return _verdict(norm.look(each.original) if each.is_tensor else None, _HOW[norm.per])


def _hook(hook: Any, module: nn.Module) -> tuple[str, str, str]:
    if type(hook) is not LegacySpectralNorm:
        return _torchs(type(hook) is _Hook)
    return _verdict(hook.look(module, module.training), f"torch.nn.utils' hook: {_HOW['read']}")


def _torchs(known: bool) -> tuple[str, str, str]:
    return "no", "", "torch's: not converted" if known else "it is a subclass of torch's"


def _verdict(w: Weight | None, how: str) -> tuple[str, str, str]:
    if w is None:
        return "no", "", "torch's: the op takes plain, dense weights of 2 or more dimensions, and no transforms"
    try:
        return "yes", backends.choose("spectral_norm", w.weight), how
    except backends.BackendUnavailable as unavailable:
        return "no", "", str(unavailable)
