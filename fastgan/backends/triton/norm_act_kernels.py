"""The Triton kernels of ``norm_act``, in the letters of backends/reference/norm_act.py.

A tensor is (M, C): M = N * S values per channel, S the spatial size. Tiles are BLOCK_M x BLOCK_C; INNER says that
channels are innermost in memory. Reductions are split over M into ``splits`` partial results, merged in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastgan.backends.triton.activation import act, dact, ddact


@triton.jit
def _offsets(m, c, C, S, INNER: tl.constexpr):
    if INNER:
        return m[:, None] * C + c[None, :]
    else:
        return ((m // S) * C * S + m % S)[:, None] + c[None, :].to(tl.int64) * S


@triton.jit
def _number(n, ACC: tl.constexpr):
    # an argument that is 1 becomes a constant, which has no .to
    return tl.full((1,), n, ACC)


@triton.jit
def _vector(ptr, c, C, ACC: tl.constexpr):
    return tl.load(ptr + c, mask=c < C, other=0.0).to(ACC)[None, :]


@triton.jit
def _statistics(
    mean_ptr, var_ptr, weight_ptr, bias_ptr, c, C, EPS: tl.constexpr, AFFINE: tl.constexpr, ACC: tl.constexpr
):
    # AFFINE: 1 for a weight, 2 for a bias, 3 for both
    mean = _vector(mean_ptr, c, C, ACC)
    r = tl.rsqrt(_vector(var_ptr, c, C, ACC) + EPS)
    w = tl.full(r.shape, 1.0, ACC)
    b = tl.zeros(r.shape, ACC)
    if AFFINE % 2 == 1:
        w = _vector(weight_ptr, c, C, ACC)
    if AFFINE >= 2:
        b = _vector(bias_ptr, c, C, ACC)
    return mean, r, w, b


@triton.jit
def _normalise(x, mean, r, SLOPE: tl.constexpr, ACT: tl.constexpr, ACT_FIRST: tl.constexpr):
    u = x
    if ACT_FIRST:
        u = act(x, SLOPE, ACT)
    return (u - mean) * r


@triton.jit
def _norm_act_stats_kernel(
    x_ptr, mean_ptr, squares_ptr, M, C, S, rows,
    SLOPE: tl.constexpr, ACT: tl.constexpr, ACT_FIRST: tl.constexpr, INNER: tl.constexpr, ACC: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations of the rows of each split: Welford per lane, then one merge."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    split = tl.program_id(1)
    begin = split.to(tl.int64) * rows
    end = tl.minimum(begin + rows, M)
    mean = tl.zeros((BLOCK_M, BLOCK_C), ACC)
    squares = tl.zeros((BLOCK_M, BLOCK_C), ACC)
    count = tl.zeros((BLOCK_M, 1), ACC)
    for start in range(begin, end, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        valid = (m < end)[:, None]
        x = tl.load(x_ptr + _offsets(m, c, C, S, INNER), mask=valid & (c < C)[None, :], other=0.0).to(ACC)
        u = x
        if ACT_FIRST:
            u = act(x, SLOPE, ACT)
        count += valid.to(ACC)
        delta = tl.where(valid, u - mean, 0.0)
        mean += delta / tl.maximum(count, 1.0)
        squares += delta * (u - mean)
    total = tl.maximum(tl.sum(count, 0), 1.0)
    whole = tl.sum(count * mean, 0) / total
    off = mean - whole[None, :]
    tl.store(mean_ptr + split * C + c, whole, mask=c < C)
    tl.store(squares_ptr + split * C + c, tl.sum(squares + count * off * off, 0), mask=c < C)


@triton.jit
def _norm_act_merge_kernel(
    mean_ptr, squares_ptr, out_mean_ptr, out_var_ptr, M, C, rows, splits,
    ACC: tl.constexpr, BLOCK_SPLITS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Mean and biased variance of the whole from those of the splits (Chan, Golub and LeVeque 1983)."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    split = tl.arange(0, BLOCK_SPLITS)
    mask = (split < splits)[:, None] & (c < C)[None, :]
    offsets = split[:, None] * C + c[None, :]
    mean = tl.load(mean_ptr + offsets, mask=mask, other=0.0)
    squares = tl.load(squares_ptr + offsets, mask=mask, other=0.0)
    count = tl.maximum(tl.minimum(M - split.to(tl.int64) * rows, rows), 0)
    count = tl.where(split < splits, count, 0).to(ACC)[:, None]
    whole = tl.sum(count * mean, 0) / _number(M, ACC)
    off = mean - whole[None, :]
    tl.store(out_mean_ptr + c, whole, mask=c < C)
    tl.store(out_var_ptr + c, tl.sum(squares + count * off * off, 0) / _number(M, ACC), mask=c < C)


@triton.jit
def _norm_act_fwd_kernel(
    x_ptr, weight_ptr, bias_ptr, mean_ptr, var_ptr, y_ptr, M, C, S,
    EPS: tl.constexpr, SLOPE: tl.constexpr, ACT: tl.constexpr, ACT_FIRST: tl.constexpr, AFFINE: tl.constexpr,
    INNER: tl.constexpr, ACC: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (m < M)[:, None] & (c < C)[None, :]
    offsets = _offsets(m, c, C, S, INNER)
    mean, r, w, b = _statistics(mean_ptr, var_ptr, weight_ptr, bias_ptr, c, C, EPS, AFFINE, ACC)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(ACC)
    y = _normalise(x, mean, r, SLOPE, ACT, ACT_FIRST) * w + b
    if not ACT_FIRST:
        y = act(y, SLOPE, ACT)
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _norm_act_bwd_sums_kernel(
    dy_ptr, x_ptr, weight_ptr, bias_ptr, mean_ptr, var_ptr, sums_ptr, M, C, S, rows, splits,
    EPS: tl.constexpr, SLOPE: tl.constexpr, ACT: tl.constexpr, ACT_FIRST: tl.constexpr, AFFINE: tl.constexpr,
    INNER: tl.constexpr, ACC: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """sums (2, splits, C): of g and g xh over the rows of each split."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    split = tl.program_id(1)
    begin = split.to(tl.int64) * rows
    end = tl.minimum(begin + rows, M)
    mean, r, w, b = _statistics(mean_ptr, var_ptr, weight_ptr, bias_ptr, c, C, EPS, AFFINE, ACC)
    sum_g = tl.zeros((BLOCK_M, BLOCK_C), ACC)
    sum_gxh = tl.zeros((BLOCK_M, BLOCK_C), ACC)
    for start in range(begin, end, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        mask = (m < end)[:, None] & (c < C)[None, :]
        offsets = _offsets(m, c, C, S, INNER)
        # dy = 0 outside the tensor makes both terms 0 there
        g = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(ACC)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(ACC)
        xh = _normalise(x, mean, r, SLOPE, ACT, ACT_FIRST)
        if not ACT_FIRST:
            g *= dact(xh * w + b, SLOPE, ACT)
        sum_g += g
        sum_gxh += g * xh
    out = sums_ptr + split * C + c
    tl.store(out, tl.sum(sum_g, 0), mask=c < C)
    tl.store(out + splits * C, tl.sum(sum_gxh, 0), mask=c < C)


@triton.jit
def _norm_act_bwd_kernel(
    dy_ptr, x_ptr, weight_ptr, bias_ptr, mean_ptr, var_ptr, sums_ptr, dx_ptr, M, C, S,
    TRAINING: tl.constexpr, EPS: tl.constexpr, SLOPE: tl.constexpr, ACT: tl.constexpr, ACT_FIRST: tl.constexpr,
    AFFINE: tl.constexpr, INNER: tl.constexpr, ACC: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dx from dy and the whole sums (2, C) of g and g xh."""
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (m < M)[:, None] & (c < C)[None, :]
    offsets = _offsets(m, c, C, S, INNER)
    mean, r, w, b = _statistics(mean_ptr, var_ptr, weight_ptr, bias_ptr, c, C, EPS, AFFINE, ACC)
    du = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(ACC)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(ACC)
    xh = _normalise(x, mean, r, SLOPE, ACT, ACT_FIRST)
    if not ACT_FIRST:
        du *= dact(xh * w + b, SLOPE, ACT)
    if TRAINING:
        du -= (_vector(sums_ptr, c, C, ACC) + xh * _vector(sums_ptr + C, c, C, ACC)) / _number(M, ACC)
    du *= w * r
    if ACT_FIRST:
        du *= dact(x, SLOPE, ACT)
    tl.store(dx_ptr + offsets, du.to(dx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _second_operands(
    ddx_ptr, dy_ptr, x_ptr, offsets, mask, mean, r, w, b,
    SLOPE: tl.constexpr, ACT: tl.constexpr, ACT_FIRST: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Return ddx, dy, g, v, xh and the point z or x at which the activation is differentiated."""
    ddx = tl.load(ddx_ptr + offsets, mask=mask, other=0.0).to(ACC)
    dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(ACC)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(ACC)
    xh = _normalise(x, mean, r, SLOPE, ACT, ACT_FIRST)
    point = x
    if not ACT_FIRST:
        point = xh * w + b
    slope = dact(point, SLOPE, ACT)
    g = dy
    v = ddx
    if ACT_FIRST:
        v = ddx * slope
    else:
        g = dy * slope
    return ddx, dy, g, v, xh, point


@triton.jit
def _norm_act_bwd_bwd_sums_kernel(
    ddx_ptr, dy_ptr, x_ptr, weight_ptr, bias_ptr, mean_ptr, var_ptr, sums_ptr, M, C, S, rows, splits,
    EPS: tl.constexpr, SLOPE: tl.constexpr, ACT: tl.constexpr, ACT_FIRST: tl.constexpr, AFFINE: tl.constexpr,
    INNER: tl.constexpr, ACC: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """sums (5, splits, C): of g, g xh, v, v xh, v g over the rows of each split."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    split = tl.program_id(1)
    begin = split.to(tl.int64) * rows
    end = tl.minimum(begin + rows, M)
    mean, r, w, b = _statistics(mean_ptr, var_ptr, weight_ptr, bias_ptr, c, C, EPS, AFFINE, ACC)
    sum_g = tl.zeros((BLOCK_C,), ACC)
    sum_gxh = tl.zeros((BLOCK_C,), ACC)
    sum_v = tl.zeros((BLOCK_C,), ACC)
    sum_vxh = tl.zeros((BLOCK_C,), ACC)
    sum_vg = tl.zeros((BLOCK_C,), ACC)
    for start in range(begin, end, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        mask = (m < end)[:, None] & (c < C)[None, :]
        offsets = _offsets(m, c, C, S, INNER)
        _, _, g, v, xh, _ = _second_operands(
            ddx_ptr, dy_ptr, x_ptr, offsets, mask, mean, r, w, b, SLOPE, ACT, ACT_FIRST, ACC
        )
        sum_g += tl.sum(g, 0)
        sum_gxh += tl.sum(g * xh, 0)
        sum_v += tl.sum(v, 0)
        sum_vxh += tl.sum(v * xh, 0)
        sum_vg += tl.sum(v * g, 0)
    out = sums_ptr + split * C + c
    tl.store(out, sum_g, mask=c < C)
    tl.store(out + splits * C, sum_gxh, mask=c < C)
    tl.store(out + 2 * splits * C, sum_v, mask=c < C)
    tl.store(out + 3 * splits * C, sum_vxh, mask=c < C)
    tl.store(out + 4 * splits * C, sum_vg, mask=c < C)


@triton.jit
def _norm_act_bwd_bwd_curve_kernel(
    ddx_ptr, dy_ptr, x_ptr, weight_ptr, bias_ptr, mean_ptr, var_ptr, t_ptr, sums_ptr, M, C, S, rows, splits,
    EPS: tl.constexpr, SLOPE: tl.constexpr, ACT: tl.constexpr, AFFINE: tl.constexpr,
    INNER: tl.constexpr, ACC: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """sums (2, splits, C): of q and q xh; t (3, C) are the coefficients of v, xh and 1 in t."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    split = tl.program_id(1)
    begin = split.to(tl.int64) * rows
    end = tl.minimum(begin + rows, M)
    mean, r, w, b = _statistics(mean_ptr, var_ptr, weight_ptr, bias_ptr, c, C, EPS, AFFINE, ACC)
    t_v = _vector(t_ptr, c, C, ACC)
    t_xh = _vector(t_ptr + C, c, C, ACC)
    t_const = _vector(t_ptr + 2 * C, c, C, ACC)
    sum_q = tl.zeros((BLOCK_C,), ACC)
    sum_qxh = tl.zeros((BLOCK_C,), ACC)
    for start in range(begin, end, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        mask = (m < end)[:, None] & (c < C)[None, :]
        offsets = _offsets(m, c, C, S, INNER)
        _, dy, _, v, xh, z = _second_operands(
            ddx_ptr, dy_ptr, x_ptr, offsets, mask, mean, r, w, b, SLOPE, ACT, False, ACC
        )
        q = (t_v * v + t_xh * xh + t_const) * dy * ddact(z, SLOPE, ACT)
        sum_q += tl.sum(q, 0)
        sum_qxh += tl.sum(q * xh, 0)
    out = sums_ptr + split * C + c
    tl.store(out, sum_q, mask=c < C)
    tl.store(out + splits * C, sum_qxh, mask=c < C)


@triton.jit
def _norm_act_bwd_bwd_kernel(
    ddx_ptr, dy_ptr, x_ptr, weight_ptr, bias_ptr, mean_ptr, var_ptr, k_ptr, ddy_ptr, dx_ptr, M, C, S,
    EPS: tl.constexpr, SLOPE: tl.constexpr, ACT: tl.constexpr, ACT_FIRST: tl.constexpr, AFFINE: tl.constexpr,
    INNER: tl.constexpr, ACC: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """ddy and the cotangent of x; k_ptr (11, C): coefficients of t (v, xh, 1), du (g, xh, 1), k (v, g, q, xh, 1)."""
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (m < M)[:, None] & (c < C)[None, :]
    offsets = _offsets(m, c, C, S, INNER)
    mean, r, w, b = _statistics(mean_ptr, var_ptr, weight_ptr, bias_ptr, c, C, EPS, AFFINE, ACC)
    ddx, dy, g, v, xh, point = _second_operands(
        ddx_ptr, dy_ptr, x_ptr, offsets, mask, mean, r, w, b, SLOPE, ACT, ACT_FIRST, ACC
    )
    slope = dact(point, SLOPE, ACT)
    curve = ddact(point, SLOPE, ACT)
    ddy = _vector(k_ptr, c, C, ACC) * v + _vector(k_ptr + C, c, C, ACC) * xh + _vector(k_ptr + 2 * C, c, C, ACC)
    k = _vector(k_ptr + 6 * C, c, C, ACC) * v + _vector(k_ptr + 7 * C, c, C, ACC) * g
    k += _vector(k_ptr + 9 * C, c, C, ACC) * xh + _vector(k_ptr + 10 * C, c, C, ACC)
    if ACT_FIRST:
        du = _vector(k_ptr + 3 * C, c, C, ACC) * g + _vector(k_ptr + 4 * C, c, C, ACC) * xh
        du += _vector(k_ptr + 5 * C, c, C, ACC)
        k = k * slope + ddx * du * curve
    else:
        k += _vector(k_ptr + 8 * C, c, C, ACC) * ddy * dy * curve
        ddy *= slope
    tl.store(ddy_ptr + offsets, ddy.to(ddy_ptr.dtype.element_ty), mask=mask)
    tl.store(dx_ptr + offsets, k.to(dx_ptr.dtype.element_ty), mask=mask)
