"""Convolutions that native runs by minimal filtering: many channels, and kernels of 2 or 3 taps a stride."""

import pytest
import torch
import torch.nn.functional as F

from fastgan.nn.functional import conv_norm_act, conv_transpose_norm_act
from fastgan.testing import random_values

from . import bodies
from .common import check
from .conv_cases import of_sizes
from .conv_stem import STEM, attributes, result_shape
from .grid import DTYPES, IN_TILES, NATIVE

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="native was not tested here"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
]

# shape, channels of the result, kernel, stride, padding, dilation; odd sizes, channels that no vector or block divides
SIZES = (
    ((6, 32, 16, 16), 33, (4, 4), (2, 2), (1, 1), (1, 1)),
    ((8, 65, 15, 13), 40, (4, 4), (2, 2), (2, 0), (1, 1)),
    ((97, 130, 4, 4), 35, (4, 4), (2, 2), (1, 1), (1, 1)),
    ((3, 33, 11, 14), 150, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((97, 32, 3, 3), 32, (3, 3), (1, 1), (0, 0), (1, 1)),
    ((7, 40, 7, 9), 36, (2, 2), (1, 1), (0, 1), (1, 1)),
    ((8, 34, 13, 9), 32, (4, 2), (2, 1), (1, 0), (1, 1)),
    ((11, 37, 12, 12), 33, (6, 6), (2, 2), (2, 2), (1, 1)),
    ((11, 32, 19, 17), 48, (6, 6), (3, 3), (2, 2), (1, 1)),
    ((8, 33, 19, 17), 34, (9, 9), (3, 3), (4, 4), (1, 1)),
    ((8, 32, 16, 15), 35, (3, 3), (2, 2), (2, 2), (2, 2)),
)
CASES = [
    case._replace(dtype=dtype)
    for i, case in enumerate(of_sizes(SIZES))
    for dtype in (DTYPES if i % 4 == 1 + i // 4 % 2 * 2 else (torch.float32, torch.float64))
]

# what is multiplied in pairs, where the processor has an instruction for it: even channels, also of an odd number of
# tiles in a line, and of a last block that no vector divides
PAIRS = of_sizes(
    (
        ((6, 32, 16, 16), 34, (4, 4), (2, 2), (1, 1)),
        ((9, 146, 10, 14), 40, (4, 4), (2, 2), (1, 1)),
        ((97, 130, 4, 4), 36, (4, 4), (2, 2), (1, 1)),
        ((6, 34, 11, 9), 262, (3, 3), (1, 1), (1, 1)),
        ((11, 38, 12, 12), 32, (6, 6), (2, 2), (2, 2)),
    ),
    torch.bfloat16,
)
CASES += PAIRS


def tiles(case):
    """Return the tiles of 2x2 outputs of what gathers and what scatters, in all samples."""
    out = result_shape(case)
    small, big = (case.shape, out) if case.transposed else (out, case.shape)
    positions = small[2:], [-(-size // stride) for size, stride in zip(big[2:], case.stride, strict=True)]
    return [case.shape[0] * ((h + 1) // 2) * ((w + 1) // 2) for h, w in positions]


def test_all_cases_are_large_enough(backend):
    assert all(min(tiles(case)) >= 96 for case in CASES)


@pytest.mark.parametrize("case", PAIRS, ids=str)
def test_which_are_multiplied_in_pairs(backend, case):
    import fastgan.backends.native.conv_norm_act as native

    x, a = torch.empty(case.shape, dtype=torch.bfloat16), attributes(case, False)
    weight = (case.shape[1], case.c_out) if case.transposed else (case.c_out, case.shape[1])
    pairs = torch.cpu._is_avx512_bf16_supported()
    assert native._in_pairs(x, (*weight, *case.kernel), a) == pairs
    # a whole number of pairs, of one dtype, and enough tiles for minimal filtering
    assert not native._in_pairs(x, (weight[0], weight[1] + 1, *case.kernel), a)
    assert not native._in_pairs(x.float(), (*weight, *case.kernel), a)
    assert native._in_pairs(x[:1, :, :6, :6], (*weight, *case.kernel), a) == IN_TILES


@pytest.mark.parametrize("size", [(64, 96, 4, 2, 1), (64, 96, 3, 1, 1)], ids=["k4s2", "k3s1"])
def test_error_in_bfloat16_is_at_most_three_times_that_of_rounding(backend, size):
    channels, c_out, kernel, stride, padding = size
    x, weight = random_values((8, channels, 16, 16), 0).bfloat16(), random_values((c_out, channels, kernel, kernel), 1)
    tensors = x.requires_grad_(), weight.bfloat16().requires_grad_()
    got = conv_norm_act(*tensors, stride=stride, padding=padding, norm=False, activation="identity")
    dy = random_values(tuple(got.shape), 2).bfloat16()
    exact = [t.detach().double().requires_grad_() for t in tensors]
    gold = F.conv2d(*exact, None, stride, padding)
    pairs = zip(
        (got, *torch.autograd.grad(got, tensors, dy)),
        (gold, *torch.autograd.grad(gold, exact, dy.double())),
        strict=True,
    )
    for ours, right in pairs:
        rounding = (right.bfloat16() - right).square().mean().sqrt()
        assert (ours - right).square().mean().sqrt() <= 3 * rounding


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_orders(backend, case):
    check(STEM, case, "cpu", 0, 1, 2)


@pytest.mark.parametrize("case", CASES[::5], ids=str)
def test_same_bits_again_for_any_number_of_threads(backend, case, threads):
    bodies.check_repeatable(STEM, case, "cpu", "native", threads)


@pytest.mark.parametrize("case", CASES[::5], ids=str)
def test_every_value_is_written(backend, case, nan_in_new_memory):
    bodies.check_every_value_written(STEM, case, "cpu")


@pytest.mark.parametrize("value", [float("inf"), float("nan")], ids=str)
@pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transposed"])
@pytest.mark.parametrize("size", [(4, 2, 1), (3, 1, 1)], ids=["k4s2", "k3s1"])
def test_what_is_not_finite_reaches_no_further_than_in_torch(backend, size, transposed, value):
    kernel, stride, padding = size
    x = random_values((6, 32, 14, 14), 0)
    x[1, 3, 6, 7] = value
    weight = random_values((32, 32, kernel, kernel), 1)
    stock, ours = (F.conv_transpose2d, conv_transpose_norm_act) if transposed else (F.conv2d, conv_norm_act)
    expected = stock(x, weight, None, stride, padding)
    got = ours(x, weight, stride=stride, padding=padding, norm=False, activation="identity")
    assert torch.equal(got.isfinite(), expected.isfinite())
    torch.testing.assert_close(got[got.isfinite()], expected[got.isfinite()], atol=1e-11, rtol=1e-11)
