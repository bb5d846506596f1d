"""The classifier score: Inception's score with a small network that tells the classes of a labelled data set apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from fastgan.train.data import normalise
from fastgan.train.errors import BadInput
from fastgan.train.features import check_images
from fastgan.train.streams import seeded_cpu

_SIDE, _BATCH, _STEPS = 32, 64, 600


@dataclass(frozen=True)
class Classifier:
    """A network that has learnt the classes of a data set, on the CPU.

    Args:
        network: images (N, C, 32, 32) in [-1, 1] to logits (N, classes).
        classes: how many.
        accuracy: share of held-out images whose class it finds, 0 to 1.
    """

    network: nn.Module
    classes: int
    accuracy: float

    def score(self, images: Tensor) -> float:
        """exp(E KL(p(y|x) || p(y))): 1 when all images look alike to it, ``classes`` when each is surely of one class
        and all classes are equally frequent.

        Args:
            images: uint8 (N, C, H, W), C as in training, N >= 1.
        Source: Salimans et al. 2016, section 4, in one split.
        """
        log_given = _logits(self.network, images).double().log_softmax(1)
        given = log_given.exp()
        # an average may round to above 1, by which the logarithm of a lone class would be above 0
        log_all = given.mean(0).clamp(torch.finfo(given.dtype).tiny, 1).log()
        return (given * (log_given - log_all)).sum(1).mean().exp().item()


def fit_classifier(images: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor, seed: int) -> Classifier:
    """Train a small convolutional network for 600 batches of 64: seconds on two CPU cores, of any data set.

    The same seed gives the same network on one machine; torch's own random numbers stay as they are.

    Args:
        images, labels: to learn from; uint8 (N, 1 or 3, H, W), resized to 32 pixels, and int64 (N,) from 0.
        held_out, held_out_labels: likewise, to measure the accuracy on.
        seed: of initialisation and order, 0 to 2^64 - 1.
    Raises: BadInput when images and labels do not fit together.
    """
    for some, theirs in ((images, labels), (held_out, held_out_labels)):
        check_images(some)
        if theirs.shape != some.shape[:1]:
            raise BadInput(f"labels must be one an image, got {tuple(theirs.shape)} for {len(some)} images")
    classes = int(labels.max()) + 1
    with seeded_cpu(seed):
        network = _train(_build(images.shape[1], classes), images, labels)
    right = _logits(network, held_out).argmax(1) == held_out_labels
    return Classifier(network, classes, right.double().mean().item())


def _build(channels: int, classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width in ((channels, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(width_in, width, 5, 2, 2), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (_SIDE // 8) ** 2, classes))


def _train(network: nn.Sequential, images: Tensor, labels: Tensor) -> nn.Sequential:
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, _STEPS)
    for _ in range(_STEPS):
        batch = torch.randint(len(images), (_BATCH,))
        # moved a little, another way each batch, a few thousand images do not get learnt by heart
        moved = _pixels(images[batch]).roll(torch.randint(-2, 3, (2,)).tolist(), (2, 3))
        loss = cross_entropy(network(moved), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def _logits(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(_pixels(part)) for part in images.split(1000)])


def _pixels(images: Tensor) -> Tensor:
    return normalise(interpolate(images.float(), (_SIDE, _SIDE), mode="bilinear", antialias=True))
