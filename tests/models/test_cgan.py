"""The conditional GAN: labels matter in both networks, and the grid shows each class in a column."""

import pytest
import torch

from fastgan.models import Setup, cgan

SETUP = Setup(32, 1, classes=4, latent_dim=6, features=4, norm="none")
RANDOM = torch.Generator().manual_seed(0)


def test_another_label_is_another_image():
    torch.manual_seed(0)
    model, latent = cgan.CGAN(SETUP).generator().eval(), torch.randn(1, 6, 1, 1).expand(4, 6, 1, 1)
    images = model(latent, torch.tensor([0, 1, 1, 2]))
    assert torch.equal(images[1], images[2])
    assert not torch.allclose(images[0], images[1])
    assert not torch.allclose(images[2], images[3])


@pytest.mark.parametrize("conditioning", cgan.CONDITIONINGS)
def test_another_label_is_another_logit(conditioning):
    torch.manual_seed(0)
    model = cgan.CGAN(SETUP, conditioning).discriminator()
    logits = model(torch.randn(1, 1, 32, 32).expand(4, -1, -1, -1), torch.tensor([0, 1, 1, 2]))
    assert logits[1] == logits[2]
    assert len(set(logits.tolist())) == 3


def test_projection_is_the_formula():
    torch.manual_seed(0)
    model = cgan.CGAN(SETUP, "projection").discriminator().double()
    images, labels = torch.randn(3, 1, 32, 32, dtype=torch.float64), torch.tensor([3, 0, 3])
    features = model.main(images).flatten(2).sum(2)
    expected = [
        row @ model.embedding.weight[label] + row @ model.linear.weight[0]
        for row, label in zip(features, labels, strict=True)
    ]
    torch.testing.assert_close(model(images, labels), torch.stack(expected) + model.linear.bias)


def test_batch_tells_both_networks_the_labels_of_the_data():
    images, labels = torch.randn(3, 1, 32, 32), torch.tensor([2, 0, 1])
    batch = cgan.CGAN(SETUP).batch(images, labels, RANDOM)
    assert batch.real is images
    assert torch.equal(batch.inputs[1], labels)
    assert torch.equal(batch.given[0], labels)
    assert batch.inputs[0].shape == (3, 6, 1, 1)


def test_samples_have_each_class_in_a_column():
    _, labels = cgan.CGAN(SETUP).samples(16, torch.empty(16, 1, 32, 32), torch.zeros(16), RANDOM)
    assert labels.view(4, 4).tolist() == [[0, 1, 2, 3]] * 4


def test_rejects_what_it_cannot_take():
    with pytest.raises(ValueError, match="conditioning must be concat or projection, got 'film'"):
        cgan.CGAN(SETUP, "film")
    with pytest.raises(ValueError, match="model cgan needs data with labels, these have none"):
        cgan.CGAN(Setup(32))
