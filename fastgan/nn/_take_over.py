"""Makes torch's spectral norms on a module fastgan's and back, and lets each kind load the other's state_dict."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as _Hook
from torch.nn.utils.spectral_norm import SpectralNormLoadStateDictPreHook as _LoadHook

from fastgan.nn._layers import CONVERTED
from fastgan.nn._spectral_norm import LegacySpectralNorm, SpectralNorm, parametrizations


def _legacy_keys(name: str, index: str) -> dict[str, str]:
    """Return what the state of the parametrization ``index`` is called, by its name in ``torch.nn.utils``."""
    new = f"parametrizations.{name}"
    return {f"{name}_orig": f"{new}.original", f"{name}_u": f"{new}.{index}._u", f"{name}_v": f"{new}.{index}._v"}


def _rename(state_dict: dict[str, Any], prefix: str, names: dict[str, str]) -> None:
    if all(prefix + old in state_dict and prefix + new not in state_dict for old, new in names.items()):
        for old, new in names.items():
            state_dict[prefix + new] = state_dict.pop(prefix + old)


class ReadLegacyKeys:
    """Pre-hook of ``load_state_dict``: a parametrization takes the keys of ``torch.nn.utils.spectral_norm``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        each: Any = dict(parametrizations(module)).get(self.name)
        for index, norm in each._modules.items() if each is not None else ():
            if isinstance(norm, _SpectralNorm):
                _rename(state_dict, prefix, _legacy_keys(self.name, index))


class _ReadNewKeys(_LoadHook):
    """torch's pre-hook of ``load_state_dict`` for its older spectral norm, which takes the keys of the newer, too."""

    def __call__(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        names = _legacy_keys(self.fn.name, "0")
        _rename(state_dict, prefix, {new: old for old, new in names.items()})
        super().__call__(state_dict, prefix, *rest)


def _inner(hook: Any) -> Any:
    """Return the hook that torch wrapped, or the hook itself."""
    return getattr(hook, "hook", hook)


def read_legacy_keys(module: nn.Module, name: str) -> None:
    """Let a module with a parametrization ``name`` load the older keys."""
    forget_legacy_keys(module, name)
    module.register_load_state_dict_pre_hook(ReadLegacyKeys(name))


def forget_legacy_keys(module: nn.Module, name: str) -> None:
    """Undo ``read_legacy_keys``, and take away the hook that torch's own removal leaves behind."""
    for key, hook in list(module._load_state_dict_pre_hooks.items()):
        inner = _inner(hook)
        ours = isinstance(inner, ReadLegacyKeys) and inner.name == name
        if ours or (isinstance(inner, _LoadHook) and inner.fn.name == name):
            del module._load_state_dict_pre_hooks[key]


def make_fastgans(norm: _SpectralNorm) -> SpectralNorm:
    """Return torch's parametrization, made fastgan's in place."""
    norm.__class__ = SpectralNorm
    return norm  # type: ignore[return-value]


def take_over(module: nn.Module) -> None:
    """Make the spectral norms of a module itself fastgan's; they keep buffers, hooks and keys."""
    for name, each in parametrizations(module):
        for norm in each._modules.values():
            if type(norm) is _SpectralNorm:
                make_fastgans(norm).__dict__[CONVERTED] = True
                read_legacy_keys(module, name)
    _swap(module._forward_pre_hooks, _Hook, LegacySpectralNorm)
    _swap(module._load_state_dict_pre_hooks, _LoadHook, _ReadNewKeys)


def give_back(module: nn.Module) -> None:
    """Undo ``take_over``; a spectral norm of fastgan's own stays."""
    for name, each in parametrizations(module):
        for norm in each._modules.values():
            if type(norm) is SpectralNorm and CONVERTED in norm.__dict__:
                norm.__dict__ = {k: v for k, v in norm.__getstate__().items() if k not in (CONVERTED, "per")}
                norm.__class__ = _SpectralNorm  # type: ignore[assignment]
                forget_legacy_keys(module, name)
    _swap(module._forward_pre_hooks, LegacySpectralNorm, _Hook)
    _swap(module._load_state_dict_pre_hooks, _ReadNewKeys, _LoadHook)


def _swap(hooks: dict[int, Any], old: type, new: type) -> None:
    for hook in hooks.values():
        if type(_inner(hook)) is old:
            _inner(hook).__class__ = new
