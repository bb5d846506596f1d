"""Spectral norm of all layers of a discriminator in training, without its convolutions.

Each provider brings the weights to the point where a convolution takes them, iterating once, and its backward takes
their gradients back to the parameters. fastgan does so as inside a converted Sequential: one iteration and one backward
for all layers, 1 / sigma for the convolution's output instead of a divided copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import utils as torch_utils
from torch.nn.utils import parametrizations

import fastgan
from benchmarks import cases
from benchmarks.peers.peer import Peer, Refused
from benchmarks.work import Results, Run, Work, gradients, in_place
from fastgan.nn._power_iteration import forget
from fastgan.nn._spectral_norm import folded_weight, prefetch

# a weight, and the factor that is still to come or None
Read = list[tuple[Tensor, Tensor | None]]


class SpectralWork(Work):
    """The weights of one discriminator, and gradients for them."""

    def __init__(self, case: cases.Case, dtype: torch.dtype, device: str) -> None:
        super().__init__(case, dtype, device)
        shapes = case.what
        self.stock = nn.Sequential(*(parametrizations.spectral_norm(nn.Conv2d(*shape, bias=False)) for shape in shapes))
        self.gradients = [torch.randn(out, into, k, k) for into, out, k in shapes]

    def shape(self) -> list[Any]:
        return [list(g.shape) for g in self.gradients]

    def ideal(self) -> tuple[int, int]:
        """Weights read once, and with backward gradients read and written once; two products with a vector, and one."""
        backward = self.case.direction == cases.BACKWARD
        elements = sum(g.numel() for g in self.gradients)
        return elements * self.dtype.itemsize * (4 if backward else 1), elements * (8 if backward else 4)

    def allowed(self, name: str) -> float:
        """The two spectral norms of torch differ by half an iteration."""
        return 5e-3

    def run(self, peer: Peer) -> Run:
        if self.dtype.itemsize == 2:
            raise Refused("weights and their norms are float32 under autocast, too")
        # all in the default format, the gradients as the weights
        plain = Peer(peer.name)
        own, _ = self.model(self.stock, plain)
        own, read = _reader(own, peer)
        gradients_of = [self.place(g, plain) for g in self.gradients]
        backward, found = self.case.direction == cases.BACKWARD, Results()

        parameters = list(own.parameters())

        def step() -> None:
            for parameter in parameters if backward else ():
                parameter.grad = None
            weights = read()
            if backward:
                torch.autograd.backward([weight for weight, _ in weights], gradients_of)
            found["weights"] = [(w.detach(), f) for w, f in weights]  # type: ignore[assignment]

        def results() -> Results:
            divided = [w if f is None else w * f for w, f in found["weights"]]  # type: ignore[misc]
            values = {"weights": torch.cat([w.detach().flatten() for w in divided])}
            return values | ({"gradients": gradients(own)} if backward else {})

        return Run(peer.step(step), results, in_place(own))


def _reader(own: nn.Module, peer: Peer) -> tuple[nn.Module, Callable[[], Read]]:
    """The layers as a peer has them, and what reads all weights once."""
    if peer.ours:
        fastgan.convert(own)
        return own, lambda: _folded(list(own))  # type: ignore[call-overload]
    if peer.name == "torch_hook":
        layers = [_hooked(layer) for layer in own]  # type: ignore[union-attr, attr-defined]
        return nn.Sequential(*layers), lambda: [(_call_hook(layer), None) for layer in layers]
    all_weights = peer.model(_AllWeights(own))
    return own, lambda: [(weight, None) for weight in all_weights()]


class _AllWeights(nn.Module):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self) -> list[Tensor]:
        return [layer.weight for layer in self.layers]  # type: ignore[attr-defined, union-attr]


def _hooked(layer: Any) -> nn.Module:
    """The same weight and vectors under torch's older spectral norm."""
    vectors = layer.parametrizations.weight[0]._u.clone(), layer.parametrizations.weight[0]._v.clone()
    sizes = layer.in_channels, layer.out_channels, layer.kernel_size
    made = nn.Conv2d(*sizes, bias=False).to(layer.weight.device, layer.weight.dtype)
    with torch.no_grad():
        made.weight.copy_(layer.parametrizations.weight.original)
    torch_utils.spectral_norm(made)
    made.weight_u.copy_(vectors[0])
    made.weight_v.copy_(vectors[1])
    return made


def _call_hook(layer: nn.Module) -> Tensor:
    next(iter(layer._forward_pre_hooks.values()))(layer, ())
    return layer.weight


def _folded(layers: list[nn.Module]) -> Read:
    keys = prefetch(layers)
    try:
        found = [folded_weight(layer) for layer in layers]
    finally:
        forget(keys)
    return found  # type: ignore[return-value]


WORK = SpectralWork
