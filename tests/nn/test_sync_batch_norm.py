"""SyncBatchNorm: two processes with half of the batch each do what one process of stock layers does with all of it."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastgan
from fastgan.backends import native

from .common import assert_same, critic, fused_calls, generator, images, latents, twins
from .parallel import in_two_processes

BACKENDS = ["reference"] + ([] if native.missing() else ["native"])
SIZES = ((3, 5), (0, 4))
REAL, LATENTS = images(8), latents(8, seed=1)


def models():
    torch.manual_seed(0)
    return generator().double(), critic().double()


def other_options():
    """Return norms with other options: a cumulative average, no affine parameters, no running statistics."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.SiLU(),
        nn.ConvTranspose2d(4, 5, 3, 2), nn.BatchNorm2d(5, affine=False, eps=0.1), nn.Tanh(),
        nn.Conv2d(5, 4, 4, 2), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(),
    ).double()  # fmt: skip


def gan_step(g, d, real, z):
    """Return what a step of the generator's and the critic's losses makes: images, scores, gradients and buffers."""
    fake = g(z)
    scores = d(real), d(fake.detach())
    (F.softplus(-scores[0]).mean() + F.softplus(scores[1]).mean()).backward()
    gradients = [p.grad.clone() for p in d.parameters()]
    F.softplus(-d(fake)).mean().backward()
    gradients += [p.grad for p in g.parameters()]
    return {"batch": [fake.detach(), *(s.detach() for s in scores)], "gradients": gradients, "buffers": buffers(g, d)}


def one_model(model, x):
    """Return what a forward pass without gradients and a step on the sum of the results make."""
    with torch.no_grad():
        first = model(2 * x + 1)
    y = model(x)
    y.sin().sum().backward()
    return {"batch": [first, y.detach()], "gradients": [p.grad for p in model.parameters()], "buffers": buffers(model)}


def buffers(*chosen):
    return [b for model in chosen for b in model.buffers()]


def synced(model):
    return fastgan.convert(nn.SyncBatchNorm.convert_sync_batchnorm(model))


def process(rank):
    """Return the results of everything in one of two processes."""
    # torch refuses SyncBatchNorm in DistributedDataParallel on CPUs, where its own layer cannot run
    DistributedDataParallel._passing_sync_batchnorm_handle = lambda self, module: None
    results = {}
    for backend in BACKENDS:
        with fastgan.use_backend(backend):
            half = slice(4 * rank, 4 * rank + 4)
            parallel = [DistributedDataParallel(synced(m)) for m in models()]
            results[backend, "gan"] = gan_step(*parallel, REAL[half], LATENTS[half])
            for sizes in SIZES:
                x = images(sum(sizes)).split(sizes)[rank]
                for make in (critic, other_options):
                    torch.manual_seed(0)
                    model = DistributedDataParallel(synced(make().double()))
                    results[backend, make.__name__, sizes] = one_model(model, x)
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return in_two_processes(process, tmp_path_factory.mktemp("sync"))


def assert_halves_make(expected, halves, share):
    """Assert that two processes' results make up one's; share: of the one's gradients in the mean of the two's."""
    for half in halves:
        assert_same(half["buffers"], expected["buffers"])
        assert_same(half["gradients"], [share * g for g in expected["gradients"]])
    whole = [torch.cat(parts) for parts in zip(*(half["batch"] for half in halves), strict=True)]
    assert_same(whole, expected["batch"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_of_two_processes_is_one_of_the_double_batch(results, backend):
    expected = gan_step(*models(), REAL, LATENTS)
    assert all(g.abs().max() > 1e-8 for g in expected["gradients"])
    assert_halves_make(expected, [r[backend, "gan"] for r in results], 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("make", [critic, other_options])
def test_uneven_batches(results, backend, sizes, make):
    torch.manual_seed(0)
    expected = one_model(make().double(), images(sum(sizes)))
    assert_halves_make(expected, [r[backend, make.__name__, sizes] for r in results], 0.5)


@pytest.mark.parametrize("group", ["no group", "one process"])
def test_alone_it_is_a_batch_norm(request, backend, tmp_path, group):
    if group == "one process":
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
        request.addfinalizer(dist.destroy_process_group)
    for make, data in ((generator, latents()), (critic, images())):
        stock, _ = twins(make())
        ours = synced(copy.deepcopy(stock))
        assert fused_calls(ours, data) == {"conv_norm_act": 3}
        for training in (True, False):
            pair = []
            for model in (stock.train(training), ours.train(training)):
                model.zero_grad()
                y = model(data)
                y.sin().sum().backward()
                pair.append([y, *(p.grad for p in model.parameters()), *model.buffers()])
            assert_same(*pair)
