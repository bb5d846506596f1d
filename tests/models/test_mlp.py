"""The first GAN: fully connected layers and the option of its discriminator."""

import pytest
import torch
from torch import nn

from fastgan.models import Setup, mlp


def shapes(model):
    return [tuple(layer.weight.shape) for layer in model.main if isinstance(layer, nn.Linear)]


def test_layers():
    norms = [layer.num_features for layer in mlp.Generator(28, 3, 7, 16).main if isinstance(layer, nn.BatchNorm1d)]
    assert norms == [16, 16]
    assert shapes(mlp.Generator(28, 3, 7, 16)) == [(16, 7), (16, 16), (3 * 28 * 28, 16)]
    assert shapes(mlp.Discriminator(28, 3, 16)) == [(16, 3 * 28 * 28), (16, 16), (1, 16)]


def test_dropout_is_that_of_the_option():
    torch.manual_seed(0)
    recipe = mlp.MLP(Setup(28, 1, features=64, norm="none"), dropout=0.0)
    model, images = recipe.discriminator(), torch.randn(3, 1, 28, 28)
    assert torch.equal(model(images), model(images))
    dropping = mlp.MLP(recipe.setup, dropout=0.5).discriminator()
    assert not torch.equal(dropping(images), dropping(images))


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_rejects_other_dropouts(dropout):
    with pytest.raises(ValueError, match=f"dropout must be at least 0 and below 1, got {dropout}"):
        mlp.MLP(Setup(28, norm="none"), dropout=dropout)


def test_has_no_norm():
    with pytest.raises(ValueError, match="norm must be none for model mlp, got batch"):
        mlp.MLP(Setup(28))
