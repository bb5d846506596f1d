"""A converted DCGAN compiled whole trains as it does without the compiler, and is exported for inference."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F

import fastgan
from fastgan.backends import native
from fastgan.models.dcgan import Discriminator, Generator, weights_init

from .common import assert_same, critic

# one backend: test_compile.py has both, and here the compiler takes the time
BACKEND = "reference" if native.missing() else "native"


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    with fastgan.use_backend(BACKEND):
        yield
    torch.compiler.reset()


def gan(dtype):
    """Return a converted DCGAN of 32 pixels and few channels."""
    torch.manual_seed(0)
    g, d = Generator(32, latent_dim=5, features=2), Discriminator(32, features=2)
    return [fastgan.convert(m.apply(weights_init)).to(dtype) for m in (g, d)]


def train(g, d, run_g, run_d, steps, autocast):
    """Return the losses of some steps of a GAN; run_g and run_d call g and d, compiled or not."""
    rng = torch.Generator().manual_seed(1)
    dtype = next(g.parameters()).dtype
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (g, d)]
    losses = []
    for _ in range(steps):
        real, z = (torch.randn(4, *size, generator=rng).to(dtype) for size in ((3, 32, 32), (5, 1, 1)))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            fake = run_g(z)
            # one batch of both: a slice of its gradient goes on to nobody
            scores = run_d(torch.cat([real.to(fake.dtype), fake.detach()])).float().view(2, -1)
            d_loss = F.softplus(-scores[0]).mean() + F.softplus(scores[1]).mean()
        d.zero_grad()
        d_loss.backward()
        optimizers[1].step()
        g.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            g_loss = F.softplus(-run_d(torch.cat([fake, fake])).float()).mean()
        g_loss.backward()
        optimizers[0].step()
        losses += [d_loss.detach(), g_loss.detach()]
    return losses


def state(*models):
    return [t for m in models for t in m.state_dict().values()]


def assert_trains_as_eager(backend, autocast=False, dtype=torch.float64, **tolerances):
    eager, compiled = gan(dtype), gan(dtype)
    runs = [torch.compile(m, fullgraph=True, backend=backend) for m in compiled]
    expected, got = train(*eager, *eager, 3, autocast), train(*compiled, *runs, 3, autocast)
    assert_same(expected, got, **tolerances)
    assert_same(state(*eager), state(*compiled), **tolerances)
    start = state(*gan(dtype))
    assert not any(torch.equal(a, b) for a, b in zip(start, state(*compiled), strict=True))


def test_three_steps():
    assert_trains_as_eager("aot_eager")


def test_three_steps_under_autocast():
    assert_trains_as_eager("aot_eager", True, torch.float32, rtol=1e-6, atol=1e-6)


def test_inductor():
    torch.manual_seed(0)
    eager = fastgan.convert(critic(4).double())
    ours = copy.deepcopy(eager)
    compiled = torch.compile(ours, fullgraph=True)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    results = []
    for model, run in ((eager, eager), (ours, compiled)):
        y = run(x)
        y.sin().sum().backward()
        results.append([y, *(p.grad for p in model.parameters()), *model.buffers()])
    assert_same(*results)


@pytest.mark.parametrize("index", [0, 1], ids=["generator", "critic"])
def test_export_for_inference(index):
    data = (torch.randn(3, 5, 1, 1), torch.randn(3, 3, 32, 32))[index].double()
    model = gan(torch.float64)[index]
    with torch.no_grad():
        model(data)
        expected = model.eval()(data)
        batch = torch.export.Dim("batch", min=2)
        program = torch.export.export(model, (data,), dynamic_shapes=({0: batch},))
        assert_same([program.module()(data)], [expected])
        assert_same([program.module()(data[:2])], [model(data[:2])])
    assert not re.search("fastgan", str(program.graph))
