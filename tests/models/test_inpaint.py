"""Inpainting: holes of the right size at any place, and nothing changed outside of them."""

import pytest
import torch

from fastgan.models import Setup, inpaint

SETUP = Setup(image_size=32, channels=3, features=4)


def images_of(count=3, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("size", [4, 5, 32, 64])
def test_holes_are_rectangles_within_bounds(size):
    masked, mask = inpaint.cut_holes(images_of(500, size), torch.Generator().manual_seed(1))
    assert mask.shape == (500, 1, size, size)
    assert masked.dtype == mask.dtype == torch.float32
    found = {"first": set(), "last": set(), "side": set()}
    square = 0
    for hole in mask[:, 0]:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert hole.sum() == len(rows) * len(columns)
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        square += torch.equal(rows, columns)
        for side in (rows, columns):
            found["first"].add(side[0].item())
            found["last"].add(side[-1].item())
            found["side"].add(len(side))
    assert min(found["first"]) == 0
    assert max(found["last"]) == size - 1
    assert square < 250
    assert found["side"] == set(range(size // 4, size // 2 + 1))


def test_images_are_grey_in_the_hole_and_whole_elsewhere():
    images = images_of()
    masked, mask = inpaint.cut_holes(images, torch.Generator().manual_seed(0))
    hole = mask.bool().expand_as(images)
    assert not masked[hole].any()
    assert torch.equal(masked[~hole], images[~hole])


def test_holes_differ_between_images_and_draws():
    images, random = images_of(), torch.Generator().manual_seed(0)
    (_, first), (_, second) = (inpaint.cut_holes(images, random) for _ in range(2))
    assert len({tuple(mask.flatten().tolist()) for mask in [*first, *second]}) == 6


def test_the_generator_changes_the_hole_only():
    torch.manual_seed(0)
    masked, mask = inpaint.cut_holes(images_of(), torch.Generator().manual_seed(0))
    completed = inpaint.Inpaint(SETUP).generator()(masked, mask)
    hole = mask.bool().expand_as(masked)
    assert torch.equal(completed[~hole], masked[~hole])
    assert completed[hole].all()


def test_what_is_in_the_hole_is_replaced():
    torch.manual_seed(0)
    images, mask = torch.ones(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    assert inpaint.Inpaint(SETUP).generator()(images, mask).max() < 1


def test_the_generator_is_told_where_the_hole_is():
    torch.manual_seed(0)
    generator = inpaint.Generator(32, features=4).eval()
    masked = torch.zeros(1, 3, 32, 32)
    masks = torch.zeros(2, 1, 32, 32)
    masks[:, :, 8:16, 8:16] = 1
    masks[1, :, 16:24] = 1
    first, second = (generator(masked, mask[None])[..., 8:16, 8:16] for mask in masks)
    assert not torch.equal(first, second)


def test_reconstruction_is_the_weighted_mean_difference_in_the_hole():
    recipe, images = inpaint.Inpaint(SETUP, reconstruction_weight=4.0), images_of()
    batch = recipe.batch(images, None, torch.Generator().manual_seed(0))
    loss = recipe.generator_loss(None, batch, images + 0.25 * batch.inputs[1])["reconstruction"]
    assert loss.item() == pytest.approx(4 * 0.25, rel=1e-5)


def test_picture_is_the_hole_and_beside_it_the_completed_image():
    recipe, images = inpaint.Inpaint(SETUP), images_of()
    inputs = recipe.samples(2, images, None, torch.Generator().manual_seed(0))
    left, right = recipe.picture(inputs, images[:2]).chunk(2, dim=3)
    assert torch.equal(left, inputs[0])
    assert torch.equal(right, images[:2])


def test_rejects_other_weights():
    sentence = "^reconstruction_weight must be at least 0 and finite for model inpaint, got -1$"
    with pytest.raises(ValueError, match=sentence):
        inpaint.Inpaint(SETUP, reconstruction_weight=-1)
