"""Large results of native lie in large pages: a fault for each small one would cost as much as what is computed."""

import resource
from pathlib import Path

import pytest
import torch

from fastgan.nn import functional as F

from .grid import NATIVE

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="native was not tested here"),
    pytest.mark.skipif(not SETTING.exists() or "[never]" in SETTING.read_text(), reason="no large pages here"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
]
BYTES = 64 << 20


def page_faults(run):
    """How many a call takes whose result is alive."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    result = run()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert result.nbytes == BYTES
    return after - before


def activate():
    """A function that gives y of as many bytes as x."""
    x = torch.randn(16, 16, 256, 256)
    return lambda: F.bias_act(x, activation="relu")


def convolve():
    """A function that gives y of more bytes than x."""
    x, weight = torch.randn(16, 16, 128, 64), torch.randn(128, 16, 1, 1)
    return lambda: F.conv_norm_act(x, weight)


def differentiate_weight():
    """A function that gives a large dw."""
    x, weight = torch.randn(1, 1024, 4, 4), torch.randn(1024, 1024, 4, 4, requires_grad=True)
    y = F.conv_norm_act(x, weight, padding=1)
    return lambda: torch.autograd.grad(y.sum(), weight, retain_graph=True)[0]


@pytest.mark.parametrize("make", [activate, convolve, differentiate_weight], ids=lambda make: make.__name__)
def test_a_large_result_takes_few_faults(backend, make):
    run = make()
    run()
    assert page_faults(run) < BYTES / 4096 / 8
