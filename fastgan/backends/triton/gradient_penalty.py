"""``gradient_penalty`` in Triton: one launch to interpolate, two for P and v.

A tensor is (B, S): S the values of a sample, cut into parts whose squared norms are merged in a fixed order.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, dense, empty, memory_format
from fastgan.backends.triton.launch import device_of

BLOCK = 1024
# parts of a sample at most, and the tile of partial results that is merged at once
MOST_PARTS, MERGE_SAMPLES, MERGE_PARTS = 1024, 32, 32


class Tile(NamedTuple):
    """Samples and values of each that a program handles at once, and how often before the sums go to float64."""

    samples: int
    values: int
    rounds: int


# NARROW is for samples that fit into it, such as points
NARROW, WIDE = Tile(16, 64, 1), Tile(1, 1024, 4)


@triton.jit
def _double(bits):
    # Triton passes a Python float as float32; an argument that is 1 becomes a constant, which has no .to
    return tl.full((1,), bits, tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _gradient_penalty_interpolate_kernel(
    real_ptr, fake_ptr, t_ptr, x_ptr, size, S, STACK: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr
):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < size
    t = tl.load(t_ptr + offsets // S, mask=mask, other=0.0).to(ACC)
    real = tl.load(real_ptr + offsets, mask=mask, other=0.0)
    fake = tl.load(fake_ptr + offsets, mask=mask, other=0.0)
    x = (t * real.to(ACC) + (1 - t) * fake.to(ACC)).to(x_ptr.dtype.element_ty)
    if STACK:
        tl.store(x_ptr + offsets, real, mask=mask)
        tl.store(x_ptr + size + offsets, fake, mask=mask)
        tl.store(x_ptr + 2 * size + offsets, x, mask=mask)
    else:
        tl.store(x_ptr + offsets, x, mask=mask)


@triton.jit
def _gradient_penalty_squares_kernel(
    g_ptr, squares_ptr, B, S, per_part, parts,
    ACC: tl.constexpr, SAMPLES: tl.constexpr, VALUES: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The squared norm of one part of some samples: short sums in ACC, then float64."""
    b = (tl.program_id(0) // parts).to(tl.int64) * SAMPLES + tl.arange(0, SAMPLES)
    part = tl.program_id(0) % parts
    begin = part.to(tl.int64) * per_part
    end = tl.minimum(begin + per_part, S)
    total = tl.zeros((SAMPLES,), tl.float64)
    for start in range(begin, end, VALUES * ROUNDS):
        squares = tl.zeros((SAMPLES, VALUES), ACC)
        for k in tl.static_range(ROUNDS):
            i = start + k * VALUES + tl.arange(0, VALUES)
            mask = (b < B)[:, None] & (i < end)[None, :]
            g = tl.load(g_ptr + b[:, None] * S + i[None, :], mask=mask, other=0.0).to(ACC)
            squares += g * g
        total += tl.sum(squares.to(tl.float64), 1)
    tl.store(squares_ptr + b * parts + part, total, mask=b < B)


@triton.jit
def _over(squares_ptr, b, B, parts, target, ONE_SIDED: tl.constexpr, MERGE_PARTS: tl.constexpr):
    # (n, over) of the samples b
    squared = tl.zeros(b.shape, tl.float64)
    for start in range(0, parts, MERGE_PARTS):
        part = start + tl.arange(0, MERGE_PARTS)
        mask = (b < B)[:, None] & (part < parts)[None, :]
        squared += tl.sum(tl.load(squares_ptr + b[:, None] * parts + part[None, :], mask=mask, other=0.0), 1)
    norm = tl.sqrt(squared)
    over = norm - target
    if ONE_SIDED:
        # tl.maximum would swallow a NaN
        over = tl.where(over < 0, tl.zeros_like(over), over)
    return norm, over


@triton.jit
def _gradient_penalty_kernel(
    g_ptr, squares_ptr, penalty_ptr, v_ptr, B, S, per_part, parts, weight_bits, target_bits,
    ONE_SIDED: tl.constexpr, ACC: tl.constexpr, SAMPLES: tl.constexpr, VALUES: tl.constexpr,
    MERGE_SAMPLES: tl.constexpr, MERGE_PARTS: tl.constexpr,
):  # fmt: skip
    """The first program writes the penalty, all others v."""
    share = _double(weight_bits) / tl.full((1,), B, tl.float64)
    target = _double(target_bits)
    if tl.program_id(0) == 0:
        total = tl.zeros((MERGE_SAMPLES,), tl.float64)
        for first in range(0, B, MERGE_SAMPLES):
            b = (first + tl.arange(0, MERGE_SAMPLES)).to(tl.int64)
            _, over = _over(squares_ptr, b, B, parts, target, ONE_SIDED, MERGE_PARTS)
            total += tl.where(b < B, over * over, tl.zeros_like(over))
        penalty = share * tl.sum(total, 0)
        tl.store(penalty_ptr + tl.arange(0, 1), penalty.to(ACC))
    else:
        program = tl.program_id(0) - 1
        b = (program // parts).to(tl.int64) * SAMPLES + tl.arange(0, SAMPLES)
        norm, over = _over(squares_ptr, b, B, parts, target, ONE_SIDED, MERGE_PARTS)
        one = tl.full(norm.shape, 1.0, tl.float64)
        at_zero = tl.where(target + tl.zeros_like(norm) == 0, one, tl.zeros_like(norm))
        ratio = tl.where(norm == 0, at_zero, over / tl.where(norm == 0, one, norm))
        c = (2 * share * ratio).to(ACC)
        begin = (program % parts).to(tl.int64) * per_part
        end = tl.minimum(begin + per_part, S)
        for start in range(begin, end, VALUES):
            i = start + tl.arange(0, VALUES)
            mask = (b < B)[:, None] & (i < end)[None, :]
            offsets = b[:, None] * S + i[None, :]
            g = tl.load(g_ptr + offsets, mask=mask, other=0.0).to(ACC)
            tl.store(v_ptr + offsets, (c[:, None] * g).to(v_ptr.dtype.element_ty), mask=mask)


def _accumulator(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _bits(value: float) -> int:
    return struct.unpack("q", struct.pack("d", value))[0]


def gradient_penalty_interpolate(real: Tensor, fake: Tensor, t: Tensor, stack: bool) -> Tensor:
    """Return x, in real's dtype and memory format; ``stack``: (3B, ...) of real, fake and x."""
    real, fake = dense(real), dense(fake.to(real.dtype), like=real)
    shape = ((3 if stack else 1) * real.shape[0], *real.shape[1:])
    x = torch.empty(shape, dtype=real.dtype, device=real.device, memory_format=memory_format(real))
    size = real.numel()
    if size > 0:
        options = {"STACK": stack, "ACC": _accumulator(real), "BLOCK": BLOCK}
        with device_of(real):
            _gradient_penalty_interpolate_kernel[(triton.cdiv(size, BLOCK),)](
                real, fake, t.contiguous(), x, size, size // real.shape[0], **options
            )
    return x


def gradient_penalty(g: Tensor, weight: float, target: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    """Return (P, v): P without dimensions in the accumulation type, v in g's type; both 0 for an empty batch."""
    g, penalty, v = dense(g), g.new_empty((), dtype=accumulate_dtype(g.dtype)), empty(g)
    batch = g.shape[0]
    if batch == 0:
        return penalty.zero_(), v
    size = g.numel() // batch
    tile = NARROW if size <= NARROW.values else WIDE
    step = tile.values * tile.rounds
    per_part = step * max(1, triton.cdiv(size, step * MOST_PARTS))
    parts = triton.cdiv(size, per_part)
    programs = triton.cdiv(batch, tile.samples) * parts
    squares = torch.empty(batch, parts, dtype=torch.float64, device=g.device)
    sizes = (batch, size, per_part, parts)
    options = {"ACC": _accumulator(g), "SAMPLES": tile.samples, "VALUES": tile.values}
    merge = {"MERGE_SAMPLES": MERGE_SAMPLES, "MERGE_PARTS": MERGE_PARTS}
    with device_of(g):
        if programs > 0:
            _gradient_penalty_squares_kernel[(programs,)](g, squares, *sizes, ROUNDS=tile.rounds, **options)
        _gradient_penalty_kernel[(1 + programs,)](
            g, squares, penalty, v, *sizes, _bits(weight), _bits(target), ONE_SIDED=one_sided, **options, **merge
        )
    return penalty, v
