"""A torch.nn.Sequential that runs groups of its children as fused ops."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastgan.nn._conv import Value, finish
from fastgan.nn._fusion import conv_group, norm_act, one_by_one
from fastgan.nn._layers import ACT, CONV, CONVERTED, OTHER, kind_of, parts, scan
from fastgan.nn._plain import why_not_here
from fastgan.nn._power_iteration import forget
from fastgan.nn._reasons import shows_output
from fastgan.nn._small import few_values, in_question, known_small, little_work, remember_small
from fastgan.nn._spectral_norm import prefetch


def run_children(self: nn.Sequential, input: Tensor) -> Tensor:
    """``Sequential.forward``, which ``convert`` also gives to the user's own subclasses of nn.Sequential."""
    children: list[Any] = list(self._modules.values())
    if known_small(self, children, input) or why_not_here():
        for child in children:
            input = child(input)
        return input
    prefetched = prefetch(children)
    try:
        y, small = _run_groups(children, input)
    finally:
        forget(prefetched)
    # weights that are read together are not to be read one by one
    if small and not prefetched:
        remember_small(self, children, input)
    return y


def _run_groups(children: list[Any], input: Tensor) -> tuple[Tensor, bool]:
    """Return the result, and whether all groups were so small that torch's layers ran."""
    value: Value = input
    small = in_question(input)
    # scanned at every call: it takes a few microseconds, and a cache would have to notice every change of a child
    steps = scan(children)
    for i, step in enumerate(steps):
        layers = children[step.first : step.first + step.length]
        if step.kind == CONV:
            group = parts(layers, [kind_of(layer) for layer in layers])
            if little_work(value, group.conv, group.norm):
                value = one_by_one(finish(value), *group)
                continue
            small = False
            value = conv_group(value, *group, lazy=i + 1 < len(steps) and steps[i + 1].kind == CONV)
            continue
        value = finish(value)
        if step.kind == OTHER:
            value = layers[0](value)
            continue
        act_first = step.kind == ACT
        norm, act = reversed(layers) if act_first else layers
        small = small and few_values(value, norm)
        private = act_first and step.first > 0 and not shows_output(children[step.first - 1])
        value = norm_act(value, norm, act, act_first, private)
    return finish(value), small


class Sequential(nn.Sequential):
    r"""``torch.nn.Sequential`` that runs convolution, norm and activation as one fused op.

    Same arguments, children, names and state_dict as ``torch.nn.Sequential``. Groups are a convolution with a norm, an
    activation or both after it, in either order, and norm -> activation or activation -> norm without a convolution.
    Between two convolutions neither the normalised nor the activated tensor is written: the second convolution applies
    norm and activation of the first while it loads, and at most the first one's plain result is kept for backward.
    A group runs child by child where fusing could be noticed: children with hooks, with a forward of their own, in a
    state fastgan does not serve, where no fast backend is there, or where an input on a CPU is so small that torch's
    layers are faster and no backend was asked for. ``fastgan.explain`` lists what runs how, and why.
    Differentiable twice.

    Args:
        *args: modules, or one OrderedDict of modules, as in ``torch.nn.Sequential``.
    Shape: any input the first child takes; the result is that of the children called one after another, to rounding.
    Raises: what the children raise; BackendUnavailable when a backend was asked for by name and cannot serve.
    """

    forward = run_children

    def __getitem__(self, index: int | slice) -> Any:
        part = super().__getitem__(index)
        # so that revert knows the slices of a converted model, too
        if isinstance(index, slice) and CONVERTED in self.__dict__:
            part.__dict__[CONVERTED] = True
        return part
