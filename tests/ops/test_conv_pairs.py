"""Convolutions of bfloat16 in C++ at any size: in pairs where the processor multiplies such, in float32 elsewhere."""

import pytest
import torch

from fastgan.nn.functional import conv_norm_act
from fastgan.testing import random_values

from . import bodies
from .common import check
from .conv_cases import of_sizes
from .conv_stem import STEM, ConvCase, attributes
from .grid import IN_TILES, NATIVE

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="native was not tested here"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
]

# thin ends, and what neither they nor minimal filtering serve; odd channels, taps and pixels
SIZES = (
    ((3, 3, 13, 11), 40, (4, 4), (2, 2), (1, 1), (1, 1)),
    ((3, 1, 13, 12), 33, (4, 4), (2, 2), (1, 1), (1, 1)),
    ((2, 40, 9, 7), 3, (4, 4), (2, 2), (1, 1), (1, 1)),
    ((2, 33, 9, 7), 2, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((2, 7, 9, 10), 6, (5, 3), (2, 1), (2, 0), (1, 1)),
    ((2, 6, 9, 10), 5, (3, 4), (1, 1), (1, 2), (2, 2)),
    ((2, 10, 6, 5), 12, (4, 4), (1, 1), (0, 0), (1, 1)),
    ((1, 330, 5, 5), 4, (2, 2), (2, 2), (0, 0), (1, 1)),
    # images that are shuffled together, of pixels that lie as tiles do, and of other ones
    ((2, 3, 12, 64), 64, (4, 4), (2, 2), (1, 1), (1, 1)),
    ((2, 2, 40, 32), 32, (5, 4), (2, 2), (2, 1), (1, 1)),
    ((2, 2, 12, 15), 10, (4, 5), (2, 3), (0, 1), (1, 1)),
    ((2, 5, 10, 8), 34, (4, 4), (2, 2), (1, 1), (1, 1)),
    ((2, 8, 10, 8), 32, (3, 3), (2, 2), (1, 1), (1, 1)),
    # taps that lie too far apart for that
    ((2, 4, 40, 33), 64, (4, 4), (1, 2), (1, 1), (8, 5)),
    ((2, 4, 11, 9), 34, (2, 2), (3, 3), (0, 0), (1, 1)),
    # several blocks of pixels, of few and of many sums
    ((3, 6, 39, 42), 34, (4, 4), (1, 1), (1, 1), (1, 1)),
    ((3, 40, 39, 42), 34, (4, 4), (1, 1), (1, 1), (1, 1)),
    # whole tiles and slabs of channels, with and without neighbouring taps
    ((3, 64, 37, 36), 96, (4, 4), (2, 2), (1, 1), (1, 1)),
    ((2, 96, 9, 11), 32, (3, 2), (1, 2), (2, 1), (2, 2)),
    # a weight that is read in several parts, and terms that part within a tile
    ((1, 512, 4, 4), 256, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 672, 2, 16), 256, (3, 3), (1, 1), (1, 1), (1, 1)),
)
CASES = of_sizes(SIZES, torch.bfloat16)


@pytest.fixture(autouse=True)
def at_any_size(monkeypatch):
    import fastgan.backends.native.conv_norm_act as native

    monkeypatch.setattr(native, "_around", lambda *_: None)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_orders(backend, case):
    check(STEM, case, "cpu", 0, 1, 2)


@pytest.mark.parametrize("channels", [24, 64])
def test_weight_gradient_of_more_pixels_than_are_held_at_a_time(backend, channels):
    x, dy = (random_values((1, c, 131 - i, 131 - i), i).bfloat16() for i, c in enumerate((channels, 512)))
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    weight = random_values((512, channels, 2, 2), 2).bfloat16().requires_grad_()
    y = conv_norm_act(x, weight, norm=False, activation="identity")
    (dw,) = torch.autograd.grad(y, weight, dy)
    exact = torch.nn.grad.conv2d_weight(x.double(), weight.shape, dy.double())
    assert (dw - exact).abs().max() <= 0.01 * exact.abs().max()


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_same_bits_again_for_any_number_of_threads(backend, case, threads):
    bodies.check_repeatable(STEM, case, "cpu", "native", threads)


@pytest.mark.parametrize(
    ("channels", "kernel", "sizes", "pairs"),
    [
        ((64, 3), (4, 4), {}, True),
        ((64, 1), (4, 4), {}, True),
        ((3, 64), (4, 4), {}, False),
        ((64, 3), (3, 3), {}, False),
        ((64, 4), (3, 3), {}, True),
        ((63, 4), (4, 4), {}, False),
        ((64, 3), (4, 4), {"dilation": [2, 2]}, False),
        ((64, 16), (4, 4), {}, IN_TILES),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_thin_ends_whose_sums_fall_into_pairs(backend, channels, kernel, sizes, pairs, transposed):
    import fastgan.backends.native.conv_norm_act as native

    a = attributes(CASES[0]._replace(transposed=transposed), False)._replace(**sizes)
    x = torch.empty(1, channels[0] if transposed else channels[1], 16, 16, dtype=torch.bfloat16)
    assert native._in_pairs(x, (*channels, *kernel), a) == (pairs and torch.cpu._is_avx512_bf16_supported())


@pytest.mark.parametrize("pixel", [False, True])
def test_a_weight_of_another_dtype_is_converted(backend, pixel, monkeypatch):
    case = ConvCase((2, 8, 5, 6), 3, (4, 4), (2, 2), (1, 1), transposed=True)
    if pixel:
        monkeypatch.undo()
        case = ConvCase((2, 8, 4, 4), 1, (4, 4))
    a = attributes(case, False)
    shape = (8, 3, 4, 4) if case.transposed else (1, 8, 4, 4)
    x, weight = random_values(case.shape, 0).bfloat16(), random_values(shape, 1).bfloat16()
    run = torch.ops.fastgan.conv_norm_act
    expected = run(x, weight, *(None,) * 5, *a)[0]
    torch.testing.assert_close(run(x, weight.float(), *(None,) * 5, *a)[0], expected, rtol=0, atol=0)
