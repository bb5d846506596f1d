"""The DCGAN: shapes at every size, and the PyTorch example's parameter names."""

import pytest
import torch
from torch import nn

from fastgan.models import dcgan

# of examples/dcgan/main.py in pytorch/examples, nz=100, ngf=ndf=64, nc=3
EXAMPLE_GENERATOR = {0: (100, 512), 3: (512, 256), 6: (256, 128), 9: (128, 64), 12: (64, 3)}
EXAMPLE_DISCRIMINATOR = {0: (64, 3), 2: (128, 64), 5: (256, 128), 8: (512, 256), 11: (1, 512)}


def example_shapes(convolutions, norms):
    shapes = {f"main.{index}.weight": (*ends, 4, 4) for index, ends in convolutions.items()}
    for index, width in norms.items():
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"main.{index}.{name}"] = (width,)
        shapes[f"main.{index}.num_batches_tracked"] = ()
    return shapes


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("image_size", [32, 64, 128])
def test_shapes(image_size, channels):
    generator = dcgan.Generator(image_size, channels, latent_dim=7, features=4)
    discriminator = dcgan.Discriminator(image_size, channels, features=4)
    images = generator(torch.randn(2, 7, 1, 1))
    assert images.shape == (2, channels, image_size, image_size)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (2,)


def test_generator_keys_are_those_of_the_example():
    assert shapes_of(dcgan.Generator()) == example_shapes(EXAMPLE_GENERATOR, {1: 512, 4: 256, 7: 128, 10: 64})


def test_discriminator_keys_are_those_of_the_example():
    assert shapes_of(dcgan.Discriminator()) == example_shapes(EXAMPLE_DISCRIMINATOR, {3: 128, 6: 256, 9: 512})


def test_layers_are_those_of_the_example():
    generator, discriminator = dcgan.Generator().main, dcgan.Discriminator().main
    up = [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU]
    down = [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]
    assert [type(layer) for layer in generator] == up * 4 + [nn.ConvTranspose2d, nn.Tanh]
    assert [type(layer) for layer in discriminator] == [nn.Conv2d, nn.LeakyReLU, *down * 3, nn.Conv2d]
    assert {layer.negative_slope for layer in discriminator if isinstance(layer, nn.LeakyReLU)} == {0.2}


@pytest.mark.parametrize("model", [dcgan.Generator, dcgan.Discriminator])
def test_rejects_other_sizes(model):
    with pytest.raises(ValueError, match=rf"{model.__name__}: image_size must be 32, 64 or 128, got 48"):
        model(48)


def test_weights_init():
    torch.manual_seed(0)
    model = dcgan.Generator(features=16).apply(dcgan.weights_init)
    convolution, norm = model.main[3], model.main[1]
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert convolution.weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert 0.01 < norm.weight.std().item() < 0.03
    assert not norm.bias.any()


def without_norm(channels, widths):
    """Shapes of weight and bias of a discriminator's convolutions, by place."""
    into, out = [channels, *widths], [*widths, 1]
    shapes = [{"weight": (o, i, 4, 4), "bias": (o,)} for i, o in zip(into, out, strict=True)]
    return {f"main.{2 * index}": shape for index, shape in enumerate(shapes)}


def test_discriminator_without_norm_has_biases():
    model = dcgan.Discriminator(32, 3, 4, norm="none")
    places = without_norm(3, [4, 8, 16])
    assert shapes_of(model) == {f"{place}.{key}": keys[key] for place, keys in places.items() for key in keys}
    assert {type(layer) for layer in model.main} == {nn.Conv2d, nn.LeakyReLU}


def test_discriminator_with_layer_norm():
    layers = dcgan.Discriminator(64, 3, 4, norm="layer").main
    block = [nn.Conv2d, nn.GroupNorm, nn.LeakyReLU]
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.LeakyReLU, *block * 3, nn.Conv2d]
    norms = [layer for layer in layers if isinstance(layer, nn.GroupNorm)]
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(1, 8), (1, 16), (1, 32)]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [layer.bias is not None for layer in convolutions] == [True, False, False, False, True]


@pytest.mark.parametrize(("norm", "apart"), [("batch", False), ("none", True), ("layer", True)])
def test_only_batch_norm_mixes_samples(norm, apart):
    torch.manual_seed(0)
    model, images = dcgan.Discriminator(32, 1, 4, norm=norm), torch.randn(3, 1, 32, 32)
    assert torch.allclose(model(images)[:1], model(images[:1]), atol=1e-5) == apart


def test_spectral_norm_is_in_every_layer():
    torch.manual_seed(0)
    model = dcgan.Discriminator(32, 3, 4, norm="none", spectral_norm=True).apply(dcgan.weights_init)
    expected = {}
    for place, keys in without_norm(3, [4, 8, 16]).items():
        rows, *columns = keys["weight"]
        expected |= {f"{place}.bias": keys["bias"], f"{place}.parametrizations.weight.original": keys["weight"]}
        expected |= {f"{place}.parametrizations.weight.0._u": (rows,)}
        expected |= {f"{place}.parametrizations.weight.0._v": (torch.Size(columns).numel(),)}
    assert shapes_of(model) == expected
    for _ in range(50):
        model(torch.randn(1, 3, 32, 32))
    for layer in model.eval().main[::2]:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-3)
        assert not layer.bias.any()


def test_weights_init_leaves_weights_under_spectral_norm():
    model = dcgan.Discriminator(32, 1, 4, norm="none", spectral_norm=True)
    before = {name: value.clone() for name, value in model.state_dict().items() if "bias" not in name}
    model.apply(dcgan.weights_init)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_rejects_other_norms():
    with pytest.raises(ValueError, match="Discriminator: norm must be batch, none, layer, got 'instance'"):
        dcgan.Discriminator(norm="instance")
