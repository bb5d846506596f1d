"""The layers that fastgan knows, and which of them stand together as a group that one op can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OTHER, NORM, ACT, CONV = range(4)

ACTIVATION_NAMES: dict[type, str] = {
    nn.Identity: "identity",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
}
# the dimensions of an input
NORM_DIMS: dict[type, tuple[int, ...]] = {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}
# the dimensions of a batch, and for transposed ones the function
CONVS: dict[type, tuple[int, Callable[..., Tensor] | None]] = {
    nn.Conv1d: (3, None),
    nn.Conv2d: (4, None),
    nn.Conv3d: (5, None),
    nn.ConvTranspose1d: (3, F.conv_transpose1d),
    nn.ConvTranspose2d: (4, F.conv_transpose2d),
    nn.ConvTranspose3d: (5, F.conv_transpose3d),
}
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


def scan(children: Sequence[nn.Module]) -> list[tuple[int, int]]:
    """Return (kind, index) of each step.

    The kind is NORM for a norm and its activation, ACT for an activation and its norm, CONV for a convolution and its
    activation, and OTHER for one layer.
    """
    kinds = [KINDS.get(type(child)) or kind_of(child) for child in children]
    last = len(kinds) - 1
    steps, i = [], 0
    while i <= last:
        kind = kinds[i]
        if kind and i < last:
            after = kinds[i + 1]
            if kind == NORM:
                fused = after == ACT
            elif kind == ACT:
                fused = after == NORM
            else:
                # the norm after it takes the activation
                fused = after == ACT and (i + 1 == last or kinds[i + 2] != NORM)
            if fused:
                steps.append((kind, i))
                i += 2
                continue
        steps.append((OTHER, i))
        i += 1
    return steps


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
