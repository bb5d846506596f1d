"""The modules against the stock layers they stand for."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan.nn as fnn

from .common import assert_same, assert_twins, fused_calls, fused_ops, gradients, images

ACTIVATIONS = {
    "identity": nn.Identity(),
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.2),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
}
x = images()


def stock_of(module, activation="leaky_relu", act_first=False):
    """Return the stock layers with the weights of a BatchNormAct2d."""
    options = (module.eps, module.momentum, module.affine, module.track_running_stats)
    norm = nn.BatchNorm2d(module.num_features, *options, dtype=torch.float64)
    norm.load_state_dict(module.state_dict())
    norm.train(module.training)
    act = ACTIVATIONS[activation]
    return nn.Sequential(*([act, norm] if act_first else [norm, act]))


@pytest.mark.parametrize("act_first", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_act_equals_stock(backend, activation, act_first, training):
    module = fnn.BatchNormAct2d(3, dtype=torch.float64, activation=activation, act_first=act_first)
    nn.init.normal_(module.weight)
    module(images(seed=1))
    module.train(training)
    assert_twins(stock_of(module, activation, act_first), module, x, orders=2)
    assert fused_ops(module, x) == 1


@pytest.mark.parametrize(
    "options",
    [{"momentum": None}, {"momentum": 0.3}, {"track_running_stats": False}, {"affine": False}, {"eps": 0.1}],
    ids=str,
)
def test_batch_norm_act_has_the_options_of_torch(backend, options):
    module = fnn.BatchNormAct2d(3, **options, dtype=torch.float64)
    stock = stock_of(module)
    for seed in range(3):
        assert_twins(stock, module, images(seed=seed))
    assert_twins(stock.eval(), module.eval(), x)
    assert fused_ops(module, x) == 1


def test_batch_norm_act_without_bias():
    module = fnn.BatchNormAct2d(3, bias=False)
    assert module.bias is None and next(iter(module.state_dict())) == "weight"
    module(images(dtype=torch.float32))


def test_batch_norm_act_is_a_batch_norm():
    module = fnn.BatchNormAct2d(3, 1e-4, 0.2)
    assert isinstance(module, nn.BatchNorm2d) and (module.eps, module.momentum) == (1e-4, 0.2)
    stock = nn.BatchNorm2d(3)
    assert module.state_dict().keys() == stock.state_dict().keys()
    stock.load_state_dict(module.state_dict())
    module.load_state_dict(stock.state_dict())
    assert "activation=leaky_relu, negative_slope=0.2" in repr(module)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (3, 5, 5), (2, 3, 4, 4, 4)])
def test_batch_norm_act_refuses_what_torch_refuses(shape):
    with pytest.raises(ValueError) as stock:
        nn.BatchNorm2d(3)(torch.zeros(shape))
    with pytest.raises(ValueError) as ours:
        fnn.BatchNormAct2d(3)(torch.zeros(shape))
    assert str(ours.value) == str(stock.value)


def test_batch_norm_act_refuses_one_value_per_channel(backend):
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        fnn.BatchNormAct2d(3)(torch.zeros(1, 3, 1, 1))
    fnn.BatchNormAct2d(3).eval()(torch.zeros(1, 3, 1, 1))


def test_batch_norm_act_takes_an_empty_batch(backend):
    module = fnn.BatchNormAct2d(3)
    assert module(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    assert module.num_batches_tracked == 1 and not module.running_mean.any()


@pytest.mark.parametrize("make", [fnn.BiasAct, fnn.BatchNormAct2d, lambda n, **k: fnn.ConvNormAct2d(n, n, 3, **k)])
def test_modules_refuse_unknown_activations(make):
    with pytest.raises(ValueError, match=r"activation must be one of identity, .*, got 'gelu'"):
        make(3, activation="gelu")
    with pytest.raises(ValueError, match="negative_slope must be >= 0 and finite, got -1"):
        make(3, negative_slope=-1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_bias_act_equals_stock(backend, activation, bias):
    module = fnn.BiasAct(3, bias, dtype=torch.float64, activation=activation)
    if bias:
        assert not module.bias.any()
        nn.init.normal_(module.bias)
    shift = module.bias.detach().reshape(3, 1, 1) if bias else 0
    assert_same(
        gradients(module, x, 2)[:3], gradients(lambda_module(lambda t: ACTIVATIONS[activation](t + shift)), x, 2)
    )
    assert fused_ops(module, x) == 1


def lambda_module(function):
    module = nn.Module()
    module.forward = function
    return module


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("act_first", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_conv_norm_act_equals_stock(backend, transposed, act_first, norm):
    cls, conv = (fnn.ConvTransposeNormAct2d, nn.ConvTranspose2d) if transposed else (fnn.ConvNormAct2d, nn.Conv2d)
    module = cls(3, 6, 4, 2, 1, dtype=torch.float64, norm=norm, activation="relu", act_first=act_first)
    layers = [nn.BatchNorm2d(6), nn.ReLU()] if norm else [nn.ReLU()]
    stock = nn.Sequential(conv(3, 6, 4, 2, 1), *(reversed(layers) if act_first else layers)).double()
    stock[0].load_state_dict(module.conv.state_dict())
    assert_twins(stock, module, x, orders=2)
    assert fused_calls(module, x) == {"conv_norm_act": 1} | ({"norm_act_eval": 1} if norm else {})
    keys = {"conv.weight", "conv.bias"} | {f"norm.{k}" for k in nn.BatchNorm2d(1).state_dict() if norm}
    assert set(module.state_dict()) == keys


def test_conv_arguments_are_in_the_order_of_torch():
    ours = fnn.ConvNormAct2d(4, 8, 3, 2, 1, 2, 4, False, "reflect", eps=0.1, momentum=None)
    stock = nn.Conv2d(4, 8, 3, 2, 1, 2, 4, False, "reflect")
    assert repr(ours.conv) == repr(stock) and (ours.norm.eps, ours.norm.momentum) == (0.1, None)
    ours = fnn.ConvTransposeNormAct2d(4, 8, 3, 2, 1, 1, 4, False, 2)
    assert repr(ours.conv) == repr(nn.ConvTranspose2d(4, 8, 3, 2, 1, 1, 4, False, 2))


@pytest.mark.parametrize("parametrize", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_conv_act_with_spectral_norm(backend, parametrize):
    torch.manual_seed(0)
    module = fnn.ConvNormAct2d(3, 6, 3, dtype=torch.float64, norm=False)
    parametrize(module.conv)
    stock = copy.deepcopy(module.conv)
    assert_same([module(x)], [F.leaky_relu(stock(x), 0.2)])
    assert fused_ops(module, x) == 1


def test_hooks_on_the_convolution_run(backend):
    module, seen = fnn.ConvNormAct2d(3, 6, 3, norm=False), []
    module.conv.register_forward_hook(lambda m, args, out: seen.append(out.shape))
    module(images(dtype=torch.float32))
    assert seen == [(4, 6, 14, 14)]


@pytest.mark.parametrize("make", [
    lambda: fnn.BatchNormAct2d(3, momentum=None),
    lambda: fnn.BiasAct(3, activation="silu"),
    lambda: fnn.ConvNormAct2d(3, 6, 3),
    lambda: fnn.ConvTransposeNormAct2d(3, 6, 3, norm=False),
])  # fmt: skip
def test_modules_are_copied_and_saved(backend, make):
    module = make().double()
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ):
        assert repr(other) == repr(module)
        assert_twins(copy.deepcopy(module), other, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_and_channels_last(backend, dtype):
    module = fnn.ConvNormAct2d(3, 6, 3).to(dtype).to(memory_format=torch.channels_last)
    stock = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.LeakyReLU(0.2)).to(dtype)
    stock[0].load_state_dict(module.conv.state_dict())
    half = images(dtype=dtype).contiguous(memory_format=torch.channels_last)
    y = module(half)
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, stock(half), rtol=0.02, atol=0.02)
    torch.testing.assert_close(module.norm.running_var, stock[1].running_var, rtol=0.02, atol=0.02)


def test_modules_run_stock_layers_where_only_the_fallback_is_left(no_fast_backend):
    for module in (fnn.BatchNormAct2d(3), fnn.BiasAct(3), fnn.ConvNormAct2d(3, 3, 3, norm=False)):
        assert fused_ops(module, images(dtype=torch.float32)) == 0
