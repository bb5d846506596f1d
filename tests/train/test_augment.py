"""Differentiable augmentation: what it does to images, that gradients of gradients pass, that it repeats."""

import pytest
import torch

from fastgan.train import BadInput
from fastgan.train.augment import POLICIES, Augment, instance_noise

EVERY = ",".join(POLICIES)
policies = pytest.mark.parametrize("policy", [*POLICIES, EVERY])
SHAPES = {"images": (2, 3, 8, 8), "clips": (2, 3, 2, 8, 8), "grey": (2, 1, 8, 8), "odd": (2, 3, 5, 7)}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(*shape, dtype=torch.float32):
    return torch.rand(shape, generator=seeded(1), dtype=dtype) * 2 - 1


@policies
@shapes
def test_differentiable_twice(policy, shape):
    x = images(*shape, dtype=torch.float64).requires_grad_()

    def squared(x):
        return Augment(policy, seeded())(x).square()

    assert torch.autograd.gradcheck(squared, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, x, fast_mode=True)


@policies
def test_input_stays_and_shape_dtype_and_layout_are_kept(policy):
    layouts = {4: [torch.contiguous_format, torch.channels_last], 5: [torch.contiguous_format, torch.channels_last_3d]}
    for shape in SHAPES.values():
        for layout in layouts[len(shape)]:
            for dtype in (torch.float32, torch.bfloat16):
                x = images(*shape).to(dtype=dtype, memory_format=layout)
                before = x.clone()
                y = Augment(policy, seeded())(x)
                assert torch.equal(x, before)
                assert (y.shape, y.dtype) == (x.shape, dtype)
                assert y.is_contiguous(memory_format=layout)
                assert not torch.equal(y, x)


@policies
def test_layouts_agree(policy):
    x = images(4, 3, 8, 8)
    expected = Augment(policy, seeded())(x)
    torch.testing.assert_close(Augment(policy, seeded())(x.to(memory_format=torch.channels_last)), expected)


@policies
def test_repeats_from_the_generator_and_differs_between_images(policy):
    x = images(1, 3, 16, 16).expand(8, -1, -1, -1)
    assert torch.equal(Augment(policy, seeded())(x), Augment(policy, seeded())(x))
    augment = Augment(policy, seeded())
    first, second = augment(x), augment(x)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


@policies
def test_frames_of_a_clip_change_alike(policy):
    still = images(4, 3, 1, 16, 16).expand(-1, -1, 5, -1, -1)
    y = Augment(policy, seeded())(still)
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y))


def test_translation_moves_by_an_eighth_at_most_and_fills_with_zeros():
    x = images(1, 1, 16, 16)
    y = Augment("translation", seeded())(x.expand(400, -1, -1, -1))
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    windows = {(i, j): padded[0, :, i : i + 16, j : j + 16] for i in range(5) for j in range(5)}
    seen = [place for image in y for place, window in windows.items() if torch.equal(image, window)]
    assert len(seen) == 400
    counts = torch.tensor([seen.count(place) for place in windows])
    # 16 each when all are as likely; 4 standard deviations
    assert counts.min() >= 3
    assert counts.max() <= 32


def test_cutout_is_a_square_of_half_the_side_with_its_centre_inside():
    holes = Augment("cutout", seeded())(torch.ones(2000, 1, 8, 8)) == 0
    rows, columns = holes.any(3).sum(2), holes.any(2).sum(2)
    assert torch.equal(holes.sum((1, 2, 3)), (rows * columns)[:, 0])
    assert (rows.min(), rows.max()) == (2, 4)
    assert (columns.min(), columns.max()) == (2, 4)
    # centres lie evenly on 0 to 8; each end puts half the hole outside
    share = holes.float().mean((0, 1))
    assert torch.allclose(share[4, 4], torch.tensor((4 / 9) ** 2), atol=0.05)
    assert torch.allclose(share, share.flip(0), atol=0.05)
    assert torch.allclose(share, share.flip(1), atol=0.05)


def test_color_changes_brightness_saturation_and_contrast():
    x = images(1, 3, 8, 8)
    y = Augment("color", seeded())(x.expand(4000, -1, -1, -1))
    brightness = (y - x).mean((1, 2, 3))
    assert brightness.abs().max() <= 0.5 + 1e-6
    assert brightness.max() - brightness.min() > 0.95
    grey = y.mean(1, keepdim=True)
    contrast = grey.std((1, 2, 3)) / x.mean(1, keepdim=True).std()
    assert 0.5 - 1e-4 < contrast.min() < 0.52
    assert 1.48 < contrast.max() < 1.5 + 1e-4
    saturation = (y - grey).flatten(1).norm(dim=1) / (x - x.mean(1, keepdim=True)).norm() / contrast
    assert saturation.min() < 0.02
    assert 1.98 < saturation.max() < 2 + 1e-4
    assert abs(saturation.mean() - 1) < 0.05


def test_no_policy_changes_nothing():
    x, generator = images(2, 1, 8, 8), seeded()
    before = generator.get_state()
    assert Augment("", generator)(x) is x
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("policy", ["colour", "color,", "color,flip"])
def test_unknown_policy(policy):
    with pytest.raises(BadInput, match="augment must be a comma list of color, translation, cutout, got"):
        Augment(policy, seeded())


def test_instance_noise():
    x = torch.zeros(64, 1, 16, 16)
    noisy = instance_noise(x, 0.3, seeded())
    assert abs(noisy.std() - 0.3) < 0.01
    assert not x.any()
    assert torch.equal(noisy, instance_noise(x, 0.3, seeded()))
    assert instance_noise(x, 0.0, seeded()) is x
    assert instance_noise(x.bfloat16(), 0.1, seeded()).dtype == torch.bfloat16


@pytest.mark.gpu
@policies
def test_gpu_gives_what_the_cpu_gives(policy):
    x = images(4, 3, 16, 16)
    torch.testing.assert_close(Augment(policy, seeded())(x.cuda()).cpu(), Augment(policy, seeded())(x))
    on_device = Augment(policy, torch.Generator("cuda").manual_seed(0))(x.cuda())
    assert on_device.device.type == "cuda"
    assert not torch.equal(on_device.cpu(), x)
