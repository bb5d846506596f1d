"""Critics for the gradient penalty, with the path that each takes, and the penalty and the critic step by hand."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan
from fastgan.nn import BiasAct
from fastgan.nn._penalty import paths_of

from .common import assert_same, images

SIZE = 8
same = functools.partial(assert_same, rtol=1e-10, atol=1e-10)


def sequence(*layers):
    """Return a function that builds a critic of convolutions from 3 channels to 6, with ``layers`` between."""

    def make():
        between = [copy.deepcopy(layer) for layer in layers]
        return nn.Sequential(
            nn.Conv2d(3, 4, 4, 2, 1), *between, nn.LeakyReLU(0.2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 1, 2)
        )

    return make


def dcgan(bias, shape="flat"):
    """Return a function that builds a DCGAN critic without norms; ``shape`` of scores: flat, column, image, none."""

    def make():
        last = {"flat": [nn.Flatten(0)], "column": [nn.Flatten()], "image": [], "none": [Squeeze()]}[shape]
        return nn.Sequential(
            nn.Conv2d(3, 4, 4, 2, 1, bias=bias), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(4, 8, 4, 2, 1, bias=bias), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(8, 1, 2, bias=bias), *last,
        )  # fmt: skip

    return make


class Squeeze(nn.Module):
    def forward(self, x):
        return x.squeeze()


def patch():
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(4, 8, 3, 1, 1), nn.LeakyReLU(0.2, True),
        nn.Conv2d(8, 1, 3, 1, 1),
    )  # fmt: skip


def mlp():
    layers = nn.Linear(192, 7), nn.ReLU(True), nn.Linear(7, 5), nn.LeakyReLU(0.3), nn.Linear(5, 1)
    return nn.Sequential(nn.Flatten(), *layers)


def upsampling():
    return nn.Sequential(
        nn.AvgPool2d(2), nn.ConvTranspose2d(3, 4, 3, 2, 1, 1, groups=1), nn.ReLU(), nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 4, 3, 2, 1, groups=2, bias=False), nn.LeakyReLU(0.1, inplace=True),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 3, 3, 2, dilation=2),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 1, bias=False),
    )  # fmt: skip


def normed(register):
    """Return a function that builds a critic with spectral norm by ``register`` in all its layers."""

    def make():
        layers = [nn.Conv2d(3, 4, 4, 2, 1), nn.ConvTranspose2d(4, 4, 3, bias=False), nn.Linear(144, 1)]
        first, second, last = (register(layer) for layer in layers)
        return nn.Sequential(first, nn.LeakyReLU(0.2, True), second, nn.LeakyReLU(0.1), nn.Flatten(), last)

    return make


class Residual(nn.Module):
    """Branches as residual critics have them; each way to write an addition."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 1, 1)
        self.shared = nn.Conv2d(4, 4, 3, 1, 1)
        self.shortcut = nn.Conv2d(4, 6, 1, bias=False)
        self.main1, self.main2 = nn.Conv2d(4, 5, 3, 1, 1), nn.Conv2d(5, 6, 3, 1, 1)
        self.last = nn.Linear(6, 1)

    def forward(self, x):
        h = F.relu(self.first(x))
        h = h + self.shared(F.relu(h))
        out = self.shared(F.leaky_relu(h, 0.2))
        out += h
        main = F.avg_pool2d(self.main2(F.relu(self.main1(F.relu(out)))), 2)
        h = self.shortcut(F.avg_pool2d(out, 2)).sub(main)
        return self.last(F.relu(h.add_(F.relu(main))).sum(dim=(2, 3)))


class FromInput(nn.Module):
    """Branches from the input, before the first weight."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 3, 1, 1), nn.Linear(192, 1)

    def forward(self, x):
        h = F.leaky_relu(F.avg_pool2d(x, 3, 1, 1), 0.5)
        return self.last((self.first(h) + h - x).flatten(1).relu())


class TwoHeads(nn.Module):
    """A head whose result nobody uses, weights read through views and products, and a layer of two names."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.again = nn.Conv2d(4, 4, 3, 1, 1)
        self.again.weight = nn.Parameter(torch.randn(4, 4, 3, 3) / 6)
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.classes, self.scores = nn.Linear(64, 5), nn.Linear(64, 1)

    def forward(self, x):
        h = F.leaky_relu(self.conv(x), 0.2)
        h = F.leaky_relu(F.conv2d(h, self.again.weight * self.gain, self.again.bias * 2, padding=1), 0.1)
        h = F.conv2d(h, self.again.weight.transpose(0, 1), padding=1).view(x.size(0), -1)
        self.classes(F.relu(h))
        return self.scores(F.relu(h))


class Shared(nn.Module):
    """One parameter in a convolution, in its reverse and in a linear layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3) / 3)

    def forward(self, x):
        h = F.leaky_relu(F.conv2d(x, self.weight, stride=2, padding=1), 0.2)
        h = F.relu(F.conv_transpose2d(h, self.weight, stride=2, padding=1, output_padding=1))
        h = F.relu(F.linear(h.flatten(1), self.weight.flatten(1).repeat(1, 8)[:, :192]))
        return F.linear(h, self.weight.flatten(1)[:1, :4])


def biases():
    """Biases that are no part of a convolution, one on the image itself."""
    model = nn.Sequential(
        BiasAct(3, activation="relu"), nn.Conv2d(3, 4, 4, 2, 1, bias=False), BiasAct(4),
        nn.Conv2d(4, 5, 3, bias=False), BiasAct(5, activation="identity"), nn.Conv2d(5, 1, 2), nn.Flatten(0),
    )  # fmt: skip
    for layer in model:
        if isinstance(layer, BiasAct):
            nn.init.normal_(layer.bias)
    return model


def spectral_old(layer):
    return torch.nn.utils.spectral_norm(layer)


FAST = {
    "mlp": mlp,
    "dcgan": dcgan(True),
    "dcgan-no-bias": dcgan(False),
    "column": dcgan(True, "column"),
    "image": dcgan(True, "image"),
    "squeeze": dcgan(True, "none"),
    "patch": patch,
    "upsampling": upsampling,
    "residual": Residual,
    "from-input": FromInput,
    "two-heads": TwoHeads,
    "shared": Shared,
    "biases": biases,
}
# iterate in training mode: a step takes the general path there
SPECTRAL = {
    "spectral": normed(torch.nn.utils.parametrizations.spectral_norm),
    "spectral-hook": normed(spectral_old),
}
CURVED = {
    "layer-norm": sequence(nn.LayerNorm([4, 4, 4])),
    "instance-norm": sequence(nn.InstanceNorm2d(4, affine=True)),
    "group-norm": sequence(nn.GroupNorm(2, 4)),
    "batch-norm": sequence(nn.BatchNorm2d(4)),
    "silu": sequence(nn.SiLU()),
    "tanh": sequence(nn.Tanh()),
    "prelu": sequence(nn.PReLU()),
}
CRITICS = FAST | SPECTRAL | CURVED


def build(make, seed=0):
    """Return a critic in float64 with weights from a seed."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = make().double()
        # one call in training mode: without it the hook of spectral norm divides by the norm of noise
        model(pair()[0])
    return model


def pair(n=3, seed=0):
    """Return a batch of real and one of fake images."""
    return images(n, seed=seed, size=SIZE), images(n, seed=seed + 1, size=SIZE)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def between(real, fake, seed=0):
    """Return the points on the lines that ``draws(seed)`` gives."""
    t = torch.rand(len(real), dtype=torch.float64, generator=draws(seed)).view(-1, 1, 1, 1)
    return t * real + (1 - t) * fake


def penalty_at(critic, points, weight=10.0, target=1.0, one_sided=False):
    """Return the penalty by hand; a norm of 0 has no gradient."""
    points = points.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    squared = g.flatten(1).square().sum(1)
    norm = torch.where(squared > 0, squared, 1).sqrt() * (squared > 0)
    over = norm - target
    return weight * (over.clamp(min=0) if one_sided else over).square().mean()


def step_by_hand(critic, real, fake, seed=0, **options):
    """Return (loss, wasserstein, penalty) by hand, gradients added to .grad."""
    wasserstein = critic(real).mean() - critic(fake).mean()
    penalty = penalty_at(critic, between(real, fake, seed), **options)
    loss = penalty - wasserstein
    loss.backward()
    return loss.detach(), wasserstein.detach(), penalty.detach()


def gradients_of(model):
    """Return the gradients of all parameters, zeros for those without, and forget them."""
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad()
    return found


def copies(model, count=2):
    """Return copies of a model, the last one converted."""
    # spectral norm's hook leaves a tensor with a graph, which deepcopy refuses
    made = [copy.deepcopy(model) for _ in range(count)]
    fastgan.convert(made[-1])
    return made


def path(model, step=False):
    """Return which path a critic's last penalty or step took."""
    reason = paths_of(model).get("critic step" if step else "gradient penalty")
    return "not run" if reason is None else "general" if reason else "fast"


def penalty_by_hand(critic, real, fake):
    penalty = penalty_at(critic, between(real, fake))
    penalty.backward()
    return [penalty.detach()]


def penalty_of_ours(critic, real, fake):
    penalty = fastgan.gradient_penalty(critic, real, fake, generator=draws())
    penalty.backward()
    return [penalty.detach()]


def step_of_ours(critic, real, fake):
    return fastgan.critic_step_wgan_gp(critic, real, fake, generator=draws())


WAYS = pytest.mark.parametrize(
    ("by_hand", "ours"), [(penalty_by_hand, penalty_of_ours), (step_by_hand, step_of_ours)], ids=["penalty", "step"]
)


def assert_right(base, by_hand, ours, calls=2, n=3):
    """Assert that results, gradients, buffers and random numbers are those by hand, call after call; return ours."""
    real, fake = pair(n)
    stock, *others = copies(base, 3)
    for run, models in ((by_hand, [stock]), (ours, others)):
        for model in models:
            torch.manual_seed(0)
            found = []
            for _ in range(calls):
                found += [*run(model, real, fake), *gradients_of(model), *(b.clone() for b in model.buffers())]
            found.append(torch.rand(3))
            if model is stock:
                gold = found
            same(found, gold)
    return others
