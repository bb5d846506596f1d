"""Convolution + BatchNorm + activation, forward + backward: the layers of DCGAN-64 at batch 64, stock and fused.

``pytest benchmarks --benchmark-only``, or ``python -m benchmarks.bench_conv_norm_act --out FILE``: the latter times
all providers in turn and writes one JSON file.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fastgan
from benchmarks import cases, timing

BATCH = 64
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "identity": nn.Identity, "leaky_relu": lambda: nn.LeakyReLU(0.2)}
PROVIDERS = ("stock", "stock channels_last", "stock compiled", "fastgan", "fastgan channels_last")
# the implicit matrix product, which a GPU takes only where it was measured to win
ON_GPU = (*PROVIDERS, "fastgan triton channels_last")


def make(layer: cases.Layer, dtype: torch.dtype) -> nn.Sequential:
    """Return the stock modules of one layer."""
    conv = nn.ConvTranspose2d if layer.transposed else nn.Conv2d
    sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    norm = [nn.BatchNorm2d(layer.out_channels)] if layer.norm else []
    return nn.Sequential(conv(*sizes, bias=False), *norm, ACTIVATIONS[layer.activation]()).to(dtype)


def _step(module: nn.Module, x: Tensor, dy: Tensor, backend: str) -> Callable[[], Tensor]:
    def run() -> Tensor:
        x.grad = None
        module.zero_grad(set_to_none=True)
        with fastgan.use_backend(backend):
            y = module(x)
            y.backward(dy)
        return y.detach()

    return run


def providers(
    layer: cases.Layer, dtype: torch.dtype, names: tuple[str, ...], device: str = "cpu"
) -> dict[str, Callable[[], Tensor]]:
    """Return one training step of the layer for each provider, each checked against float64."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    stock, x = make(layer, dtype), torch.randn(BATCH, layer.in_channels, layer.size, layer.size).to(dtype)
    exact = copy.deepcopy(stock).double()(x.double())
    dy, steps = torch.randn(exact.shape).to(dtype), {}
    for name in names:
        module, last = copy.deepcopy(stock), "channels_last" in name or "compiled" in name
        memory_format = torch.channels_last if last else torch.contiguous_format
        module = module.to(memory_format=memory_format)
        if name.startswith("fastgan"):
            fastgan.convert(module)
        module = module.to(device)
        # on the CPU the other modes give the same code
        mode = "max-autotune-no-cudagraphs" if device == "cuda" else "default"
        run = torch.compile(module, mode=mode) if "compiled" in name else module
        inputs = [t.to(device).contiguous(memory_format=memory_format) for t in (x, dy)]
        backend = "triton" if "triton" in name else "auto"
        steps[name] = _step(run, inputs[0].requires_grad_(), inputs[1], backend)
        error = (steps[name]().cpu().double() - exact).abs().max().item() / exact.abs().max().item()
        # a wrong provider is not timed
        bound = 4e-2 if dtype == torch.bfloat16 else 1e-3 if device == "cuda" else 1e-4
        assert error < bound, f"{name} of {layer.name}: error {error}"
    return steps


def _names(dtype: torch.dtype, device: str) -> tuple[str, ...]:
    if device == "cuda":
        return ON_GPU
    return PROVIDERS if dtype == torch.float32 else tuple(name for name in PROVIDERS if "compiled" not in name)


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if "compiled" not in name])
@pytest.mark.parametrize("layer", cases.CONV_NORM_ACT, ids=lambda layer: layer.name)
def test_conv_norm_act(benchmark: Callable, layer: cases.Layer, provider: str) -> None:
    benchmark.group = layer.name
    benchmark(providers(layer, torch.float32, (provider,))[provider])


def _ideal(layer: cases.Layer, dtype: torch.dtype) -> tuple[int, int]:
    """Return bytes, each input read and each output written once, and operations of forward and backward."""
    small = layer.size if layer.transposed else (layer.size + 2 * layer.padding - layer.kernel_size) // layer.stride + 1
    weights = layer.in_channels * layer.out_channels * layer.kernel_size**2
    out = (layer.size - 1) * layer.stride - 2 * layer.padding + layer.kernel_size if layer.transposed else small
    pixels = layer.in_channels * layer.size**2 + layer.out_channels * out**2
    return 2 * (BATCH * pixels + weights) * dtype.itemsize, 3 * 2 * BATCH * small**2 * weights


def _rows(dtypes: list[torch.dtype], repeats: int, device: str) -> list[dict]:
    rows = []
    for dtype in dtypes:
        logs, (bandwidth, speed) = [], timing.roofline(dtype, device)
        for layer in cases.CONV_NORM_ACT:
            steps = providers(layer, dtype, _names(dtype, device), device)
            measured = timing.interleaved(steps, repeats, 3 if device == "cuda" else 1, device)
            size, operations = _ideal(layer, dtype)
            least = max(size / bandwidth, operations / speed)
            case = {
                "layer": layer._asdict(),
                "batch": BATCH,
                "dtype": cases.name(dtype),
                "direction": "forward+backward",
                "bytes": size,
                "flops": operations,
            }
            for name, m in measured.items():
                rows.append(case | {"provider": name} | m | {"roofline_percent": round(100 * least / m["p50_ms"], 1)})
            stock, ours = (min(m["p50_ms"] for n, m in measured.items() if n.startswith(p)) for p in ("stock", "fast"))
            logs.append(math.log(stock / ours))
            times = "  ".join(f"{name} {m['p50_ms']:.2f}" for name, m in measured.items())
            print(f"{layer.name} {cases.name(dtype):<9} {stock / ours:6.2f}x  {times}", flush=True)
        print(f"geometric mean {math.exp(sum(logs) / len(logs)):.2f}x, worst {math.exp(min(logs)):.2f}x", flush=True)
    return rows


def main() -> None:
    parser = timing.parser(__doc__, 9)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="one of the two only")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    dtypes = [dtype for dtype in cases.DTYPES if arguments.dtype in (None, cases.name(dtype))]
    timing.write(arguments.out, _rows(dtypes, arguments.repeats, arguments.device), arguments.device)


if __name__ == "__main__":
    main()
