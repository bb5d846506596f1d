"""``spectral_norm`` in C++ on the CPU (csrc/cpu/spectral_norm.cpp, _bwd.cpp) and in CUDA C++ (csrc/cuda).

All layers are one call.
"""

from __future__ import annotations

import torch
from torch import Tensor

import fastgan._C as _C
from fastgan.backends.layout import accumulate_dtype, dense
from fastgan.backends.reference.spectral_norm import spectral_norm_scale

__all__ = ["spectral_norm_bwd", "spectral_norm_power_iteration", "spectral_norm_scale"]


def _readable(weight: Tensor, dim: int, like: Tensor) -> Tensor:
    """Return what the kernels read: ``weight`` in the memory format of ``like``, contiguous for a dim after 1."""
    return weight.contiguous() if dim > 1 else dense(weight, like=like)


def _one_type(weights: list[Tensor]) -> torch.dtype:
    """Return the accumulation type of all weights. Raises: TypeError if they do not share one."""
    dtypes = {accumulate_dtype(dtype) for dtype in {weight.dtype for weight in weights}}
    if len(dtypes) != 1:
        raise TypeError(f"spectral_norm: weights must be all float64 or none, got {[w.dtype for w in weights]}")
    return dtypes.pop()


def _run(name: str, weights: list[Tensor], *lists: object) -> None:
    getattr(_C, f"spectral_norm_{name}_{weights[0].device.type}")(*lists)


def spectral_norm_power_iteration(
    weights: list[Tensor], us: list[Tensor], vs: list[Tensor], dims: list[int], n_power_iterations: int, eps: float,
    v_first: bool,
) -> tuple[list[Tensor], list[Tensor], Tensor]:  # fmt: skip
    """Return new u and v of each weight, and sigma (L,)."""
    sigmas = torch.empty(len(weights), dtype=_one_type(weights), device=weights[0].device)
    read = [_readable(weight, dim, weight) for weight, dim in zip(weights, dims, strict=True)]
    us, vs = ([vector.contiguous() for vector in vectors] for vectors in (us, vs))
    new_us, new_vs = ([torch.empty_like(vector) for vector in vectors] for vectors in (us, vs))
    _run("power_iteration", weights, read, us, vs, dims, n_power_iterations, eps, v_first, new_us, new_vs, sigmas)
    return new_us, new_vs, sigmas


def spectral_norm_bwd(
    dys: list[Tensor], weights: list[Tensor], us: list[Tensor], vs: list[Tensor], sigmas: Tensor, dims: list[int]
) -> list[Tensor]:
    """Return the gradient by each weight."""
    wide = _one_type(weights)
    read = [_readable(weight, dim, weight) for weight, dim in zip(weights, dims, strict=True)]
    read_dys = [_readable(dy.to(weight.dtype), dim, weight) for dy, weight, dim in zip(dys, weights, dims, strict=True)]
    # what is read is dense
    gradients = [torch.empty_like(weight) for weight in read]
    us, vs = ([vector.contiguous() for vector in vectors] for vectors in (us, vs))
    _run("bwd", weights, read_dys, read, us, vs, sigmas.to(wide).contiguous(), dims, gradients)
    return [dense(gradient, like=weight) for gradient, weight in zip(gradients, weights, strict=True)]
