"""Native moves tensors with channels outermost in squares of a register: sizes below, as large as, and above those."""

from itertools import product

import pytest
import torch

from fastgan.backends.layout import accumulate_dtype
from fastgan.testing import random_values

from .common import check
from .conv_stem import STEM, ConvCase
from .grid import DTYPES, NATIVE

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="native was not tested here"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
]
CASES = [
    ConvCase((2, channels, 3, width), channels + 1, (3, 3), padding=(1, 1), transposed=i % 2 > 0,
             dtype=DTYPES[i % len(DTYPES)], lazy=i % 3 > 0, bias=i % 3 > 0, activation="silu",
             after="tanh" if i % 3 else "identity")
    for i, (channels, width) in enumerate(product((3, 4, 7, 8, 9, 16, 33), (4, 5, 8, 11, 16, 17)))
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_orders(backend, case):
    check(STEM, case, "cpu", 0, 1, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_moved_values_are_the_same_bits(backend, dtype):
    from fastgan.backends.native.conv_norm_act import _loaded

    for channels, width in product((16, 17, 31, 40), (1, 4, 7, 8, 9, 16, 19)):
        x = random_values((2, channels, 3, width), channels).to(dtype)
        moved, _, _ = _loaded(x, (None,) * 4 + (0.0, 0, 0.0), (None, 0, 0.0))
        assert moved.dtype == accumulate_dtype(dtype) and moved.stride(1) == 1
        assert torch.equal(moved, x.to(moved.dtype))
