"""Spectral norm of all layers of DCGAN-64's discriminator in training: torch's two kinds and fastgan's.

``python -m benchmarks.bench_spectral_norm --out FILE [--device cuda]`` times all providers in turn.

Each provider brings the five weights to the point where a convolution takes them, iterating once, and its backward
takes their gradients back to the parameters. fastgan does so as inside a converted Sequential: one iteration and one
backward for all layers, 1 / sigma for the convolution's output instead of a divided copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import utils as torch_utils
from torch.nn.utils import parametrizations

from benchmarks import cases, timing
from fastgan.nn import utils
from fastgan.nn._power_iteration import forget
from fastgan.nn._spectral_norm import folded_weight, prefetch


def _layers(norm: Callable[..., Any], device: str) -> list[Any]:
    torch.manual_seed(0)
    layers = [layer for layer in cases.dcgan(64) if layer.name.startswith("D")]
    sizes = [(la.in_channels, la.out_channels, la.kernel_size) for la in layers]
    return [norm(nn.Conv2d(*size, bias=False, device=device)) for size in sizes]


def _parametrized(layers: list[Any]) -> list[Tensor]:
    return [layer.weight for layer in layers]


def _hooked(layers: list[Any]) -> list[Tensor]:
    for layer in layers:
        next(iter(layer._forward_pre_hooks.values()))(layer, ())
    return [layer.weight for layer in layers]


def _folded(layers: list[Any]) -> list[Tensor]:
    keys = prefetch(layers)
    try:
        found = [folded_weight(layer) for layer in layers]
    finally:
        forget(keys)
    return [weight for weight, _ in found]  # type: ignore[misc]


PROVIDERS: dict[str, tuple[Callable[..., Any], Callable[[list[Any]], list[Tensor]]]] = {
    "torch parametrization": (parametrizations.spectral_norm, _parametrized),
    "torch hook": (torch_utils.spectral_norm, _hooked),
    "fastgan, one by one, divided": (utils.spectral_norm, _parametrized),
    "fastgan, all layers, folded": (utils.spectral_norm, _folded),
}


def _run(name: str, backward: bool, device: str) -> tuple[Callable[[], list[Tensor]], list[Any]]:
    norm, read = PROVIDERS[name]
    layers = _layers(norm, device)
    gradients = [torch.randn(layer.weight.shape, device=device) for layer in layers]

    def run() -> list[Tensor]:
        for layer in layers:
            layer.zero_grad()
        weights = read(layers)
        if backward:
            torch.autograd.backward(weights, gradients)
        return weights

    return run, layers


def _check(name: str, layers: list[Any]) -> None:
    """Raise if sigma after many iterations is not the largest singular value."""
    for layer in layers:
        weight = next(layer.parameters()).detach()
        buffers = [b for _, b in layer.named_buffers()]
        u, v = sorted(buffers, key=lambda b: b.numel() != weight.shape[0])
        sigma = u @ weight.flatten(1) @ v
        exact = torch.linalg.matrix_norm(weight.flatten(1), 2)
        if not torch.isclose(sigma, exact, rtol=0.05):
            raise SystemExit(f"{name}: sigma is {sigma}, the largest singular value {exact}")


def rows(repeats: int, device: str) -> list[dict]:
    """Return a row for each provider and direction."""
    found = []
    for direction in ("forward", "forward+backward"):
        made = {name: _run(name, direction != "forward", device) for name in PROVIDERS}
        measured = timing.interleaved({name: run for name, (run, _) in made.items()}, repeats, device=device)
        for name, (_, layers) in made.items():
            _check(name, layers)
            case = {"case": "DCGAN-64 D, 5 layers", "dtype": "float32", "direction": direction, "provider": name}
            found.append(case | measured[name])
            print(found[-1])
    return found


def main() -> None:
    parser = timing.parser(__doc__, 51)
    a = parser.parse_args()
    timing.write(a.out, rows(a.repeats, a.device), a.device)


if __name__ == "__main__":
    main()
