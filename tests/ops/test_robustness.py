"""What every stem keeps to: it writes all it returns, repeats its bits, and takes gradients that are slices."""

import pytest

from . import bodies
from .conv_cases import FORMATS
from .conv_stem import FUSED, ConvCase
from .grid import Case, grid_of_stems
from .stems import FEW, STEMS, fused_size

# (N, C, ...) large enough for several threads and blocks, with sizes no vector length divides
LARGE = {
    stem: [
        Case(shape, layout=layout, activation="silu")
        for shape in ((6, 3, 67, 71), (9, 131, 13, 11))
        for layout in ("contiguous", "channels_last")
    ]
    for stem in ("bias_act", "norm_act")
}
LARGE["norm_act"] += [case._replace(act_first=True, activation="tanh") for case in LARGE["norm_act"]]
LARGE["conv_norm_act"] = [
    case._replace(layout=layout, cotangents=layout)
    for case in (
        ConvCase((3, 17, 33, 35), 37, **fused_size(*FUSED[0]), lazy=True, activation="silu", after="tanh"),
        ConvCase((6, 33, 13, 19), 40, **fused_size(*FUSED[2]), activation="silu", bias=False),
        ConvCase((4, 48, 17, 19), 3, **fused_size(*FUSED[0]), transposed=True, lazy=True, activation="tanh"),
        ConvCase((33, 100, 1, 1), 65, **fused_size(*FUSED[1]), transposed=True, activation="tanh", bias=False),
        ConvCase((3, 12, 21, 23), 18, **fused_size(*FUSED[3]), dilation=(2, 1), lazy=True, activation="silu"),
    )
    for layout in FORMATS
]
ODD = {
    stem: [case._replace(shape=(3, 5, 7, 3), layout=f) for case in FEW[stem] for f in ("contiguous", "channels_last")]
    for stem in STEMS
}


@grid_of_stems(ODD)
def test_every_value_is_written(backend, device, stem, case, nan_in_new_memory):
    bodies.check_every_value_written(STEMS[stem], case, device)


@grid_of_stems(LARGE, few=FEW)
def test_same_bits_again_for_any_number_of_threads(backend, device, stem, case, threads):
    bodies.check_repeatable(STEMS[stem], case, device, backend, threads)


@grid_of_stems(LARGE, few={stem: [] for stem in STEMS})
def test_large_and_odd_sizes(backend, device, stem, case):
    bodies.check(STEMS[stem], case, device, 0, 1, 2)


@grid_of_stems(FEW)
@pytest.mark.parametrize("dim", [0, 1, 3])
def test_gradients_that_are_slices_of_one(backend, device, stem, case, dim):
    bodies.check_gradient_after_cat(STEMS[stem], case, device, dim)
