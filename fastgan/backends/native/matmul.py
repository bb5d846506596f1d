"""Convolutions in two dimensions as products of torch's own matrices: what the library's 16-bit units are fastest at.

Without dilation and groups. See backends/reference/conv_norm_act.py for gather, scatter and wgrad.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from fastgan.backends import vendor
from fastgan.backends.geometry import Attributes, output_size


def _columns(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], before: Sequence[int], out: Sequence[int]
) -> Tensor:
    """Return (N * out pixels, taps * C): what each output reads of x (N, H, W, C), zeros outside.

    Args:
        before: rows and columns of zeros in front; negative to leave some of x out.
    """
    n, h, w, c = x.shape
    last = [(o - 1) * s + k - b for o, s, k, b in zip(out, stride, kernel, before, strict=True)]
    x = F.pad(x, (0, 0, before[1], last[1] - w, before[0], last[0] - h))
    s_n, s_h, s_w, s_c = x.stride()
    size = (n, *out, *kernel, c)
    return x.as_strided(size, (s_n, s_h * stride[0], s_w * stride[1], s_h, s_w, s_c)).reshape(
        -1, kernel[0] * kernel[1] * c
    )


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _gather(x: Tensor, weight: Tensor, a: Attributes) -> Tensor:
    kernel = weight.shape[2:]
    out = output_size(x.shape[2:], kernel, a)
    columns = _columns(_last(x), kernel, a.stride, a.padding, out)
    y = columns @ weight.permute(2, 3, 1, 0).reshape(columns.shape[1], -1)
    return y.reshape(x.shape[0], *out, -1).permute(0, 3, 1, 2)


def _scatter(x: Tensor, weight: Tensor, a: Attributes) -> Tensor:
    kernel, x_last = weight.shape[2:], _last(x)
    out = output_size(x.shape[2:], kernel, a)
    y = x.new_zeros(x.shape[0], *out, weight.shape[1])
    for i in range(min(a.stride[0], out[0])):
        for j in range(min(a.stride[1], out[1])):
            # output i + s q reads input q + (i + p) // s - t for its taps t, so the kernel is turned round
            part = y[:, i :: a.stride[0], j :: a.stride[1]]
            starts = [(f + p) % s for f, p, s in zip((i, j), a.padding, a.stride, strict=True)]
            w = weight[:, :, starts[0] :: a.stride[0], starts[1] :: a.stride[1]].flip(2, 3)
            if 0 in w.shape:
                continue
            taps = w.shape[2:]
            shifts = [(f + p) // s for f, p, s in zip((i, j), a.padding, a.stride, strict=True)]
            before = [t - 1 - shift for t, shift in zip(taps, shifts, strict=True)]
            columns = _columns(x_last, taps, (1, 1), before, part.shape[1:3])
            part.copy_((columns @ w.permute(2, 3, 0, 1).reshape(columns.shape[1], -1)).reshape(part.shape))
    return y.permute(0, 3, 1, 2)


def convolution(u: Tensor, weight: Tensor, bias: Tensor | None, a: Attributes) -> Tensor:
    """Return the convolution of u with scale * weight, or the transposed one."""
    y = (_scatter if a.transposed else _gather)(u, vendor.scaled(weight, a), a)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


def weight_gradient(u: Tensor, g: Tensor, shape: Sequence[int], a: Attributes) -> Tensor:
    """Return the gradient of the weight, of the given shape."""
    big, small = (g, u) if a.transposed else (u, g)
    columns = _columns(_last(big), shape[2:], a.stride, a.padding, small.shape[2:])
    dw = _last(small).reshape(-1, shape[0]).t() @ columns
    return dw.reshape(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
