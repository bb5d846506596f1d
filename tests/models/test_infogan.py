"""InfoGAN: codes matter, Q's loss is the bound of the paper, and the table of samples shows one code at a time."""

import math

import pytest
import torch

from fastgan.models import Setup, infogan

SETUP = Setup(32, 1, latent_dim=6, features=4)
IMAGES = torch.empty(200, 1, 32, 32)


def samples(count, **options):
    return infogan.InfoGAN(SETUP, **options).samples(count, IMAGES, None, torch.Generator().manual_seed(0))


def test_every_code_changes_the_image():
    torch.manual_seed(0)
    model, latent = infogan.InfoGAN(SETUP).generator().eval(), torch.randn(1, 6, 1, 1).expand(4, 6, 1, 1)
    codes = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    images = model(latent, torch.tensor([3, 4, 3, 3]), codes)
    assert all(not torch.allclose(images[0], other) for other in images[1:])


def test_information_is_the_formula():
    torch.manual_seed(0)
    model = infogan.InfoGAN(SETUP, categories=3).generator().eval()
    images, category, codes = torch.randn(5, 1, 32, 32), torch.tensor([0, 1, 2, 2, 1]), torch.rand(5, 2)
    expected = 0.0
    for guess, index, code in zip(model.guess(images), category, codes, strict=True):
        expected -= (guess[index].exp() / guess[:3].exp().sum()).log().item()
        # minus the logarithm of a normal density, without its constant
        expected -= (torch.distributions.Normal(guess[3:], 1).log_prob(code) + math.log(2 * math.pi) / 2).sum().item()
    assert model.information(images, category, codes).item() == pytest.approx(expected / 5, rel=1e-5)


def test_generator_and_guesses_learn_the_codes():
    torch.manual_seed(0)
    recipe, random = infogan.InfoGAN(SETUP, info_weight=0.5), torch.Generator().manual_seed(0)
    model = recipe.generator()
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=2e-3), []
    for _ in range(60):
        batch = recipe.batch(IMAGES[:32], None, random)
        loss = recipe.generator_loss(model, batch, model(*batch.inputs))
        assert list(loss) == ["info"]
        optimizer.zero_grad()
        loss["info"].backward()
        optimizer.step()
        losses.append(loss["info"].item())
    # at chance: half of log(10) + 1/3
    assert losses[0] > 1.2
    assert losses[-1] < 0.4


def test_batch_draws_codes_in_their_ranges():
    images = torch.empty(500, 1, 32, 32)
    batch = infogan.InfoGAN(SETUP, categories=4, continuous=3).batch(images, None, torch.Generator().manual_seed(0))
    latent, category, codes = batch.inputs
    assert latent.shape == (500, 6, 1, 1)
    assert category.bincount(minlength=4).min() > 90
    assert codes.shape == (500, 3)
    assert codes.min() < -0.98 and codes.max() > 0.98 and codes.abs().max() <= 1
    assert not batch.given


def test_table_of_samples():
    latent, category, codes = samples(16, categories=4)
    assert category.view(4, 4).tolist() == [[0, 1, 2, 3]] * 4
    torch.testing.assert_close(codes[:, 0].view(4, 4)[:, 0], torch.linspace(-1, 1, 4))
    for row in range(4):
        assert codes[4 * row : 4 * row + 4].unique(dim=0).shape[0] == 1
        assert latent[4 * row : 4 * row + 4, 0].unique().numel() == 1
    assert latent[::4, 0].unique().numel() == codes[::4, 1].unique().numel() == 4


def test_many_samples_are_random():
    latent, category, codes = samples(17, categories=4)
    assert latent[:, 0].unique().numel() == codes[:, 0].unique().numel() == 17
    assert category.tolist() != [index % 4 for index in range(17)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"categories": 1}, "categories must be at least 2, got 1"),
        ({"continuous": -1}, "continuous must be at least 0, got -1"),
        ({"info_weight": -0.5}, "info_weight must be at least 0 and finite for model infogan, got -0.5"),
        ({"info_weight": math.inf}, "info_weight must be at least 0 and finite for model infogan, got inf"),
    ],
)
def test_rejects_other_options(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        infogan.InfoGAN(SETUP, **options)
