"""Activations inside Triton kernels; ACT is the index into ``reference.activation.ACTIVATIONS``, see the table there.

SLOPE is a compile-time constant, since Triton passes Python floats as float32, too coarse for float64 tensors.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def logistic(z):
    return 1.0 / (1.0 + tl.exp(-z))


@triton.jit
def hyperbolic_tangent(z):
    # of exp(-2|z|), which cannot overflow; near 0, where that form cancels, the odd series to z^13
    a = tl.abs(z)
    e = tl.exp(-2.0 * a)
    large = (1.0 - e) / (1.0 + e)
    s = z * z
    p = 3.5921280365724811e-3
    p = p * s - 8.8632355299021966e-3
    p = p * s + 2.1869488536155203e-2
    p = p * s - 5.3968253968253968e-2
    p = p * s + 1.3333333333333333e-1
    p = p * s - 3.3333333333333333e-1
    small = a + a * s * p
    # float64 needs the series to be exact, so it holds only very near to 0
    near = 0.35 if z.dtype == tl.float32 else 0.015
    magnitude = tl.where(a < near, small, large)
    return tl.where(z < 0, -magnitude, magnitude)


@triton.jit
def act(z, SLOPE: tl.constexpr, ACT: tl.constexpr):
    if ACT == 0:
        return z
    elif ACT == 1:
        return tl.where(z < 0, 0.0, z)
    elif ACT == 2:
        return tl.where(z > 0, z, z * SLOPE)
    elif ACT == 3:
        return hyperbolic_tangent(z)
    elif ACT == 4:
        return logistic(z)
    else:
        return z * logistic(z)


@triton.jit
def dact_saved(s, SLOPE: tl.constexpr, ACT: tl.constexpr):
    """a' of the saved tensor: the result, or the pre-activation for silu."""
    if ACT == 0:
        return tl.full(s.shape, 1.0, s.dtype)
    elif ACT == 1:
        return tl.where(s > 0, tl.full(s.shape, 1.0, s.dtype), 0.0)
    elif ACT == 2:
        return tl.where(s > 0, tl.full(s.shape, 1.0, s.dtype), SLOPE)
    elif ACT == 3:
        return 1.0 - s * s
    elif ACT == 4:
        return s * (1.0 - s)
    else:
        p = logistic(s)
        return p * (1.0 + s * (1.0 - p))


@triton.jit
def ddact_saved(s, ACT: tl.constexpr):
    """da'/ds of the saved tensor."""
    if ACT == 3:
        return -2.0 * s
    elif ACT == 4:
        return 1.0 - 2.0 * s
    elif ACT == 5:
        p = logistic(s)
        return p * (1.0 - p) * (2.0 + s * (1.0 - 2.0 * p))
    else:
        return tl.zeros(s.shape, s.dtype)


@triton.jit
def dact(z, SLOPE: tl.constexpr, ACT: tl.constexpr):
    """a'(z)."""
    return dact_saved(z if ACT == 5 else act(z, SLOPE, ACT), SLOPE, ACT)


@triton.jit
def ddact(z, SLOPE: tl.constexpr, ACT: tl.constexpr):
    """a''(z)."""
    if ACT == 3 or ACT == 4:
        s = act(z, SLOPE, ACT)
        return ddact_saved(s, ACT) * dact_saved(s, SLOPE, ACT)
    else:
        return ddact_saved(z, ACT)
