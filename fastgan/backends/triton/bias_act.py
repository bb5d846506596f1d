"""``bias_act`` in Triton: one launch and one pass over memory in each direction."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, dense, empty, reduced_dims
from fastgan.backends.reference.activation import ACTIVATIONS, SAVES_INPUT
from fastgan.backends.triton.activation import act, dact_saved, ddact_saved
from fastgan.backends.triton.launch import device_of, inner_size

BLOCK = 1024


@triton.jit
def _load(x_ptr, bias_ptr, offsets, mask, C, S, HAS_BIAS: tl.constexpr, ACC: tl.constexpr):
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(ACC)
    if HAS_BIAS:
        x += tl.load(bias_ptr + (offsets // S) % C, mask=mask, other=0.0).to(ACC)
    return x


@triton.jit
def _bias_act_fwd_kernel(
    x_ptr, bias_ptr, y_ptr, size, C, S,
    SLOPE: tl.constexpr, ACT: tl.constexpr, HAS_BIAS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < size
    z = _load(x_ptr, bias_ptr, offsets, mask, C, S, HAS_BIAS, ACC)
    tl.store(y_ptr + offsets, act(z, SLOPE, ACT).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _bias_act_bwd_kernel(
    dy_ptr, s_ptr, bias_ptr, dx_ptr, size, C, S,
    SLOPE: tl.constexpr, ACT: tl.constexpr, HAS_BIAS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < size
    s = _load(s_ptr, bias_ptr, offsets, mask, C, S, HAS_BIAS, ACC)
    dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(ACC)
    tl.store(dx_ptr + offsets, (dy * dact_saved(s, SLOPE, ACT)).to(dx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _bias_act_bwd_bwd_kernel(
    ddx_ptr, dy_ptr, s_ptr, bias_ptr, ddy_ptr, ds_ptr, size, C, S,
    SLOPE: tl.constexpr, ACT: tl.constexpr, HAS_BIAS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < size
    s = _load(s_ptr, bias_ptr, offsets, mask, C, S, HAS_BIAS, ACC)
    dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(ACC)
    ddx = tl.load(ddx_ptr + offsets, mask=mask, other=0.0).to(ACC)
    tl.store(ddy_ptr + offsets, (ddx * dact_saved(s, SLOPE, ACT)).to(ddy_ptr.dtype.element_ty), mask=mask)
    tl.store(ds_ptr + offsets, (ddx * dy * ddact_saved(s, ACT)).to(ds_ptr.dtype.element_ty), mask=mask)


def _launch(kernel, tensors: tuple, x: Tensor, bias: Tensor | None, activation: str, negative_slope: float) -> None:
    if x.numel() == 0:
        return
    options = {
        "SLOPE": negative_slope,
        "ACT": ACTIVATIONS.index(activation),
        "HAS_BIAS": bias is not None,
        "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "BLOCK": BLOCK,
    }
    with device_of(x):
        kernel[(triton.cdiv(x.numel(), BLOCK),)](*tensors, x.numel(), x.shape[1], inner_size(x), **options)


def bias_act(x: Tensor, bias: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    """Return y = act(x + bias)."""
    x, y = dense(x), empty(x)
    _launch(_bias_act_fwd_kernel, (x, x if bias is None else bias, y), x, bias, activation, negative_slope)
    return y


def bias_act_bwd(dy: Tensor, s: Tensor, bias: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    """Return dx; s is y, or x for silu."""
    s, dy, dx = dense(s), dense(dy, like=s), empty(s)
    bias = bias if activation in SAVES_INPUT else None
    _launch(_bias_act_bwd_kernel, (dy, s, s if bias is None else bias, dx), s, bias, activation, negative_slope)
    return dx


def bias_act_bwd_(dy: Tensor, s: Tensor, activation: str, negative_slope: float) -> None:
    """Replace s, which is y, by dx."""
    if dense(s) is s:
        _launch(_bias_act_bwd_kernel, (dense(dy, like=s), s, s, s), s, None, activation, negative_slope)
    else:
        s.copy_(bias_act_bwd(dy, s, None, activation, negative_slope))


def bias_act_db(dy: Tensor, y: Tensor, activation: str, negative_slope: float) -> Tensor:
    """Return the sum of dx over all dimensions but the channel's."""
    dx = bias_act_bwd(dy, y, None, activation, negative_slope)
    return dx.sum(reduced_dims(y), dtype=accumulate_dtype(y.dtype))


def bias_act_bwd_bwd(
    ddx: Tensor, dy: Tensor, s: Tensor, bias: Tensor | None, activation: str, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """Return (ddy, ds) for the cotangent ddx of dx."""
    s, dy, ddx = dense(s), dense(dy, like=s), dense(ddx, like=s)
    ddy, ds = empty(s), empty(s)
    bias = bias if activation in SAVES_INPUT else None
    tensors = (ddx, dy, s, s if bias is None else bias, ddy, ds)
    _launch(_bias_act_bwd_bwd_kernel, tensors, s, bias, activation, negative_slope)
    return ddy, ds
