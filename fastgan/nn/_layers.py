"""The layers that fastgan knows, and which of them stand together as a group that one op can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OTHER, NORM, ACT, CONV = range(4)
# set on the objects that convert changed, and taken away by revert
CONVERTED = "_fastgan_converted"

ACTIVATION_NAMES: dict[type, str] = {
    nn.Identity: "identity",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
}
# the dimensions of an input
NORM_DIMS: dict[type, tuple[int, ...]] = {
    nn.BatchNorm1d: (2, 3),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (5,),
    nn.SyncBatchNorm: (2, 3, 4, 5),
}
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KINDS: dict[type, int] = {
    **dict.fromkeys(ACTIVATION_NAMES, ACT),
    **dict.fromkeys(NORM_DIMS, NORM),
    **dict.fromkeys(CONVS, CONV),
}
# the module that applies it, or (name, negative slope, in place)
Activation = nn.Module | tuple[str, float, bool]


def kind_of(module: nn.Module) -> int:
    """Return what part a layer can have in a group; OTHER for all that fastgan does not know."""
    t = type(module)
    kind = KINDS.get(t, OTHER)
    # parametrize makes a subclass for each module; the convolution in it is called, so any parametrization will do
    if kind == OTHER and t.__base__ in CONVS and "parametrizations" in module._modules:
        return CONV
    return kind


class Step(NamedTuple):
    """Neighbouring layers that one op may do: a convolution and what follows it, or norm and activation without one."""

    kind: int
    first: int
    length: int


def scan(children: Sequence[nn.Module]) -> list[Step]:
    """Return the steps that run all children in order.

    CONV begins with a convolution; a norm, an activation, or both in either order may follow. NORM is a norm and its
    activation, ACT an activation and its norm, and OTHER one layer.
    """
    kinds = [KINDS.get(type(child)) or kind_of(child) for child in children]
    steps, i = [], 0
    while i < len(kinds):
        kind, after = kinds[i], tuple(kinds[i + 1 : i + 3])
        count = 1
        if kind == CONV:
            count += 2 if after in ((NORM, ACT), (ACT, NORM)) else after[:1] in ((NORM,), (ACT,))
        elif (kind, *after[:1]) in ((NORM, ACT), (ACT, NORM)):
            count = 2
        steps.append(Step(kind if kind == CONV or count > 1 else OTHER, i, count))
        i += count
    return steps


class Parts(NamedTuple):
    """What the layers of a step do."""

    conv: Any
    norm: Any
    act: Any
    act_first: bool


def parts(layers: Sequence[nn.Module], kinds: Sequence[int]) -> Parts:
    """Return convolution, norm and activation of a step, None for those it lacks."""
    found = dict(zip(kinds, layers, strict=True))
    act_first = NORM in kinds and ACT in kinds and kinds.index(ACT) < kinds.index(NORM)
    return Parts(found.get(CONV), found.get(NORM), found.get(ACT), act_first)


def activation_after(norm: nn.Module, act: Activation | None, act_first: bool) -> tuple[Activation, bool]:
    """Return the activation of a norm and whether it comes first: the one beside it, else its own, else identity."""
    if act is not None:
        return act, act_first
    if type(norm) in NORM_DIMS:
        return ("identity", 0.0, False), False
    # a BatchNormAct2d
    return (norm.activation, norm.negative_slope, False), norm.act_first  # type: ignore[return-value]


def activation_of(act: Activation) -> tuple[str, float]:
    """Return name and negative slope of an activation."""
    if isinstance(act, tuple):
        return act[:2]
    return ACTIVATION_NAMES[type(act)], act.negative_slope if isinstance(act, nn.LeakyReLU) else 0.0


def changes_input(act: Activation) -> bool:
    """Return whether an activation works in place."""
    return act[2] if isinstance(act, tuple) else getattr(act, "inplace", False)


def stock_activation(x: Tensor, act: Activation) -> Tensor:
    """Return torch's own result: a module is called, a name goes to torch's functions."""
    if not isinstance(act, tuple):
        return act(x)
    name, slope, in_place = act
    if name == "leaky_relu":
        return F.leaky_relu(x, slope, in_place)
    if name in ("relu", "silu"):
        return (F.relu if name == "relu" else F.silu)(x, in_place)
    if name == "identity":
        return x
    return getattr(torch, f"{name}_" if in_place else name)(x)
