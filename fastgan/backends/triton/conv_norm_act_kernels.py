"""The implicit matrix products of ``conv_norm_act``, in the letters of backends/reference/conv_norm_act.py.

Tensors are channels_last, (N, H, W, C). Of each pair of constants (KERNEL, STRIDE, PADDING, DILATION) the first is for
H. Pixels are counted in 32 bits, elements in 64. What is loaded passes through ``_loaded`` on its way into a product:

    LOAD 0   v        LOAD 1   act(norm(v))        LOAD 2   v act'(y), y = saved

A table holds a normalisation per channel, in the accumulation type: rows mean, scale = w r, bias, r.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastgan.backends.triton.activation import act, dact, dact_saved


@triton.jit
def _row(table_ptr, row: tl.constexpr, c, C):
    return tl.load(table_ptr + row * C + c, mask=c < C, other=0.0)


@triton.jit
def _loaded(
    x_ptr, saved_ptr, table_ptr, offsets, mask, c, C,
    LOAD: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A tile of the tensor that x is loaded as; 0 outside the mask, whatever is there and whatever is saved."""
    v = tl.load(x_ptr + offsets, mask=mask, other=0.0)
    if LOAD == 0:
        return v
    else:
        u = v.to(ACC)
        if LOAD == 1:
            u = act((u - _row(table_ptr, 0, c, C)) * _row(table_ptr, 1, c, C) + _row(table_ptr, 2, c, C), SLOPE, ACT)
        else:
            u *= dact_saved(tl.load(saved_ptr + offsets, mask=mask, other=0.0).to(ACC), SLOPE, ACT)
        # padding is 0 after all this, not before
        return tl.where(mask, u, 0.0).to(v.dtype)


@triton.jit
def _reach(
    phase, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, TRANSPOSED: tl.constexpr
):  # fmt: skip
    """Along one dimension: number of taps, the first one, and the input row it reads for the first output row.

    Row m of a phase of a scatter is output row m STRIDE + phase, which only every STRIDE-th tap reaches.
    """
    if TRANSPOSED:
        first = (phase + PADDING) % STRIDE
        return (KERNEL - first + STRIDE - 1) // STRIDE, first, (phase + PADDING - first) // STRIDE
    else:
        return KERNEL, 0, -PADDING


@triton.jit
def _count(size, phase, STRIDE: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Output rows of a phase along one dimension."""
    if TRANSPOSED:
        return (size - phase + STRIDE - 1) // STRIDE
    else:
        return size


@triton.jit
def _mean_and_squares(v, valid, count):
    """Mean of a tile's valid rows and their sum of squared deviations."""
    mean = tl.sum(tl.where(valid, v, 0.0), 0) / tl.maximum(count, 1.0)
    off = tl.where(valid, v - mean[None, :], 0.0)
    return mean, tl.sum(off * off, 0)


@triton.jit
def _conv_norm_act_fwd_kernel(
    x_ptr, saved_ptr, table_ptr, weight_ptr, scale_ptr, bias_ptr, y_ptr,
    norm_x_ptr, norm_table_ptr, partial_ptr, count_ptr,
    N, H, W, C, OUT_H, OUT_W, K,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
    TRANSPOSED: tl.constexpr, FLAT: tl.constexpr,
    X_LOAD: tl.constexpr, X_ACT: tl.constexpr, X_SLOPE: tl.constexpr,
    HAS_SCALE: tl.constexpr, HAS_BIAS: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.constexpr, STORE: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Gather, or one phase of a scatter: y[m, k] = a(scale sum_taps sum_c x[m, tap, c] w[k, tap, c] + bias[k]).

    weight is (K, KERNEL, C). FLAT: few channels, so a block of the sum holds several taps, else channels of one tap.
    STORE 1: partial (2, tiles, K) gets mean and squared deviations of y, and count (tiles,) the rows of the tile.
    STORE 2: partial gets the sums of g and g xh with g = y act'(norm(norm_x)), and y is not activated.
    """
    columns = tl.cdiv(K, BLOCK_N)
    phase_h, phase_w = tl.program_id(1) // STRIDE[1], tl.program_id(1) % STRIDE[1]
    taps_h, first_h, origin_h = _reach(phase_h, KERNEL[0], STRIDE[0], PADDING[0], TRANSPOSED)
    taps_w, first_w, origin_w = _reach(phase_w, KERNEL[1], STRIDE[1], PADDING[1], TRANSPOSED)
    count_h = _count(OUT_H, phase_h, STRIDE[0], TRANSPOSED)
    count_w = _count(OUT_W, phase_w, STRIDE[1], TRANSPOSED)
    # neighbouring programs share the tile of x, the larger of the two
    tile = tl.program_id(0) // columns
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    k = (tl.program_id(0) % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = N * count_h * count_w
    valid = (m < rows)[:, None]
    m_w = m % tl.maximum(count_w, 1)
    m_h = (m // tl.maximum(count_w, 1)) % tl.maximum(count_h, 1)
    n = (m // tl.maximum(count_h * count_w, 1)).to(tl.int64)
    # one step of a tap moves a gather down the input and a scatter up
    move_h = -DILATION[0] if TRANSPOSED else DILATION[0]
    move_w = -DILATION[1] if TRANSPOSED else DILATION[1]
    every_h = STRIDE[0] if TRANSPOSED else 1
    every_w = STRIDE[1] if TRANSPOSED else 1
    h0 = (m_h * (1 if TRANSPOSED else STRIDE[0]) + origin_h)[:, None]
    w0 = (m_w * (1 if TRANSPOSED else STRIDE[1]) + origin_w)[:, None]
    image = (n * H * W)[:, None]
    filters = k.to(tl.int64)[:, None] * (KERNEL[0] * KERNEL[1]) * C
    blocks = tl.cdiv(C, BLOCK_K)
    steps = taps_h * taps_w * blocks
    if FLAT:
        steps = tl.cdiv(taps_h * taps_w * C, BLOCK_K)
    sums = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for step in range(0, steps):
        if FLAT:
            flat = step * BLOCK_K + tl.arange(0, BLOCK_K)[None, :]
            tap = flat // C
            c = flat - tap * C
        else:
            tap = step // blocks
            c = (step - tap * blocks) * BLOCK_K + tl.arange(0, BLOCK_K)[None, :]
        tap_h = tap // taps_w
        tap_w = tap - tap_h * taps_w
        h, w = h0 + tap_h * move_h, w0 + tap_w * move_w
        present = (c < C) & (tap < taps_h * taps_w)
        inside = valid & (h >= 0) & (h < H) & (w >= 0) & (w < W) & present
        offsets = (image + h * W + w) * C + c
        u = _loaded(x_ptr, saved_ptr, table_ptr, offsets, inside, c, C, X_LOAD, X_ACT, X_SLOPE, ACC)
        place = (first_h + tap_h * every_h) * KERNEL[1] + first_w + tap_w * every_w
        weight = tl.load(weight_ptr + filters + place * C + c, mask=(k < K)[:, None] & present, other=0.0)
        sums = tl.dot(u, tl.trans(weight), sums, input_precision=PRECISION, out_dtype=ACC)
    if HAS_SCALE:
        sums *= tl.load(scale_ptr)
    if HAS_BIAS:
        sums += tl.load(bias_ptr + k, mask=k < K, other=0.0).to(ACC)[None, :]
    if STORE != 2:
        sums = act(sums, SLOPE, ACT)
    out_h = m_h * every_h + phase_h if TRANSPOSED else m_h
    out_w = m_w * every_w + phase_w if TRANSPOSED else m_w
    out = ((n * OUT_H + out_h) * OUT_W + out_w)[:, None] * K + k[None, :]
    mask = valid & (k < K)[None, :]
    y = sums.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + out, y, mask=mask)
    if STORE > 0:
        # the result as it is read back
        v = tl.where(mask, y.to(ACC), 0.0)
        tile += tl.program_id(1) * (tl.num_programs(0) // columns)
        tiles = tl.num_programs(1) * (tl.num_programs(0) // columns)
        at = partial_ptr + tile.to(tl.int64) * K + k
        if STORE == 1:
            count = tl.maximum(tl.minimum(rows - (tl.program_id(0) // columns) * BLOCK_M, BLOCK_M), 0)
            first, second = _mean_and_squares(v, valid, count.to(ACC))
            tl.store(count_ptr + tile, count)
        else:
            x = tl.load(norm_x_ptr + out, mask=mask, other=0.0).to(ACC)
            off = x - _row(norm_table_ptr, 0, k, K)[None, :]
            g = v * dact(
                off * _row(norm_table_ptr, 1, k, K)[None, :] + _row(norm_table_ptr, 2, k, K)[None, :], SLOPE, ACT
            )
            g = tl.where(mask, g, 0.0)
            first = tl.sum(g, 0)
            second = tl.sum(g * off * _row(norm_table_ptr, 3, k, K)[None, :], 0)
        tl.store(at, first, mask=k < K)
        tl.store(at + tiles.to(tl.int64) * K, second, mask=k < K)


@triton.jit
def _conv_norm_act_dw_kernel(
    small_ptr, small_saved_ptr, small_table_ptr, big_ptr, big_saved_ptr, big_table_ptr, partial_ptr,
    M, H, W, C_SMALL, BIG_H, BIG_W, C_BIG, rows,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr, FLAT: tl.constexpr,
    SMALL_LOAD: tl.constexpr, SMALL_ACT: tl.constexpr, SMALL_SLOPE: tl.constexpr,
    BIG_LOAD: tl.constexpr, BIG_ACT: tl.constexpr, BIG_SLOPE: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """wgrad over the pixels of one split: partial (splits, C_SMALL, KERNEL, C_BIG), M = N H W pixels of small.

    FLAT: few channels in big, so a block of columns holds several taps, else channels of one tap.
    """
    taps: tl.constexpr = KERNEL[0] * KERNEL[1]
    blocks = tl.cdiv(C_BIG, BLOCK_N)
    columns = tl.cdiv(taps * C_BIG, BLOCK_N) if FLAT else taps * blocks
    column = tl.program_id(0) % columns
    cs = (tl.program_id(0) // columns) * BLOCK_M + tl.arange(0, BLOCK_M)[None, :]
    if FLAT:
        flat = column * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        tap = flat // C_BIG
        cb = flat - tap * C_BIG
    else:
        tap = column // blocks
        cb = (column - tap * blocks) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    tap_h = tap // KERNEL[1]
    tap_w = tap - tap_h * KERNEL[1]
    present = (cb < C_BIG) & (tap < taps)
    begin = tl.program_id(1) * rows
    end = tl.minimum(begin + rows, M)
    sums = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for start in range(begin, end, BLOCK_K):
        m = (start + tl.arange(0, BLOCK_K))[:, None]
        valid = m < end
        row = m // W
        n = row // H
        h = (row - n * H) * STRIDE[0] - PADDING[0] + tap_h * DILATION[0]
        w = (m - row * W) * STRIDE[1] - PADDING[1] + tap_w * DILATION[1]
        inside = valid & (h >= 0) & (h < BIG_H) & (w >= 0) & (w < BIG_W) & present
        small = _loaded(
            small_ptr, small_saved_ptr, small_table_ptr, m.to(tl.int64) * C_SMALL + cs, valid & (cs < C_SMALL), cs,
            C_SMALL, SMALL_LOAD, SMALL_ACT, SMALL_SLOPE, ACC,
        )  # fmt: skip
        big = _loaded(
            big_ptr, big_saved_ptr, big_table_ptr, ((n.to(tl.int64) * BIG_H + h) * BIG_W + w) * C_BIG + cb, inside, cb,
            C_BIG, BIG_LOAD, BIG_ACT, BIG_SLOPE, ACC,
        )  # fmt: skip
        sums = tl.dot(tl.trans(small), big, sums, input_precision=PRECISION, out_dtype=ACC)
    row = tl.program_id(1).to(tl.int64) * C_SMALL + tl.trans(cs)
    mask = (tl.trans(cs) < C_SMALL) & present
    tl.store(partial_ptr + (row * taps + tap) * C_BIG + cb, sums, mask=mask)


@triton.jit
def _conv_norm_act_table_kernel(
    mean_ptr, var_ptr, weight_ptr, bias_ptr, table_ptr, C,
    EPS: tl.constexpr, AFFINE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The rows of a table; AFFINE: 1 for a weight, 2 for a bias, 3 for both."""
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = c < C
    r = tl.rsqrt(tl.load(var_ptr + c, mask=mask, other=0.0).to(ACC) + EPS)
    scale = r
    bias = tl.zeros(r.shape, ACC)
    if AFFINE % 2 == 1:
        scale = r * tl.load(weight_ptr + c, mask=mask, other=0.0).to(ACC)
    if AFFINE >= 2:
        bias = tl.load(bias_ptr + c, mask=mask, other=0.0).to(ACC)
    tl.store(table_ptr + c, tl.load(mean_ptr + c, mask=mask, other=0.0).to(ACC), mask=mask)
    tl.store(table_ptr + C + c, scale, mask=mask)
    tl.store(table_ptr + 2 * C + c, bias, mask=mask)
    tl.store(table_ptr + 3 * C + c, r, mask=mask)


@triton.jit
def _conv_norm_act_merge_kernel(
    partial_ptr, count_ptr, out_mean_ptr, out_var_ptr, tiles, C,
    ACC: tl.constexpr, BLOCK_TILES: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Mean and biased variance of the whole from those of any number of tiles (Chan, Golub and LeVeque 1983)."""
    c = (tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    total = tl.zeros((BLOCK_TILES, 1), ACC)
    mean = tl.zeros((BLOCK_TILES, BLOCK_C), ACC)
    squares = tl.zeros((BLOCK_TILES, BLOCK_C), ACC)
    for start in range(0, tiles, BLOCK_TILES):
        tile = (start + tl.arange(0, BLOCK_TILES))[:, None]
        mask = (tile < tiles) & (c < C)
        count = tl.load(count_ptr + tile, mask=tile < tiles, other=0).to(ACC)
        off = tl.load(partial_ptr + tile.to(tl.int64) * C + c, mask=mask, other=0.0) - mean
        share = count / tl.maximum(total + count, 1.0)
        after = (tile.to(tl.int64) + tiles) * C + c
        squares += tl.load(partial_ptr + after, mask=mask, other=0.0) + off * off * total * share
        mean += off * share
        total += count
    rows = tl.sum(total, 0)[None, :]
    whole = tl.sum(total / rows * mean, 0)[None, :]
    off = mean - whole
    var = tl.sum(squares + total * off * off, 0)[None, :] / rows
    tl.store(out_mean_ptr + c, whole, mask=c < C)
    tl.store(out_var_ptr + c, var, mask=c < C)
