"""Progressive growing: the stages, what they see and make, and that the state tells the stage."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from fastgan.models import Setup, progressive

SETUP = Setup(32, 1, latent_dim=6, features=4)
EVERY = 10


def networks(step=0, **options):
    torch.manual_seed(0)
    recipe = progressive.Progressive(SETUP, grow_every=EVERY, **options)
    generator, discriminator = recipe.generator().eval(), recipe.discriminator().eval()
    recipe.advance(generator, discriminator, step)
    return generator, discriminator


@pytest.mark.parametrize(
    ("step", "stage", "share"),
    [(0, 0, 1), (9, 0, 1), (10, 1, 0.2), (13, 1, 0.8), (14, 1, 1), (19, 1, 1), (20, 2, 0.2), (39, 3, 1), (10**6, 3, 1)],
)
def test_stages(step, stage, share):
    for model in networks(step):
        assert model.stage() == (stage, pytest.approx(share))


@pytest.mark.parametrize("stage", range(4))
def test_images_have_the_resolution_of_the_stage(stage):
    generator, discriminator = networks(stage * EVERY + EVERY // 2)
    side = 4 << stage
    images = generator(torch.randn(2, 6, 1, 1))
    assert images.shape == (2, 1, 32, 32)
    small = images[:, :, :: 32 // side, :: 32 // side]
    assert torch.equal(interpolate(small, (32, 32)), images)
    assert side == 4 or not torch.equal(interpolate(images[:, :, :: 64 // side, :: 64 // side], (32, 32)), images)
    sharp = torch.randn(2, 1, 32, 32)
    blurred = interpolate(avg_pool2d(sharp, 32 // side), (32, 32))
    torch.testing.assert_close(discriminator(sharp), discriminator(blurred))
    if side > 4:
        assert not torch.allclose(
            discriminator(sharp), discriminator(interpolate(avg_pool2d(sharp, 64 // side), (32, 32)))
        )


@pytest.mark.parametrize("which", [0, 1])
def test_new_layers_fade_in(which):
    inputs = torch.randn(2, 6, 1, 1) if which == 0 else torch.randn(2, 1, 32, 32)
    before, started, half, full = (networks(step)[which](inputs) for step in (9, 10, 12, 14))
    gaps = [(each - before).abs().mean().item() for each in (started, half, full)]
    assert 0 < gaps[0] < gaps[1] < gaps[2]


def test_fading_image_is_a_mixture():
    latent = torch.randn(2, 6, 1, 1)
    before, started, full = (networks(step)[0](latent) for step in (9, 10, 14))
    torch.testing.assert_close(started, 0.8 * before + 0.2 * full)


def test_state_tells_the_stage():
    generator, discriminator = networks(25)
    for model, fresh in zip((generator, discriminator), networks(0), strict=True):
        fresh.load_state_dict(model.state_dict())
        assert fresh.stage() == model.stage() == (2, 1.0)


def test_only_layers_of_the_stage_have_gradients():
    generator, discriminator = networks(EVERY)
    discriminator(generator(torch.randn(2, 6, 1, 1))).sum().backward()
    for model, name in ((generator, "to_image"), (discriminator, "from_image")):
        used = [all(p.grad is not None for p in layer.parameters()) for layer in getattr(model, name)]
        assert used == [True, True, False, False]
        assert [all(p.grad is not None for p in block.parameters()) for block in model.blocks] == [True, False, False]


def test_pixel_norm():
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    y = progressive.PixelNorm()(x)
    torch.testing.assert_close(y.square().mean(1), torch.ones(2, 3, 3, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(y / x, (y / x)[:, :1].expand_as(x))


def test_minibatch_stddev():
    layer, x = progressive.MinibatchStddev(), torch.randn(5, 3, 4, 4, dtype=torch.float64)
    y = layer(x)
    assert torch.equal(y[:, :3], x)
    torch.testing.assert_close(y[:, 3], x.std(0, correction=0).mean().expand(5, 4, 4), rtol=1e-6, atol=0)
    same = x[:1].expand(5, -1, -1, -1).clone().requires_grad_()
    layer(same).sum().backward()
    assert same.grad.isfinite().all()


@pytest.mark.parametrize("mixed", [True, False])
def test_only_minibatch_stddev_mixes_samples(mixed):
    _, model = networks(minibatch_stddev=mixed)
    images = torch.randn(3, 1, 32, 32)
    assert torch.allclose(model(images)[:1], model(images[:1]), atol=1e-5) != mixed


def test_rejects_a_stage_too_short_to_fade():
    with pytest.raises(ValueError, match="grow_every must be at least 2, got 1"):
        progressive.Progressive(SETUP, grow_every=1)
