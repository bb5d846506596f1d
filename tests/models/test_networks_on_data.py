"""What the trainer counts on in models of images and clips: shapes, gradients, random numbers, and conversion."""

import copy

import pytest
import torch
from torch import nn

import fastgan
from fastgan.models import MODELS, Batch, Setup

COUNT = 4
EVERY = pytest.mark.parametrize("name", ["srgan", "inpaint", "cyclegan", "videogan"])


def recipe_of(name, **settings):
    cls = MODELS[name]
    size = 32 if 32 in cls.image_sizes else cls.image_sizes[0]
    small = {"image_size": size, "channels": 1, "classes": 10, "latent_dim": 7, "features": 4, "norm": cls.norms[0]}
    return cls(Setup(**{**small, **settings}))


def data_of(recipe, count=COUNT):
    size = recipe.setup.image_size
    shape = [2 if recipe.needs_second_set else 1, size, size]
    if recipe.clip_length:
        shape.insert(1, recipe.clip_length)
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return images, torch.arange(count) % 10


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def parts_of(recipe):
    torch.manual_seed(0)
    return recipe.generator(), recipe.discriminator(), recipe.batch(*data_of(recipe), draw())


def in_double(batch):
    widen = [tuple(t.double() if t.is_floating_point() else t for t in part) for part in batch[1:]]
    return Batch(batch.real.double(), *widen)


def play(recipe, generator, discriminator, batch):
    """Everything that a generator step computes; gradients included."""
    torch.manual_seed(1)
    fake = generator(*batch.inputs)
    logits = discriminator(fake, *batch.given)
    losses = recipe.generator_loss(generator, batch, fake)
    parameters = [p for model in (generator, discriminator) for p in model.parameters()]
    total = logits.square().mean() + sum(losses.values())
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return [fake, logits, *losses.values(), *(gradient for gradient in gradients if gradient is not None)]


@EVERY
def test_a_batch_and_what_becomes_of_it(name):
    recipe = recipe_of(name)
    generator, discriminator, batch = parts_of(recipe)
    images, _ = data_of(recipe)
    assert torch.equal(batch.real, images)
    fake = generator(*batch.inputs)
    assert fake.shape == batch.real.shape
    for parameter in generator.parameters():
        parameter.data.mul_(100)
    assert generator(*batch.inputs).abs().max() <= 1
    assert len(discriminator(batch.real, *batch.given)) == COUNT
    assert {len(part) for part in (*batch.inputs, *batch.given)} == {COUNT}
    frames = recipe.frames(fake)
    assert len(frames) >= COUNT
    assert frames.shape[1:] == (1, recipe.setup.image_size, recipe.setup.image_size)


@EVERY
@pytest.mark.parametrize("count", [1, 3])
def test_samples_are_as_many_as_asked_for(name, count):
    recipe = recipe_of(name)
    generator = parts_of(recipe)[0].eval()
    inputs = recipe.samples(count, *data_of(recipe), draw())
    assert {len(part) for part in inputs} == {count}
    picture = recipe.picture(inputs, generator(*inputs))
    assert picture.dim() == 4
    assert picture.shape[:2] == (count, 1)


@EVERY
def test_every_loss_is_a_scalar_that_reaches_the_generator(name):
    recipe = recipe_of(name)
    generator, _, batch = parts_of(recipe)
    for loss in recipe.generator_loss(generator, batch, generator(*batch.inputs)).values():
        assert loss.dim() == 0
        gradients = torch.autograd.grad(loss, list(generator.parameters()), retain_graph=True, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in gradients)


@EVERY
def test_every_parameter_gets_a_gradient(name):
    recipe = recipe_of(name)
    generator, discriminator, batch = parts_of(recipe)
    fake = generator(*batch.inputs)
    losses = recipe.generator_loss(generator, batch, fake)
    (discriminator(fake, *batch.given).square().mean() + sum(losses.values())).backward()
    for model in (generator, discriminator):
        without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []


@EVERY
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_converted_is_the_same(name, training):
    recipe = recipe_of(name)
    generator, discriminator, batch = parts_of(recipe)
    batch = in_double(batch)
    stock = [model.double().train(training) for model in (generator, discriminator)]
    converted = [fastgan.convert(copy.deepcopy(model)) for model in stock]
    for ours, theirs in zip(play(recipe, *converted, batch), play(recipe, *stock, batch), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * theirs.abs().max().item())


@EVERY
def test_random_numbers_come_from_where_they_should(name):
    recipe = recipe_of(name)
    images, labels = data_of(recipe)
    kept, state = images.clone(), torch.get_rng_state()
    batches = [recipe.batch(images, labels, draw()) for _ in range(2)]
    samples = [recipe.samples(COUNT, images, labels, draw()) for _ in range(2)]
    for left, right in [(*batches[0].inputs, *samples[0]), (*batches[1].inputs, *samples[1])], [batches[0].given] * 2:
        assert all(map(torch.equal, left, right))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(images, kept)


@EVERY
def test_models_are_seeded_and_their_state_is_all_of_them(name):
    recipe = recipe_of(name)
    first, again = parts_of(recipe), parts_of(recipe)
    torch.manual_seed(1)
    others = recipe.generator(), recipe.discriminator()
    for model, same, other in zip(first[:2], again[:2], others, strict=True):
        state = model.state_dict()
        assert all(torch.equal(value, same.state_dict()[key]) for key, value in state.items())
        assert not all(torch.equal(value, other.state_dict()[key]) for key, value in state.items())
        other.load_state_dict(state)
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in state.items())


@EVERY
def test_networks_are_stock(name):
    own = {cls for model in parts_of(recipe_of(name))[:2] for cls in map(type, model.modules())}
    theirs = {cls for cls in own if cls.__module__.startswith("torch.nn.")}
    assert {cls.__module__.split(".models.")[0] for cls in own - theirs} == {"fastgan"}
    assert theirs & {nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear}


@EVERY
def test_rejects_other_sizes(name):
    with pytest.raises(ValueError, match=rf"image_size must be .* for model {name}, got 48"):
        recipe_of(name, image_size=48)
