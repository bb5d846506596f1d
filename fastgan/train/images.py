"""Grids of images as PNG files."""

import os

import torch
from torch import Tensor

from fastgan.train.files import replacing


def make_grid(images: Tensor, columns: int = 0, padding: int = 2) -> Tensor:
    """Lay images out in rows on white.

    Args:
        images: (N, C, H, W), float in [-1, 1].
        columns: images a row; 0: the square root of N, rounded up.
        padding: white pixels around each image.
    Returns: uint8 (C, rows * (H + padding) + padding, columns * (W + padding) + padding).
    """
    count, channels, height, width = images.shape
    columns = columns or max(1, int((count - 1) ** 0.5) + 1)
    rows = -(-count // columns)
    step_y, step_x = height + padding, width + padding
    grid = torch.full((channels, rows * step_y + padding, columns * step_x + padding), 255, dtype=torch.uint8)
    for index, image in enumerate(to_uint8(images)):
        y, x = padding + index // columns * step_y, padding + index % columns * step_x
        grid[:, y : y + height, x : x + width] = image
    return grid


def to_uint8(images: Tensor) -> Tensor:
    """Float -1..1, any shape, to uint8 0..255, rounded and clamped."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).byte()


def save_png(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write one image, uint8 (C, H, W) with C = 1 or 3, as PNG; replaces the file in one move.

    Other channel counts have no PNG mode: their first channel is written.
    """
    from PIL import Image

    pixels = image.permute(1, 2, 0) if len(image) == 3 else image[0]
    with replacing(path) as temporary:
        Image.fromarray(pixels.contiguous().cpu().numpy()).save(temporary, format="PNG")
