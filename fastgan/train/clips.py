"""Data sets of clips: digits that move, made from MNIST, and animations on disk."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastgan.train.errors import BadInput
from fastgan.train.sources import central_square, find_files, stack

CLIP_SUFFIXES = (".gif", ".webp")
_DIGIT_SHARE = 28 / 64  # of the frame's side
# pixels, but for frames that hardly have as many: smaller digits are hard to read, and harder to learn
_LEAST_DIGIT, _MOST_SHARE = 22, 22 / 32


def digit_side(image_size: int) -> int:
    """Side in pixels of a digit in a frame of ``moving_digits``."""
    readable = min(_LEAST_DIGIT, round(image_size * _MOST_SHARE))
    return max(1, readable, round(image_size * _DIGIT_SHARE))


def moving_digits(digits: Tensor, frames: int, image_size: int, seed: int = 0) -> Tensor:
    """Clips of digits that move on straight lines and bounce off the edges; the brighter one covers the other.

    Each starts anywhere and crosses at most a quarter of its room a step along each axis. The same seed gives the same
    clips. The idea is that of Srivastava et al. 2015 (Moving MNIST).

    Args:
        digits: uint8 (N, D, S, S), the D digits of each clip, S = ``digit_side(image_size)``.
        frames: T, length of a clip.
        image_size: side of a frame in pixels.
    Returns: uint8 (N, 1, T, image_size, image_size).
    """
    count, together, side, _ = digits.shape
    room = image_size - side
    random = torch.Generator().manual_seed(seed)
    start = torch.rand(count, together, 1, 2, generator=random) * room
    pace = (torch.rand(count, together, 1, 2, generator=random) * 2 - 1) * room / 4
    way = start + pace * torch.arange(frames).reshape(-1, 1)  # [N, D, T, 2]
    # a way without edges, folded into 0..room
    corners = (room - ((way % (2 * room)) - room).abs()).round().long().tolist()
    clips = torch.zeros(count, 1, frames, image_size, image_size, dtype=torch.uint8)
    canvas, ink = clips.numpy(), digits.numpy()
    for n, of_clip in enumerate(corners):
        for d, of_digit in enumerate(of_clip):
            for t, (y, x) in enumerate(of_digit):
                under = canvas[n, 0, t, y : y + side, x : x + side]
                np.maximum(under, ink[n, d], out=under)
    return clips


def read_clips(directory: Path, frames: int, image_size: int) -> tuple[Tensor, list[Path], list[Path]]:
    """The first frames of every animation of a tree, their central squares resized.

    Returns: uint8 (N, C, frames, image_size, image_size), C = 1 if no clip has colour and else 3, transparency becomes
    white; the N files read; the files that could not be read or have fewer frames.
    """
    paths = find_files(directory, CLIP_SUFFIXES, "animations")
    clips: dict[Path, Tensor] = {}
    for path in paths:
        try:
            clips[path] = _read_clip(path, frames, image_size)
        # see read_folder
        except Exception:
            continue
    if not clips:
        raise BadInput(
            f"none of the {len(paths)} animations in {directory} can be read and has {frames} frames, "
            f"the first is {paths[0]}"
        )
    grey = all(bool((clip[:1] == clip).all()) for clip in clips.values())
    images = stack([clip[:1] for clip in clips.values()], 1) if grey else stack(list(clips.values()), 3)
    return images, list(clips), [path for path in paths if path not in clips]


def _read_clip(path: Path, frames: int, image_size: int) -> Tensor:
    from PIL import Image

    with Image.open(path) as animation:
        pictures = []
        for index in range(frames):
            # raises EOFError past the last frame
            animation.seek(index)
            pictures.append(central_square(animation, image_size, "RGB"))
    return torch.stack(pictures, dim=1)
