"""``spectral_norm_power_iteration`` of fastgan.nn.functional, what it rejects, and which backend it gets."""

import pytest
import torch

from fastgan import backends
from fastgan.nn.functional import spectral_norm_power_iteration

from . import bodies
from .grid import grid
from .spectral_stem import Case, check, make


@grid("spectral_norm", [Case((6, 5, 4, 4), 1), Case((7, 30))])
def test_functional(backend, device, case):
    weight, u, v, _ = make(case, device)
    before = [t.clone() for t in (weight, u, v)]
    got = spectral_norm_power_iteration(
        weight.requires_grad_(), u, v, dim=case.dim - weight.dim(), n_power_iterations=3
    )
    assert [t.requires_grad for t in got] == [False] * 3 and got[2].dim() == 0
    check(case, device, 3, False, got)
    assert all(torch.equal(a, b) for a, b in zip(before, (weight, u, v), strict=True))


def test_triton_says_why_not():
    reason = backends.unavailable("triton", "spectral_norm", "cuda", torch.float32)
    assert reason == "it needs a barrier across all blocks of a launch, which only CUDA C++ offers"


def _chosen(monkeypatch, reason):
    monkeypatch.setattr(backends, "unavailable", lambda name, *_: reason if name == "native" else "")
    return backends.automatic.__wrapped__("spectral_norm", "cuda", torch.float32)


def test_a_gpu_takes_native_without_a_warning(monkeypatch, caplog):
    assert _chosen(monkeypatch, "") == "native" and not caplog.records


def test_a_gpu_falls_back_to_the_reference_and_says_why(monkeypatch, caplog):
    assert _chosen(monkeypatch, "no CUDA here") == "reference"
    assert [r.getMessage() for r in caplog.records] == [
        "spectral_norm: not on the native backend for torch.float32 tensors on cuda: no CUDA here"
    ]


def _call(weight=None, u=None, v=None, **options):
    given = (weight, torch.ones(3), torch.ones(8)) if weight is not None else (torch.ones(3, 2, 4), u, v)
    given = [d if g is None else g for g, d in zip(given, (None, torch.ones(3), torch.ones(8)), strict=True)]
    return lambda: spectral_norm_power_iteration(*given, **options)


REJECTED = {
    "list": (_call([1.0]), TypeError, "weight must be a Tensor, got list"),
    "integers": (
        _call(torch.ones(3, 8).int()), TypeError,
        "weight must be float16, bfloat16, float32 or float64, got torch.int32",
    ),
    "vector": (
        _call(torch.ones(3)), ValueError, "weight must have at least 2 dimensions and one value, got shape (3,)",
    ),
    "empty": (
        _call(torch.ones(3, 0)), ValueError, "weight must have at least 2 dimensions and one value, got shape (3, 0)",
    ),
    "dim": (_call(dim=3), ValueError, "dim must be a dimension of weight, which has 3, got 3"),
    "u_type": (_call(u=1.0), TypeError, "u must be a Tensor, got float"),
    "u_shape": (_call(u=torch.ones(4)), ValueError, "u must have shape (3,) for dim 0, got (4,)"),
    "v_shape": (_call(v=torch.ones(8, 1)), ValueError, "v must have shape (8,) for dim 0, got (8, 1)"),
    "v_device": (
        _call(v=torch.ones(8, device="meta")), ValueError, "v must be on cpu, the device of weight, got meta",
    ),
    "v_dtype": (
        _call(v=torch.ones(8).double()), TypeError, "v must be torch.float32, the dtype of weight, got torch.float64",
    ),
    "iterations": (_call(n_power_iterations=-1), ValueError, "n_power_iterations must be an integer >= 0, got -1"),
    "eps": (_call(eps=0.0), ValueError, "eps must be > 0 and finite, got 0.0"),
}  # fmt: skip


@pytest.mark.parametrize("call, error, message", REJECTED.values(), ids=REJECTED)
def test_rejects(call, error, message):
    bodies.check_rejected(call, error, f"spectral_norm_power_iteration: {message}")
