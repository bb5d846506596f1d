"""Batches on the device: their pixels, layout, labels, flips and crops."""

import pytest
import torch

from fastgan.train import BadInput
from fastgan.train.batches import Batches
from fastgan.train.data import ImageSet, normalise

CPU = torch.device("cpu")
INDICES = torch.tensor([3, 0, 3, 7])


def data(*shape, labels=None):
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).byte()
    return ImageSet(images, torch.arange(len(images)), labels=labels)


SHAPES = [(9, 1, 8, 8), (9, 3, 8, 8), (9, 1, 4, 8, 8), (9, 3, 4, 8, 8)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def last(images):
    return torch.channels_last if images.dim() == 4 else torch.channels_last_3d


@shapes
def test_batch_is_normalised_and_channels_last(shape):
    images = data(*shape)
    batch = Batches(images, CPU).batch(INDICES)
    assert torch.equal(batch, normalise(images.images[INDICES]))
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=last(batch))


def test_strides_of_grey_images_are_those_of_any_new_tensor():
    assert Batches(data(*SHAPES[0]), CPU).batch(INDICES).stride() == (64, 64, 8, 1)


def test_labels_go_with_the_images():
    assert Batches(data(9, 1, 8, 8, labels=torch.arange(9) * 2), CPU).labels(INDICES).tolist() == [6, 0, 6, 14]
    assert Batches(data(9, 1, 8, 8), CPU).labels(INDICES) is None


@shapes
def test_flips_some_images_whole(shape):
    images = data(*shape)
    feed = Batches(images, CPU, flip=True, random=torch.Generator().manual_seed(0))
    indices = torch.arange(9).repeat(20)
    batch, straight = feed.batch(indices), normalise(images.images[indices])
    kept = (batch == straight).flatten(1).all(1)
    mirrored = (batch == straight.flip(-1)).flatten(1).all(1)
    assert torch.equal(kept, ~mirrored)
    assert 0.35 < kept.float().mean() < 0.65
    assert batch.is_contiguous(memory_format=last(batch))


@shapes
def test_crops_are_windows_of_the_reflected_image(shape):
    images = data(*shape)
    feed = Batches(images, CPU, crop=2, random=torch.Generator().manual_seed(0))
    batch = feed.batch(torch.full((300,), 5))
    whole = normalise(images.images[5:6])
    single = whole.squeeze(0).flatten(0, -3).unsqueeze(0)
    padded = torch.nn.functional.pad(single, (2, 2, 2, 2), mode="reflect")
    windows = {(y, x): padded[..., y : y + 8, x : x + 8].reshape(whole.shape) for y in range(5) for x in range(5)}
    seen = [place for image in batch.split(1) for place, window in windows.items() if torch.equal(image, window)]
    assert len(seen) == 300
    assert set(seen) == set(windows)


def test_the_same_random_numbers_give_the_same_batches():
    def batches(seed):
        feed = Batches(data(9, 1, 8, 8), CPU, flip=True, crop=3, random=torch.Generator().manual_seed(seed))
        return torch.stack([feed.batch(INDICES) for _ in range(3)])

    assert torch.equal(batches(0), batches(0))
    assert not torch.equal(batches(0), batches(1))
    assert not torch.equal(batches(0)[0], batches(0)[1])


def test_plain_batches_draw_nothing():
    random = torch.Generator().manual_seed(0)
    before = random.get_state()
    Batches(data(9, 1, 8, 8), CPU, random=random).batch(INDICES)
    assert torch.equal(random.get_state(), before)


@pytest.mark.parametrize("crop", [-1, 8])
def test_crop_out_of_range(crop):
    with pytest.raises(BadInput, match=f"crop must be at least 0 and below the image's side, 8, got {crop}"):
        Batches(data(9, 1, 8, 8), CPU, crop=crop, random=torch.Generator())


@pytest.mark.gpu
@pytest.mark.parametrize("budget", [0.0, 0.5])
@pytest.mark.parametrize("varied", [{}, {"flip": True, "crop": 2}])
@shapes
def test_gpu_gives_what_the_cpu_gives(shape, varied, budget):
    images = data(*shape, labels=torch.arange(shape[0]))
    feeds = [
        Batches(images, torch.device(name), random=torch.Generator().manual_seed(0), budget=budget, **varied)
        for name in ("cpu", "cuda")
    ]
    assert feeds[1].held == (budget > 0)
    for _ in range(3):
        expected, batch = (feed.batch(INDICES) for feed in feeds)
        assert batch.device.type == "cuda"
        torch.testing.assert_close(batch.cpu(), expected, rtol=0, atol=2e-7)
        assert batch.stride() == expected.stride()
    assert feeds[1].labels(INDICES).tolist() == INDICES.tolist()
