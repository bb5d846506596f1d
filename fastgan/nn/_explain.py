"""Says of each layer of a model how it runs: by a fused op or by itself, on which backend, and why not fused."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from fastgan import backends
from fastgan.nn._explain_spectral_norm import spectral_norms
from fastgan.nn._layers import ACT, CONV, NORM, Activation, activation_of, changes_input, kind_of, parts, scan
from fastgan.nn._penalty import paths_of
from fastgan.nn._plain import why_not_here
from fastgan.nn._reasons import (
    shows_output,
    vectors_of,
    vendors_convolution,
    why_not_act,
    why_not_backend,
    why_not_conv,
    why_not_conv_norm_act,
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
    CONV: "not in a group: nothing that fastgan can see calls it",
}
Row = tuple[str, str, str, str, str]


def explain(model: nn.Module) -> str:
    r"""Return a table of how each layer of a model runs: fused or not, on which backend, and why not.

    The table holds for now and for inputs of the parameters' type on their device: hooks, backends and ``use_backend``
    may change, and inputs of another kind run layer by layer. So do groups on a CPU where an input is so small that
    torch's layers are faster, as one image at a time, unless a backend was asked for by name. Of a critic that
    ``gradient_penalty`` or ``critic_step_wgan_gp`` has run, the last lines say which way they take.

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
        norms, hidden = spectral_norms(path, module)
        grouped.update(hidden)
        if path in grouped:
            rows.extend(norms)
            continue
        groups, how = _inside(module)
        if how is None:
            rows.append((path, _name(module), *_leaf(module)))
            rows.extend(norms)
            continue
        rows.append((path or "(model)", _name(module), "", "", how))
        for group in groups:
            paths = [f"{path}.{name}" if path else name for name in group.names]
            grouped.update(paths)
            rows.append((" + ".join(paths), _what(group), *_verdict(group)))
        rows.extend(norms)
    rows.extend(_penalty(name, reason) for name, reason in paths_of(model).items())
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(_line(row, widths) for row in rows)


def _penalty(name: str, reason: str) -> Row:
    """Return the row of a gradient penalty or critic step that has run."""
    if reason:
        return f"({name})", "", "no", "", f"by autograd, as one would by hand: {reason}"
    return f"({name})", "", "yes", "", "4 passes: forward, input gradient, tangent, weight gradient"


class _Layers(NamedTuple):
    """The layers of a group: their names in the module that calls them, in order, and what each is."""

    names: tuple[str, ...]
    conv: Any
    norm: Any
    act: Activation | None
    act_first: bool
    private: bool


def _line(row: Row, widths: list[int]) -> str:
    return "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()


def _name(module: nn.Module | tuple[str, float, bool]) -> str:
    return module[0] if isinstance(module, tuple) else type(module).__name__


def _what(group: _Layers) -> str:
    after = (group.act, group.norm) if group.act_first else (group.norm, group.act)
    return " + ".join(_name(layer) for layer in (group.conv, *after) if layer is not None)


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
        names = ("conv",) if module.norm is None else ("conv", "norm")
        return [_Layers(names, module.conv, module.norm, act, module.act_first, True)], "runs its children as one group"
    if cls is nn.Sequential:
        return [], "not converted"
    if not any(name != "parametrizations" for name, _ in module.named_children()):
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
    for kind, first, count in scan(children):  # type: ignore[arg-type]
        if kind:
            layers: Any = children[first : first + count]
            private = kind == CONV or (first > 0 and not shows_output(children[first - 1]))  # type: ignore[arg-type]
            found = parts(layers, [kind_of(layer) for layer in layers])
            groups.append(_Layers(tuple(names[first : first + count]), *found, private))
    return groups


def _traced(module: nn.Module, group: Group) -> _Layers:
    after = (group.act, group.norm) if group.act_first else (group.norm, group.act)
    names = tuple(name for name in (group.conv, *after) if name is not None)
    conv, norm, act = (None if n is None else module.get_submodule(n) for n in (group.conv, group.norm, group.act))
    return _Layers(names, conv, norm, act or group.function, group.act_first, group.conv is not None)


def _replaced(group: _Layers) -> bool:
    known = ((group.conv, CONV), (group.norm, NORM), (group.act, ACT))
    return any(layer is not None and not isinstance(layer, tuple) and kind_of(layer) != kind for layer, kind in known)


def _verdict(group: _Layers) -> tuple[str, str, str]:
    """Return whether the group is fused, the backend, and why not."""
    if _replaced(group):
        return "no", "", "a layer was replaced by one of a type fastgan does not know"
    if group.conv is not None:
        return _verdict_of_convolution(group)
    vectors = vectors_of(group.norm)
    assert group.act is not None
    reason = why_not_here() or why_not_norm_act(group.norm, group.act, group.act_first, group.private)
    reason = reason or why_not_norm(group.norm, vectors)
    return _backend("norm_act", next((v for v in vectors if v is not None), None), reason)


def _stored(conv: nn.Module) -> torch.Tensor:
    """Return a tensor of the weight's type; reading the weight could iterate a spectral norm."""
    parameter = next(conv.parameters(), None)
    return conv.weight if parameter is None else parameter  # type: ignore[return-value]


def _follows_fused(group: _Layers) -> bool:
    """Return whether what follows a convolution that is called itself runs by a fused op."""
    conv, norm, act = group.conv, group.norm, group.act
    private = not shows_output(conv)
    if why_not_here() or act is None:
        return False
    stem = "bias_act" if norm is None else "norm_act"
    weight = _stored(conv)
    if why_not_backend(stem, weight.device, weight.dtype):
        return False
    if norm is not None:
        return not (why_not_norm_act(norm, act, group.act_first, private) or why_not_norm(norm, vectors_of(norm)))
    in_place = changes_input(act) and not private
    return not why_not_act(act) and not in_place and activation_of(act)[0] != "identity"


def _verdict_of_convolution(group: _Layers) -> tuple[str, str, str]:
    conv, norm, act = group.conv, group.norm, group.act
    fused, backend, reason = _backend("conv_norm_act", _stored(conv), why_not_here() or why_not_conv(conv))
    if norm is not None:
        after = why_not_conv_norm_act(norm, act) or why_not_norm(norm, vectors_of(norm))
        what = "the norm and what follows run after it"
    else:
        after, what = why_not_act(act) if act is not None else "", "the activation runs after it"
    if fused == "yes" and after:
        return "in part", backend, f"{what}: {after}"
    if fused == "no" and _follows_fused(group):
        return fused, backend, f"the convolution runs as torch's, what follows by fused ops: {reason}"
    return fused, backend, reason or vendors_convolution(conv)


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
