"""``conv_norm_act`` in Triton: an implicit matrix product, or the vendor's convolution with our kernels around it.

The implicit product serves two spatial dimensions, one group, and no stride together with dilation in a scatter. It
runs where this backend was asked for by name or where a measurement says that it wins (tuning.py); else the vendor's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.backends import asked, vendor
from fastgan.backends.geometry import Attributes, input_gradient, output_channels, output_size
from fastgan.backends.layout import accumulate_dtype, empty, formatted, is_channels_last
from fastgan.backends.reference.activation import ACTIVATIONS
from fastgan.backends.triton import bias_act, norm_act, norm_act_kernels, tuning
from fastgan.backends.triton import conv_norm_act_kernels as kernels
from fastgan.backends.triton.launch import device_of, processors

Vector = Tensor | None

STEMS = vendor.Pointwise(bias_act, norm_act)
# what a product stores beside its result, see STORE in conv_norm_act_kernels.py
PLAIN, STATISTICS, GRADIENT_SUMS = range(3)
MAX_SPLITS = 128
TABLE_BLOCK = 128
MERGE_TILES, MERGE_CHANNELS = 128, 16
# pixels are counted in 32 bits; a tile may go past the last one
MAX_PIXELS = 2**31 - 2**16


class Source(NamedTuple):
    """A tensor and what happens to it on its way into a product, see LOAD in conv_norm_act_kernels.py."""

    x: Tensor  # (N, C, H, W), channels_last
    load: int = 0
    saved: Vector = None  # as x
    table: Vector = None  # (4, C)
    activation: str = "identity"
    negative_slope: float = 0.0

    def pointers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return three arguments of the kernels; what is absent is not read: any pointer will do."""
        return self.x, self.x if self.saved is None else self.saved, self.x if self.table is None else self.table

    def constants(self, prefix: str) -> dict[str, object]:
        """Return the compile-time arguments that go with them."""
        names = (f"{prefix}_LOAD", f"{prefix}_ACT", f"{prefix}_SLOPE")
        return dict(zip(names, (self.load, ACTIVATIONS.index(self.activation), self.negative_slope), strict=True))


class Sums(NamedTuple):
    """What the sums of g and g xh are taken with; x is as the result of the product."""

    x: Tensor
    table: Tensor
    activation: str
    negative_slope: float


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=accumulate_dtype(x.dtype), device=x.device)


def _geometry(kernel_size: list[int], a: Attributes) -> dict[str, tuple[int, ...]]:
    return {
        "KERNEL": tuple(kernel_size),
        "STRIDE": tuple(a.stride),
        "PADDING": tuple(a.padding),
        "DILATION": tuple(a.dilation),
    }


def _blocks(config: tuning.Config, *sources: Source) -> dict[str, int]:
    names = ("BLOCK_M", "BLOCK_N", "BLOCK_K", "num_warps")
    stages = config.stages(*(source.load for source in sources))
    return {**dict(zip(names, config[:4], strict=True)), "num_stages": stages}


def _accumulator(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32


def _numbers(x: Tensor) -> dict[str, object]:
    return {"PRECISION": tuning.precision(x), "ACC": _accumulator(x.dtype)}


def table(norm: tuple[Vector, ...], dtype: torch.dtype, eps: float) -> Tensor:
    """Return the rows (4, C) mean, scale, bias, r of (norm_weight, norm_bias, mean, var), in an accumulation type."""
    weight, bias, mean, var = norm
    rows = torch.empty(4, mean.numel(), dtype=dtype, device=mean.device)
    tensors = (mean, var, mean if weight is None else weight, mean if bias is None else bias, rows)
    affine = (weight is not None) + 2 * (bias is not None)
    constants = {"EPS": eps, "AFFINE": affine, "ACC": _accumulator(dtype), "BLOCK": TABLE_BLOCK}
    with device_of(mean):
        grid = (triton.cdiv(mean.numel(), TABLE_BLOCK),)
        kernels._conv_norm_act_table_kernel[grid](*tensors, mean.numel(), **constants)
    return rows


def _normalised(x: Tensor, norm: tuple[Vector, ...], a: Attributes) -> Source:
    if norm[2] is None:
        return Source(_last(x))
    rows = table(norm, accumulate_dtype(x.dtype), a.eps)
    return Source(_last(x), 1, None, rows, a.norm_activation, a.norm_slope)


def _masked(dy: Tensor, y: Vector, a: Attributes) -> Source:
    if y is None or a.activation == "identity":
        return Source(_last(dy))
    return Source(_last(dy), 2, _last(y), None, a.activation, a.negative_slope)


def product(
    source: Source, weight: Tensor, bias: Vector, a: Attributes, store: int = PLAIN, sums: Sums | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gather or scatter (N, K, H, W), channels_last, and what ``store`` asks for, see the kernel.

    Returns: the result, the partial results (2, tiles, K), and the rows of each tile (tiles,).
    """
    x, kernel_size = source.x, list(weight.shape[2:])
    k, size = output_channels(weight.shape, a), output_size(x.shape[2:], weight.shape[2:], a)
    y = torch.empty((x.shape[0], k, *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    # a gather's output channels come first in weight, a scatter's second; input channels go last
    packed = weight.to(x.dtype).permute((1, 2, 3, 0) if a.transposed else (0, 2, 3, 1)).contiguous()
    config = tuning.configs()[tuning.key("fwd", x, x.shape[1], k, y.numel())]
    phases = a.stride[0] * a.stride[1] if a.transposed else 1
    rows = [triton.cdiv(n, s) if a.transposed else n for n, s in zip(size, a.stride, strict=True)]
    tiles = triton.cdiv(x.shape[0] * rows[0] * rows[1], config.block_m)
    grid = (tiles * triton.cdiv(k, config.block_n), phases)
    partial = _empty(x, 2, phases * tiles, k) if store != PLAIN else _empty(x, 0)
    counts = torch.empty(phases * tiles if store == STATISTICS else 0, dtype=torch.int32, device=x.device)
    activation = (a.activation, a.negative_slope) if sums is None else (sums.activation, sums.negative_slope)
    after = (y, y) if sums is None else (sums.x, sums.table)
    with device_of(x):
        kernels._conv_norm_act_fwd_kernel[grid](
            *source.pointers(), packed, *(y if v is None else v for v in (a.scale, bias)), y, *after, partial, counts,
            x.shape[0], *x.shape[2:], x.shape[1], *size, k,
            **_geometry(kernel_size, a), TRANSPOSED=a.transposed, FLAT=x.shape[1] <= tuning.THIN,
            **source.constants("X"), HAS_SCALE=a.scale is not None, HAS_BIAS=bias is not None,
            ACT=ACTIVATIONS.index(activation[0]), SLOPE=activation[1], STORE=store,
            **_numbers(x), **_blocks(config, source),
        )  # fmt: skip
    return y, partial, counts


def _statistics(x: Tensor, partial: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (C,) from those of the tiles."""
    tiles, c = partial.shape[1:]
    mean, var = _empty(x, c), _empty(x, c)
    constants = {"BLOCK_TILES": MERGE_TILES, "BLOCK_C": MERGE_CHANNELS, "ACC": _accumulator(x.dtype)}
    grid = (triton.cdiv(c, MERGE_CHANNELS),)
    with device_of(x):
        kernels._conv_norm_act_merge_kernel[grid](partial, counts, mean, var, tiles, c, **constants)
    return mean, var


def _splits(pixels: int, programs: int, block: int, x: Tensor) -> tuple[int, int]:
    """Return pixels per split, a multiple of the block, and the number of splits: about two programs a processor."""
    wanted = min(MAX_SPLITS, max(1, 2 * processors(x) // programs))
    rows = triton.cdiv(triton.cdiv(pixels, wanted), block) * block
    return rows, triton.cdiv(pixels, rows)


def weight_gradient(small: Source, big: Source, kernel_size: list[int], a: Attributes) -> Tensor:
    """Return wgrad (C_small, C_big, kernel)."""
    x, taps = small.x, kernel_size[0] * kernel_size[1]
    pixels, c_small, c_big = x.numel() // x.shape[1], x.shape[1], big.x.shape[1]
    config = tuning.configs()[tuning.key("dw", x, c_big, c_small, c_small * taps * c_big)]
    flat = c_big <= tuning.THIN
    blocks = triton.cdiv(taps * c_big, config.block_n) if flat else taps * triton.cdiv(c_big, config.block_n)
    programs = blocks * triton.cdiv(c_small, config.block_m)
    rows, splits = _splits(pixels, programs, config.block_k, x)
    partial = _empty(x, splits, c_small, *kernel_size, c_big)
    with device_of(x):
        kernels._conv_norm_act_dw_kernel[(programs, splits)](
            *small.pointers(), *big.pointers(), partial,
            pixels, *x.shape[2:], c_small, *big.x.shape[2:], c_big, rows,
            **_geometry(kernel_size, a), FLAT=flat, **small.constants("SMALL"), **big.constants("BIG"),
            **_numbers(x), **_blocks(config, small, big),
        )  # fmt: skip
    return formatted(partial.sum(0).to(x.dtype).permute(0, 3, 1, 2), a.channels_last)


def _serves(which: str, x: Tensor, result: Sequence[int], kernel_size: Sequence[int], a: Attributes) -> bool:
    """Return whether the implicit product runs here.

    Args:
        which: fwd or dw.
        x, result: what goes into the convolution, and the shape of its result.
    """
    if x.dim() != 4 or a.groups != 1 or min(*x.shape, *result, *kernel_size) < 1:
        return False
    if max(shape[0] * shape[2] * shape[3] for shape in (x.shape, result)) > MAX_PIXELS:
        return False
    if which == "fwd" and a.transposed and any(s > 1 and d > 1 for s, d in zip(a.stride, a.dilation, strict=True)):
        return False
    if asked() == "triton":
        return True
    c_in, c_out = (x.shape[1], result[1]) if which == "fwd" or not a.transposed else (result[1], x.shape[1])
    return tuning.implicit_gemm_won(x, tuning.key(which, x, c_in, c_out, math.prod(result)))


def conv_norm_act(
    x: Tensor, weight: Tensor, bias: Vector, norm_weight: Vector, norm_bias: Vector, mean: Vector, var: Vector,
    *attributes: object,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (y, mean_y, var_y), as backends/reference/conv_norm_act.py says."""
    a, norm = Attributes(*attributes), (norm_weight, norm_bias, mean, var)
    result = (x.shape[0], output_channels(weight.shape, a), *output_size(x.shape[2:], weight.shape[2:], a))
    if not _serves("fwd", x, result, weight.shape[2:], a):
        return vendor.conv_norm_act(STEMS, x, weight, bias, norm, a)
    y, partial, counts = product(_normalised(x, norm, a), weight, bias, a, STATISTICS if a.stats else PLAIN)
    statistics = _statistics(x, partial, counts) if a.stats else (_empty(x, 0), _empty(x, 0))
    return formatted(y, a.channels_last), *statistics


def conv_norm_act_dx(
    dy: Tensor, y: Vector, weight: Tensor, x: Tensor,
    norm_weight: Vector, norm_bias: Vector, mean: Vector, var: Vector, *attributes: object,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (dx, dnorm_weight, dnorm_bias), as backends/reference/conv_norm_act.py says."""
    a, norm = Attributes(*attributes), (norm_weight, norm_bias, mean, var)
    # of the tensors that the adjoint goes from and to, x's sizes are the result's
    if x.dim() != 4 or not _serves("fwd", dy, x.shape, weight.shape[2:], a._replace(transposed=not a.transposed)):
        return vendor.conv_norm_act_dx(STEMS, dy, y, weight, x, norm, a)
    source, last = _masked(dy, y, a), is_channels_last(x)
    reverse = input_gradient(x, weight.shape[2:], dy, a, True)
    if mean is None:
        du, _, _ = product(source, weight, None, reverse)
        return formatted(du, last), _empty(x, 0), _empty(x, 0)
    x = _last(x)
    after = Sums(x, table(norm, accumulate_dtype(x.dtype), a.eps), a.norm_activation, a.norm_slope)
    du, partial, _ = product(source, weight, None, reverse, GRADIENT_SUMS, after)
    sums = partial.sum(1)
    dx = empty(du)
    problem = norm_act.Problem(x, norm_weight, norm_bias, a.eps, a.norm_activation, a.norm_slope, False)
    tensors = (du, x, *problem.affine, mean, var, sums, dx)
    constants = problem.normalise | problem.act_first
    problem.pointwise(norm_act_kernels._norm_act_bwd_kernel, *tensors, TRAINING=a.training, **constants)
    # copies, since the results of an op must not share memory
    return formatted(dx, last), sums[1].clone(), sums[0].clone()


def conv_norm_act_dw(
    x: Tensor, norm_weight: Vector, norm_bias: Vector, mean: Vector, var: Vector,
    dy: Tensor, y: Vector, kernel_size: list[int], *attributes: object,
) -> Tensor:  # fmt: skip
    """Return dw, as backends/reference/conv_norm_act.py says."""
    a, norm = Attributes(*attributes), (norm_weight, norm_bias, mean, var)
    if not _serves("dw", x, dy.shape, kernel_size, a):
        return vendor.conv_norm_act_dw(STEMS, x, norm, dy, y, kernel_size, a)
    u, g = _normalised(x, norm, a), _masked(dy, y, a)
    return weight_gradient(*((u, g) if a.transposed else (g, u)), list(kernel_size), a)
