"""Helpers to test an op against plain PyTorch: a rule of comparison, awkward memory layouts, a count of the ops run."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

FLOAT64_BOUND = 1e-12
LAYOUTS = ("contiguous", "channels_last", "sliced", "sliced_channels_last", "permuted", "expanded")
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def tolerance(
    gold: Tensor,
    low: Tensor | None,
    dtype: torch.dtype,
    factor: float = 2.0,
    terms: int = 1,
    term_dtype: torch.dtype = torch.float32,
) -> float:
    """Return the largest error that ``assert_close_to_gold`` lets pass; NaN if ``gold`` or ``low`` is not finite."""
    if gold.numel() == 0:
        return 0.0
    scale = gold.abs().max().item()
    if dtype == torch.float64:
        return FLOAT64_BOUND * scale
    assert low is not None, "low is needed for all types but float64"
    eps = torch.finfo(dtype).eps
    if terms > 1:
        eps += torch.finfo(term_dtype).eps + torch.finfo(torch.float32).eps * math.log2(terms)
    bound = factor * (low.double() - gold).abs().max().item() + eps * scale
    # an infinite bound would let everything pass
    return bound if bound < float("inf") else float("nan")


def assert_close_to_gold(
    got: Tensor,
    gold: Tensor,
    low: Tensor | None = None,
    *,
    factor: float = 2.0,
    name: str = "result",
    terms: int = 1,
    term_dtype: torch.dtype = torch.float32,
) -> None:
    r"""Assert that ``got`` is about as accurate as plain PyTorch in the same type.

    Passes if ``max|got - gold| <= factor max|low - gold| + eps(dtype) max|gold|``, dtype that of ``got``. In float64,
    where ``low`` would be ``gold`` itself, the bound is ``1e-12 max|gold|``. Neither a NaN nor an infinity ever passes.

    Args:
        got: what is under test.
        gold: float64, of got's shape: plain PyTorch in float64 on the same, already rounded, inputs.
        low: plain PyTorch in the type under test; not needed for float64.
        factor: 2 for a forward pass, 3 for gradients.
        terms, term_dtype: how many products each element sums, and the type they are rounded to. Plain PyTorch sums in
            float64 on a CPU, and may by chance be exact in each of a few sums, so these are granted, times max|gold|,
            another ``eps(term_dtype) + eps(float32) log2(terms)``: what rounded terms and pairwise float32 sums lose.
        name: what to call ``got`` in the message.
    Raises: AssertionError with the error, the bound and the worst place.
    """
    assert got.shape == gold.shape, f"{name}: the shape is {tuple(got.shape)}, not {tuple(gold.shape)}"
    assert gold.dtype == torch.float64, f"{name}: gold must be float64, got {gold.dtype}"
    if got.numel() == 0:
        return
    error = (got.detach().double() - gold.detach()).abs()
    worst = error.max().item()
    bound = tolerance(gold.detach(), None if low is None else low.detach(), got.dtype, factor, terms, term_dtype)
    if not worst <= bound:
        at = tuple(int(i) for i in torch.unravel_index(error.nan_to_num(nan=float("inf")).argmax(), error.shape))
        raise AssertionError(
            f"{name}: error {worst:.3g} exceeds {bound:.3g} ({got.dtype}); worst at {at}: {got[at].item()!r}, "
            f"gold {gold[at].item()!r}; max|gold| {gold.abs().max().item():.3g}"
        )


def random_values(shape: tuple[int, ...], seed: int, device: str | torch.device = "cpu") -> Tensor:
    """Return contiguous float64 values from N(0, 1); the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)


def in_layout(x: Tensor, layout: str) -> Tensor:
    """Return x (N, C, ...) in one of ``LAYOUTS``.

    A sliced tensor lies in memory full of NaN, so that whoever reads beside it shows. ``expanded`` repeats the first
    sample with stride 0, and so has other values than x.
    """
    if layout == "contiguous":
        return x.contiguous()
    if layout == "channels_last":
        return x.contiguous(memory_format=_CHANNELS_LAST[x.dim()])
    if layout == "permuted":
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "expanded":
        return x[:1].contiguous().expand(x.shape)
    if layout not in LAYOUTS:
        raise ValueError(f"in_layout: layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    around = torch.full([size + 2 for size in x.shape], float("nan"), dtype=x.dtype, device=x.device)
    if layout == "sliced_channels_last":
        around = around.contiguous(memory_format=_CHANNELS_LAST[x.dim()])
    return around[tuple(slice(1, -1) for _ in x.shape)].copy_(x)


class CountOps(TorchDispatchMode):
    """Counts the ops of one namespace while it is entered: ``with CountOps() as n: f(x)``, then ``n["bias_act"]``."""

    def __init__(self, namespace: str = "fastgan") -> None:
        super().__init__()
        self.namespace = namespace
        self.calls: Counter[str] = Counter()

    def __getitem__(self, name: str) -> int:
        return self.calls[name]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == self.namespace:
            self.calls[func._schema.name.split("::")[1]] += 1
        return func(*args, **(kwargs or {}))
