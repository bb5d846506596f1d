"""The CUDA kernels of ``spectral_norm`` compiled as host C++, for machines without a GPU: one block does all tasks."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from fastgan.backends.layout import accumulate_dtype

from . import TYPES, compile_stem

LAYERS = 32


class Layer(ctypes.Structure):
    """``fastgan::SpectralNormLayer``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "u", "v", "new_u", "new_v", "dy", "out")),
        ("workspace", ctypes.c_int64),
        *((name, ctypes.c_int) for name in ("rows", "columns", "inner", "pixels", "vector_type")),
        ("x_is_u", ctypes.c_bool),
    )


class Params(ctypes.Structure):
    """``fastgan::SpectralNormParams``."""

    _fields_ = (
        ("layers", Layer * LAYERS),
        ("sigmas", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_int) for name in ("count", "iterations", "type")),
        ("v_first", ctypes.c_bool),
    )


def build(compiler: str, folder: Path) -> ctypes.CDLL:
    """Compile launchers and kernels, and load them."""
    library = compile_stem(compiler, folder, "spectral_norm")
    library.workspace.restype = library.parameters_size.restype = ctypes.c_int64
    assert library.parameters_size() == ctypes.sizeof(Params)
    return library


def layer(weight: Tensor, u: Tensor, v: Tensor, dim: int, **pointers: Tensor) -> Layer:
    """Return the description of a weight, contiguous or channels last, as csrc/cuda/glue.cpp makes it."""
    last = not weight.is_contiguous()
    before, after = weight.shape[:dim].numel(), weight.shape[dim + 1 :].numel()
    x_is_u = dim == 0 if last else before == 1
    rows = weight.shape[dim] if x_is_u else before * after if last else before
    columns = after if x_is_u else weight.shape[dim]
    inner = 1 if x_is_u or last else after
    pixels = after // weight.shape[1] if last and x_is_u else 1
    addresses = {name: t.data_ptr() for name, t in {"weight": weight, "u": u, "v": v, **pointers}.items()}
    sizes = {"rows": rows, "columns": columns, "inner": inner, "pixels": pixels, "x_is_u": x_is_u}
    return Layer(**addresses, **sizes, vector_type=TYPES.index(u.dtype))


def launch(
    library: ctypes.CDLL, layers: list[Layer], sigmas: Tensor, dtype: torch.dtype, iterations: int = 0,
    v_first: bool = False, backward: bool = False, backwards: bool = False,
) -> None:  # fmt: skip
    """Run the iteration or the backward; ``backwards`` runs the threads in reversed order."""
    assert sigmas.dtype == accumulate_dtype(dtype)
    p = Params((Layer * LAYERS)(*layers), sigmas.data_ptr(), None, 1e-12, len(layers), iterations)
    p.type, p.v_first = TYPES.index(dtype), v_first
    workspace = torch.full((library.workspace(ctypes.byref(p)),), torch.nan, dtype=torch.float64)
    p.workspace = workspace.data_ptr()
    assert library.launch(backward, ctypes.byref(p), backwards) == 0
