"""The DCGAN of TensorFlow's tutorial: its shapes, its padding, its initialisation, and the other order of layers."""

import math

import pytest
import torch
from torch import nn

from fastgan.models import Setup, dcgan_keras


def kinds(model):
    return [type(layer).__name__ for layer in model.main]


def test_shapes_are_those_of_the_tutorial():
    x, sizes = torch.randn(2, 100, 1, 1), []
    for layer in dcgan_keras.Generator().main:
        x = layer(x)
        if isinstance(layer, (nn.Unflatten, nn.ConvTranspose2d)):
            sizes.append(tuple(x.shape[1:]))
    assert sizes == [(256, 7, 7), (128, 7, 7), (64, 14, 14), (1, 28, 28)]
    sizes = []
    for layer in dcgan_keras.Discriminator().main:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.Flatten)):
            sizes.append(tuple(x.shape[1:]))
    assert sizes == [(64, 14, 14), (128, 7, 7), (6272,)]


def test_number_of_parameters_is_that_of_the_tutorial():
    # of generator.summary() and discriminator.summary() in TensorFlow, those of batch norm without the statistics
    generator = 1_254_400 + 2 * 12_544 + 819_200 + 2 * 128 + 204_800 + 2 * 64 + 1_600
    discriminator = 1_664 + 204_928 + 6_273
    assert sum(p.numel() for p in dcgan_keras.Generator().parameters()) == generator
    assert sum(p.numel() for p in dcgan_keras.Discriminator().parameters()) == discriminator


def test_order_of_layers():
    models = {order: dcgan_keras.Generator(order=order) for order in dcgan_keras.ORDERS}
    up = ["ConvTranspose2d", "BatchNorm2d", "LeakyReLU"]
    swapped = ["ConvTranspose2d", "LeakyReLU", "BatchNorm2d"]
    ends = ["ConvTranspose2d", "Tanh"]
    first = ["Flatten", "Linear", "BatchNorm1d", "LeakyReLU", "Unflatten"]
    assert kinds(models["conv-norm-act"]) == first + up * 2 + ends
    assert kinds(models["conv-act-norm"]) == [first[i] for i in (0, 1, 3, 2, 4)] + swapped * 2 + ends


@pytest.mark.parametrize(
    ("order", "block"),
    [("conv-norm-act", ["Conv2d", "GroupNorm", "LeakyReLU"]), ("conv-act-norm", ["Conv2d", "LeakyReLU", "GroupNorm"])],
)
def test_norm_of_the_discriminator(order, block):
    model = dcgan_keras.DCGANKeras(Setup(28, 1, features=4, norm="layer"), order=order).discriminator()
    assert kinds(model) == ["Conv2d", "LeakyReLU", "Dropout", *block, "Dropout", "Flatten", "Linear"]


def test_padding_keeps_what_is_in_the_middle_there():
    # a kernel that copies its middle: Keras' "same" would copy the same pixels, from one place further
    down = dcgan_keras.Discriminator(28, 1, 1).main[0]
    nn.init.zeros_(down.bias)
    with torch.no_grad():
        down.weight.zero_()[:, :, 2, 2] = 1
    images = torch.randn(1, 1, 28, 28)
    assert torch.equal(down(images), images[:, :, ::2, ::2])


def test_initialisation_is_that_of_keras():
    torch.manual_seed(0)
    recipe = dcgan_keras.DCGANKeras(Setup(28, 1, features=16, norm="none"))
    convolution = recipe.discriminator().main[3]
    limit = math.sqrt(6 / (25 * (16 + 32)))
    assert convolution.weight.abs().max().item() == pytest.approx(limit, rel=1e-2)
    assert convolution.weight.abs().max().item() <= limit
    assert not convolution.bias.any()


@pytest.mark.parametrize(
    "make",
    [
        lambda order: dcgan_keras.DCGANKeras(Setup(28), order=order),
        lambda order: dcgan_keras.Generator(order=order),
        lambda order: dcgan_keras.Discriminator(order=order),
    ],
    ids=["recipe", "generator", "discriminator"],
)
def test_rejects_other_orders(make):
    sentence = "order must be conv-norm-act or conv-act-norm for model dcgan-keras, got 'act-conv'"
    with pytest.raises(ValueError, match=sentence):
        make("act-conv")
