"""Data sets as one uint8 tensor in memory, and the order in which training sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastgan.train import clips, idx, sources
from fastgan.train.errors import BadInput, require_extra

IMAGE_NAMES = (
    *("mnist5k[:CLASSES]", "emoji", "fashion-mnist[:CLASSES]", "digits[:CLASSES]"),
    *("idx:DIR", "folder:DIR"),
)
CLIP_NAMES = ("moving-digits[:2]", "clips:DIR")
_WITH_TEST_SPLIT = ("emoji", "fashion-mnist", "idx")
_TEST_SHARE = 10  # one base emoji in ten
_MOVING_CLIPS = 2000


@dataclass(frozen=True)
class ImageSet:
    """Images or clips held in memory.

    Args:
        images: uint8 (N, C, S, S), or (N, C, T, S, S) for clips of T frames.
        groups: (N,), int64; images of one group are variants of each other and never part in ``halves``.
        unreadable: files that were left out because they could not be read, or are shorter than a clip.
        labels: (N,), int64, 0 to ``classes`` - 1; None: the data has none.
        names: of the classes, in the order of the labels; empty without labels.
    """

    images: Tensor
    groups: Tensor
    unreadable: list[Path] = field(default_factory=list)
    labels: Tensor | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def classes(self) -> int:
        return len(self.names)

    @property
    def frames(self) -> int:
        """Length of a clip; 0: these are images."""
        return self.images.shape[2] if self.images.dim() == 5 else 0

    def halves(self, seed: int) -> tuple[ImageSet, ImageSet]:
        """Two disjoint random sets of about N/2 images each, with their labels; no group is in both."""
        groups = self.groups.unique()
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
        first = torch.isin(self.groups, groups[order[: len(groups) // 2]])
        return self._part(first), self._part(~first)

    def _part(self, chosen: Tensor) -> ImageSet:
        labels = None if self.labels is None else self.labels[chosen]
        return ImageSet(self.images[chosen], self.groups[chosen], [], labels, self.names)


def load_images(data: str, image_size: int, split: str = "train", frames: int = 0) -> ImageSet:
    """Load a data set.

    Args:
        data: "mnist5k", "emoji", "fashion-mnist", "digits", "idx:DIR" (files in MNIST's format) or "folder:DIR" (any
            tree of png, jpg and webp; where all lie in two or more sub-folders, these are the classes). Some classes
            alone: "mnist5k:3", "digits:0,1,2", likewise of fashion-mnist; their labels count from 0 in that order.
            For clips "moving-digits" (2,000 of one digit each, labelled), "moving-digits:2" (of two, not labelled) or
            "clips:DIR" (any tree of animated gif and webp, classes as in a folder).
        image_size: side in pixels to resize to.
        split: "train" or "test"; a test split exists for emoji (a tenth of the base emoji, with all their skin tones),
            fashion-mnist and idx.
        frames: length of the clips wanted; 0: images.
    Raises: BadInput saying what is missing and what to install; files of a directory that cannot be read are listed in
        ``unreadable`` instead, unless none is left.
    """
    kind, colon, where = data.partition(":")
    if kind not in _IMAGES | _CLIPS or (colon and not where) or (kind in _DIRECTORIES and not where):
        known = ", ".join(IMAGE_NAMES + CLIP_NAMES)
        raise BadInput(f"unknown data set {data!r}, the known ones are: {known}")
    if frames and kind in _IMAGES:
        raise BadInput(f"data must be clips for this model, one of {', '.join(CLIP_NAMES)}; {data} has images")
    if not frames and kind in _CLIPS:
        raise BadInput(f"data must be images for this model, one of {', '.join(IMAGE_NAMES)}; {data} has clips")
    if split == "test" and kind not in _WITH_TEST_SPLIT:
        raise BadInput(f"the data set {data} has no test split")
    return _CLIPS[kind](where, image_size, frames) if frames else _IMAGES[kind](where, image_size, split)


def normalise(images: Tensor) -> Tensor:
    """Pixels 0..255 to float32 -1..1, same shape; uint8 stays as it is, float32 is changed in place."""
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


def _load_mnist5k(classes: str, image_size: int, split: str) -> ImageSet:
    return _chosen("mnist5k", classes, *sources.read_mnist5k(), image_size)


def _load_digits(classes: str, image_size: int, split: str) -> ImageSet:
    return _chosen("digits", classes, *sources.read_digits(), image_size)


def _load_fashion_mnist(classes: str, image_size: int, split: str) -> ImageSet:
    images, labels = idx.read_idx(idx.FASHION_MNIST, split, "apt-get install dataset-fashion-mnist")
    return _chosen("fashion-mnist", classes, torch.cat(images), labels, image_size)


def _load_idx(where: str, image_size: int, split: str) -> ImageSet:
    images, labels = idx.read_idx(Path(where), split)
    resized = torch.cat([_resize(part, image_size) for part in images])
    return _independent(resized, labels=labels, names=_numbers(labels))


def _load_folder(where: str, image_size: int, split: str) -> ImageSet:
    require_extra("PIL")
    images, paths, unreadable = sources.read_folder(Path(where), image_size)
    return _independent(images, unreadable, *sources.folder_classes(Path(where), paths))


def _load_emoji(where: str, image_size: int, split: str) -> ImageSet:
    require_extra("PIL")
    if where:
        raise BadInput(f"the data set emoji has no classes, got emoji:{where}")
    paths = sources.read_emoji()
    bases = sorted({sources.base_emoji(path) for path in paths})
    order = torch.randperm(len(bases), generator=torch.Generator().manual_seed(0)).tolist()
    test = {bases[index] for index in order[: len(bases) // _TEST_SHARE]}
    chosen = [path for path in paths if (sources.base_emoji(path) in test) == (split == "test")]
    number = {base: index for index, base in enumerate(bases)}
    groups = torch.tensor([number[sources.base_emoji(path)] for path in chosen])
    # palette pictures without colour read as grey, all are wanted as RGB
    return ImageSet(sources.stack([sources.read_image(path, image_size) for path in chosen], 3), groups)


def _load_moving_digits(together: str, image_size: int, frames: int) -> ImageSet:
    if together not in ("", "1", "2"):
        raise BadInput(f"moving-digits takes 1 or 2 digits a clip, got {together}")
    count = int(together or 1)
    digits, labels = sources.read_mnist5k()
    # no digit is in two clips, so that the halves of the set share none
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))[: _MOVING_CLIPS * count]
    side = clips.digit_side(image_size)
    small = _resize(digits[order], side).reshape(-1, count, side, side)
    label = labels[order] if count == 1 else None
    return _independent(clips.moving_digits(small, frames, image_size), labels=label, names=_numbers(label))


def _load_clips(where: str, image_size: int, frames: int) -> ImageSet:
    require_extra("PIL")
    images, paths, unreadable = clips.read_clips(Path(where), frames, image_size)
    return _independent(images, unreadable, *sources.folder_classes(Path(where), paths))


_IMAGES: dict[str, Callable[[str, int, str], ImageSet]] = {
    "mnist5k": _load_mnist5k,
    "emoji": _load_emoji,
    "fashion-mnist": _load_fashion_mnist,
    "digits": _load_digits,
    "idx": _load_idx,
    "folder": _load_folder,
}
_CLIPS: dict[str, Callable[[str, int, int], ImageSet]] = {"moving-digits": _load_moving_digits, "clips": _load_clips}
_DIRECTORIES = ("idx", "folder", "clips")


def _independent(
    images: Tensor,
    unreadable: list[Path] | None = None,
    labels: Tensor | None = None,
    names: tuple[str, ...] = (),
) -> ImageSet:
    return ImageSet(images, torch.arange(len(images)), unreadable or [], labels, names)


def _numbers(labels: Tensor | None) -> tuple[str, ...]:
    return () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))


def _chosen(data: str, classes: str, images: Tensor, labels: Tensor | None, image_size: int) -> ImageSet:
    names = _numbers(labels)
    if classes:
        if labels is None:
            raise BadInput(f"data {data}:{classes} needs the label files of {data}, which are missing")
        wanted = tuple(dict.fromkeys(classes.split(",")))
        if not set(wanted) <= set(names):
            raise BadInput(f"classes of {data} must be among {', '.join(names)}, got {classes}")
        number = torch.full((len(names),), -1)
        number[[names.index(name) for name in wanted]] = torch.arange(len(wanted))
        kept = number[labels] >= 0
        images, labels, names = images[kept], number[labels[kept]], wanted
    return _independent(_resize(images, image_size), labels=labels, names=names)


def _resize(images: Tensor, image_size: int) -> Tensor:
    if images.shape[2:] == (image_size, image_size):
        return images
    size = (image_size, image_size)
    # in parts: the float copy of a whole data set would need four times its memory
    parts = [interpolate(part.float(), size, mode="bilinear", antialias=True) for part in images.split(4096)]
    return torch.cat([part.round_().clamp_(0, 255).byte() for part in parts])
