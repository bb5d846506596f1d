"""The stock networks that every provider starts from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from benchmarks import cases

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "leaky_relu": lambda: nn.LeakyReLU(0.2, inplace=True),
}


def layer(shape: cases.Layer, spectral_norm: bool = False) -> list[nn.Module]:
    """Return the modules of one layer."""
    kind = nn.ConvTranspose2d if shape.transposed else nn.Conv2d
    sizes = (shape.in_channels, shape.out_channels, shape.kernel_size, shape.stride, shape.padding)
    conv = kind(*sizes, bias=shape.bias)
    norm = [nn.BatchNorm2d(shape.out_channels)] if shape.norm else []
    return [parametrizations.spectral_norm(conv) if spectral_norm else conv, *norm, ACTIVATIONS[shape.activation]()]


def network(shapes: list[cases.Layer], spectral_norm: bool = False) -> nn.Sequential:
    """Return a network of layers, its weights drawn as the DCGAN example draws them; a discriminator gives (N,)."""
    modules = [module for shape in shapes for module in layer(shape, spectral_norm)]
    flat = [nn.Flatten(0)] if shapes[-1].out_channels == 1 else []
    return nn.Sequential(*(m for m in modules if not isinstance(m, nn.Identity)), *flat).apply(_initialise)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and "weight" in module._parameters:
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class Block(nn.Module):
    """A residual block of a critic without norm: ReLU and convolution, twice, then half the side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1),
        )
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / 2, W / 2)."""
        return nn.functional.avg_pool2d(self.main(x) + self.skip(x), 2)


def resnet_critic(size: int, width: int = 32) -> nn.Sequential:
    """Return a critic of residual blocks without norm for images (N, 3, size, size)."""
    blocks: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1)]
    while size > 4:
        blocks.append(Block(width, width * 2))
        width, size = width * 2, size // 2
    return nn.Sequential(*blocks, nn.ReLU(), nn.Conv2d(width, 1, 4), nn.Flatten(0))


def critic(kind: str, size: int) -> nn.Sequential:
    """Return the critic of a penalty: the DCGAN's discriminator with biases and without norm, or the one of blocks."""
    return resnet_critic(size) if kind == "ResNet" else network(cases.discriminator(size, norm=False))


class Pass(NamedTuple):
    """One pass of a batch through one convolution: operations, and numbers that it must read and write."""

    flops: int
    elements: int


def passes(model: nn.Module, x: Tensor) -> list[Pass]:
    """Return the passes of x through a model's convolutions, input, weight and result each taken once."""
    found: list[Pass] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
        weights = module.weight.numel()
        small = inputs[0] if isinstance(module, nn.ConvTranspose2d) else y
        each = inputs[0][0].numel() + y[0].numel()
        found.append(Pass(2 * len(x) * small[0, 0].numel() * weights, len(x) * each + weights))

    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(look)
    with torch.no_grad():
        model(x[:1])
    return found


def ideal(work: list[tuple[list[Pass], int]], itemsize: int) -> tuple[int, int]:
    """Return bytes and operations of passes, each done so many times."""
    size = sum(times * sum(p.elements for p in each) for each, times in work) * itemsize
    return size, sum(times * sum(p.flops for p in each) for each, times in work)
