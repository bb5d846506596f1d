"""Says, as a skip with its reason, which backends the other tests left out here; all others must serve every type."""

import pytest
import torch

from fastgan.backends import unavailable

from .grid import DTYPES, GPU, INTERPRETED, NATIVE

STEMS = ("bias_act", "norm_act", "conv_norm_act", "gradient_penalty")


def _must_serve(name, device, dtypes=DTYPES):
    reasons = {(stem, dtype): unavailable(name, stem, device, dtype) for stem in STEMS for dtype in dtypes}
    assert not any(reasons.values()), reasons


def _skip(name, device, dtype=torch.float32):
    reason = unavailable(name, "bias_act", device, dtype)
    assert reason
    pytest.skip(f"{name} was not tested here on {device}: {reason}")


def test_reference_serves_every_type():
    _must_serve("reference", "cpu")


def test_native_serves_every_type():
    if not NATIVE:
        _skip("native", "cpu")
    _must_serve("native", "cpu")


def test_triton_serves_every_type_but_bfloat16():
    if not INTERPRETED:
        _skip("triton", "cpu")
    _must_serve("triton", "cpu", [dtype for dtype in DTYPES if dtype != torch.bfloat16])


def test_triton_serves_bfloat16():
    if not GPU or INTERPRETED:
        _skip("triton", "cpu", torch.bfloat16)
    _must_serve("triton", "cuda", [torch.bfloat16])


@pytest.mark.gpu
def test_triton_serves_every_type_on_a_gpu():
    if not GPU:
        pytest.skip("no CUDA tensor was tested here: torch.cuda.is_available() is False")
    if INTERPRETED:
        pytest.skip("no CUDA tensor was tested here: TRITON_INTERPRET=1 is for CPU tensors")
    _must_serve("triton", "cuda")
