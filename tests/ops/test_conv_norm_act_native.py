"""Which convolutions the native backend runs as implicit matrix products, and which it leaves to the vendor."""

from itertools import product

import pytest
import torch

from fastgan.backends import vendor

from .common import all_orders
from .conv_cases import FORMATS
from .conv_stem import FUSED, STEM, ConvCase, make
from .grid import NATIVE
from .stems import fused_size

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="native was not tested here"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
]
NAMES = ("conv_norm_act", "conv_norm_act_dx", "conv_norm_act_dw")
FUSED_CASES = [
    case._replace(
        transposed=transposed, lazy=lazy, layout=FORMATS[i % 2], bias=lazy, after="tanh" if lazy else "identity"
    )
    for i, size in enumerate(FUSED)
    for case in [ConvCase((2, 5, 6, 5), 3, **fused_size(*size))]
    for transposed, lazy in product((True, False), repeat=2)
]


@pytest.mark.parametrize("case", FUSED_CASES, ids=str)
def test_native_runs_these_sizes_itself(backend, case, monkeypatch):
    t = make(case, "cpu")
    for name in NAMES:
        monkeypatch.setattr(vendor, name, lambda *_: pytest.fail("the vendor's convolution ran"))
    monkeypatch.setattr(torch, "convolution", lambda *_: pytest.fail("torch's convolution ran"))
    all_orders(STEM, case, t)


@pytest.mark.parametrize("transposed", [True, False], ids=["transposed", "conv"])
def test_native_leaves_groups_to_the_vendor(backend, transposed, monkeypatch):
    case = FUSED_CASES[0]._replace(shape=(2, 4, 5, 6), c_out=6, groups=2, transposed=transposed, lazy=True)
    t, called = make(case, "cpu"), []
    for name in NAMES:
        run = getattr(vendor, name)
        monkeypatch.setattr(vendor, name, lambda *given, run=run, name=name: called.append(name) or run(*given))
    all_orders(STEM, case, t)
    assert set(called) == set(NAMES)
