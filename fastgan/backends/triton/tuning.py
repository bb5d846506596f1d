"""Which algorithm and which block sizes ``conv_norm_act`` uses, from tuning.json beside this file.

A problem has a pass (fwd, dw), a kind of arithmetic (half for both 16-bit types, tf32, fp32, fp64) and a bucket:
``thin_in`` and ``thin_out`` where one side has at most 16 channels (RGB images, a critic's output), ``large`` where 128
output channels make enough tiles for a GPU, else ``small``; ``any`` for fp32 and fp64, which no tensor core multiplies
fast. ``configs`` has block sizes for all of these, ``measured: false`` where they are a guess. ``measured`` says on
which device the implicit matrix product was timed against the vendor's convolution, and which of the two won.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

THIN = 16
LARGE = 128 * 128 * 128


class Key(NamedTuple):
    """What block sizes depend on."""

    which: str
    kind: str
    bucket: str


class Config(NamedTuple):
    """Block sizes of one matrix product."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int

    def stages(self, *loads: int) -> int:
        """Return num_stages, one less where a second tensor takes shared memory, see LOAD in the kernels."""
        return self.num_stages - (max(loads) == 2)


@functools.cache
def _table() -> dict[str, list[dict[str, Any]]]:
    return json.loads(Path(__file__).with_name("tuning.json").read_text())


@functools.cache
def configs() -> dict[Key, Config]:
    """Return the block sizes of every key."""
    rows = _table()["configs"]
    return {
        Key(row["pass"], row["kind"], row["bucket"]): Config(*(row[name] for name in Config._fields)) for row in rows
    }


@functools.cache
def measured() -> dict[tuple[str, Key], str]:
    """Return what won, ``implicit_gemm`` or ``vendor``, by device name and key."""
    rows = _table()["measured"]
    return {(row["device"], Key(row["pass"], row["kind"], row["bucket"])): row["winner"] for row in rows}


def precision(x: Tensor) -> str:
    """Return how float32 is multiplied, ``tf32`` or ``ieee``, as torch's switch for convolutions says."""
    # the newer switch, since asking for allow_tf32 is an error where both were set and differ
    return "tf32" if x.is_cuda and torch.backends.cudnn.conv.fp32_precision == "tf32" else "ieee"


def key(which: str, x: Tensor, c_in: int, c_out: int, size: int) -> Key:
    """Return the key of a pass over x.

    Args:
        which: fwd, whose result is (pixels, c_out), or dw, whose result is (c_out, taps * c_in).
        size: number of elements of the result.
    """
    kind = {8: "fp64", 4: "tf32" if precision(x) == "tf32" else "fp32", 2: "half"}[x.element_size()]
    if kind.startswith("fp"):
        return Key(which, kind, "any")
    if c_in <= THIN:
        return Key(which, kind, "thin_in")
    if c_out <= THIN:
        return Key(which, kind, "thin_out")
    # dw is split over pixels until there are enough programs
    large = c_out >= 128 and (which == "dw" or size >= LARGE)
    return Key(which, kind, "large" if large else "small")


@functools.cache
def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def implicit_gemm_won(x: Tensor, k: Key) -> bool:
    """Return whether the implicit matrix product was measured on x's device and won; False where nobody measured."""
    return measured().get((_device_name(x.device), k)) == "implicit_gemm"
