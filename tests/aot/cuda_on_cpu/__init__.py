"""The CUDA kernels compiled as host C++, for machines without a GPU; here also the calls of ``conv_norm_act``."""

import ctypes
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype
from fastgan.backends.reference.activation import ACTIVATIONS

SHIM = Path(__file__).parent
CSRC = SHIM.parents[2] / "csrc"
PASSES = ("gather", "scatter", "wgrad")
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Operand(ctypes.Structure):
    """``fastgan::ConvOperand``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("data", "y", "scale", "shift")),
        *((name, ctypes.c_int) for name in ("channels", "height", "width")),
        *((f"stride_{d}", ctypes.c_int64) for d in "nchw"),
        ("activation", ctypes.c_int),
        ("negative_slope", ctypes.c_double),
    )


class Params(ctypes.Structure):
    """``fastgan::ConvNormActParams``."""

    _fields_ = (
        ("big", Operand),
        ("small", Operand),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "out", "workspace")),
        ("batch", ctypes.c_int),
        *((f"{name}_{d}", ctypes.c_int) for name in ("kernel", "stride", "padding", "dilation") for d in "hw"),
        ("activation", ctypes.c_int),
        ("negative_slope", ctypes.c_double),
        ("type", ctypes.c_int),
        ("bias_widened", ctypes.c_bool),
    )


def compile_stem(compiler: str, folder: Path, stem: str) -> ctypes.CDLL:
    """Compile the launchers and kernels of one stem, and load them."""
    out = folder / f"{stem}.so"
    options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    # a pack that is not aligned would be an error on a GPU, and is a trap here
    options += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
    command = [compiler, *options, f"-I{SHIM}", f"-I{CSRC}", "-o", out, SHIM / f"{stem}.cpp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(out))


def build(compiler: str, folder: Path) -> ctypes.CDLL:
    """Compile launchers and kernels of ``conv_norm_act``, and load them."""
    library = compile_stem(compiler, folder, "conv_norm_act")
    library.workspace.restype = library.parameters_size.restype = ctypes.c_int64
    assert library.parameters_size() == ctypes.sizeof(Params)
    return library


def operand(
    t: Tensor, y: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None,
    activation: str = "identity", slope: float = 0.0,
) -> Operand:  # fmt: skip
    """Return one side of the convolution, masked by a'(y) or normalised; y has the strides of t."""
    assert y is None or y.stride() == t.stride()
    pointers = [None if v is None else v.data_ptr() for v in (t, y, scale, shift)]
    return Operand(*pointers, *t.shape[1:], *t.stride(), ACTIVATIONS.index(activation), slope)


def launch(
    library: ctypes.CDLL, pass_: str, big: Operand, small: Operand, weight: Tensor, bias: Tensor | None, out: Tensor,
    batch: int, geometry: tuple, activation: str = "identity", slope: float = 0.0, backwards: bool = False,
) -> int:  # fmt: skip
    """Run one pass and return its error; geometry is the pairs of stride, padding and dilation.

    ``backwards`` runs the threads of each block in reversed order.
    """
    wide = accumulate_dtype(out.dtype)
    pairs = [v for pair in (weight.shape[2:], *geometry) for v in pair]
    p = Params(big, small, weight.data_ptr(), None, out.data_ptr(), None, batch, *pairs)
    p.activation, p.negative_slope, p.type = ACTIVATIONS.index(activation), slope, TYPES.index(out.dtype)
    if bias is not None:
        p.bias, p.bias_widened = bias.data_ptr(), bias.dtype == wide
    workspace = torch.full((library.workspace(ctypes.byref(p)),), torch.nan, dtype=wide)
    p.workspace = workspace.data_ptr()
    return library.launch(PASSES.index(pass_), ctypes.byref(p), backwards)
