"""What holds for every pair of networks: shapes, gradients, conversion, copies, states, random numbers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import fastgan
from fastgan.models import MODELS, Setup

CASES = {
    "mlp": ("mlp", 28, {}, {"norm": "none"}),
    "mlp-spectral": ("mlp", 32, {}, {"norm": "none", "spectral_norm": True, "channels": 3}),
    "dcgan": ("dcgan", 32, {}, {}),
    "dcgan-keras": ("dcgan-keras", 28, {}, {"norm": "none"}),
    "dcgan-keras-act-norm": ("dcgan-keras", 32, {"order": "conv-act-norm"}, {"channels": 3}),
    "dcgan-keras-spectral": ("dcgan-keras", 28, {}, {"norm": "none", "spectral_norm": True}),
    "cgan": ("cgan", 32, {}, {"channels": 3}),
    "cgan-projection": ("cgan", 32, {"conditioning": "projection"}, {"norm": "layer"}),
    "cgan-projection-spectral": ("cgan", 64, {"conditioning": "projection"}, {"norm": "none", "spectral_norm": True}),
    "infogan": ("infogan", 32, {}, {"channels": 3}),
    "infogan-categories": ("infogan", 64, {"categories": 3, "continuous": 0}, {"norm": "none"}),
    "progressive": ("progressive", 16, {}, {"channels": 3}),
    "progressive-plain": ("progressive", 32, {"pixel_norm": True, "minibatch_stddev": False}, {"norm": "none"}),
    "progressive-spectral": ("progressive", 8, {}, {"norm": "none", "spectral_norm": True}),
}
N, LAST_STEP = 4, 10**6


class Game:
    """A recipe with its networks, in training, and one batch, all of the same seed and in float64."""

    def __init__(self, case, convert=False):
        name, size, options, setup = CASES[case]
        torch.manual_seed(0)
        self.recipe = MODELS[name](
            Setup(**{"image_size": size, "channels": 1, "classes": 5, "latent_dim": 6, "features": 4, **setup}),
            **options,
        )
        self.generator, self.discriminator = self.recipe.generator().double(), self.recipe.discriminator().double()
        self.recipe.advance(self.generator, self.discriminator, LAST_STEP)
        if convert:
            fastgan.convert(self.generator)
            fastgan.convert(self.discriminator)
        self.images, self.labels = torch.rand(N, self.recipe.setup.channels, size, size) * 2 - 1, torch.arange(N)
        self.batch = self.recipe.batch(self.images, self.labels, torch.Generator().manual_seed(1))

    def play(self):
        """Return the generated images, the logits, and the generator's loss after its backward pass."""
        torch.manual_seed(2)
        fake = self.generator(*map(as_double, self.batch.inputs))
        logits = self.discriminator(fake, *self.batch.given)
        losses = self.recipe.generator_loss(
            self.generator, self.batch._replace(inputs=tuple(map(as_double, self.batch.inputs))), fake
        )
        loss = nn.functional.softplus(-logits).mean() + sum(losses.values())
        loss.backward()
        return fake, logits, loss

    def parameters(self):
        for prefix, model in (("generator", self.generator), ("discriminator", self.discriminator)):
            for name, parameter in model.named_parameters():
                yield f"{prefix}.{name}", parameter


def as_double(value):
    return value.double() if value.is_floating_point() else value


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def test_shapes_and_range(case):
    game = Game(case)
    fake, logits, _ = game.play()
    assert fake.shape == game.batch.real.shape == game.images.shape
    assert fake.abs().max() <= 1
    assert fake.std() > 0
    assert logits.shape == (N,)


def test_gradient_reaches_every_parameter(case):
    game = Game(case)
    game.play()
    # at the last stage a growing network no longer uses the image layers of the others
    used = {name for name, _ in game.parameters() if case[:5] != "progr" or not unused(name, game)}
    reached = {name for name, parameter in game.parameters() if parameter.grad is not None and parameter.grad.any()}
    assert reached == used


def unused(name, game):
    last = len(game.generator.widths) - 1
    return any(f".{layer}." in name and f".{layer}.{last}." not in name for layer in ("to_image", "from_image"))


def test_convert_changes_no_result(case):
    plain, fused = Game(case), Game(case, convert=True)
    for got, expected in zip(fused.play(), plain.play(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert any(" yes " in line for line in fastgan.explain(fused.generator).splitlines())
    for (name, got), (_, expected) in zip(fused.parameters(), plain.parameters(), strict=True):
        if expected.grad is None:
            assert got.grad is None, name
        else:
            torch.testing.assert_close(got.grad, expected.grad, rtol=1e-8, atol=1e-9, msg=name)


def test_spectral_norm_is_in_every_layer_of_the_discriminator(case):
    model, wanted = Game(case).discriminator, CASES[case][3].get("spectral_norm", False)
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding))]
    assert {parametrize.is_parametrized(layer, "weight") for layer in layers} == {wanted}


@torch.no_grad()
def test_copies_and_states_carry_all(case):
    game = Game(case)
    other = copy.deepcopy(game)
    fresh = Game(case)
    for name in ("generator", "discriminator"):
        model = getattr(fresh, name)
        for value in [*model.parameters(), *model.buffers()]:
            value.zero_()
        model.load_state_dict(getattr(game, name).state_dict())
    images = [play_without_gradient(each) for each in (game, other, fresh)]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def play_without_gradient(game):
    torch.manual_seed(2)
    return game.discriminator(game.generator(*map(as_double, game.batch.inputs)), *game.batch.given)


def test_random_numbers_come_from_the_generator_given(case):
    game = Game(case)

    def drawn(seed):
        torch.seed()
        random = torch.Generator().manual_seed(seed)
        batch = game.recipe.batch(game.images, game.labels, random)
        return [*batch.inputs, *game.recipe.samples(7, game.images, game.labels, random)]

    first, again, other = drawn(3), drawn(3), drawn(4)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


def test_samples_make_images(case):
    game = Game(case)
    inputs = game.recipe.samples(7, game.images, game.labels, torch.Generator().manual_seed(0), truncation=0.5)
    assert inputs[0].abs().max() <= 0.5
    assert game.generator(*map(as_double, inputs)).shape == (7, *game.images.shape[1:])


def test_every_setting_of_the_class_is_refused_with_a_sentence(case):
    name, size, *_ = CASES[case]
    with pytest.raises(ValueError, match=f"image_size must be .* for model {name}, got 48"):
        MODELS[name](Setup(image_size=48, norm="none", classes=2))
    with pytest.raises(ValueError, match=f"norm must be .* for model {name}, got instance"):
        MODELS[name](Setup(image_size=size, norm="instance", classes=2))
