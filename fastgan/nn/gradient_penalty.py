"""Gradient penalties of critics, and a whole WGAN-GP critic step, in the least number of passes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastgan import ops
from fastgan.backends.layout import accumulate_dtype
from fastgan.nn._checks import check_dtype
from fastgan.nn._penalty import Critic, Form, fast_penalty, fast_step, general_penalty, general_step, taped

KINDS = ("wgan-gp", "wgan-lp", "dragan", "r1", "r2")


def gradient_penalty(
    critic: Critic,
    real: Tensor,
    fake: Tensor | None = None,
    *,
    kind: str = "wgan-gp",
    weight: float = 10.0,
    target: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Penalty on the norm of a critic's gradient by its input.

    ============  ===============================================  ================================================
    kind          points x, one for each sample b                  penalty; n_b = norm of dD/dx at x_b
    ============  ===============================================  ================================================
    ``wgan-gp``   t real + (1 - t) fake, t uniform in [0, 1)       weight mean_b (n_b - target)^2
    ``wgan-lp``   the same                                         weight mean_b max(n_b - target, 0)^2
    ``dragan``    t real + (1 - t) (real + std(real) u / 2),       weight mean_b (n_b - target)^2
                  t and all values of u uniform in [0, 1)
    ``r1``        real                                             weight / 2 mean_b n_b^2
    ``r2``        fake                                             weight / 2 mean_b n_b^2
    ============  ===============================================  ================================================

    The norm is over all dimensions but the first, and dD/dx is that of the sum of the critic's results. Where the norm
    is 0 so is its gradient. The points are constants: real and fake get no gradient.

    A critic of linear maps and piecewise-linear activations, each sample for itself, takes 4 passes: forward and input
    gradient here, tangent and weight gradient in backward, where autograd would also go through one on zeros. Any other
    critic is differentiated twice by autograd. ``fastgan.explain(critic)`` then says which, and why.

    Args:
        critic: maps (N, ...) to scores (N, ...) of any further shape; a ``torch.nn.Module`` for the 4 passes.
        real: (N, ...), float16, bfloat16, float32 or float64, any layout, any device.
        fake: as real, same shape, dtype and device; None for ``dragan`` and ``r1``, which do not look at it.
        kind: one of the five.
        weight: of the penalty, >= 0.
        target: norm that is wanted, >= 0; r1 and r2 take 0.
        generator: of the random numbers, on real's device; None for torch's own.
    Returns: scalar in float32 (float64 for float64), differentiable in the critic's parameters, once on the way of 4
        passes and to any order on the general one.
    Raises: ValueError or TypeError naming the argument.
    Precision: norms and sums in float32 (float64 for float64), also under autocast. Deterministic.
    Source: Gulrajani et al. 2017 (wgan-gp), Petzka et al. 2018 (wgan-lp), Kodali et al. 2017 (dragan), Mescheder et al.
    2018, eq. 9 and 10 (r1, r2).
    """
    _check("gradient_penalty", real, fake, kind, weight, target)
    points = _points(real.detach(), None if fake is None else fake.detach(), kind, generator)
    form = _form(kind, weight, target)
    tape = taped(critic, points, 0)
    return general_penalty(critic, points, form) if tape is None else fast_penalty(tape, form)


class CriticStep(NamedTuple):
    """What a critic step was: ``loss`` = penalty - wasserstein, and ``wasserstein`` = mean D(real) - mean D(fake).

    Without dimensions, float32 (float64 for float64), without a graph.
    """

    loss: Tensor
    wasserstein: Tensor
    penalty: Tensor


def critic_step_wgan_gp(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    *,
    weight: float = 10.0,
    target: float = 1.0,
    kind: str = "wgan-gp",
    generator: torch.Generator | None = None,
    scale: float = 1.0,
) -> CriticStep:
    r"""Add the gradients of a WGAN-GP critic's whole loss to ``.grad`` of its parameters.

    loss = mean D(fake) - mean D(real) + penalty, see ``gradient_penalty``. Equal to building the three and calling
    ``loss.backward()``; zero_grad and the optimiser's step are the caller's.

    A critic of linear maps and piecewise-linear activations, each sample for itself, takes 4 passes: one forward of
    real, fake and the points between them, 3N samples; one input gradient of 3N (N in the first layer); one tangent of
    N, up to the last layer but one; one weight gradient of 3N. Stock autograd takes 12 passes of N where these are 10,
    2 of them on zeros. Any other critic runs its three forwards and autograd, as one would by hand.
    ``fastgan.explain(critic)`` then says which, and why. On the 4 passes the critic is called once, with 3N samples,
    and what hooks kept of its values is overwritten.

    Args:
        critic, real, fake, weight, target, generator: as in ``gradient_penalty``.
        kind: ``wgan-gp`` or ``wgan-lp``.
        scale: factor of all gradients, for loss scaling; not of what is returned.
    Returns: CriticStep.
    Raises: ValueError or TypeError naming the argument.
    Precision: as the critic's layers have it; scores are averaged in float32 (float64 for float64). Deterministic.
    Source: Gulrajani et al. 2017, algorithm 1; the passes are derived in nn/_tape.py.
    """
    op = "critic_step_wgan_gp"
    if kind not in KINDS[:2]:
        raise ValueError(f"{op}: kind must be one of {', '.join(KINDS[:2])}, got {kind!r}")
    _check(op, real, fake, kind, weight, target)
    real, fake = real.detach(), fake.detach()
    t, form, count = _uniform(real, generator), _form(kind, weight, target), real.shape[0]
    with torch.no_grad():
        stacked = ops.gradient_penalty.gradient_penalty_interpolate(real, fake, t, True)
    tape = taped(critic, stacked, 2 * count)
    if tape is None:
        return CriticStep(*general_step(critic, stacked, form, scale))
    return CriticStep(*fast_step(tape, form, scale))


class GradientPenalty(nn.Module):
    r"""``fastgan.gradient_penalty`` with its settings, on every call or on every ``every``-th one.

    Args:
        kind, weight, target, generator: as in ``fastgan.gradient_penalty``.
        every: calls from one penalty to the next, >= 1. The first call is one; it and each ``every``-th after it return
            ``every`` times the penalty, the others 0 and run nothing, so that the mean over calls stays (lazy
            regularisation). Calls are counted in the state_dict.
    Shape: (critic, real (N, ...), fake (N, ...) or None) to a scalar.
    Raises: ValueError or TypeError naming the argument.
    Source: Karras et al. 2020, appendix B (the interval).
    """

    def __init__(
        self,
        kind: str = "wgan-gp",
        weight: float = 10.0,
        target: float = 1.0,
        every: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_settings("GradientPenalty", kind, weight, target)
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"GradientPenalty: every must be an integer >= 1, got {every!r}")
        self.kind, self.weight, self.target, self.every = kind, weight, target, every
        self.generator = generator
        self.calls = 0

    def forward(self, critic: Critic, real: Tensor, fake: Tensor | None = None) -> Tensor:
        due = self.calls % self.every == 0
        self.calls += 1
        if not due:
            return real.new_zeros((), dtype=accumulate_dtype(real.dtype))
        weight = self.weight * self.every
        options: dict[str, Any] = {"kind": self.kind, "weight": weight, "target": self.target}
        return gradient_penalty(critic, real, fake, generator=self.generator, **options)

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}, weight={self.weight}, target={self.target}, every={self.every}"


def _form(kind: str, weight: float, target: float) -> Form:
    return (weight / 2, 0.0, False) if kind in ("r1", "r2") else (weight, target, kind == "wgan-lp")


def _check_settings(op: str, kind: str, weight: float, target: float) -> None:
    if kind not in KINDS:
        raise ValueError(f"{op}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    for name, value in (("weight", weight), ("target", target)):
        if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"{op}: {name} must be a number >= 0 and finite, got {value!r}")


def _check(op: str, real: Any, fake: Any, kind: str, weight: float, target: float) -> None:
    _check_settings(op, kind, weight, target)
    needs_fake = kind in ("wgan-gp", "wgan-lp", "r2")
    for name, x in (("real", real), ("fake", fake)):
        if name == "fake" and x is None and not needs_fake:
            continue
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: {name} must be a Tensor for {kind}, got {type(x).__name__}")
        check_dtype(op, name, x)
        if x.dim() < 2:
            raise ValueError(f"{op}: {name} must have shape (N, ...), got {tuple(x.shape)}")
    if needs_fake and kind != "r2" and (fake.shape != real.shape or fake.device != real.device):
        got = f"{tuple(fake.shape)} on {fake.device}"
        raise ValueError(f"{op}: fake must be like real, {tuple(real.shape)} on {real.device}, got {got}")
    if needs_fake and kind != "r2" and fake.dtype != real.dtype:
        raise TypeError(f"{op}: fake must be {real.dtype}, the dtype of real, got {fake.dtype}")


def _uniform(real: Tensor, generator: torch.Generator | None) -> Tensor:
    dtype = accumulate_dtype(real.dtype)
    return torch.rand(real.shape[0], dtype=dtype, device=real.device, generator=generator)


@torch.no_grad()
def _points(real: Tensor, fake: Tensor | None, kind: str, generator: torch.Generator | None) -> Tensor:
    if kind == "r1":
        return real
    if kind == "r2":
        assert fake is not None
        return fake
    t = _uniform(real, generator)
    if kind == "dragan":
        noise = torch.rand(real.shape, dtype=real.dtype, device=real.device, generator=generator)
        fake = real + 0.5 * real.std() * noise
    assert fake is not None
    return ops.gradient_penalty.gradient_penalty_interpolate(real, fake, t, False)
