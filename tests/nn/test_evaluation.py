"""Evaluation: norms by their running statistics, with gradients and without; nobody can tell it from stock."""

import itertools

import pytest
import torch
from torch import nn

from .common import assert_same, critic, fused_calls, generator, images, latents, twins

x = images()


def used(model, data=x):
    """Return the model with running statistics and affine parameters far from their first values, in evaluation."""
    rng = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for p in module.parameters():
                p.data.uniform_(-2, 2, generator=rng)
    with torch.no_grad():
        for _ in range(3):
            model(data)
    return model.eval()


def assert_evaluates(model, data=x):
    """Assert that results equal stock's and that nothing of the model changes."""
    stock, ours = twins(used(model.double(), data))
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert_same([stock(data)], [ours(data)])
    with torch.no_grad():
        calls = fused_calls(ours, data)
    assert calls["conv_norm_act"] and set(calls) <= {"conv_norm_act", "norm_act_eval"}
    assert_same([stock(data)], [ours(data)])
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())


@pytest.mark.parametrize(
    ("conv", "bias", "affine"),
    list(itertools.product([nn.Conv2d, nn.ConvTranspose2d], [True, False], [True, False])),
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_a_norm_after_its_convolution(backend, conv, bias, affine):
    assert_evaluates(nn.Sequential(conv(3, 5, 4, 2, 1, bias=bias), nn.BatchNorm2d(5, affine=affine), nn.LeakyReLU(0.2)))


@pytest.mark.parametrize("options", [{"momentum": None}, {"momentum": 0.5}, {"eps": 0.3}], ids=str)
def test_options_of_the_norm(backend, options):
    assert_evaluates(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, **options), nn.Tanh(), nn.Conv2d(5, 2, 3)))


@pytest.mark.parametrize(
    "act", [nn.ReLU(True), nn.SiLU(), nn.Sigmoid(), nn.Identity(), None], ids=lambda a: type(a).__name__
)
def test_activations(backend, act):
    layers = [nn.ConvTranspose2d(3, 4, 3, 2, 1, 1), nn.BatchNorm2d(4)]
    assert_evaluates(nn.Sequential(*layers, *([] if act is None else [act])))


@pytest.mark.parametrize("conv", [nn.Conv2d, nn.ConvTranspose2d])
def test_groups(backend, conv):
    assert_evaluates(nn.Sequential(conv(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.ReLU()))


@pytest.mark.parametrize(("make", "data"), [(generator, latents()), (critic, x)], ids=["generator", "critic"])
def test_whole_models(backend, make, data):
    assert_evaluates(make(), data)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_memory_formats_are_those_of_stock(backend, layout):
    stock, ours = twins(used(generator().double(), latents()))
    data = images(channels=10, size=4).contiguous(memory_format=layout)
    with torch.no_grad():
        for n in range(1, 9):
            assert stock[:n](data).stride() == ours[:n](data).stride(), n


def test_an_activation_before_the_norm(backend):
    assert_evaluates(nn.Sequential(nn.Conv2d(3, 5, 3), nn.LeakyReLU(0.2), nn.BatchNorm2d(5)))


def test_without_running_statistics_each_batch_has_its_own(backend):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, track_running_stats=False), nn.ReLU())
    assert_evaluates(model)


def test_frozen_norms_in_training(backend):
    stock, ours = twins(used(nn.Sequential(critic()).double()).train())
    for model in (stock, ours):
        model[0][3].eval()
    with torch.no_grad():
        assert_same([stock(x)], [ours(x)])
    assert_same(list(stock.buffers()), list(ours.buffers()))


def test_nothing_is_kept_of_a_weight(backend):
    """A step of the optimiser, or new statistics, between two evaluations."""
    stock, ours = twins(used(critic().double()))
    for model in (stock, ours):
        with torch.no_grad():
            model(x)
            model[2].weight.mul_(-0.5)
            model[3].running_mean.add_(1)
            model[3].bias.sub_(1)
    with torch.no_grad():
        assert_same([stock(x)], [ours(x)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types(backend, dtype):
    """As near to float64 as stock is."""
    gold, ours = twins(used(critic().double()))
    stock = twins(gold)[0]
    with torch.no_grad():
        data = x.to(dtype)
        expected = gold(data.double())
        errors = []
        for model in (stock, ours):
            model = model.to(dtype)
            y = model(data)
            assert y.dtype == dtype
            errors.append((y.double() - expected).abs().max())
    assert errors[1] <= 2 * errors[0] + 4 * torch.finfo(dtype).eps * expected.abs().max()
