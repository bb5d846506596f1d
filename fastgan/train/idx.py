"""Reader of MNIST's IDX format: files of images, and files of labels beside them."""

import gzip
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastgan.train.errors import BadInput

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_IMAGES, _LABELS = b"\x00\x00\x08\x03", b"\x00\x00\x08\x01"  # unsigned bytes in three dimensions and in one


def read_idx(directory: Path, split: str, install: str = "") -> tuple[list[Tensor], Tensor | None]:
    """All image files of the format in a directory, gzipped or not, and their labels.

    Files with "t10k" or "test" in their name are the split "test", the others "train". The labels of
    ``train-images-idx3-ubyte`` are in ``train-labels-idx1-ubyte``, and so for other names.

    Returns: uint8 (N, 1, H, W) of each file; labels of all of them, int64, or None when a file has none.
    """
    if not directory.is_dir():
        raise BadInput(f"there is no directory {directory}" + (f": `{install}`" if install else ""))
    kinds = {path: _magic(path) for path in sorted(directory.iterdir()) if path.is_file()}
    found = [path for path, magic in kinds.items() if magic == _IMAGES]
    if not found:
        raise BadInput(f"{directory} holds no IDX image file")
    wanted = [path for path in found if (split == "test") == _is_test_file(path)]
    if not wanted:
        raise BadInput(f"{directory} holds no IDX image file of the {split} split")
    images = [_read(path).unsqueeze(1) for path in wanted]
    beside = {path.name.removesuffix(".gz"): path for path, magic in kinds.items() if magic == _LABELS}
    labels = [
        _read_labels(beside.get(_labels_name(path)), path, len(part)) for path, part in zip(wanted, images, strict=True)
    ]
    known = [part for part in labels if part is not None]
    return images, torch.cat(known) if len(known) == len(labels) else None


def _open(path: Path) -> gzip.GzipFile:
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def _magic(path: Path) -> bytes:
    try:
        with _open(path) as file:
            return file.read(4)
    except (OSError, EOFError):
        return b""


def _is_test_file(path: Path) -> bool:
    return "t10k" in path.name or "test" in path.name


def _labels_name(images: Path) -> str:
    return images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")


def _read_labels(path: Path | None, images: Path, count: int) -> Tensor | None:
    if path is None:
        return None
    labels = _read(path).long()
    if len(labels) != count:
        raise BadInput(f"{path} has {len(labels)} labels for the {count} images of {images.name}")
    return labels


def _read(path: Path) -> Tensor:
    try:
        with _open(path) as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = np.frombuffer(content[4 : min(start, len(content) // 4 * 4)], dtype=">u4").tolist()
    if len(shape) != dimensions or min(shape) < 1 or len(content) != start + math.prod(shape):
        raise BadInput(f"{path} is damaged: its size is not what its header says")
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)
