"""What ``bias_act`` offers for masks alone: the gradient of the bias in one pass, and the gradient in y's place."""

import math

import pytest
import torch

from fastgan import ops
from fastgan.testing import random_values

from . import bodies
from .common import SLOPE
from .grid import DTYPES, Case, grid

FOR_MASKS = [
    Case(shape, dtype, layout, activation=activation)
    for activation in ("identity", "relu", "leaky_relu")
    for dtype in DTYPES
    for shape, layout in (
        ((4, 3, 5, 7), "contiguous"),
        ((4, 3, 5, 7), "channels_last"),
        ((3, 37, 17, 19), "contiguous"),
    )
] + [Case((5, 6), activation="relu"), Case((0, 3, 2, 2)), Case((2, 3, 4, 5, 6), layout="channels_last_3d")]
FOR_MASKS_INTERPRETED = [FOR_MASKS[0], FOR_MASKS[4], FOR_MASKS[-1]]


def _masks(case, device):
    """Return a result of the activation, a gradient of another layout, and their product in float64."""
    y, dy = (random_values(case.shape, seed, device).to(case.dtype) for seed in range(2))
    y = {"relu": y.relu(), "leaky_relu": y}.get(case.activation, y)
    if case.layout.startswith("channels_last"):
        y = y.contiguous(memory_format=getattr(torch, case.layout))
    slope = {"identity": 1.0, "relu": 0.0, "leaky_relu": SLOPE}[case.activation]
    return y, dy, torch.where(y > 0, dy.double(), slope * dy.double())


@grid("bias_act", FOR_MASKS, FOR_MASKS_INTERPRETED)
def test_gradient_of_the_bias_in_one_pass(backend, device, case):
    y, dy, gold = _masks(case, device)
    db = ops.bias_act.bias_act_db(dy, y, case.activation, SLOPE)
    assert db.dtype == (torch.float64 if case.dtype == torch.float64 else torch.float32)
    terms = max(1, y.numel() // y.shape[1])
    bound = 8 * torch.finfo(db.dtype).eps * max(1, math.log2(terms)) * terms**0.5
    # triton sums what it has rounded to the gradient's type
    bound += torch.finfo(case.dtype).eps * terms**0.5 if backend != "native" else 0
    assert (db.double() - gold.sum([0, *range(2, y.dim())])).abs().max() <= bound


@grid("bias_act", FOR_MASKS, FOR_MASKS_INTERPRETED)
@pytest.mark.parametrize("sliced", [False, True])
def test_a_result_is_replaced_by_the_gradient(backend, device, case, sliced):
    y, dy, gold = _masks(case, device)
    given = torch.cat([y, y], 1)[:, : y.shape[1]] if sliced else y
    strides = given.stride()
    ops.bias_act.bias_act_bwd_(dy, given, case.activation, SLOPE)
    assert given.stride() == strides
    torch.testing.assert_close(given.double(), gold.to(case.dtype).double(), rtol=torch.finfo(case.dtype).eps, atol=0)


@grid("bias_act", FOR_MASKS[:2], FOR_MASKS[:1])
def test_opcheck(backend, device, case):
    y, dy, _ = _masks(case, device)
    bodies.check_op(False, torch.ops.fastgan.bias_act_db, (dy, y, "relu", 0.0))
    bodies.check_op(False, torch.ops.fastgan.bias_act_bwd_, (dy, y, "relu", 0.0))
