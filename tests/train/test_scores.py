"""Distances between sets of images: each against a second way to compute it, or a case whose answer is known."""

import importlib.util

import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from fastgan.train import BadInput, features, scores
from fastgan.train.features import FeatureNetwork
from fastgan.train.scores import KidScore, frechet_distance, kid, precision_recall

needs_network = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None, reason="efficientnet_lite_pytorch is not installed"
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def mean_kernel(x, y):
    values = (x.double() @ y.double().T / x.shape[1] + 1) ** 3
    if x is y:
        return (values.sum() - values.trace()) / (len(x) * (len(x) - 1))
    return values.mean()


def test_kid_is_the_unbiased_estimate_on_seeded_halves():
    real, fake = normal(12, 5), normal(9, 5, seed=1) + 0.5
    generator, estimates = torch.Generator().manual_seed(7), []
    for _ in range(50):
        x = real[torch.randperm(12, generator=generator)[:4]]
        y = fake[torch.randperm(9, generator=generator)[:4]]
        estimates.append(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    wanted = torch.stack(estimates)
    assert kid(real, fake, 7) == pytest.approx((wanted.mean().item(), wanted.std(correction=0).item()), rel=1e-5)
    assert kid(real, fake, 8) != kid(real, fake, 7)


def test_kid_leaves_the_random_numbers_of_training_alone():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    kid(normal(8, 5), normal(8, 5), 0)
    assert torch.equal(torch.rand(4), wanted)


def test_kid_seeds_no_gpu(monkeypatch):
    def refuse(seed):
        pytest.fail("training goes on with the GPU's random numbers")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    kid(normal(8, 5), normal(8, 5), 0)


@pytest.mark.parametrize("count", [6, 40], ids=["fewer images than features", "more"])
def test_frechet_distance_of_a_scaled_and_moved_set(count):
    real = normal(count, 16).double()
    scale, move = 3.0, torch.arange(16.0).double()
    mean, spread = real.mean(0), real.var(0).sum()
    # the covariances commute: the root of their product is scale * cov
    wanted = (mean * (scale - 1) + move).square().sum() + (scale - 1) ** 2 * spread
    assert frechet_distance(real, real * scale + move) == pytest.approx(wanted.item(), rel=1e-12)
    assert abs(frechet_distance(real, real.flip(0))) < 1e-12


class Given(torch.nn.Identity):
    num_features = 8


def test_frechet_distance_is_that_of_torchmetrics():
    real, fake = normal(50, 8).double(), normal(40, 8, seed=1).double() @ normal(8, 8, seed=2).double()
    metric = FrechetInceptionDistance(Given())
    metric.update(real, real=True)
    metric.update(fake, real=False)
    assert frechet_distance(real, fake) == pytest.approx(metric.compute().item(), rel=1e-9)


def column(*values):
    return torch.tensor(values).unsqueeze(1)


def test_precision_and_recall_of_points_on_a_line():
    # balls of k = 1: radius 1 about 0 and 1, radius 9 about 10
    real = column(0.0, 1.0, 10.0)
    # radius 2 about 3 and 5, radius 25 about 30
    fake = column(3.0, 5.0, 30.0)
    # 3 and 5 lie in [1, 19]; of the real ones 1 in [1, 5], on its edge, and 10 in [5, 55]
    assert precision_recall(real, fake, 1) == pytest.approx((2 / 3, 2 / 3))
    # balls of k = 2 reach to the farthest point
    assert precision_recall(real, fake, 2) == pytest.approx((2 / 3, 1))


def test_recall_sees_missing_modes_and_precision_does_not():
    real = torch.cat([normal(50, 8), normal(50, 8, seed=1) + 100])
    one_mode = normal(100, 8, seed=2)
    precision, recall = precision_recall(real, one_mode)
    assert precision > 0.8
    assert 0.4 < recall <= 0.5
    assert precision_recall(real, one_mode + 1000) == (0, 0)


def test_precision_and_recall_in_parts(monkeypatch):
    real, fake = normal(30, 8), normal(30, 8, seed=1)
    whole = precision_recall(real, fake)
    assert 0 < min(whole) < 1
    monkeypatch.setattr(scores, "_ROWS", 7)
    assert precision_recall(real, fake) == whole


def test_kid_score_computes_the_features_of_real_images_once(monkeypatch):
    seen = []

    class Counting:
        def __init__(self, device):
            assert device == "cpu"

        def __call__(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return images.float().mean((2, 3))

    monkeypatch.setattr(scores, "FeatureNetwork", Counting)
    real, fake = noise(8, 3, 4, 4), noise(6, 3, 4, 4, seed=1)
    score = KidScore(real, seed=2)
    assert score(fake) == score(fake) == kid(real.float().mean((2, 3)), fake.float().mean((2, 3)), 2)
    assert seen == [8, 6, 6]


@needs_network
def test_kid_score_gives_the_published_numbers():
    """Those of the first release: mean and deviation may not move, or a run's scores compare with no older ones."""
    score = KidScore(noise(24, 1, 32, 32), 3)
    fake = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert score(fake) == pytest.approx((1.58601, 0.102856), rel=1e-3)


@needs_network
def test_features_take_grey_for_colour_and_any_batch(monkeypatch):
    network, images = FeatureNetwork(), noise(3, 1, 28, 28)
    whole = network(images)
    assert whole.shape == (3, 1280) and whole.dtype == torch.float32
    monkeypatch.setattr(features, "_BATCH", 2)
    torch.testing.assert_close(network(images.expand(-1, 3, -1, -1)), whole)


@needs_network
@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), noise(2, 2, 8, 8), noise(3, 8, 8)], ids=lambda x: x.dtype)
def test_features_refuse_what_are_no_images(images):
    with pytest.raises(BadInput, match=r"images must be uint8 \(N, 1 or 3, H, W\), got torch\.\w+ \("):
        FeatureNetwork()(images)
