"""A torch.nn.Sequential that runs groups of its children as fused ops."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastgan.nn._fusion import conv_act, norm_act
from fastgan.nn._layers import ACT, CONV, NORM, scan
from fastgan.nn._reasons import shows_output, why_not_here

# set on the objects that convert changed, and taken away by revert
CONVERTED = "_fastgan_converted"


def run_children(self: nn.Sequential, input: Tensor) -> Tensor:
    """``Sequential.forward``, which ``convert`` also gives to the user's own subclasses of nn.Sequential."""
    # scanned at every call: it takes a few microseconds, and a cache would have to notice every change of a child
    children: list[Any] = list(self._modules.values())
    if why_not_here():
        for child in children:
            input = child(input)
        return input
    for kind, i in scan(children):
        child = children[i]
        if kind == NORM:
            input = norm_act(input, child, children[i + 1])
        elif kind == ACT:
            private = i > 0 and not shows_output(children[i - 1])
            input = norm_act(input, children[i + 1], child, act_first=True, private=private)
        elif kind == CONV:
            input = conv_act(input, child, children[i + 1])
        else:
            input = child(input)
    return input


class Sequential(nn.Sequential):
    r"""``torch.nn.Sequential`` that runs norm and activation, and convolution and activation, as one fused op each.

    Same arguments, children, names and state_dict as ``torch.nn.Sequential``. Groups are batch norm -> activation,
    activation -> batch norm, and convolution -> activation, where a convolution before a batch norm is called as it is.
    A group runs child by child where fusing could be noticed: children with hooks, with a forward of their own, in a
    state fastgan does not serve, or where no fast backend is there. ``fastgan.explain`` lists what runs how, and why.
    Differentiable twice.

    Args:
        *args: modules, or one OrderedDict of modules, as in ``torch.nn.Sequential``.
    Shape: any input the first child takes; the result is that of the children called one after another, to rounding.
    Raises: what the children raise; BackendUnavailable when a backend was asked for by name and cannot serve.
    """

    def forward(self, input: Tensor) -> Tensor:
        return run_children(self, input)

    def __getitem__(self, index: int | slice) -> Any:
        part = super().__getitem__(index)
        # so that revert knows the slices of a converted model, too
        if isinstance(index, slice) and CONVERTED in self.__dict__:
            part.__dict__[CONVERTED] = True
        return part
