"""Results with channels innermost, as many as fill panels: native's products are written where they belong."""

import pytest
import torch

from . import bodies
from .common import check
from .conv_cases import of_sizes
from .conv_stem import STEM
from .grid import NATIVE

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="native was not tested here"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
]

SIZES = (
    # several tasks a sample
    ((3, 3, 40, 66), 64, (4, 4), (2, 2), (1, 1)),
    # several samples a task, of an odd number of rows in the last one
    ((5, 3, 10, 14), 32, (4, 4), (2, 2), (1, 1)),
    # a single tap
    ((7, 2, 12, 10), 32, (1, 1), (1, 1), (0, 0)),
    # several sums, one after another
    ((3, 64, 9, 8), 32, (3, 3), (1, 1), (1, 1)),
)
CASES = [
    case._replace(layout="channels_last", cotangents="channels_last", dtype=dtype)
    for case in of_sizes(SIZES)
    for dtype in (torch.float32, torch.float64)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_orders(backend, case):
    check(STEM, case, "cpu", 0, 1, 2)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_same_bits_again_for_any_number_of_threads(backend, case, threads):
    bodies.check_repeatable(STEM, case, "cpu", "native", threads)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_every_value_is_written(backend, case, nan_in_new_memory):
    bodies.check_every_value_written(STEM, case, "cpu")
