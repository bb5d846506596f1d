r"""``spectral_norm`` in plain PyTorch, the specification; the backward is differentiable to any order.

A weight is looked at as a matrix M: dimension ``dim`` first, all others flattened, in their order. One iteration is

    u = normalize(M v),  v = normalize(M^T u)            torch.nn.utils.parametrizations.spectral_norm
    v = normalize(M^T u),  u = normalize(M v)            ``v_first``: torch.nn.utils.spectral_norm
    normalize(a) = a / max(|a|, eps)

    sigma = u . M v,    y = M / sigma
    dM = dy / sigma - <dy, M> / sigma^2 u v^T            u and v count as constants

Source: Miyato et al. 2018, algorithm 1 and eq. 10-12.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, dense


def matrix(weight: Tensor, dim: int) -> Tensor:
    """Return M (weight.shape[dim], the rest)."""
    return weight.movedim(dim, 0).flatten(1)


def _outer(u: Tensor, v: Tensor, like: Tensor, dim: int) -> Tensor:
    """Return u v^T in the shape of a weight."""
    rest = [size for i, size in enumerate(like.shape) if i != dim]
    return torch.outer(u, v).reshape(-1, *rest).movedim(0, dim)


def follow(sigma: Tensor, weight: Tensor, u: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return sigma with a derivative: that of u . M v, which it is the value of."""
    wide = accumulate_dtype(weight.dtype)
    again = u.to(wide) @ (matrix(weight, dim).to(wide) @ v.to(wide))
    return sigma + (again - again.detach())


def spectral_norm_power_iteration(
    weights: list[Tensor], us: list[Tensor], vs: list[Tensor], dims: list[int], n_power_iterations: int, eps: float,
    v_first: bool,
) -> tuple[list[Tensor], list[Tensor], Tensor]:  # fmt: skip
    """Return new u and v of each weight, in their dtypes, and sigma (L,) in the accumulation type.

    Without iterations u and v are the old ones, and sigma that of them.
    """
    new_us, new_vs, sigmas = [], [], []
    for weight, u, v, dim in zip(weights, us, vs, dims, strict=True):
        wide = accumulate_dtype(weight.dtype)
        m, a, b = matrix(weight, dim).to(wide), u.to(wide), v.to(wide)
        for _ in range(n_power_iterations):
            if v_first:
                b = F.normalize(m.mT @ a, dim=0, eps=eps)
            a = F.normalize(m @ b, dim=0, eps=eps)
            if not v_first:
                b = F.normalize(m.mT @ a, dim=0, eps=eps)
        new_us.append(a.to(u.dtype, copy=True))
        new_vs.append(b.to(v.dtype, copy=True))
        sigmas.append(a @ (m @ b))
    return new_us, new_vs, torch.stack(sigmas)


def spectral_norm_scale(weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, dim: int) -> Tensor:
    """Return y for one weight, in its dtype and memory format; sigma has no dimensions."""
    return dense((weight / sigma).to(weight.dtype), like=weight)


def spectral_norm_bwd(
    dys: list[Tensor], weights: list[Tensor], us: list[Tensor], vs: list[Tensor], sigmas: Tensor, dims: list[int]
) -> list[Tensor]:
    """Return the gradient by each weight, in its dtype and memory format; dys may be of any strides."""
    gradients = []
    for dy, weight, u, v, sigma, dim in zip(dys, weights, us, vs, sigmas.unbind(), dims, strict=True):
        wide = accumulate_dtype(weight.dtype)
        dy, u, v = dy.to(wide), u.to(wide), v.to(wide)
        inner = (dy * weight.to(wide)).sum()
        gradient = dy / sigma - inner / sigma.square() * _outer(u, v, weight, dim)
        gradients.append(dense(gradient.to(weight.dtype), like=weight))
    return gradients
