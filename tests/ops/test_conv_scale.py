"""``scale`` of conv_norm_act: a factor of the convolution's result, folded into the product of every backend."""

import pytest
import torch

from fastgan import ops
from fastgan.backends.layout import accumulate_dtype
from fastgan.testing import assert_close_to_gold

from .common import LEAVES, arguments, make_tensors
from .conv_stem import FUSED, STEM, ConvCase, lazy_arguments
from .grid import grid
from .stems import fused_size

SHAPES = (
    ConvCase((3, 5, 6, 4), 3, **fused_size(*FUSED[0]), lazy=True, training=False, after="tanh"),
    # few output channels, whose overlapping products are added up, and many
    ConvCase((2, 4, 3, 5), 2, **fused_size(*FUSED[0]), transposed=True, lazy=True, activation="silu"),
    ConvCase((2, 4, 3, 5), 19, **fused_size(*FUSED[0]), transposed=True, lazy=True, norm=None, bias=False),
    ConvCase((3, 4, 6, 5), 6, **fused_size(*FUSED[2]), groups=2, lazy=True, activation="silu"),
    # by minimal filtering where native multiplies
    ConvCase((7, 32, 16, 16), 33, **fused_size(*FUSED[0]), lazy=True, norm=None, bias=False),
)
CASES = [case._replace(dtype=dtype) for case in SHAPES for dtype in (torch.float64, torch.float32)]
FACTOR = 0.37


def scaled(case, factor, *given):
    """Return the op's result with its weight multiplied: by ``scale`` where ``factor``, else before."""
    x, weight, *rest = lazy_arguments(case, *given)
    if not factor:
        return ops.conv_norm_act.conv_norm_act(x, FACTOR * weight, *rest)[0]
    scale = torch.tensor(FACTOR, dtype=accumulate_dtype(x.dtype), device=x.device)
    return ops.conv_norm_act.conv_norm_act(x, weight, *rest[:-1], scale)[0]


def orders(case, t, factor):
    """Return the result, its gradients, and those of the gradient by x, by name."""
    leaves = {name: v.detach().requires_grad_() for name, v in t.items() if name in (*LEAVES, "dy")}
    y = scaled(case, factor, *arguments({**t, **leaves}))
    names = [name for name in leaves if name != "dy"]
    first = torch.autograd.grad(y, [leaves[n] for n in names], leaves["dy"], create_graph=True)
    second = torch.autograd.grad(first[0], [leaves["weight"], leaves["dy"]], t["ddx"])
    return {"y": y, **dict(zip(names, first, strict=True)), "ddw": second[0], "ddy": second[1]}


@grid("conv_norm_act", CASES, CASES[:4])
def test_scale_multiplies_the_weight(backend, device, case):
    t = make_tensors(STEM, case, device)
    got, gold = orders(case, t, True), orders(case, {k: v.double() for k, v in t.items()}, False)
    low = orders(case, t, False)
    for name in ("weight", "ddw"):
        # what comes back for the weight is the gradient by scale * weight
        gold[name], low[name] = gold[name] / FACTOR, low[name] / FACTOR
    for name, value in got.items():
        assert_close_to_gold(value, gold[name], low[name], factor=3.0, name=name)


@pytest.mark.parametrize("order", [0, 1])
def test_scale_without_a_graph(order):
    """The input gradient that is one op, with the activation's mask on load."""
    case = SHAPES[0]._replace(dtype=torch.float64, norm=None, after="leaky_relu")
    t = make_tensors(STEM, case, "cpu")
    results = []
    for factor in (True, False):
        x = t["x"].detach().requires_grad_()
        y = scaled(case, factor, *arguments({**t, "x": x}))
        results.append(torch.autograd.grad(y, x, t["dy"])[0] if order else y)
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
