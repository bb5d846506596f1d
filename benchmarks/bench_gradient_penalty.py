"""A WGAN-GP critic step: both scores, gradient penalty and all gradients, against eager and compiled PyTorch.

``python -m benchmarks.bench_gradient_penalty --out FILE [--device cuda]`` times all providers in turn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

import fastgan
from benchmarks import cases, timing

WEIGHT = 10.0
Step = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def critic(layers: list[cases.Layer]) -> nn.Sequential:
    """Return the discriminator of a DCGAN without batch norm, as WGAN-GP wants it: biases, LeakyReLU(0.2)."""
    children: list[nn.Module] = []
    for layer in layers:
        sizes = (layer.kernel_size, layer.stride, layer.padding)
        children.append(nn.Conv2d(layer.in_channels, layer.out_channels, *sizes))
        if layer.activation != "identity":
            children.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(*children, nn.Flatten(0))


def by_hand(model: nn.Module, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    """Return the loss as people write it."""
    x = (t * real + (1 - t) * fake).requires_grad_()
    scores = model(x)
    (g,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)
    penalty = (g.flatten(1).norm(dim=1) - 1).square().mean()
    return model(fake).mean() - model(real).mean() + WEIGHT * penalty


def _backward(loss: Step) -> Step:
    def step(model: nn.Module, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
        value = loss(model, real, fake, t)
        value.backward()
        return value.detach()

    return step


def _fused(model: nn.Module, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    return fastgan.critic_step_wgan_gp(model, real, fake, weight=WEIGHT).loss


def _compiled() -> Step:
    torch._dynamo.config.trace_autograd_ops = True
    return _backward(torch.compile(by_hand))


class Case:
    """One critic, its inputs and what runs on them."""

    def __init__(self, layers: list[cases.Layer], batch: int, dtype: torch.dtype, device: str) -> None:
        torch.manual_seed(0)
        self.stock = critic(layers).to(device, dtype)
        size, channels = layers[0].size, layers[0].in_channels
        self.real, self.fake = torch.randn(2, batch, channels, size, size).to(device, dtype)
        self.t = torch.empty(batch, 1, 1, 1, device=device, dtype=dtype)
        self.models: dict[str, nn.Module] = {}

    def provider(self, name: str, step: Step) -> Callable[[], Tensor]:
        """Return a run of a step on a copy of the critic: in channels_last and converted, as the name says."""
        model = copy.deepcopy(self.stock)
        real, fake = self.real, self.fake
        if "channels_last" in name:
            model = model.to(memory_format=torch.channels_last)
            real, fake = (x.contiguous(memory_format=torch.channels_last) for x in (real, fake))
        if "fastgan" in name:
            fastgan.convert(model)
        self.models[name] = model

        def run() -> Tensor:
            model.zero_grad()
            # the draws of the fused step
            torch.manual_seed(1)
            return step(model, real, fake, self.t)

        return run

    def check(self, providers: dict[str, Callable[[], Tensor]], tolerance: float) -> dict[str, str]:
        """Return for each provider why it is not timed: it failed, or its gradients are wrong; empty for none."""
        torch.manual_seed(1)
        self.t.copy_(torch.rand(self.t.shape[0], device=self.t.device).reshape(self.t.shape))
        exact = copy.deepcopy(self.stock).double()
        by_hand(exact, self.real.double(), self.fake.double(), self.t.double()).backward()
        reasons = {}
        for name, run in providers.items():
            try:
                run()
            except Exception as error:
                reasons[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                continue
            pairs = zip(self.models[name].parameters(), exact.parameters(), strict=True)
            # of all parameters together: the gradient of the last bias is 0 but for rounding
            wrong = torch.stack([torch.stack([(p.grad.double() - q.grad).norm(), q.grad.norm()]) for p, q in pairs])
            off = (wrong[:, 0].norm() / wrong[:, 1].norm()).item()
            reasons[name] = "" if off <= tolerance else f"gradients are off by {off:.1e}"
        return reasons


def _providers(case: Case, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    steps: dict[str, Step] = {"stock": _backward(by_hand), "stock channels_last": _backward(by_hand)}
    if compiled:
        steps |= {"stock compiled": _compiled(), "stock compiled channels_last": _compiled()}
    steps |= {"fastgan by hand, channels_last": _backward(by_hand)}
    steps |= {"fastgan step": _fused, "fastgan step, channels_last": _fused}
    return {name: case.provider(name, step) for name, step in steps.items()}


def rows(dtype: torch.dtype, repeats: int, size: int, batch: int, compiled: bool, device: str) -> list[dict]:
    """Return a row for each provider, a wrong or failing one with its reason and without times."""
    layers = [layer for layer in cases.dcgan(size) if layer.name.startswith("D")]
    case = Case(layers, batch, dtype, device)
    providers = _providers(case, compiled)
    reasons = case.check(providers, 1e-3 if dtype == torch.float32 else 0.1)
    sound = {name: run for name, run in providers.items() if not reasons[name]}
    measured = timing.interleaved(sound, repeats, 1, device)
    about = {"case": f"WGAN-GP critic, {size} px", "batch": batch, "dtype": cases.name(dtype), "direction": "step"}
    found = []
    for name in providers:
        found.append(about | {"provider": name} | (measured[name] if name in measured else {"failed": reasons[name]}))
        print(found[-1])
    return found


def main() -> None:
    parser = timing.parser(__doc__, 7)
    parser.add_argument("--size", type=int, default=64, choices=(32, 64, 128), help="pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", choices=[cases.name(dtype) for dtype in cases.DTYPES], default="float32")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    a = parser.parse_args()
    found = rows(getattr(torch, a.dtype), a.repeats, a.size, a.batch, not a.no_compile, a.device)
    timing.write(a.out, found, a.device)


if __name__ == "__main__":
    main()
