"""The GAN of clips: shapes at every size and length, and what is shown of a clip."""

import pytest
import torch
from torch import nn

from fastgan.models import Setup, videogan


@pytest.mark.parametrize("frames", [8, 16])
@pytest.mark.parametrize("image_size", [32, 64])
def test_shapes(image_size, frames):
    recipe = videogan.VideoGAN(Setup(image_size, 3, latent_dim=5, features=2), frames=frames)
    clips = recipe.generator()(torch.randn(2, 5, 1, 1))
    assert clips.shape == (2, 3, frames, image_size, image_size)
    assert clips.abs().max() <= 1
    assert recipe.discriminator()(clips).shape == (2,)


@pytest.mark.parametrize("frames", [0, 4, 12])
def test_rejects_other_lengths(frames):
    with pytest.raises(ValueError, match=f"^frames must be a multiple of 8 for model videogan, got {frames}$"):
        videogan.VideoGAN(Setup(32), frames=frames)
    for model in (videogan.Generator, videogan.Discriminator):
        with pytest.raises(ValueError, match=f"^{model.__name__}: frames must be a multiple of 8, got {frames}$"):
            model(frames=frames)


@pytest.mark.parametrize("model", [videogan.Generator, videogan.Discriminator])
def test_rejects_other_sizes(model):
    with pytest.raises(ValueError, match=f"^{model.__name__}: image_size must be 32 or 64, got 128$"):
        model(128)


def test_rejects_other_norms():
    with pytest.raises(ValueError, match=r"^Discriminator: norm must be batch, none, layer, got 'instance'$"):
        videogan.Discriminator(norm="instance")


@pytest.mark.parametrize(("norm", "layer"), [("batch", nn.BatchNorm3d), ("none", None), ("layer", nn.GroupNorm)])
def test_norm_of_the_discriminator(norm, layer):
    layers = list(videogan.Discriminator(32, 1, 4, norm=norm).main)
    between = [] if layer is None else [layer]
    expected = [nn.Conv3d, nn.LeakyReLU, *2 * [nn.Conv3d, *between, nn.LeakyReLU], nn.Conv3d]
    assert [type(layer) for layer in layers] == expected
    biases = [layer.bias is not None for layer in layers if isinstance(layer, nn.Conv3d)]
    assert biases == [True, layer is None, layer is None, True]


def test_spectral_norm_is_in_every_layer():
    torch.manual_seed(0)
    model = videogan.Discriminator(32, 1, 4, norm="none", spectral_norm=True).apply(videogan.weights_init)
    for _ in range(50):
        model(torch.randn(1, 1, 8, 32, 32))
    for layer in model.eval().main[::2]:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-3)


def test_frames_and_picture_keep_the_order_of_time():
    recipe = videogan.VideoGAN(Setup(32))
    clips = torch.arange(2 * 3 * 8.0).reshape(2, 3, 8, 1, 1).expand(2, 3, 8, 32, 32)
    frames, picture = recipe.frames(clips), recipe.picture((), clips)
    assert frames.shape == (16, 3, 32, 32)
    assert picture.shape == (2, 3, 32, 8 * 32)
    for time in range(8):
        assert torch.equal(frames[8 + time], clips[1, :, time])
        assert torch.equal(picture[1, :, :, time * 32 : (time + 1) * 32], clips[1, :, time])
