"""The course of a run as a film: its grids of samples, one after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fastgan.train.errors import BadInput, find_package, require_extra
from fastgan.train.files import replacing, step_files
from fastgan.train.run_dir import RunDir

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

_CAPTION, _PLAY, _SLOWEST, _HOLD = 18, 6000, 400, 2000  # pixels, then milliseconds


def sample_grids(run: RunDir) -> list[tuple[int, Path]]:
    """Steps and files of the grids of samples, ascending; empty when there are none."""
    return step_files(run.samples, ".png")


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many (>= 2) of the items, evenly chosen, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def write_film(
    run: RunDir, path: str | os.PathLike[str] | None = None, *, frames: int = 60, side: int = 512
) -> Path | None:
    """Write the grids of a run as an animated GIF, or as MP4 (H.264); replaces the file in one move.

    It plays for six seconds at most, and the last grid stays for two.

    Args:
        path: ends in .gif or .mp4; default: ``course.gif`` in the run's directory.
        frames: at most so many grids, at least 2; evenly chosen, the first and the last among them.
        side: grids are scaled down to this many pixels, the longer side; all to the size of the last.
    Returns: the file's path, or None where the run has fewer than two grids yet.
    Raises: BadInput when Pillow is missing, or imageio-ffmpeg for MP4, or the path or a number cannot serve.
    """
    require_extra("PIL")
    target = run.root / "course.gif" if path is None else Path(path)
    for name, value, least in (("frames", frames, 2), ("side", side, 1)):
        if value < least:
            raise BadInput(f"{name} must be at least {least}, got {value}")
    write = {".gif": _write_gif, ".mp4": _write_mp4}.get(target.suffix.lower())
    if write is None:
        raise BadInput(f"a film must be a .gif or .mp4 file, got {target}")
    grids = spread(sample_grids(run), frames)
    if len(grids) < 2:
        return None
    with replacing(target) as temporary:
        write(_draw_frames(grids, side), temporary, min(_SLOWEST, _PLAY // len(grids)))
    return target


def _draw_frames(grids: list[tuple[int, Path]], side: int) -> list[Image.Image]:
    from PIL import Image, ImageDraw, ImageFont

    images = [(step, Image.open(path)) for step, path in grids]
    last = images[-1][1]
    scale = min(1.0, side / max(last.size))
    width, height = (max(1, round(length * scale)) for length in last.size)
    mode = "L" if all(image.mode == "L" for _, image in images) else "RGB"
    font = ImageFont.load_default(11)
    frames = []
    for step, image in images:
        # small images stay sharp when they grow
        resample = Image.Resampling.NEAREST if image.width < width else Image.Resampling.BOX
        # H.264 takes even sides only
        frame = Image.new(mode, (width + width % 2, height + _CAPTION + height % 2), "white")
        frame.paste(image.convert(mode).resize((width, height), resample))
        ImageDraw.Draw(frame).text((4, height + _CAPTION // 2), f"step {step:,}", "black", font, anchor="lm")
        frames.append(frame)
    return frames


def _write_gif(frames: list[Image.Image], path: Path, milliseconds: int) -> None:
    if frames[0].mode == "RGB":
        frames = _share_palette(frames)
    durations = [milliseconds] * (len(frames) - 1) + [_HOLD]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _share_palette(frames: list[Image.Image]) -> list[Image.Image]:
    # a palette for each frame takes forty times as long, and colours that stay would flicker
    from PIL import Image

    sheet = Image.new("RGB", (64 * len(frames), 64))
    for index, frame in enumerate(frames):
        sheet.paste(frame.resize((64, 64)), (64 * index, 0))
    palette = sheet.quantize(256)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _write_mp4(frames: list[Image.Image], path: Path, milliseconds: int) -> None:
    if not find_package("imageio_ffmpeg"):
        raise BadInput('an MP4 film needs imageio-ffmpeg, so install it with `pip install "fastgan[video]"`')
    import imageio_ffmpeg

    rate = 1000 / milliseconds  # frames a second
    options = {"macro_block_size": 1, "ffmpeg_log_level": "error", "output_params": ["-f", "mp4"]}
    writer = imageio_ffmpeg.write_frames(str(path), frames[0].size, fps=rate, **options)
    writer.send(None)
    for frame in frames + [frames[-1]] * round(_HOLD / milliseconds - 1):
        writer.send(frame.convert("RGB").tobytes())
    writer.close()
