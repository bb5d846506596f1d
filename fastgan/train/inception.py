"""The standard FID and Inception score, by torch-fidelity, with Inception weights that lie on the user's disk."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastgan.train.errors import BadInput, find_package, first_line
from fastgan.train.features import check_images

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
_SPLITS = 10


class InceptionScores(NamedTuple):
    """FID against the real images, and mean and standard deviation of the Inception score over splits."""

    fid: float
    inception_score: tuple[float, float]


def inception_scores(
    real: Tensor,
    images: Tensor,
    weights: str | PathLike[str],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> InceptionScores:
    """FID and Inception score as others report them; they do so of 10,000 images or more, of fewer FID is higher.

    Args:
        real, images: uint8 (N, 1 or 3, H, W) and (M, 1 or 3, H, W), N and M >= 2; torch-fidelity resizes to 299 pixels.
        weights: torch-fidelity's file, see ``WEIGHTS``.
        seed: of the order in which images are dealt to 10 splits (fewer than 10 images: one split each).
        device: where Inception runs.
    Raises: BadInput when the package or the weights cannot serve.
    Source: Heusel et al. 2017; Salimans et al. 2016.
    """
    check_inception(weights)
    check_images(real)
    check_images(images)
    import torch_fidelity

    scores = torch_fidelity.calculate_metrics(
        input1=_Colour(images),
        input2=_Colour(real),
        fid=True,
        isc=True,
        isc_splits=min(_SPLITS, len(images)),
        feature_extractor_weights_path=fspath(weights),
        cuda=torch.device(device).type == "cuda",
        rng_seed=seed,
        # no worker processes for images that are in memory already
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    mean, std = scores["inception_score_mean"], scores["inception_score_std"]
    return InceptionScores(float(scores["frechet_inception_distance"]), (float(mean), float(std)))


def check_inception(weights: str | PathLike[str]) -> None:
    """Raise BadInput unless torch-fidelity is installed and the file holds the weights that it takes."""
    if not (find_package("torch_fidelity") and find_package("torchvision")):
        raise BadInput('FID needs torch-fidelity and torchvision, so install them with `pip install "fastgan[fid]"`')
    if not Path(weights).is_file():
        raise BadInput(f"there is no file {weights}, FID needs {WEIGHTS} from torch-fidelity's releases on GitHub")
    # torch-fidelity itself would run whatever code is pickled in the file
    try:
        state = torch.load(weights, map_location="meta", weights_only=True)
    except Exception as error:
        raise BadInput(f"{weights} cannot be read: {first_line(error)}") from None
    last = state.get("fc.weight") if isinstance(state, dict) else None
    # torchvision's Inception is another network, with 1000 classes
    if getattr(last, "shape", None) != (1008, 2048):
        raise BadInput(f"{weights} does not hold the weights of FID's Inception, which are in {WEIGHTS}")


class _Colour(Dataset[Tensor]):
    """Images one by one, grey ones in three channels."""

    def __init__(self, images: Tensor) -> None:
        self._images = images.expand(-1, 3, -1, -1).cpu()

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index]

    def __len__(self) -> int:
        return len(self._images)
