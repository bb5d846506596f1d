"""The rule by which all other tests judge: it must fail what it should."""

import pytest
import torch

from fastgan.testing import LAYOUTS, CountOps, assert_close_to_gold, in_layout, random_values

GOLD = random_values((50, 4), 0)
LOW = GOLD.float() * (1 + 1e-5)
NAN, INFINITY = float("nan"), float("inf")


def _fails(got, gold=GOLD, low=LOW, **options):
    with pytest.raises(AssertionError) as raised:
        assert_close_to_gold(got, gold, low, **options)
    return str(raised.value)


def _with(value, tensor):
    changed = tensor.clone()
    changed[17, 2] = value
    return changed


def test_an_error_as_large_as_that_of_torch_passes():
    assert_close_to_gold(LOW, GOLD, LOW)
    assert_close_to_gold((GOLD * (1 - 1e-5)).float(), GOLD, LOW)


def test_three_times_the_error_passes_for_gradients_only():
    got = (GOLD * (1 + 2.9e-5)).float()
    assert_close_to_gold(got, GOLD, LOW, factor=3.0)
    _fails(got)


def test_one_wrong_value_fails_and_is_named():
    assert "worst at (17, 2)" in _fails(_with(GOLD[17, 2] + 1e-3, LOW))


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_what_is_not_finite_never_passes(value):
    _fails(_with(value, LOW))
    _fails(LOW, low=_with(value, LOW))
    _fails(LOW, gold=_with(value, GOLD))
    _fails(_with(value, LOW), low=_with(value, LOW))
    _fails(_with(value, LOW), gold=_with(value, GOLD))


def test_float64_is_held_to_its_own_bound():
    scale = GOLD.abs().max()
    assert_close_to_gold(GOLD + 0.9e-12 * scale, GOLD)
    _fails(GOLD + 1.1e-12 * scale, low=None)


def test_a_part_in_a_thousand_fails_in_every_sum():
    _fails((GOLD * 1.001).float(), low=GOLD.float(), factor=3.0, terms=10**6)


def test_another_shape_fails():
    assert "shape" in _fails(LOW[:1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_keep_the_values(layout):
    x = random_values((2, 3, 4, 5), 0)
    y = in_layout(x, layout)
    assert torch.equal(y, x[:1].expand(x.shape) if layout == "expanded" else x)
    assert y.is_contiguous() == (layout == "contiguous")
    assert y.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")


def test_a_slice_lies_in_nan():
    y = in_layout(random_values((2, 3), 0), "sliced")
    assert y._base.isnan().sum() == 4 * 5 - 6


def test_ops_are_counted_forward_and_backward():
    x = torch.ones(2, 2, requires_grad=True)
    with CountOps("aten") as count:
        (x * x).sum().backward()
    assert count["sum"] == 1 and count["mul"] >= 2 and count["cos"] == 0
