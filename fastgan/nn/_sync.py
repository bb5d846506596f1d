"""Batch normalisation with statistics over all processes, as ``torch.nn.SyncBatchNorm`` has them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from fastgan import ops
from fastgan.backends.layout import per_channel
from fastgan.backends.reference.norm_act import norm_act_stats
from fastgan.nn._conv import Vectors


def process_group_of(norm: _BatchNorm) -> Any:
    """Return the process group whose statistics a norm takes in its present state, None if only its own."""
    if not isinstance(norm, nn.SyncBatchNorm) or not norm.training:
        return None
    if not dist.is_available() or not dist.is_initialized():
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def _merge(mean: Tensor, var: Tensor, count: int, group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and number of values of all processes (Chan, Golub and LeVeque 1983)."""
    mine = torch.cat((mean, var, mean.new_full((1,), count)))
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, mine, group=group)
    means, variances, counts = torch.stack(everyone).split((mean.numel(), mean.numel(), 1), dim=1)
    total = counts.sum().clamp(min=1)
    whole = (means * counts).sum(0) / total
    return whole, ((variances + (means - whole).square()) * counts).sum(0) / total, total


class _SyncNormAct(torch.autograd.Function):
    """act(norm(x)); dx holds the sums of all processes, the parameters' gradients those of this one, as in torch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, total: Tensor,
        group: Any, eps: float, activation: str, negative_slope: float,
    ) -> Tensor:  # fmt: skip
        ctx.group, ctx.attributes = group, (eps, activation, negative_slope, False)
        ctx.save_for_backward(x, weight, bias, mean, var, total)
        return ops.norm_act.norm_act_eval(x, weight, bias, mean, var, True, *ctx.attributes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple:
        x, weight, bias, mean, var, total = ctx.saved_tensors
        # without the statistics' own derivative: dx is w r g
        dx, dw, db = ops.norm_act.norm_act_bwd(dy, x, weight, bias, mean, var, False, *ctx.attributes)
        sums = torch.stack((db, dw))
        dist.all_reduce(sums, group=ctx.group)
        r = torch.rsqrt(var + ctx.attributes[0])
        wr = r if weight is None else r * weight.to(r.dtype)
        slope = -wr * r * sums[1] / total
        constant = -wr * sums[0] / total - slope * mean
        dx = (dx + per_channel(slope, x) * x + per_channel(constant, x)).to(x.dtype)
        gradients = [None if p is None else g.to(p.dtype) for p, g in ((weight, dw), (bias, db))]
        return dx, *gradients, *(None,) * 7


def sync_norm_act(
    x: Tensor, statistics: tuple[Any, Any] | None, vectors: Vectors, momentum: float, eps: float,
    activation: str, negative_slope: float, group: Any,
) -> Tensor:  # fmt: skip
    """Return act(norm(x)) with the statistics of all processes, and update the running ones. Differentiable once.

    Args:
        statistics: mean and biased variance of x in this process; computed if None.
        vectors: weight, bias, and the running mean and variance to update.
    """
    with torch.no_grad():
        if statistics is None:
            statistics = norm_act_stats(x)
        mean, var = statistics
        mean, var, total = _merge(mean, var, x.numel() // x.shape[1], group)
        unbiased = var * (total / (total - 1).clamp(min=1))
        for running, batch in ((vectors[2], mean), (vectors[3], unbiased)):
            if running is not None:
                running.lerp_(batch.to(running.dtype), momentum)
    return _SyncNormAct.apply(x, *vectors[:2], mean, var, total, group, eps, activation, negative_slope)
