"""SRGAN: it enlarges by its scale, and its picture shows from what."""

import pytest
import torch

from fastgan.models import Setup, srgan

SETUP = Setup(image_size=32, channels=3, features=4)
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("scale", "side"), [(2, 16), (4, 8)])
def test_the_input_is_smaller_by_the_scale(scale, side):
    recipe = srgan.SRGAN(SETUP, scale=scale)
    (small,) = recipe.batch(IMAGES, None, torch.Generator()).inputs
    assert small.shape == (2, 3, side, side)
    assert small[1, 2, 0, 1].item() == pytest.approx(IMAGES[1, 2, :scale, scale : 2 * scale].mean().item(), abs=1e-6)
    assert recipe.generator()(small).shape == IMAGES.shape


def test_any_size_can_be_enlarged():
    assert srgan.Generator(1, features=4, scale=4)(torch.zeros(1, 1, 5, 9)).shape == (1, 1, 20, 36)


def test_picture_is_the_input_and_beside_it_the_result():
    recipe = srgan.SRGAN(SETUP, scale=4)
    (small,) = recipe.samples(2, IMAGES, None, torch.Generator())
    left, right = recipe.picture((small,), IMAGES).chunk(2, dim=3)
    assert torch.equal(right, IMAGES)
    assert torch.equal(left[:, :, ::4, ::4], small)
    assert torch.equal(left[:, :, 3::4, 3::4], small)


def test_content_loss_is_the_weighted_mean_difference():
    recipe = srgan.SRGAN(SETUP, content_weight=3.0)
    batch = recipe.batch(IMAGES, None, torch.Generator())
    fake = IMAGES.clone()
    fake[0] += 0.5
    assert recipe.generator_loss(None, batch, fake)["content"].item() == pytest.approx(3 * 0.5 / 2, rel=1e-5)


@pytest.mark.parametrize("scale", [1, 3, 8])
def test_rejects_other_scales(scale):
    with pytest.raises(ValueError, match=f"^scale must be 2 or 4 for model srgan, got {scale}$"):
        srgan.SRGAN(SETUP, scale=scale)
    with pytest.raises(ValueError, match=f"^Generator: scale must be 2 or 4, got {scale}$"):
        srgan.Generator(scale=scale)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_rejects_other_weights(weight):
    with pytest.raises(
        ValueError, match=f"^content_weight must be at least 0 and finite for model srgan, got {weight}$"
    ):
        srgan.SRGAN(SETUP, content_weight=weight)
