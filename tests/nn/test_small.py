"""Where no backend was asked for, torch's own layers do what is so small that they are faster."""

import copy
import gc
import weakref

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import fastgan
from fastgan.backends import processor
from fastgan.nn import _small
from fastgan.nn.utils import separate_statistics
from fastgan.testing import CountOps
from tests.nn.common import fused_ops


@pytest.fixture(autouse=True)
def automatic():
    with fastgan.use_backend("auto"):
        yield


def images(n, channels=16, size=16, dtype=torch.float32):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def converted(*layers):
    return fastgan.convert(nn.Sequential(*layers))


def down(channels=16, out=32):
    return [nn.Conv2d(channels, out, 4, 2, 1), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)]


def up(channels=16, out=32):
    return [nn.ConvTranspose2d(channels, out, 4, 2, 1), nn.LeakyReLU(0.2), nn.BatchNorm2d(out)]


def step(model, x):
    """Return the output, all gradients and buffers of one training step."""
    x = x.clone().requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()]), *model.buffers()]


@pytest.mark.parametrize("layers", [down, up])
def test_a_small_model_gives_the_bits_of_stock(layers):
    stock = nn.Sequential(*layers(), nn.Conv2d(32, 8, 3), nn.Tanh())
    ours = fastgan.convert(copy.deepcopy(stock))
    x = images(1)
    assert fused_ops(ours, x) == 0
    assert all(torch.equal(a, b) for a, b in zip(step(stock, x), step(ours, x), strict=True))


@pytest.mark.parametrize(
    ("conv", "size", "most"),
    [
        (lambda: nn.Conv2d(256, 512, 4, 2, 1), 8, 8),
        (lambda: nn.Conv2d(128, 256, 4, 2, 1), 8, 16),
        (lambda: nn.Conv2d(16, 16, 3, 1, 1), 16, 21),
        (lambda: nn.ConvTranspose2d(4, 64, 4, 2, 1), 16, 8),
        (lambda: nn.Conv2d(256, 1, 4), 4, 2),
        (lambda: nn.ConvTranspose2d(16, 4, 4), 1, 8),
    ],
    ids=["few pixels", "more pixels and little work", "little work", "transposed", "to a pixel", "from a pixel"],
)
def test_limits(conv, size, most):
    model = converted(conv())
    channels = model[0].in_channels
    assert fused_ops(model, images(most, channels, size)) == 0
    assert fused_ops(model, images(most + 1, channels, size)) == 1


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_the_product_of_a_last_layer(graph, last):
    model, x = converted(nn.Conv2d(256, 1, 4)), images(16, 256, 4)
    more = images(17, 256, 4)
    if last:
        x, more = (t.contiguous(memory_format=torch.channels_last) for t in (x, more))
    with torch.set_grad_enabled(graph):
        for _ in range(2):
            assert fused_ops(model, x) == (graph or not last)
        assert fused_ops(model, more) == 1


@pytest.mark.parametrize("last", [False, True])
def test_the_product_of_what_a_convolution_left_unfinished(last):
    model, x = converted(nn.Conv2d(256, 256, 4, 2, 1), nn.Tanh(), nn.Conv2d(256, 1, 4)), images(16, 256, 8)
    if last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert fused_ops(model, x) == (1 if last else 2)


def test_a_known_small_model_notices_whether_gradients_are_wanted():
    model, x = converted(nn.Conv2d(256, 1, 4)), images(16, 256, 4).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert fused_ops(model, x) == 0
    assert fused_ops(model, x) == 1
    with torch.no_grad():
        assert fused_ops(model, x) == 0
        assert fused_ops(model, x.contiguous()) == 1


@pytest.mark.parametrize("multiplies", [False, True])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_bfloat16_runs_torchs_layers_where_the_processor_multiplies_it(dtype, autocast, multiplies, monkeypatch):
    monkeypatch.setattr(processor, "multiplies", lambda dtype: multiplies)
    x = images(1, dtype=dtype)
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        small = _small.few_values(x) and _small.little_work(x, nn.Conv2d(16, 16, 3, 1, 1))
    calculated = autocast or dtype
    assert small == (calculated == torch.float32 or (calculated == torch.bfloat16 and multiplies))


def test_large_weights_of_few_pixels(monkeypatch):
    monkeypatch.setattr(processor, "multiplies", lambda dtype: True)
    conv, x = nn.Conv2d(1024, 512, 4, 2, 1), images(1, 1024, 8)
    assert not _small.little_work(x, conv) and _small.little_work(x.bfloat16(), conv)
    with torch.autocast("cpu", torch.bfloat16):
        assert _small.little_work(x, conv)
    conv = conv.to(memory_format=torch.channels_last)
    assert not _small.little_work(x.bfloat16(), conv)


def test_what_is_small_in_one_dtype_may_not_be_in_another(monkeypatch):
    monkeypatch.setattr(processor, "multiplies", lambda dtype: True)
    model = converted(nn.Conv2d(1024, 512, 4, 2, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert fused_ops(model, images(1, 1024, 8)) == 0
    assert fused_ops(model, images(1, 1024, 8)) == 1


def test_a_known_small_model_notices_what_is_different(monkeypatch):
    monkeypatch.setattr(processor, "multiplies", lambda dtype: False)
    model = converted(*down(), nn.Conv2d(32, 8, 3))
    assert fused_ops(model, images(1)) == fused_ops(model, images(1)) == 0
    assert fused_ops(model, images(64)) == 2
    assert fused_ops(model, images(1, dtype=torch.float64).float()) == 0
    with fastgan.use_backend("reference"):
        assert fused_ops(model, images(1)) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert fused_ops(model, images(1)) == 2
    model.append(nn.Conv2d(8, 2048, 6))
    assert fused_ops(model, images(1)) == 1
    assert fused_ops(model.double(), images(1, dtype=torch.float64)) == 3


def test_a_known_small_model_is_known_for_several_inputs_but_not_for_all(monkeypatch):
    monkeypatch.setattr(_small, "_MOST_KNOWN", 2)
    _small._known.clear()
    model = converted(*down())
    for n in (1, 2, 1, 2, 3, 1):
        assert fused_ops(model, images(n)) == 0
        assert len(_small._known) <= 2
    assert [shape[0] for _, shape, *_ in _small._known] == [3, 1]


def test_a_known_small_model_calls_hooks():
    model = converted(*down())
    model(images(1))
    called = []
    model[1].register_forward_hook(lambda *_: called.append(1))
    model(images(1))
    assert called == [1]


@pytest.mark.parametrize("stride", [1, 2])
def test_weights_with_spectral_norm_are_read_together_at_any_size(stride):
    layers = [spectral_norm(nn.Conv2d(c, 8, 3, stride)) for c in (16, 8)]
    model = converted(*layers)
    for _ in range(3):
        with CountOps() as count:
            model(images(1))
        assert count["spectral_norm_power_iteration"] == 1


def test_asking_for_the_size_reads_no_weight():
    model = converted(spectral_norm(nn.Conv2d(16, 8, 4, 2, 1)), nn.LeakyReLU(0.2))
    with CountOps() as count:
        _small.little_work(images(64), model[0])
    assert count["spectral_norm_power_iteration"] == 0


def test_a_model_is_not_kept_alive():
    model = converted(*down())
    model(images(1))
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("layers", [[nn.BatchNorm2d(16), nn.ReLU()], [nn.ReLU(), nn.BatchNorm2d(16)]], ids=str)
def test_a_norm_with_few_values(layers):
    model = converted(*layers)
    assert fused_ops(model, images(32)) == 0 and fused_ops(model, images(33)) == 1
    module = fastgan.nn.BatchNormAct2d(16)
    assert fused_ops(module, images(32)) == 0 and fused_ops(module, images(33)) == 1


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (lambda: converted(nn.ConvTranspose2d(100, 8, 4)), lambda: images(1, 100, 1)),
        (lambda: converted(nn.Conv2d(100, 8, 4)), lambda: images(1, 100, 4)),
        (lambda: converted(nn.Conv2d(512, 1024, 4, 2, 1, bias=False)), lambda: images(1, 512, 4)),
        (lambda: converted(*down()[:1]).double(), lambda: images(1, dtype=torch.float64)),
    ],
    ids=["one pixel in", "one pixel out", "large weight", "float64"],
)
def test_what_is_fused_at_any_size(model, x):
    assert fused_ops(model(), x()) == 1


def test_one_channel_between_convolutions_has_the_strides_of_stock():
    stock = nn.Sequential(nn.Conv2d(64, 1, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(1, 4, 3, 1, 1))
    ours = fastgan.convert(copy.deepcopy(stock))
    x = images(64, 64, 32)
    assert fused_ops(ours[:2], x) == 1 and fused_ops(ours[2:], images(64, 1, 32)) == 0
    assert ours(x).stride() == stock(x).stride()
    a, b = step(ours, x), step(stock, x)
    assert all(s.stride() == t.stride() for s, t in zip(a, b, strict=True))


@pytest.mark.parametrize(("kernel_size", "fused"), [(1, 1), ((2, 1), 1), (2, 0)])
def test_a_kernel_that_leaves_pixels_out_is_fused(kernel_size, fused):
    """Its gradient in torch is wrong for channels_last images, or corrupts memory."""
    for conv in (nn.Conv2d, nn.ConvTranspose2d):
        assert fused_ops(converted(conv(16, 8, kernel_size, 2)), images(1)) == fused


def test_convolutions_in_one_dimension_raise_what_stock_raises():
    with pytest.raises(RuntimeError, match="conv1d"):
        converted(nn.Conv1d(16, 4, 3), nn.ReLU())(images(1))


def test_a_synchronised_norm_of_one_process(tmp_path):
    """Torch's own refuses tensors of a CPU."""
    made = [nn.Sequential(*down()), nn.Sequential(*down()[1:]), fastgan.nn.ConvNormAct2d(16, 32, 3)]
    x = [images(2), images(2, 32), images(2)]
    expected = [copy.deepcopy(model)(data) for model, data in zip(made, x, strict=True)]
    ours = [fastgan.convert(nn.SyncBatchNorm.convert_sync_batchnorm(model)) for model in made]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for model, data, y in zip(ours, x, expected, strict=True):
            torch.testing.assert_close(model(data), y)
    finally:
        dist.destroy_process_group()


def test_asked_for_by_name_a_backend_does_all():
    model = converted(*down(), nn.Conv2d(32, 8, 3))
    with fastgan.use_backend("reference"):
        assert fused_ops(model, images(1)) == 2


def test_statistics_of_parts():
    model, x = converted(*down()), images(2)
    with separate_statistics(model, 2):
        y = model(x)
    torch.testing.assert_close(y, torch.cat([model(x[:1]), model(x[1:])]))


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [(2, 4, 2, 1), (1, 3, 2, 1), (2, 5, 3, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_bfloat16_is_right_where_strides_leave_one_pixel(size, kernel, stride, padding, transposed):
    """As torch's is not on processors with AMX, which read memory that nobody wrote."""
    module = nn.ConvTranspose2d if transposed else nn.Conv2d
    torch.manual_seed(0)
    stock = nn.Sequential(module(5, 7, kernel, stride, padding), nn.LeakyReLU(0.2))
    ours = fastgan.convert(copy.deepcopy(stock))
    x = images(3, 5, size)
    for filler in (1 << 10, 1 << 14, 1 << 18):
        torch.full((filler,), float("nan"), dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        got = step(ours, x)
    for value, right in zip(got, step(stock.double(), x.double()), strict=True):
        assert (value - right).abs().max() <= 0.05 * right.abs().max()
