"""Distances between two sets of images, from their features (N, D) in one network; and KID from the images.

The numbers depend on the network and on the number of images: compare them with each other only where both are the
same, and with what real images score against other real images.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgan.train.features import FeatureNetwork, check_packages
from fastgan.train.streams import seeded_cpu

_SUBSETS, _ROWS = 50, 1000


class Kid(NamedTuple):
    """Mean and standard deviation over random subsets; dimensionless, 0 for equal distributions, may be below 0."""

    mean: float
    std: float

    def __str__(self) -> str:
        return f"{self.mean:.5f} +- {self.std:.5f}"


class KidScore:
    """KID of image sets against one real set, whose features are computed once; to compare checkpoints of a run.

    Args:
        real: uint8 (N, 1 or 3, H, W), N >= 2.
        seed: of the random subsets.
        device: where the features are computed.
    Raises: BadInput when a package is missing.
    """

    def __init__(self, real: Tensor, seed: int = 0, device: torch.device | str = "cpu") -> None:
        check_packages()
        self._seed, self._network = seed, FeatureNetwork(device)
        self._real = self._network(real)

    def __call__(self, images: Tensor) -> Kid:
        """KID of images, uint8 (N, 1 or 3, H, W), N >= 2."""
        return kid(self._real, self._network(images), self._seed)


def kid(real: Tensor, fake: Tensor, seed: int = 0) -> Kid:
    """Kernel distance with a cubic kernel, estimated on 50 random subsets of half the smaller set.

    Args:
        real, fake: features (N, D) and (M, D), float32, on one device; N and M >= 2.
        seed: of the subsets; torch's own random numbers stay as they are.
    Source: Binkowski et al. 2018, section 4; torchmetrics' implementation.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    # all of them in each subset would make the subsets, and so the estimates, equal
    size = max(2, min(len(real), len(fake)) // 2)
    with warnings.catch_warnings():
        # it warns of the memory for features: 5 MB for 1,000 images
        warnings.simplefilter("ignore")
        # unsynchronised, one process of several may score alone
        metric = KernelInceptionDistance(nn.Identity(), _SUBSETS, size, sync_on_compute=False).to(real.device)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    with seeded_cpu(seed):
        mean, std = metric.compute()
    return Kid(mean.item(), std.item())


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Squared Fréchet distance of the normal distributions with the features' means and covariances, in float64.

    In the square of the features' unit; 0 for equal sets. It is biased upwards, the more so the fewer the images. It is
    called FID in the features of Inception only.

    Args:
        real, fake: features (N, D) and (M, D), on one device; N and M >= 2.
    Source: Heusel et al. 2017, eq. 6.
    """
    real, fake = real.double(), fake.double()
    shift = (real.mean(0) - fake.mean(0)).square().sum()
    x, y = (part.sub(part.mean(0)).div((len(part) - 1) ** 0.5) for part in (real, fake))  # covariances x'x, y'y
    # trace((x'x y'y)^(1/2)) is the sum of the singular values of x y', and so of r s' for x = q r and y = p s;
    # unlike the root of a product without full rank it is exact for fewer images than features
    r, s = (torch.linalg.qr(part, mode="r").R for part in (x, y))
    return (shift + x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(r @ s.T).sum()).item()


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall, each a share from 0 to 1.

    Precision is the share of fake features within the real set's neighbourhoods: the balls around each real feature
    that reach to its k-th nearest other one. Recall is the same with the sets exchanged.

    Args:
        real, fake: features (N, D) and (M, D), on one device; N and M > k.
        k: which neighbour.
    Source: Kynkaanniemi et al. 2019, eq. 1 and 2.
    """
    real, fake = real.double(), fake.double()
    return _share_within(fake, real, k), _share_within(real, fake, k)


def _share_within(points: Tensor, centres: Tensor, k: int) -> float:
    # the nearest is the centre itself, at distance 0; in parts, as all distances of 50,000 would be 20 GB
    radii = torch.cat([torch.cdist(part, centres).kthvalue(k + 1).values for part in centres.split(_ROWS)])
    within = torch.cat([(torch.cdist(part, centres) <= radii).any(1) for part in points.split(_ROWS)])
    return within.double().mean().item()
