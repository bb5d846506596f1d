"""Models and comparisons that the tests of modules share."""

import copy

import torch
from torch import nn

import fastgan
from fastgan.testing import CountOps

FUSED = ("bias_act", "norm_act", "norm_act_eval", "conv_norm_act")


def fused_calls(model, *inputs):
    """Return how often one forward pass calls each fused op; buffers are put back.

    A convolution with what is around it is one conv_norm_act; the norm and activation after it add a norm_act_eval
    where no other convolution applies them while it loads.
    """
    before = [b.clone() for b in model.buffers()]
    with CountOps() as count:
        model(*inputs)
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)
    return {name: count[name] for name in FUSED if count[name]}


def fused_ops(model, *inputs):
    """Return how many fused ops one forward pass takes; buffers are put back."""
    return sum(fused_calls(model, *inputs).values())


def twins(model):
    """Return a model in float64 and a converted copy of it."""
    model = model.double()
    return model, fastgan.convert(copy.deepcopy(model))


def gradients(model, x, orders=1):
    """Return output, input gradient and all gradients of sum(sin y), or with ``orders=2`` of that gradient squared."""
    x = x.clone().requires_grad_()
    parameters = [p for p in model.parameters() if p.requires_grad]
    y = model(x)
    (dx,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
    loss = dx.square().sum() if orders == 2 else y.sin().sum()
    return [y, dx, *torch.autograd.grad(loss, [x, *parameters], allow_unused=True)]


def assert_same(a, b, rtol=1e-9, atol=1e-10):
    """Assert that two lists of tensors are equal to rounding; None counts as zeros."""
    assert len(a) == len(b)
    for s, t in zip(a, b, strict=True):
        if s is None or t is None:
            assert all(v is None or not v.any() for v in (s, t))
        else:
            assert s.dtype == t.dtype and s.shape == t.shape
            scale = t.abs().max().item() if t.numel() else 0
            torch.testing.assert_close(s, t, rtol=rtol, atol=atol * (1 + scale))


def assert_twins(stock, other, x, orders=1):
    """Assert that two models agree in results, gradients and buffers."""
    assert_same(gradients(stock, x, orders), gradients(other, x, orders))
    assert_same(list(stock.buffers()), list(other.buffers()))


def replica(model):
    """Return what ``torch.nn.parallel.replicate`` makes for one device: parameters become plain attributes."""
    copies = {m: m._replicate_for_data_parallel() for m in model.modules()}
    for module, copied in copies.items():
        for name, child in module._modules.items():
            copied._modules[name] = copies[child]
        for name, p in module._parameters.items():
            setattr(copied, name, None if p is None else p * 1)
        for name, b in module._buffers.items():
            copied._buffers[name] = b.clone()
    return copies[model]


def generator(width=8):
    """Return a small DCGAN generator for 16 x 16 pixels as a Sequential of 8 children."""
    return nn.Sequential(
        nn.ConvTranspose2d(10, 2 * width, 4, 1, 0, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(True),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(True),
        nn.ConvTranspose2d(width, 3, 4, 2, 1),
        nn.Tanh(),
    )


def critic(width=8):
    """Return a small DCGAN discriminator for 16 x 16 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * width, 1, 4, 1, 0),
        nn.Flatten(0),
    )


def latents(n=4, dtype=torch.float64, seed=0):
    return torch.randn(n, 10, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def images(n=4, dtype=torch.float64, seed=0, channels=3, size=16):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, size, size, generator=rng, dtype=torch.float64).to(dtype)
