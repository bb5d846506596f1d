"""A stock GAN and its converted twin learn the same."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan
from fastgan.models.dcgan import Discriminator, Generator, weights_init

from .common import assert_same, critic, fused_calls, fused_ops, generator, images, latents


class HandWritten(nn.Module):
    """The same critic, called by hand."""

    def __init__(self):
        super().__init__()
        self.conv1, _, self.conv2, self.bn, _, self.conv3, _ = critic()

    def forward(self, x):
        x = F.leaky_relu(self.conv1(x), 0.2, inplace=True)
        x = F.leaky_relu(self.bn(self.conv2(x)), 0.2, inplace=True)
        return self.conv3(x).flatten()


def initialise(module):
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)


def train(g, d, steps, before_step=lambda step: None, size=16):
    """Return the losses of the DCGAN loop of the PyTorch tutorial, on images of size x size pixels."""
    rng = torch.Generator().manual_seed(1)
    optimizers = [torch.optim.Adam(m.parameters(), 2e-4, betas=(0.5, 0.999)) for m in (g, d)]
    losses = []
    for step in range(steps):
        before_step(step)
        real = torch.rand(8, 3, size, size, generator=rng, dtype=torch.float64) * 2 - 1
        fake = g(latents(8, seed=step))
        d.zero_grad()
        d_loss = F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean()
        d_loss.backward()
        optimizers[1].step()
        g.zero_grad()
        g_loss = F.softplus(-d(fake)).mean()
        g_loss.backward()
        optimizers[0].step()
        losses.append((d_loss.item(), g_loss.item()))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize(("make", "fused"), [(critic, 3), (HandWritten, 4)], ids=["Sequential", "by hand"])
def test_twenty_steps(backend, make, fused):
    torch.manual_seed(0)
    stock = [m.double().apply(initialise) for m in (generator(), make())]
    ours = [fastgan.convert(copy.deepcopy(m)) for m in stock]
    assert fused_ops(ours[0], latents()) == 3 and fused_ops(ours[1], stock[0](latents()).detach()) == fused
    stock = [copy.deepcopy(fastgan.revert(copy.deepcopy(m))) for m in ours]
    a, b = train(*stock, 20), train(*ours, 20)
    assert (a - b).abs().max() < 1e-9 and (a[0] - a[-1]).abs().max() > 1e-3
    for s, o in zip(stock, ours, strict=True):
        assert_same(list(s.state_dict().values()), list(o.state_dict().values()), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("size", [32, 64])
def test_twenty_steps_of_dcgan(backend, size):
    torch.manual_seed(0)
    stock = [m.double().apply(weights_init) for m in (Generator(size, 3, 10, 2), Discriminator(size, 3, 2))]
    ours = [fastgan.convert(copy.deepcopy(m)) for m in stock]
    start = [copy.deepcopy(list(m.parameters())) for m in ours]
    layers = {32: 4, 64: 5}[size]
    assert [fused_calls(m, data) for m, data in zip(ours, (latents(), images(size=size)), strict=True)] == [
        {"conv_norm_act": layers}
    ] * 2
    a, b = train(*stock, 20, size=size), train(*ours, 20, size=size)
    assert (a - b).abs().max() < 1e-9 and (a[0] - a[-1]).abs().max() > 1e-3
    for s, o, before in zip(stock, ours, start, strict=True):
        assert_same(list(s.state_dict().values()), list(o.state_dict().values()), rtol=1e-9, atol=1e-9)
        assert all((p - q).abs().max() > 1e-4 for p, q in zip(before, o.parameters(), strict=True))


def test_convert_and_revert_in_the_middle(backend):
    torch.manual_seed(0)
    stock = [m.double().apply(initialise) for m in (generator(), critic())]
    ours = copy.deepcopy(stock)

    def switch(step):
        if step % 2 == 1:
            for model in ours:
                (fastgan.convert if step % 4 == 1 else fastgan.revert)(model)

    assert (train(*stock, 8) - train(*ours, 8, switch)).abs().max() < 1e-9


def test_gradient_penalty(backend):
    """The user's own double backward through a critic with batch norm."""
    torch.manual_seed(0)
    stock = HandWritten().double()
    ours = fastgan.convert(copy.deepcopy(stock))
    optimizers = [torch.optim.SGD(m.parameters(), 0.01) for m in (stock, ours)]
    for step in range(3):
        penalties = []
        for model, optimizer in zip((stock, ours), optimizers, strict=True):
            x = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            x.requires_grad_()
            (dx,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            penalties.append((dx.flatten(1).norm(dim=1) - 1).square().mean())
            optimizer.zero_grad()
            (penalties[-1] + model(x).mean()).backward()
            optimizer.step()
        assert_same(penalties[:1], penalties[1:])
