"""What a convolution does to sizes, the same in shape functions and kernels; any number of spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastgan.backends.layout import wanted_format


class Attributes(NamedTuple):
    """What ``conv_norm_act`` takes after its first tensors, in the order of its schema; the lists have an entry a
    dimension."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    output_padding: Sequence[int]
    transposed: bool
    groups: int
    # of the normalisation and activation applied to x while it is loaded
    training: bool
    eps: float
    norm_activation: str
    norm_slope: float
    # applied to the result, which then gets statistics of its own
    activation: str
    negative_slope: float
    stats: bool
    # memory format of the result, y or dw
    channels_last: bool
    # factor of the convolution's result, before bias and activation: without dimensions, in the accumulation type
    scale: Tensor | None = None

    def sizes(self) -> tuple:
        """Return what ``torch.convolution`` takes after its tensors."""
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups


class Sizes(Protocol):
    """What sizes depend on: ``Attributes``, or a convolution."""

    @property
    def stride(self) -> Sequence[int]: ...
    @property
    def padding(self) -> Sequence[int]: ...
    @property
    def dilation(self) -> Sequence[int]: ...
    @property
    def output_padding(self) -> Sequence[int]: ...
    @property
    def transposed(self) -> bool: ...
    @property
    def groups(self) -> int: ...


def output_size(size: Sequence[int], kernel_size: Sequence[int], a: Sizes) -> list[int]:
    """Return the spatial size of the result for that of x."""
    rows = zip(size, kernel_size, a.stride, a.padding, a.dilation, a.output_padding, strict=True)
    if a.transposed:
        return [(n - 1) * s - 2 * p + d * (k - 1) + 1 + o for n, k, s, p, d, o in rows]
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in rows]


def widths(x: Tensor, kernel_size: Sequence[int], a: Sizes) -> tuple[int, int]:
    """Return the widths of the small and of the big side of a convolution of x."""
    out = output_size(x.shape[2:], kernel_size, a)[-1]
    return (x.shape[-1], out) if a.transposed else (out, x.shape[-1])


def output_channels(weight_shape: Sequence[int], a: Sizes) -> int:
    """Return the number of channels of the result."""
    return weight_shape[1] * a.groups if a.transposed else weight_shape[0]


def weight_shape(x: Tensor, dy: Tensor, kernel_size: Sequence[int], a: Attributes) -> list[int]:
    """Return the shape of the weight that goes with x and the result's gradient."""
    first, second = (x, dy) if a.transposed else (dy, x)
    return [first.shape[1], second.shape[1] // a.groups, *kernel_size]


def empty_weight(x: Tensor, dy: Tensor, kernel_size: Sequence[int], a: Attributes) -> Tensor:
    """Return uninitialised memory for the weight's gradient."""
    shape, memory_format = weight_shape(x, dy, kernel_size, a), wanted_format(x.dim(), a.channels_last)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


def input_gradient(x: Tensor, kernel_size: Sequence[int], dy: Tensor, a: Attributes, channels_last: bool) -> Attributes:
    """Return the attributes of the convolution of dy and the same weight that gives the gradient of what x became."""
    reverse = a._replace(
        transposed=not a.transposed, activation="identity", stats=False, channels_last=channels_last,
        output_padding=[0] * len(kernel_size),
    )  # fmt: skip
    if a.transposed:
        return reverse
    least = output_size(dy.shape[2:], kernel_size, reverse)
    return reverse._replace(output_padding=[n - m for n, m in zip(x.shape[2:], least, strict=True)])


def crop(du: Tensor, x: Tensor) -> Tensor:
    """Return du in x's shape: an output padding of a stride or more, which dilation allows, makes it larger."""
    return du if du.shape == x.shape else du[tuple(slice(n) for n in x.shape)]
