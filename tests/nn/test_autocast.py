"""Under autocast everybody sees the types that stock layers give; parameters and statistics stay float32."""

import contextlib
import copy
import gc
import weakref

import pytest
import torch
from torch import nn

import fastgan
from fastgan.backends import native
from fastgan.models.dcgan import Discriminator, Generator
from fastgan.nn import _autocast
from fastgan.nn._autocast import autocast_weight
from fastgan.testing import assert_close_to_gold

from .common import critic, fused_calls, generator, images, latents, twins

CASES = pytest.mark.parametrize(
    ("make", "data"),
    [
        (generator, latents(8)),
        (critic, images(8)),
        (lambda: Generator(32, latent_dim=10, features=4), latents(8)),
        (lambda: Discriminator(32, features=4), images(8, size=32)),
    ],
    ids=["generator", "critic", "dcgan-g", "dcgan-d"],
)
SHARED = pytest.mark.skipif(bool(native.missing()), reason=native.missing() or "")
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def models(make, seed=0):
    """Return a model in float64, a stock copy in float32 and a converted one."""
    torch.manual_seed(seed)
    gold = make()
    stock = copy.deepcopy(gold)
    return gold.double(), stock, fastgan.convert(copy.deepcopy(stock))


def results(model, x, dtype=None):
    """Return result, input gradient, parameters' gradients and buffers of a step, under autocast if dtype is given."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        y = model(x)
        loss = y.float().sin().sum() if dtype is not None else y.sin().sum()
    loss.backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters()), *model.buffers()]


@CASES
@DTYPES
def test_types_are_those_of_stock(backend, make, data, dtype):
    _, stock, ours = models(make)
    pairs = list(zip(*(results(m, data.float(), dtype) for m in (stock, ours)), strict=True))
    assert [s.dtype for s, _ in pairs] == [o.dtype for _, o in pairs]
    assert pairs[0][1].dtype == dtype
    assert all(o.dtype == torch.float32 for _, o in pairs[1:] if o.is_floating_point())
    assert all(o.isfinite().all() for _, o in pairs)


@CASES
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_results_are_as_good_as_those_of_stock(backend, make, data, training):
    """On the mean of some batches: one activation on the other side of zero makes a gradient twice as bad."""
    errors = []
    for seed in range(6):
        x = torch.randn(data.shape, generator=torch.Generator().manual_seed(seed)).bfloat16().float()
        inputs = ((x.double(), None), (x, torch.bfloat16), (x, torch.bfloat16))
        gold, *others = (results(m.train(training), *i) for m, i in zip(models(make, seed), inputs, strict=True))
        floating = [i for i, g in enumerate(gold) if g.is_floating_point()]
        errors.append(
            [[float((other[i] - gold[i]).norm() / gold[i].norm().clamp(1e-9)) for i in floating] for other in others]
        )
    stock, ours = torch.tensor(errors).mean(0)
    assert (ours <= 1.5 * stock + 1e-5).all(), (stock, ours)


@CASES
def test_statistics_are_computed_in_float32(backend, make, data):
    """Of the rounded result of the convolution, so as near to float64 as float32 sums are."""
    _, stock, ours = models(make)
    with torch.autocast("cpu", torch.bfloat16):
        raw = first_norm(stock, data.float())
        ours(data.float())
    norm = next(m for m in ours.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.running_mean.dtype == norm.running_var.dtype == torch.float32
    var, mean = torch.var_mean(raw.double(), dim=(0, 2, 3))
    # the convolutions round differently in the last bit of bfloat16, which statistics of hundreds of values average
    torch.testing.assert_close(norm.running_mean.double(), 0.1 * mean, rtol=1e-3, atol=1e-4 * float(var.max().sqrt()))
    torch.testing.assert_close(norm.running_var.double(), 0.9 + 0.1 * var, rtol=1e-3, atol=1e-4)


def first_norm(model, x):
    """Return what the first norm of a model gets."""
    norm, seen = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)), []
    handle = norm.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    model(x)
    handle.remove()
    return seen[0]


@CASES
def test_ops_are_fused_as_without_autocast(backend, make, data):
    _, _, ours = models(make)
    expected = fused_calls(ours, data.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert fused_calls(ours, data.float()) == expected and set(expected) == {"conv_norm_act"}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_each_part_of_a_model_gives_the_type_of_stock(backend, training):
    for make, data in ((generator, latents()), (critic, images())):
        stock, ours = (m.float().train(training) for m in twins(make()))
        for context in (torch.enable_grad, torch.no_grad):
            with context(), torch.autocast("cpu", torch.bfloat16):
                for n in range(1, len(stock) + 1):
                    assert ours[:n](data.float()).dtype == stock[:n](data.float()).dtype, n


def test_float64_is_left_alone(backend):
    """As torch does; results to the last digits."""
    stock, ours = twins(critic())
    with torch.autocast("cpu", torch.bfloat16):
        assert_close_to_gold(ours(images()), stock(images()).detach())


def test_autocast_off_inside(backend):
    stock, ours = (m.float() for m in twins(critic()))
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert ours(images().float()).dtype == stock(images().float()).dtype == torch.float32


def test_a_penalty_under_autocast(backend):
    rows = []
    for model in models(critic)[1:]:
        x = images(dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(x)
        (dx,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        penalty = (dx.flatten(1).norm(dim=1) - 1).square().mean()
        penalty.backward()
        rows.append([dx, penalty, *(p.grad for p in model.parameters())])
    for s, o in zip(*rows, strict=True):
        if s is None or o is None:
            assert all(t is None or not t.any() for t in (s, o))
        else:
            assert s.dtype == o.dtype
            torch.testing.assert_close(o, s, rtol=0.1, atol=0.05 * float(s.detach().abs().max()))


@SHARED
def test_calls_in_one_context_share_the_cast_of_a_weight():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        first = autocast_weight(weight)
        assert autocast_weight(weight) is first
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_weight(weight) is not first
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        assert autocast_weight(weight) is not autocast_weight(weight)


def add_one(weight):
    with torch.no_grad():
        weight.add_(1)


def fused_step(weight):
    """Leaves the weight's version as it is."""
    weight.grad = torch.ones_like(weight)
    torch.optim.Adam([weight], lr=1.0, fused=True).step()


def other_memory(weight):
    weight.data = weight.data + 1


def swap(weight):
    torch.utils.swap_tensors(weight, nn.Parameter(weight.detach() + 1))


@pytest.mark.parametrize("change", [add_one, fused_step, other_memory, swap])
def test_a_shared_cast_is_of_the_weight_as_it_is(change):
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        autocast_weight(weight)
        change(weight)
        assert torch.equal(autocast_weight(weight), weight.to(torch.bfloat16))


SMALL, LARGE = (1, 3, 16, 16), (32, 3, 64, 64)


@pytest.mark.parametrize(
    "sizes", [(SMALL, LARGE), (LARGE, SMALL), (LARGE, LARGE)], ids=["torch-ours", "ours-torch", "ours"]
)
def test_no_layer_sees_a_cast_of_the_other_kind(sizes):
    """Where torch's layers run what is small."""
    model = fastgan.convert(nn.Sequential(nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(), nn.Conv2d(64, 64, 4, 2, 1)))
    first, second = (torch.randn(size) for size in sizes)
    with torch.autocast("cpu", torch.bfloat16):
        model(first)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
        got = model(second)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(got, model(second))


@SHARED
def test_contexts_of_two_dtypes():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        first = autocast_weight(weight)
        with torch.autocast("cpu", torch.float16):
            assert autocast_weight(weight).dtype == torch.float16
        assert autocast_weight(weight) is first


def test_a_weight_made_in_inference_mode():
    with torch.inference_mode():
        model = fastgan.convert(nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU()))
    with torch.autocast("cpu", torch.bfloat16), fastgan.use_backend("reference"):
        assert model(torch.randn(2, 3, 8, 8)).dtype == torch.bfloat16


def test_what_has_no_gradient_is_not_shared():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            assert not autocast_weight(weight).requires_grad
        assert autocast_weight(weight).requires_grad
        weight.requires_grad_(False)
        assert not autocast_weight(weight).requires_grad


@SHARED
@pytest.mark.parametrize(
    "around",
    [contextlib.nullcontext, lambda: torch.device("meta"), lambda: default_dtype(torch.float64)],
    ids=["plain", "meta", "float64"],
)
def test_casts_end_with_the_context(around):
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    _autocast._leaf.cache_clear()
    with around():
        _autocast._leaf()
    with torch.autocast("cpu", torch.bfloat16):
        cast = weakref.ref(autocast_weight(weight))
        gc.collect()
        assert cast() is not None
    assert cast() is None


@SHARED
def test_casts_in_a_dtype_that_is_none():
    """Where the sentinel is no cast, and would live on."""
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        torch.set_autocast_dtype("cpu", torch.float32)
        assert autocast_weight(weight).dtype == torch.float32
        assert _autocast._casts() is not _autocast._casts()


def test_a_transform_leaves_no_cast_behind():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        torch.func.grad(lambda x: (autocast_weight(weight) * x).float().sum())(torch.ones(()))
        assert type(autocast_weight(weight).grad_fn).__name__ == "ToCopyBackward0"


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def test_gradients_of_calls_that_share_a_cast_are_added_up():
    conv = nn.Conv2d(3, 4, 2)
    model, x = fastgan.convert(nn.Sequential(copy.deepcopy(conv))), torch.randn(2, 2, 3, 5, 5)
    with torch.autocast("cpu", torch.bfloat16), fastgan.use_backend("native" if not native.missing() else "reference"):
        loss = sum(model(each).float().square().sum() for each in x)
    loss.backward()
    sum(conv(each).square().sum() for each in x).backward()
    torch.testing.assert_close(model[0].weight.grad, conv.weight.grad, atol=0.1, rtol=0.05)
