"""Schema, shape functions and autograd of ``spectral_norm``. The maths is in backends/reference/spectral_norm.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype, empty
from fastgan.backends.reference import spectral_norm as reference
from fastgan.ops._define import define

_iteration = (
    "spectral_norm_power_iteration(Tensor[] weights, Tensor[] us, Tensor[] vs, int[] dims, int n_power_iterations,"
    " float eps, bool v_first) -> (Tensor[], Tensor[], Tensor)"
)
_scale = "spectral_norm_scale(Tensor weight, Tensor u, Tensor v, Tensor sigma, int dim) -> Tensor"
_bwd = (
    "spectral_norm_bwd(Tensor[] dys, Tensor[] weights, Tensor[] us, Tensor[] vs, Tensor sigmas, int[] dims) -> Tensor[]"
)


def _gradients(dys: list[Tensor], weights: list, us: list, vs: list, sigmas: Tensor, dims: list[int]) -> list[Tensor]:
    if not torch.is_grad_enabled():
        return spectral_norm_bwd(dys, weights, us, vs, sigmas, dims)
    # a second order through sigma is rare: it goes through the specification
    each = zip(sigmas.unbind(), weights, us, vs, dims, strict=True)
    following = torch.stack([reference.follow(*layer) for layer in each])
    return reference.spectral_norm_bwd(dys, weights, us, vs, following, dims)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.dim = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dy: Tensor | None) -> tuple:
    if dy is None:
        return None, None, None, None, None
    weight, u, v, sigma = ctx.saved_tensors
    return _gradients([dy], [weight], [u], [v], sigma.reshape(1), [ctx.dim])[0], None, None, None, None


class _Fold(torch.autograd.Function):
    """The weights themselves, for whoever divides by sigma later; their gradients are those of weight / sigma."""

    @staticmethod
    def forward(ctx: Any, us: list[Tensor], vs: list[Tensor], sigmas: Tensor, dims: list[int], *weights: Tensor) -> Any:
        ctx.dims = dims
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(sigmas, *us, *vs, *weights)
        return tuple(weight.detach() for weight in weights)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor | None) -> tuple:
        sigmas, *saved = ctx.saved_tensors
        n = len(dys)
        there = [i for i, dy in enumerate(dys) if dy is not None and ctx.needs_input_grad[4 + i]]
        gradients: list[Tensor | None] = [None] * n
        if there:
            us, vs, weights = ([saved[k * n + i] for i in there] for k in range(3))
            chosen = sigmas if len(there) == n else sigmas[there]
            cotangents: list[Any] = [dys[i] for i in there]
            found = _gradients(cotangents, weights, us, vs, chosen, [ctx.dims[i] for i in there])
            for i, gradient in zip(there, found, strict=True):
                gradients[i] = gradient
        return None, None, None, None, *gradients


def spectral_norm_fold(
    weights: list[Tensor], us: list[Tensor], vs: list[Tensor], sigmas: Tensor, dims: list[int]
) -> tuple[Tensor, ...]:
    """Return each weight as it is, not divided by its sigma: whoever takes it multiplies by 1 / sigma himself.

    The gradient that comes back for it must be that of weight / sigma; what flows on is that of the weight, for all
    weights in one launch. For eager mode only, since the results share memory with the weights.
    """
    return _Fold.apply(us, vs, sigmas, dims, *weights)


def _fake_iteration(weights: list[Tensor], us: list[Tensor], vs: list[Tensor], *_: Any) -> tuple:
    sigmas = weights[0].new_empty(len(weights), dtype=accumulate_dtype(weights[0].dtype))
    return [torch.empty_like(u) for u in us], [torch.empty_like(v) for v in vs], sigmas


spectral_norm_power_iteration = define("spectral_norm", _iteration, _fake_iteration)
spectral_norm_scale = define("spectral_norm", _scale, lambda weight, *_: empty(weight), 0, _save, _backward)
spectral_norm_bwd = define("spectral_norm", _bwd, lambda dys, weights, *_: [empty(w) for w in weights])
