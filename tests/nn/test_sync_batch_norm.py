"""SyncBatchNorm: two processes with half of the batch each do what one process of stock layers does with all of it."""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastgan
import fastgan.nn as fnn
from fastgan.backends import native

from .common import assert_same, assert_twins, critic, fused_calls, generator, images, latents, twins
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


def own_modules():
    """Return modules of fastgan.nn with every place and kind of norm and activation, weights not those of a new one."""
    torch.manual_seed(2)
    model = nn.Sequential(
        fnn.ConvNormAct2d(3, 4, 3, activation="relu"), fnn.BatchNormAct2d(4, activation="tanh"),
        fnn.ConvTransposeNormAct2d(4, 5, 3, 2, activation="silu", act_first=True, momentum=None),
        fnn.BatchNormAct2d(5, activation="relu", act_first=True, eps=0.1), fnn.ConvNormAct2d(5, 4, 4, norm=False),
        fnn.BatchNormAct2d(4, affine=False, track_running_stats=False), fnn.ConvNormAct2d(4, 4, 3, activation="relu"),
    ).double()  # fmt: skip
    for p in model.parameters():
        nn.init.normal_(p)
    return model


def own_modules_of_torch():
    """Return the layers of torch that own_modules stands for, with its weights."""
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.Tanh(),
        nn.ConvTranspose2d(4, 5, 3, 2), nn.SiLU(), nn.BatchNorm2d(5, momentum=None),
        nn.ReLU(), nn.BatchNorm2d(5, eps=0.1), nn.Conv2d(5, 4, 4), nn.LeakyReLU(0.2),
        nn.BatchNorm2d(4, affine=False, track_running_stats=False), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
    ).double()  # fmt: skip
    layers.load_state_dict(dict(zip(layers.state_dict(), own_modules().state_dict().values(), strict=True)))
    return layers


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


def converted_first(model):
    return nn.SyncBatchNorm.convert_sync_batchnorm(fastgan.convert(model))


def synced_twice(model):
    return synced(synced(model))


ORDERS = (synced, converted_first, synced_twice)


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
                for order in ORDERS:
                    model = DistributedDataParallel(order(own_modules()))
                    results[backend, order.__name__, sizes] = one_model(model, x)
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_modules_of_fastgan_keep_their_activations(results, backend, sizes, order):
    expected = one_model(own_modules_of_torch(), images(sum(sizes)))
    assert all(y.min() == 0 for y in expected["batch"])
    assert_halves_make(expected, [r[backend, order.__name__, sizes] for r in results], 0.5)


@pytest.mark.parametrize("order", ORDERS)
def test_modules_of_fastgan_in_one_process(backend, order):
    model, stock = order(own_modules()), own_modules_of_torch()
    assert list(model.state_dict()) == list(own_modules().state_dict())
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in model.modules()) == 6
    for training in (True, False):
        assert_twins(stock.train(training), model.train(training), images())
        assert_twins(copy.deepcopy(stock), pickle.loads(pickle.dumps(model)), images())
    own_modules().load_state_dict(model.state_dict())


@pytest.mark.parametrize("make", [lambda: fnn.BatchNormAct2d(3, bias=False, activation="relu"), own_modules])
def test_a_module_says_what_it_does_after_a_conversion(make):
    before = make()
    for m in before.modules():
        m.training = isinstance(m, fnn.BatchNormAct2d)
    after = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(before), process_group="a group")
    for a, b in zip(before.modules(), after.modules(), strict=True):
        assert a.extra_repr() == b.extra_repr() and a.training == b.training
        assert b.process_group == "a group" if isinstance(b, nn.SyncBatchNorm) else type(a) is type(b)


def test_a_synced_norm_refuses_what_its_norm_refuses():
    with pytest.raises(ValueError, match="expected 4D input"):
        nn.SyncBatchNorm.convert_sync_batchnorm(fnn.BatchNormAct2d(3))(torch.zeros(4, 3))


def test_the_conversion_of_torch_is_left_as_it_is_for_layers_of_torch():
    made = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(3), nn.ReLU()))
    assert [type(m) for m in made] == [nn.SyncBatchNorm, nn.SyncBatchNorm, nn.ReLU]


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
