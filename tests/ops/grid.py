"""Which backends, on which devices, run which cases."""

import importlib.util
from typing import Any, NamedTuple

import pytest
import torch

from fastgan import config
from fastgan.backends import WITHOUT_TRITON, native

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTERPRETED = config.triton_interpret()
GPU = torch.cuda.is_available()
NATIVE = importlib.util.find_spec("fastgan._C") is not None and native.build_info()["build"] != "none"
# whether native multiplies whole tiles of bfloat16
IN_TILES = NATIVE and importlib.import_module("fastgan._C").instruction_set() == "amx_bf16"


class Runner(NamedTuple):
    backend: str
    device: str


class Case(NamedTuple):
    """One configuration of a stem.

    ``layout`` is that of x, ``cotangents`` that of dy and ddx; ``parameters`` names those given: weight (w), bias (b).
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    activation: str = "leaky_relu"
    training: bool = True
    act_first: bool = False
    parameters: str = "wb"
    parameter_dtype: torch.dtype | None = None
    cotangents: str = "contiguous"

    def __str__(self) -> str:
        words = ["x".join(map(str, self.shape)), str(self.dtype)[6:], self.activation]
        words += [] if self.training else ["eval"]
        words += ["act_first"] if self.act_first else []
        words += [self.layout] if self.layout != "contiguous" else []
        words += [f"only_{self.parameters}" if self.parameters else "plain"] if self.parameters != "wb" else []
        words += [f"parameters_{str(self.parameter_dtype)[6:]}"] if self.parameter_dtype else []
        words += [f"dy_{self.cotangents}"] if self.cotangents != "contiguous" else []
        return "-".join(words)


def runners(stem: str) -> list[Runner]:
    """Return where the stem must run. What is left out is told by tests/ops/test_where.py, and nothing else may be."""
    triton = ["triton"] if stem not in WITHOUT_TRITON else []
    cpu = ["reference", *(["native"] if NATIVE else []), *(triton if INTERPRETED else [])]
    cuda = ["reference", *triton] if GPU and not INTERPRETED else []
    if cuda and native.build_info()["build"] == "cuda" and stem in native.STEMS["cuda"]:
        cuda.append("native")
    return [Runner(name, "cpu") for name in cpu] + [Runner(name, "cuda") for name in cuda]


def _rows(stem: str, cases: list[Any], few: list[Any] | None = None) -> list[Any]:
    rows = []
    for backend, device in runners(stem):
        interpreted = backend == "triton" and device == "cpu"
        for case in cases if few is None or not interpreted else few:
            if interpreted and torch.bfloat16 in (case, getattr(case, "dtype", None)):
                continue
            words = [] if device == "cpu" else [device]
            words += [backend, str(case)[6:] if isinstance(case, torch.dtype) else str(case)]
            marks = [pytest.mark.gpu] if device == "cuda" else []
            rows.append(pytest.param(backend, device, case, id="-".join(words), marks=marks))
    return rows


def grid(stem: str, cases: list[Any], few: list[Any] | None = None) -> Any:
    """Return the decorator that runs a test(backend, device, case) for each case wherever the stem runs.

    Args:
        few: the cases for the interpreter, which is slow; all, if None.
    """
    return pytest.mark.parametrize("backend, device, case", _rows(stem, cases, few), indirect=["backend"])


def grid_of_stems(cases: dict[str, list[Any]], few: dict[str, list[Any]] | None = None) -> Any:
    """Return the decorator that runs a test(backend, device, stem, case) for each stem name and each of its cases."""
    rows = [
        pytest.param(backend, device, stem, case, id=f"{stem}-{row.id}", marks=row.marks)
        for stem in cases
        for row in _rows(stem, cases[stem], few and few[stem])
        for backend, device, case in [row.values]
    ]
    return pytest.mark.parametrize("backend, device, stem, case", rows, indirect=["backend"])
