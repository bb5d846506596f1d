"""The shapes that are measured, in the order of their importance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

# (N, C, H, W) before each BatchNorm of DCGAN-64 at batch 64, G and D, and one twice as wide
NORM_ACT = ((64, 128, 32, 32), (64, 64, 32, 32), (64, 128, 16, 16), (64, 256, 8, 8), (64, 512, 4, 4))
DTYPES = (torch.float32, torch.bfloat16)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SUITES = ("step", "layers", "gradient_penalty", "spectral_norm", "memory")
FORWARD, BACKWARD, DOUBLE = "forward", "forward+backward", "double backward"
STEP, KEPT = "step", "kept for backward"


def name(dtype: torch.dtype) -> str:
    """Return float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")


class Layer(NamedTuple):
    """A layer of a GAN: convolution, batch norm where ``norm``, activation."""

    name: str
    transposed: bool
    in_channels: int
    out_channels: int
    size: int
    kernel_size: int
    stride: int
    padding: int
    norm: bool
    activation: str
    bias: bool = False

    @property
    def out_size(self) -> int:
        """Side of the result in pixels."""
        if self.transposed:
            return (self.size - 1) * self.stride - 2 * self.padding + self.kernel_size
        return (self.size + 2 * self.padding - self.kernel_size) // self.stride + 1

    @property
    def title(self) -> str:
        """What a table says of the shape."""
        sizes = f"k{self.kernel_size} s{self.stride} p{self.padding}"
        tail = "+BN" if self.norm else "+bias" if self.bias else ""
        return f"{self.name} {self.in_channels} to {self.out_channels}, {self.size} px, {sizes}{tail}"


class Case(NamedTuple):
    """One thing that all providers are timed on; ``what`` is what its suite builds it from."""

    suite: str
    name: str
    direction: str
    batch: int
    what: Any


def dcgan(size: int, width: int = 64, latent: int = 100, channels: int = 3) -> list[Layer]:
    """Return the layers of the DCGAN tutorial's generator and discriminator for images of ``size`` pixels."""
    doublings = int(math.log2(size)) - 3
    widths = [width * 2**i for i in range(doublings + 1)]
    g = [Layer("G1", True, latent, widths[-1], 1, 4, 1, 0, True, "relu")]
    d = [Layer("D1", False, channels, width, size, 4, 2, 1, False, "leaky_relu")]
    for i in range(doublings):
        g.append(Layer(f"G{i + 2}", True, widths[-1 - i], widths[-2 - i], 4 * 2**i, 4, 2, 1, True, "relu"))
        d.append(Layer(f"D{i + 2}", False, widths[i], widths[i + 1], size // 2 ** (i + 1), 4, 2, 1, True, "leaky_relu"))
    g.append(Layer(f"G{doublings + 2}", True, width, channels, size // 2, 4, 2, 1, False, "tanh"))
    d.append(Layer(f"D{doublings + 2}", False, widths[-1], 1, 4, 4, 1, 0, False, "identity"))
    return g + d


def generator(size: int, width: int = 64) -> list[Layer]:
    """Return the layers of the DCGAN's generator."""
    return [layer for layer in dcgan(size, width) if layer.name.startswith("G")]


def discriminator(size: int, width: int = 64, norm: bool = True) -> list[Layer]:
    """Return the layers of the DCGAN's discriminator; without norm each has a bias, as critics and SNGAN have it."""
    layers = [layer for layer in dcgan(size, width) if layer.name.startswith("D")]
    return layers if norm else [layer._replace(norm=False, bias=True) for layer in layers]


def _ends() -> list[Layer]:
    first, last = discriminator(64)[0], generator(64)[-1]
    ends = [first._replace(name="image", in_channels=c) for c in (1, 2, 4)]
    return ends + [last._replace(name="image", out_channels=c) for c in (1, 2, 4)]


def _groups() -> Iterator[tuple[str, list[Layer]]]:
    yield "DCGAN-64", dcgan(64)
    yield "WGAN-GP-64 critic", discriminator(64, norm=False)
    yield "SNGAN-32", discriminator(32, norm=False)
    yield "DCGAN-128", dcgan(128)
    yield "DCGAN-32", dcgan(32)
    yield "1 to 4 channels", _ends()


# direction and batch
_PASSES = (
    (BACKWARD, 64),
    (BACKWARD, 16),
    (FORWARD, 64),
    (DOUBLE, 64),
    *((direction, 1) for direction in (BACKWARD, FORWARD, DOUBLE)),
    (BACKWARD, 128),
    *((direction, 16) for direction in (FORWARD, DOUBLE)),
    *((direction, 128) for direction in (FORWARD, DOUBLE)),
    *((direction, 512) for direction in (BACKWARD, FORWARD, DOUBLE)),
)


def layers(quick: bool) -> list[Case]:
    """Return the cases of the suite ``layers``: DCGAN-64 at batch 64, forward and backward, alone or first."""
    found: dict[tuple[Any, ...], Case] = {}
    for direction, batch in _PASSES[:1] if quick else _PASSES:
        for group, members in _groups():
            for layer in members:
                # nobody takes the penalty of a critic with batch norm
                if direction != DOUBLE or (not layer.norm and not layer.transposed):
                    case = Case("layers", f"{group} {layer.title}", direction, batch, layer)
                    found.setdefault((direction, batch, *layer[1:]), case)
    cases = list(found.values())
    return cases[: len(dcgan(64))] if quick else cases


class Game(NamedTuple):
    """A training step: networks by size, ``loss``, and how many steps the critic takes for one of the generator's."""

    size: int
    loss: str
    d_steps: int = 1
    spectral_norm: bool = False


GAMES = {
    "DCGAN-64": Game(64, "non-saturating"),
    "WGAN-GP-64": Game(64, "wgan-gp", d_steps=5),
    "SNGAN-32": Game(32, "hinge", spectral_norm=True),
    "DCGAN-128": Game(128, "non-saturating"),
}


def step(quick: bool) -> list[Case]:
    """Return the cases of the suite ``step``; at batch 64, quick: at 16 but for DCGAN-64, without DCGAN-128."""
    names = [name for name in GAMES if not quick or name != "DCGAN-128"]
    sizes = {name: 16 if quick and name != "DCGAN-64" else 64 for name in names}
    return [Case("step", f"{name} step", STEP, sizes[name], GAMES[name]) for name in names]


# (network, image side in pixels, kinds of penalty)
PENALTIES = (("DCGAN", 64, ("wgan-gp",)), ("ResNet", 32, ("r1",)), ("ResNet", 32, ("r1", "r2")))


def gradient_penalty(quick: bool) -> list[Case]:
    """Return the cases of the suite ``gradient_penalty``, quick: at batch 8."""
    whats = PENALTIES if quick else (*PENALTIES, ("DCGAN", 128, ("wgan-gp",)))
    batch = 8 if quick else 64
    titles = [f"{net} critic, {size} px, {' and '.join(kinds)}" for net, size, kinds in whats]
    return [Case("gradient_penalty", title, STEP, batch, what) for title, what in zip(titles, whats, strict=True)]


def _biggan() -> list[tuple[int, int, int]]:
    widths = (64, 128, 256, 512, 1024, 1024)
    rows = [(3, 64, 3), (64, 64, 3), (3, 64, 1)]
    for a, b in itertools.pairwise(widths):
        rows += [(a, b, 3), (b, b, 3), (a, b, 1)]
    return [*rows, (1024, 1024, 1), (1024, 1, 1)]


# each layer as (in, out, kernel)
SPECTRAL_NORM = {
    "DCGAN-64 D": [(layer.in_channels, layer.out_channels, layer.kernel_size) for layer in discriminator(64)],
    "SNGAN ResNet D": [(3, 128, 3), (128, 128, 3), (3, 128, 1), (128, 128, 3), (128, 128, 3), (128, 128, 1)]
    + [(128, 128, 3)] * 4
    + [(128, 1, 1)],
    "BigGAN-like D": _biggan(),
}


def spectral_norm(quick: bool) -> list[Case]:
    """Return the cases of the suite ``spectral_norm``; the batch is 0, for there are weights alone."""
    return [
        Case("spectral_norm", f"{name}, {len(rows)} layers", direction, 0, rows)
        for direction in (BACKWARD, FORWARD)
        for name, rows in SPECTRAL_NORM.items()
        if not quick or name != "BigGAN-like D"
    ]


def memory(quick: bool) -> list[Case]:
    """Return the cases of the suite ``memory``: the step and each layer of DCGAN-64 first.

    At batch 16, since what is kept is proportional to the batch.
    """
    steps = [(f"{name} step", GAMES[name]) for name in ("DCGAN-64", "SNGAN-32", "DCGAN-128")]
    layers = [(f"DCGAN-64 {layer.title}", layer) for layer in dcgan(64)]
    whats = [*steps[:1], *layers, *(() if quick else steps[1:])]
    return [Case("memory", title, KEPT, 16, what) for title, what in whats]


def of(suite: str, quick: bool) -> list[Case]:
    """Return the cases of a suite, the most important first."""
    return {
        "layers": layers,
        "step": step,
        "gradient_penalty": gradient_penalty,
        "spectral_norm": spectral_norm,
        "memory": memory,
    }[suite](quick)
