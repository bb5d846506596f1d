"""Batches of a data set on the device of training."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.train.data import ImageSet, normalise
from fastgan.train.errors import BadInput


class Batches:
    """Takes batches out of a data set: flipped and cropped where asked, as float32 on the device.

    On a CUDA device the whole set is held as uint8 where it takes less than ``budget`` of the free memory; else each
    batch goes there through pinned memory, without waiting for it.

    Args:
        data: images or clips.
        device: where batches are wanted.
        flip: mirror each image, left to right, with probability 1/2.
        crop: pixels by which each image is moved at most along each axis, what is missing reflected; below the side.
        random: CPU generator for flips and crops, needed for them alone; frames of a clip share what is drawn.
        budget: share of the device's free memory, in [0, 1].
    Raises: BadInput when crop is out of range.
    """

    def __init__(
        self,
        data: ImageSet,
        device: torch.device,
        *,
        flip: bool = False,
        crop: int = 0,
        random: torch.Generator | None = None,
        budget: float = 0.25,
    ) -> None:
        side = data.images.shape[-1]
        if not 0 <= crop < side:
            raise BadInput(f"crop must be at least 0 and below the image's side, {side}, got {crop}")
        self.device, self.flip, self.crop, self.random = device, flip, crop, random
        pixels = data.images.movedim(1, -1).contiguous()  # [N, (T,) S, S, C]
        self.held = device.type == "cuda" and pixels.nbytes < budget * torch.cuda.mem_get_info(device)[0]
        self._pixels = pixels.to(device) if self.held else pixels
        self._labels = None if data.labels is None else data.labels.to(device)

    def batch(self, indices: Tensor) -> Tensor:
        """Images at the indices, int64 (B,) on the CPU: float32 in [-1, 1], (B, C, S, S) or (B, C, T, S, S).

        With more than one channel they are in channels_last (channels_last_3d for clips).
        """
        pixels = self._varied(indices) if self.crop or self.flip else _take(self._pixels, indices)
        if pixels.device != self.device:
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        images = normalise(pixels)
        # the strides of a single channel decide which layout convolutions take it for
        return images.squeeze(-1).unsqueeze(1) if images.shape[-1] == 1 else images.movedim(-1, 1)

    def labels(self, indices: Tensor) -> Tensor | None:
        """Labels at the indices: int64 (B,) on the device; None where the data has none."""
        return None if self._labels is None else self._labels[indices.to(self.device, non_blocking=True)]

    def _varied(self, indices: Tensor) -> Tensor:
        count, shape = len(indices), self._pixels.shape[1:]  # [(T,) S, S, C]
        side, channels = shape[-2:]
        rows = columns = torch.arange(side).expand(count, -1)
        if self.crop:
            moves = torch.randint(-self.crop, self.crop + 1, (2, count, 1), generator=self.random)
            rows, columns = side - 1 - (side - 1 - (columns + moves).abs()).abs()
        if self.flip:
            mirrored = torch.rand(count, 1, generator=self.random) < 0.5
            columns = torch.where(mirrored, side - 1 - columns, columns)
        # one look-up for every pixel, in the set as one long list of pixels
        frames = shape.numel() // (side * side * channels)
        frame = indices.reshape(-1, 1) * frames + torch.arange(frames)  # [B, T]
        pixel = (frame[:, :, None] * side + rows[:, None])[..., None] * side + columns[:, None, None]
        return _take(self._pixels.view(-1, channels), pixel.flatten()).view(count, *shape)


def _take(pixels: Tensor, indices: Tensor) -> Tensor:
    return pixels.index_select(0, indices.to(pixels.device, non_blocking=True))
