"""CycleGAN: each half of a pair goes through the network that is meant for it, and comes back to its own place."""

import pytest
import torch
from torch import nn

from fastgan.models import Setup, cyclegan

SETUP = Setup(image_size=32, channels=3, features=4)
PAIRS = torch.rand(2, 6, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
A, B = PAIRS[:, :3], PAIRS[:, 3:]


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def marked(a_to_b, b_to_a):
    """A generator whose two directions multiply, so that one sees which was taken."""
    generator = cyclegan.Generator(3, 4)
    generator.a_to_b, generator.b_to_a = Times(a_to_b), Times(b_to_a)
    return generator


def losses(generator, **options):
    recipe = cyclegan.CycleGAN(SETUP, **options)
    batch = recipe.batch(PAIRS, None, torch.Generator())
    return recipe.generator_loss(generator, batch, generator(*batch.inputs))


def test_generator_gives_what_stands_for_a_first():
    b_as_a, a_as_b = marked(2, 3)(PAIRS).chunk(2, dim=1)
    assert torch.equal(b_as_a, B * 3)
    assert torch.equal(a_as_b, A * 2)


def test_each_discriminator_sees_its_own_set():
    torch.manual_seed(0)
    model = cyclegan.Discriminator(3, 4)
    logits = model(PAIRS)
    assert logits.shape == (2, 2, 7, 7)
    assert torch.equal(logits[:, :1], model.d_a(A))
    assert torch.equal(logits[:, 1:], model.d_b(B))


def test_a_logit_looks_at_22_pixels():
    model = cyclegan.Discriminator(3, 4, norm="none").d_a
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    model(image)[0, 0, 3, 3].backward()
    seen = image.grad[0].abs().sum(0)
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 22


@pytest.mark.parametrize(("norm", "layer"), [("batch", nn.BatchNorm2d), ("none", None), ("layer", nn.GroupNorm)])
def test_norm_of_the_discriminator(norm, layer):
    model = cyclegan.Discriminator(3, 4, norm=norm).d_b
    between = [] if layer is None else [layer]
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d, *between, nn.LeakyReLU, nn.Conv2d]
    assert (model[2].bias is not None) == (layer is None)


def test_residual_blocks_may_add_and_subtract():
    torch.manual_seed(0)
    block = cyclegan.Generator(3, 4).a_to_b[9]
    x = torch.randn(1, 16, 8, 8)
    difference = block(x) - x
    assert difference.max() > 0
    assert difference.min() < 0


def test_cycle_comes_back_to_the_same_place():
    assert losses(marked(4, 0.25))["cycle"].item() == pytest.approx(0, abs=1e-6)
    assert losses(marked(2, 1), cycle_weight=5.0)["cycle"].item() == pytest.approx(5 * PAIRS.abs().mean().item())


def test_identity_is_asked_for_and_takes_the_target_set():
    assert losses(marked(2, 3)).keys() == {"cycle"}
    # a_to_b leaves B alone, b_to_a doubles A
    identity = losses(marked(1, 2), identity_weight=5.0)["identity"].item()
    assert identity == pytest.approx(5 * A.abs().mean().item() / 2)


def test_frames_are_those_of_a_and_then_those_of_b():
    frames = cyclegan.CycleGAN(SETUP).frames(PAIRS)
    assert torch.equal(frames[:2], A)
    assert torch.equal(frames[2:], B)


def test_picture_has_each_image_beside_what_was_made_of_it():
    columns = cyclegan.CycleGAN(SETUP).picture((PAIRS,), marked(2, 3)(PAIRS)).chunk(4, dim=3)
    for column, expected in zip(columns, (A, A * 2, B, B * 3), strict=True):
        assert torch.equal(column, expected)


@pytest.mark.parametrize("option", ["cycle_weight", "identity_weight"])
def test_rejects_other_weights(option):
    with pytest.raises(ValueError, match=f"^{option} must be at least 0 and finite for model cyclegan, got -1$"):
        cyclegan.CycleGAN(SETUP, **{option: -1})


def test_rejects_other_norms():
    with pytest.raises(ValueError, match=r"^Discriminator: norm must be batch, none, layer, got 'instance'$"):
        cyclegan.Discriminator(norm="instance")


@pytest.mark.parametrize("norm", ["batch", "none", "layer"])
def test_spectral_norm_is_in_every_layer(norm):
    model = cyclegan.Discriminator(3, 4, norm, spectral_norm=True)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 6
    assert all(nn.utils.parametrize.is_parametrized(layer, "weight") for layer in convolutions)
