"""One layer of a GAN: convolution or transposed convolution, batch norm, activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import cases, networks
from benchmarks.peers.peer import Peer
from benchmarks.work import Results, Run, Work, gradient, gradients


class LayerWork(Work):
    """One layer in training, by itself: forward, with backward, or the gradient of its input gradient's norm."""

    def __init__(self, case: cases.Case, dtype: torch.dtype, device: str) -> None:
        super().__init__(case, dtype, device)
        layer: cases.Layer = case.what
        self.stock = nn.Sequential(*(m for m in networks.layer(layer) if not isinstance(m, nn.Identity)))
        self.x = torch.randn(case.batch, layer.in_channels, layer.size, layer.size)
        self.dy = torch.randn(case.batch, layer.out_channels, layer.out_size, layer.out_size)

    def shape(self) -> list[Any]:
        return list(self.x.shape)

    def ideal(self) -> tuple[int, int]:
        times = {cases.FORWARD: (1, 1), cases.BACKWARD: (2, 3), cases.DOUBLE: (3, 4)}.get(self.case.direction, (2, 3))
        each = networks.passes(self.stock, self.x)
        size, flops = (networks.ideal([(each, n)], self.dtype.itemsize) for n in times)
        return size[0], flops[1]

    def run(self, peer: Peer) -> Run:
        _, step, results = self.parts(peer)
        return Run(step, results)

    def parts(self, peer: Peer) -> tuple[nn.Module, Callable[[], None], Callable[[], Results]]:
        """The peer's copy of the layer, one step, and the results of the last."""
        own, model = self.model(self.stock, peer)
        # in a network under autocast the layer before gives 16 bits
        dtype = self.dtype if self.dtype.itemsize == 2 else None
        x, dy = (self.place(t, peer, dtype) for t in (self.x, self.dy))
        found: Results = {}
        direction = {cases.FORWARD: _forward, cases.DOUBLE: _double}.get(self.case.direction, _backward)

        def step() -> None:
            own.zero_grad()
            x.grad = None
            with self.autocast():
                found.update(direction(model, x, dy))

        def results() -> Results:
            if self.case.direction == cases.FORWARD:
                return found
            name = "second input gradient" if self.case.direction == cases.DOUBLE else "input gradient"
            return found | {name: gradient(x), "parameter gradients": gradients(own)}

        x.requires_grad_(self.case.direction != cases.FORWARD)
        return own, peer.step(step), results


def _forward(model: nn.Module, x: Tensor, dy: Tensor) -> Results:
    with torch.no_grad():
        return {"result": model(x)}


def _backward(model: nn.Module, x: Tensor, dy: Tensor) -> Results:
    y = model(x)
    y.backward(dy)
    return {"result": y.detach()}


def _double(model: nn.Module, x: Tensor, dy: Tensor) -> Results:
    y = model(x)
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    dx.square().sum().backward()
    return {"result": y.detach(), "input gradient": dx.detach()}


WORK = LayerWork
