"""Says of each layer of a model how it runs: by a fused op or by itself, on which backend, and why not fused."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from fastgan import backends
from fastgan.nn._layers import ACT, CONV, NORM, Activation, kind_of, scan
from fastgan.nn._reasons import (
    shows_output,
    vectors_of,
    why_not_backend,
    why_not_conv_act,
    why_not_here,
    why_not_norm,
    why_not_norm_act,
)
from fastgan.nn._source import Unproven
from fastgan.nn._trace import Group, trace, why_not_convert
from fastgan.nn.modules import BatchNormAct2d, BiasAct, ConvNormAct2d, ConvTransposeNormAct2d
from fastgan.nn.sequential import Sequential, run_children

_HEADER = ("layer", "what", "fused", "backend", "why not, or how")
_ALONE = {
    NORM: "not in a group: no activation beside it that fastgan can see",
    ACT: "not in a group: no batch norm or convolution beside it that fastgan can see",
    CONV: "runs as torch's convolution",
}
Row = tuple[str, str, str, str, str]


def explain(model: nn.Module) -> str:
    r"""Return a table of how each layer of a model runs: fused or not, on which backend, and why not.

    The table holds for now and for inputs of the parameters' type on their device: hooks, backends and ``use_backend``
    may change, and inputs of another kind run layer by layer.

    Args:
        model: any module, converted or not.
    Returns: lines of text, one for each layer or group of layers and one for each module that calls them.
    Raises: TypeError if model is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"explain: model must be a torch.nn.Module, got {type(model).__name__}")
    rows: list[Row] = [_HEADER]
    grouped: set[str] = set()
    for path, module in model.named_modules():
        if path in grouped:
            continue
        groups, how = _inside(module)
        if how is None:
            rows.append((path, _name(module), *_leaf(module)))
            continue
        rows.append((path or "(model)", _name(module), "", "", how))
        for group in groups:
            paths = [f"{path}.{name}" if path else name for name in group.names]
            grouped.update(paths)
            rows.append((" + ".join(paths), _what(group), *_verdict(group)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(_line(row, widths) for row in rows)


class _Layers(NamedTuple):
    """The layers of a group: their names in the module that calls them, in order."""

    kind: int
    names: tuple[str, ...]
    layer: Any
    act: Activation
    private: bool


def _line(row: Row, widths: list[int]) -> str:
    return "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()


def _name(module: nn.Module | tuple[str, float, bool]) -> str:
    return module[0] if isinstance(module, tuple) else type(module).__name__


def _what(group: _Layers) -> str:
    names = [_name(group.layer), _name(group.act)]
    return " + ".join(reversed(names) if group.kind == ACT else names)


def _inside(module: nn.Module) -> tuple[list[_Layers], str | None]:
    """Return the groups a module runs and how it runs; None for a layer."""
    cls = type(module)
    if cls.forward is run_children or cls.forward is Sequential.forward:
        return _scanned(module), "runs its children in groups"
    if "_fastgan_groups" in cls.__dict__:
        groups = [_traced(module, group) for group in cls.__dict__["_fastgan_groups"]]
        return groups, "its forward was traced and runs groups"
    if isinstance(module, (ConvNormAct2d, ConvTransposeNormAct2d)):
        act = (module.activation, module.negative_slope, False)
        return [] if module.norm is not None else [
            _Layers(CONV, ("conv",), module.conv, act, False)
        ], "runs its children"
    if cls is nn.Sequential:
        return [], "not converted"
    if not any(True for _ in module.children()):
        return [], None
    if cls.forward is nn.Module.forward:
        return [], "its children are called by the module that holds it"
    return [], _why_by_hand(module)


def _why_by_hand(module: nn.Module) -> str:
    reason = why_not_convert(module)
    if reason:
        return f"layer by layer: {reason}"
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        return "not converted"
    try:
        trace(module)
    except Unproven as unproven:
        return f"layer by layer: {unproven}"
    return "not converted"


def _scanned(module: nn.Module) -> list[_Layers]:
    names, children = list(module._modules), list(module._modules.values())
    groups = []
    for kind, i in scan(children):  # type: ignore[arg-type]
        if kind:
            layer, act = (children[i + 1], children[i]) if kind == ACT else (children[i], children[i + 1])
            private = i > 0 and not shows_output(children[i - 1])  # type: ignore[arg-type]
            groups.append(_Layers(kind, (names[i], names[i + 1]), layer, act, private))  # type: ignore[arg-type]
    return groups


def _traced(module: nn.Module, group: Group) -> _Layers:
    layer = module.get_submodule(group.layer)
    if group.act is None:
        return _Layers(group.kind, (group.layer,), layer, group.function or ("identity", 0.0, False), False)
    names = (group.act, group.layer) if group.kind == ACT else (group.layer, group.act)
    return _Layers(group.kind, names, layer, module.get_submodule(group.act), False)


def _verdict(group: _Layers) -> tuple[str, str, str]:
    """Return whether the group is fused, the backend, and why not."""
    kind, _, layer, act, private = group
    if kind_of(layer) != (CONV if kind == CONV else NORM) or not (isinstance(act, tuple) or kind_of(act) == ACT):
        return "no", "", "a layer was replaced by one of a type fastgan does not know"
    if kind == CONV:
        return _backend("bias_act", layer.weight, why_not_here() or why_not_conv_act(layer, act))
    vectors = vectors_of(layer)
    reason = why_not_here() or why_not_norm_act(layer, act, kind == ACT, private) or why_not_norm(layer, vectors)
    return _backend("norm_act", next((v for v in vectors if v is not None), None), reason)


def _backend(stem: str, parameter: torch.Tensor | None, reason: str) -> tuple[str, str, str]:
    device = torch.device("cpu") if parameter is None else parameter.device
    dtype = torch.get_default_dtype() if parameter is None else parameter.dtype
    reason = reason or why_not_backend(stem, device, dtype)
    if reason:
        return "no", "", reason
    try:
        return "yes", backends.choose(stem, torch.empty(0, dtype=dtype, device=device)), ""
    except backends.BackendUnavailable as unavailable:
        return "no", "", str(unavailable)


def _leaf(module: nn.Module) -> tuple[str, str, str]:
    if isinstance(module, BatchNormAct2d):
        vectors = vectors_of(module)
        reason = why_not_here() or why_not_norm(module, vectors)
        return _backend("norm_act", next((v for v in vectors if v is not None), None), reason)
    if isinstance(module, BiasAct):
        return _backend("bias_act", module.bias, why_not_here())
    return "no", "", _ALONE.get(kind_of(module), "there is no fused op for it")
