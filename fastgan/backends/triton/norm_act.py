"""``norm_act`` in Triton: 3 launches forward in training, 1 in evaluation, 3 backward."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, dense, empty
from fastgan.backends.reference.activation import ACTIVATIONS, PIECEWISE_LINEAR
from fastgan.backends.reference.norm_act import second_order
from fastgan.backends.triton import norm_act_kernels as kernels
from fastgan.backends.triton.launch import channels_inner, device_of, inner_size, processors

# partial results of a reduction at most; one tile of the merge kernel holds them all
MAX_SPLITS = 128


class Tile(NamedTuple):
    """Rows and channels that one program handles."""

    m: int
    c: int


INNER_TILE, OUTER_TILE = Tile(64, 64), Tile(512, 4)
NUM_WARPS = 8
MERGE_CHANNELS = 32


class Problem:
    """One call of ``norm_act``: sizes, tile, grids and the constants that every kernel takes."""

    def __init__(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, activation: str,
                 negative_slope: float, act_first: bool) -> None:  # fmt: skip
        self.x = x
        self.sizes = (x.numel() // max(x.shape[1], 1), x.shape[1], inner_size(x))
        # an absent weight or bias is not read: any pointer will do
        self.affine = (x if weight is None else weight, x if bias is None else bias)
        self.inner = channels_inner(x)
        self.tile = INNER_TILE if self.inner else OUTER_TILE
        self.constants = {
            "SLOPE": negative_slope,
            "ACT": ACTIVATIONS.index(activation),
            "INNER": self.inner,
            "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
            "BLOCK_M": self.tile.m,
            "BLOCK_C": self.tile.c,
            "num_warps": NUM_WARPS,
        }
        self.normalise = {"EPS": eps, "AFFINE": (weight is not None) + 2 * (bias is not None)}
        self.act_first = {"ACT_FIRST": act_first}

    def vectors(self, *rows: int) -> Tensor:
        """Return uninitialised (*rows, C) in the accumulation type."""
        return torch.empty(*rows, self.sizes[1], dtype=accumulate_dtype(self.x.dtype), device=self.x.device)

    def pointwise(self, kernel: triton.JITFunction, *tensors: Tensor, **constants: object) -> None:
        """Launch one program per tile."""
        grid = (triton.cdiv(self.sizes[0], self.tile.m), triton.cdiv(self.sizes[1], self.tile.c))
        with device_of(self.x):
            kernel[grid](*tensors, *self.sizes, **self.constants, **constants)

    def splits(self) -> tuple[int, int]:
        """Return rows per split, a multiple of the tile, and the number of splits: about two programs a processor."""
        columns = triton.cdiv(self.sizes[1], self.tile.c)
        wanted = min(MAX_SPLITS, max(1, 2 * processors(self.x) // columns))
        rows = triton.cdiv(triton.cdiv(self.sizes[0], wanted), self.tile.m) * self.tile.m
        return rows, triton.cdiv(self.sizes[0], rows)

    def sums(self, count: int, kernel: triton.JITFunction, *tensors: Tensor, **constants: object) -> Tensor:
        """Launch a reduction that fills (count, splits, C), and return its sum over the splits, (count, C)."""
        rows, splits = self.splits()
        partial = self.vectors(count, splits)
        grid = (triton.cdiv(self.sizes[1], self.tile.c), splits)
        with device_of(self.x):
            kernel[grid](*tensors, partial, *self.sizes, rows, splits, **self.constants, **constants)
        return partial.sum(1)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of u over this batch, (C,) each."""
        rows, splits = self.splits()
        partial, (mean, var) = self.vectors(2, splits), self.vectors(2)
        columns = triton.cdiv(self.sizes[1], self.tile.c)
        m, c, _ = self.sizes
        with device_of(self.x):
            kernels._norm_act_stats_kernel[(columns, splits)](
                self.x, *partial, *self.sizes, rows, **self.constants, **self.act_first
            )
            merge = {"ACC": self.constants["ACC"], "BLOCK_SPLITS": MAX_SPLITS, "BLOCK_C": MERGE_CHANNELS}
            kernels._norm_act_merge_kernel[(triton.cdiv(c, MERGE_CHANNELS),)](
                *partial, mean, var, m, c, rows, splits, **merge
            )
        # copies, since the results of an op must not share memory
        return mean.clone(), var.clone()


def norm_act_eval(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> Tensor:  # fmt: skip
    """Return y normalised by the given mean and var; only the derivative asks for training."""
    x, y = dense(x), empty(x)
    if x.numel() > 0:
        problem = Problem(x, weight, bias, eps, activation, negative_slope, act_first)
        tensors = (x, *problem.affine, mean, var, y)
        problem.pointwise(kernels._norm_act_fwd_kernel, *tensors, **problem.normalise, **problem.act_first)
    return y


def norm_act_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of x, (C,) each."""
    x = dense(x)
    problem = Problem(x, None, None, 0.0, "identity", 0.0, False)
    return problem.statistics() if x.numel() > 0 else (problem.vectors().zero_(), problem.vectors().zero_())


def norm_act(
    x: Tensor, weight: Tensor | None, bias: Tensor | None,
    eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (y, mean, var) with the statistics of this batch."""
    x = dense(x)
    problem = Problem(x, weight, bias, eps, activation, negative_slope, act_first)
    if x.numel() == 0:
        return empty(x), problem.vectors().zero_(), problem.vectors().zero_()
    mean, var = problem.statistics()
    return norm_act_eval(x, weight, bias, mean, var, True, eps, activation, negative_slope, act_first), mean, var


def norm_act_bwd(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (dx, dw, db)."""
    x, dy = dense(x), dense(dy, like=x)
    dx, problem = empty(x), Problem(x, weight, bias, eps, activation, negative_slope, act_first)
    if x.numel() == 0:
        return dx, problem.vectors().zero_(), problem.vectors().zero_()
    tensors, constants = (dy, x, *problem.affine, mean, var), problem.normalise | problem.act_first
    sums = problem.sums(2, kernels._norm_act_bwd_sums_kernel, *tensors, **constants)
    problem.pointwise(kernels._norm_act_bwd_kernel, *tensors, sums, dx, TRAINING=training, **constants)
    # copies, since the results of an op must not share memory
    return dx, sums[1].clone(), sums[0].clone()


def norm_act_bwd_bwd(
    ddx: Tensor, ddw: Tensor | None, ddb: Tensor | None,
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    training: bool, eps: float, activation: str, negative_slope: float, act_first: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the cotangents (ddy, dx, dw, db) for those of ``norm_act_bwd``'s results."""
    x = dense(x)
    problem = Problem(x, weight, bias, eps, activation, negative_slope, act_first)
    ddy, dx = empty(x), empty(x)
    if x.numel() == 0:
        return ddy, dx, problem.vectors().zero_(), problem.vectors().zero_()
    tensors = (dense(ddx, like=x), dense(dy, like=x), x, *problem.affine, mean, var)
    constants = problem.normalise | problem.act_first
    sums = problem.sums(5, kernels._norm_act_bwd_bwd_sums_kernel, *tensors, **constants)

    def curve(t: Tensor) -> Tensor:
        return problem.sums(2, kernels._norm_act_bwd_bwd_curve_kernel, *tensors, t, **problem.normalise)

    curved = activation not in PIECEWISE_LINEAR and not act_first
    count = x.numel() // x.shape[1]
    c = second_order(weight, var, eps, ddw, ddb, count, training, sums, curve if curved else None)
    coefficients = torch.cat((c.t, c.du, c.k))
    problem.pointwise(kernels._norm_act_bwd_bwd_kernel, *tensors, coefficients, ddy, dx, **constants)
    return ddy, dx, c.dw, c.db
