"""Data sets as one uint8 tensor in memory, and the order in which training sees it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastgan.train import sources
from fastgan.train.errors import BadInput, require_extra

NAMES = ("mnist5k", "emoji", "fashion-mnist", "digits", "idx:DIR", "folder:DIR")
_TEST_SHARE = 10  # one base emoji in ten


@dataclass(frozen=True)
class ImageSet:
    """Images held in memory.

    Args:
        images: uint8 (N, C, S, S).
        groups: (N,), int64; images of one group are variants of each other and never part in ``halves``.
        unreadable: files that were left out because they could not be read.
    """

    images: Tensor
    groups: Tensor
    unreadable: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    def halves(self, seed: int) -> tuple[Tensor, Tensor]:
        """Two disjoint random sets of images, uint8, of about N/2 each; no group is in both."""
        names = self.groups.unique()
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
        first = torch.isin(self.groups, names[order[: len(names) // 2]])
        return self.images[first], self.images[~first]


def load_images(data: str, image_size: int, split: str = "train") -> ImageSet:
    """Load a data set.

    Args:
        data: "mnist5k", "emoji", "fashion-mnist", "digits", "idx:DIR" (files in MNIST's format) or "folder:DIR" (any
            tree of png, jpg and webp).
        image_size: side in pixels to resize to.
        split: "train" or "test"; a test split exists for emoji (a tenth of the base emoji, with all their skin tones),
            fashion-mnist and idx.
    Raises: BadInput saying what is missing and what to install; files of a folder that cannot be read are listed in
        ``unreadable`` instead, unless none is left.
    """
    kind, _, where = data.partition(":")
    if split == "test" and kind in ("mnist5k", "digits", "folder"):
        raise BadInput(f"the data set {data} has no test split")
    if data == "mnist5k":
        return _from_arrays([sources.read_mnist5k()], image_size)
    if data == "digits":
        return _from_arrays([sources.read_digits()], image_size)
    if data == "emoji":
        return _load_emoji(image_size, split)
    if data == "fashion-mnist":
        install = "apt-get install dataset-fashion-mnist"
        return _from_arrays(sources.read_idx(sources.FASHION_MNIST, split, install), image_size)
    if kind == "idx" and where:
        return _from_arrays(sources.read_idx(Path(where), split), image_size)
    if kind == "folder" and where:
        require_extra("PIL")
        images, unreadable = sources.read_folder(Path(where), image_size)
        return ImageSet(images, torch.arange(len(images)), unreadable)
    raise BadInput(f"unknown data set {data!r}, the known ones are: {', '.join(NAMES)}")


def normalise(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1, same shape."""
    return images.float().div_(127.5).sub_(1)


class BatchSampler:
    """Endless batches of indices: one permutation of the data after the other, so a batch may span two.

    Args:
        size: images in the data set, >= 1.
        batch_size: indices a batch; may exceed ``size``.
        generator: the only source of its randomness; part of its state.
    """

    def __init__(self, size: int, batch_size: int, generator: torch.Generator) -> None:
        self.size, self.batch_size, self.generator = size, batch_size, generator
        self._left = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """Indices of the next batch: int64 (batch_size,)."""
        while len(self._left) < self.batch_size:
            self._left = torch.cat([self._left, torch.randperm(self.size, generator=self.generator)])
        batch, self._left = self._left[: self.batch_size], self._left[self.batch_size :]
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"size": self.size, "left": self._left.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. Raises BadInput when the data set has another size now."""
        if state["size"] != self.size:
            raise BadInput(f"the data set has {self.size} images now, the run was started with {state['size']}")
        self._left = state["left"]
        self.generator.set_state(state["generator"])


def _from_arrays(arrays: list[Tensor], image_size: int) -> ImageSet:
    images = torch.cat([_resize(array, image_size) for array in arrays])
    return ImageSet(images, torch.arange(len(images)))


def _resize(images: Tensor, image_size: int) -> Tensor:
    if images.shape[2:] == (image_size, image_size):
        return images
    size = (image_size, image_size)
    # in parts: the float copy of a whole data set would need four times its memory
    parts = [interpolate(part.float(), size, mode="bilinear", antialias=True) for part in images.split(4096)]
    return torch.cat([part.round_().clamp_(0, 255).byte() for part in parts])


def _load_emoji(image_size: int, split: str) -> ImageSet:
    require_extra("PIL")
    paths = sources.read_emoji()
    bases = sorted({sources.base_emoji(path) for path in paths})
    order = torch.randperm(len(bases), generator=torch.Generator().manual_seed(0)).tolist()
    test = {bases[index] for index in order[: len(bases) // _TEST_SHARE]}
    chosen = [path for path in paths if (sources.base_emoji(path) in test) == (split == "test")]
    number = {base: index for index, base in enumerate(bases)}
    groups = torch.tensor([number[sources.base_emoji(path)] for path in chosen])
    # palette pictures without colour read as grey, all are wanted as RGB
    images = torch.stack([sources.read_image(path, image_size).expand(3, -1, -1) for path in chosen])
    return ImageSet(images, groups)
