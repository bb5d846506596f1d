"""``batch_norm_act`` against ``F.batch_norm`` and an activation in plain PyTorch, in both orders."""

import pytest
import torch
import torch.nn.functional as F

from fastgan.nn.functional import batch_norm_act
from fastgan.testing import CountOps, assert_close_to_gold, in_layout, random_values

from . import bodies
from .common import EPS, SLOPE, check
from .grid import DTYPES, Case, grid
from .stems import NORM_ACT as STEM
from .stems import NORM_ACT_CASES, NORM_ACT_LAYOUTS, NORM_ACT_VARIANTS, tiny

everywhere = grid("norm_act", *NORM_ACT_CASES)
TINY = tiny(NORM_ACT_VARIANTS)
BOTH_MODES = [(mode, first) for mode in (True, False) for first in (False, True)]
ops = torch.ops.fastgan


@everywhere
def test_forward(backend, device, case):
    check(STEM, case, device, 0)


@everywhere
def test_backward(backend, device, case):
    check(STEM, case, device, 1)


@everywhere
def test_double_backward(backend, device, case):
    check(STEM, case, device, 2)


@grid("norm_act", *TINY)
def test_backward_is_that_of_finite_differences(backend, device, case):
    bodies.check_gradients(STEM, case, device, backend, torch.autograd.gradcheck)


@grid("norm_act", *TINY)
def test_double_backward_is_that_of_finite_differences(backend, device, case):
    bodies.check_gradients(STEM, case, device, backend, torch.autograd.gradgradcheck)


@grid("norm_act", *NORM_ACT_LAYOUTS)
def test_layouts(backend, device, case):
    bodies.check_layouts(STEM, case, device)


@grid("norm_act", ["contiguous", "channels_last", "sliced", "permuted"], few=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 1, 3, 4), (3, 4, 1, 1)], ids=str)
def test_opcheck(backend, device, case, shape):
    thorough = shape[2] > 3 and case in ("contiguous", "channels_last")
    x, dy, ddx = (in_layout(random_values(shape, i, device).float(), case).requires_grad_() for i in range(3))
    w, b, mean, ddw, ddb = (random_values((shape[1],), i, device).float().requires_grad_() for i in range(3, 8))
    mean, var = mean.detach(), mean.detach().square() + 0.5
    attributes = (EPS, "silu", SLOPE, False)
    bodies.check_op(thorough, ops.norm_act, (x, w, b, *attributes))
    bodies.check_op(thorough, ops.norm_act_eval, (x, w, None, mean, var, False, *attributes))
    bodies.check_op(thorough, ops.norm_act_bwd, (dy, x, w, b, mean, var, True, *attributes))
    bodies.check_op(thorough, ops.norm_act_bwd, (dy, x, None, b, mean, var, False, *attributes))
    constants = [v.detach() for v in (ddx, ddw, ddb, dy, x, w, b)]
    bodies.check_op(thorough, ops.norm_act_bwd_bwd, (*constants, mean, var, True, *attributes))
    bodies.check_op(
        thorough, ops.norm_act_bwd_bwd, (constants[0], None, None, *constants[3:], mean, var, False, *attributes)
    )


@grid("norm_act", [Case((4, 3, 5, 7)), Case((4, 3, 5, 7), layout="channels_last", activation="silu", training=False)])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile(backend, device, case, dynamic):
    bodies.check_compiled(STEM, case, device, dynamic, "aot_eager")


@pytest.mark.slow
def test_compile_with_inductor():
    bodies.check_compiled(STEM, Case((4, 3, 5, 7), layout="channels_last"), "cpu", dynamic=True, compiler="inductor")


EMPTY = [
    Case((0, 3, 4, 4)),
    Case((0, 3), training=False),
    Case((2, 3, 0, 4), activation="silu"),
    Case((0, 3, 4, 4), layout="channels_last"),
]


@grid("norm_act", EMPTY)
def test_empty_batch(backend, device, case):
    bodies.check_empty(STEM, case, device)


@grid("norm_act", [Case((0, 3, 4, 4))])
def test_an_empty_batch_leaves_the_running_statistics(backend, device, case):
    mean, var = random_values((3,), 0, device), random_values((3,), 1, device).square()
    before = mean.clone(), var.clone()
    batch_norm_act(torch.ones(case.shape, device=device), None, None, mean, var)
    assert torch.equal(mean, before[0]) and torch.equal(var, before[1])


def _call(**changes):
    given = {"x": torch.ones(2, 3, 4, 4), "running_mean": torch.zeros(3), "running_var": torch.ones(3), **changes}
    return lambda: batch_norm_act(**given)


REJECTED = {
    "list": (_call(x=[1.0]), TypeError, "x must be a Tensor, got list"),
    "integers": (
        _call(x=torch.ones(2, 3).int()), TypeError, "x must be float16, bfloat16, float32 or float64, got torch.int32",
    ),
    "vector": (_call(x=torch.ones(3)), ValueError, "x must have at least 2 dimensions (N, C, ...), got shape (3,)"),
    "weight_type": (_call(weight=2.0), TypeError, "weight must be a Tensor or None, got float"),
    "weight_shape": (
        _call(weight=torch.ones(1, 3)), ValueError, "weight must have shape (3,), the channels of x, got (1, 3)",
    ),
    "bias_shape": (_call(bias=torch.ones(2)), ValueError, "bias must have shape (3,), the channels of x, got (2,)"),
    "bias_device": (
        _call(bias=torch.ones(3, device="meta")), ValueError, "bias must be on cpu, the device of x, got meta",
    ),
    "mean_shape": (
        _call(running_mean=torch.ones(4)), ValueError, "running_mean must have shape (3,), the channels of x, got (4,)",
    ),
    "var_dtype": (
        _call(running_var=torch.ones(3).int()), TypeError,
        "running_var must be of a floating point type, got torch.int32",
    ),
    "mean_alone": (
        _call(running_var=None), ValueError,
        "running_mean and running_var must be given together, got only one of them",
    ),
    "eval_without": (
        _call(running_mean=None, running_var=None, training=False), ValueError,
        "running_mean must be a Tensor when training is False, got None",
    ),
    "momentum": (_call(momentum=1.5), ValueError, "momentum must be in [0, 1], got 1.5"),
    "eps": (_call(eps=0.0), ValueError, "eps must be > 0, got 0.0"),
    "one_value": (
        _call(x=torch.ones(1, 3, 1, 1)), ValueError,
        "x must have more than 1 value per channel when training, got shape (1, 3, 1, 1)",
    ),
    "activation": (
        _call(activation="elu"), ValueError,
        "activation must be one of identity, relu, leaky_relu, tanh, sigmoid, silu, got 'elu'",
    ),
    "negative_slope": (_call(negative_slope=-1.0), ValueError, "negative_slope must be >= 0 and finite, got -1.0"),
}  # fmt: skip


@pytest.mark.parametrize("call, error, message", REJECTED.values(), ids=REJECTED)
def test_rejects(call, error, message):
    bodies.check_rejected(call, error, f"batch_norm_act: {message}")


@grid("norm_act", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
def test_running_statistics_are_those_of_torch(backend, device, case, dtype):
    if backend == "triton" and device == "cpu" and dtype == torch.bfloat16:
        dtype = torch.float16
    x = (random_values((4, 3, 5, 7), 0, device) * 2 + 1).to(dtype)
    start = [random_values((3,), 1, device), random_values((3,), 2, device).square()]

    def run(function, x, to):
        mean, var = (v.to(to) for v in start)
        function(x, mean, var)
        return mean, var

    kept = torch.float64 if dtype == torch.float64 else torch.float32

    def stock(x, mean, var):
        F.batch_norm(x, mean, var, None, None, True, case, EPS)

    def fused(x, mean, var):
        batch_norm_act(x, None, None, mean, var, momentum=case)

    rounded = [v.to(kept).double() for v in start]
    start = rounded
    gold, low, got = run(stock, x.double(), torch.float64), run(stock, x, kept), run(fused, x, kept)
    for name, ours, exact, theirs in zip(("mean", "var"), got, gold, low, strict=True):
        assert_close_to_gold(ours, exact, theirs, terms=140, name=f"running {name}")
    if case == 0:
        assert torch.equal(got[0].double(), rounded[0]) and torch.equal(got[1].double(), rounded[1])


@grid("norm_act", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype, mean", [(torch.float32, 1e4), (torch.float64, 1e8)], ids=["float32", "float64"])
def test_a_large_mean_does_not_cancel(backend, device, case, dtype, mean):
    x = in_layout((random_values((5, 3, 7, 9), 0, device) + mean).to(dtype), case)
    centred = x.double() - mean
    y, batch_mean, batch_var = ops.norm_act(x, None, None, EPS, "identity", SLOPE, False)
    var, exact = torch.var_mean(centred, dim=(0, 2, 3), correction=0)
    # some roundings of the mean; the difference of two squares would lose mean times as much
    lost = 8 * mean * torch.finfo(dtype).eps
    assert (batch_mean.double() - mean - exact).abs().max() <= lost
    assert (batch_var - var).abs().max() <= lost
    assert (y - F.batch_norm(centred, None, None, training=True, eps=EPS)).abs().max() <= lost


@grid("norm_act", ["dx", "dw", "db"])
@pytest.mark.parametrize("training, act_first", BOTH_MODES, ids=["train", "train-act_first", "eval", "eval-act_first"])
def test_double_backward_of_one_gradient_alone(backend, device, case, training, act_first):
    shape = (4, 3, 5, 3)
    tensors = [random_values(shape, 0, device), *(random_values((3,), i, device) for i in (1, 2))]
    stats = random_values((3,), 3, device), random_values((3,), 4, device).square() + 0.5
    options = Case(shape, torch.float64, activation="silu", training=training, act_first=act_first)

    def second(function):
        leaves = [v.clone().requires_grad_() for v in tensors]
        dy = random_values(shape, 5, device).requires_grad_()
        y = function(options, *leaves, (None, None) if training else stats)
        first = torch.autograd.grad(y, leaves, dy, create_graph=True)[("dx", "dw", "db").index(case)]
        leaves = [dy, *leaves]
        wanted = torch.autograd.grad(first, leaves, random_values(first.shape, 6, device), allow_unused=True)
        return [torch.zeros_like(v) if g is None else g for v, g in zip(leaves, wanted, strict=True)]

    for got, gold in zip(second(STEM.fused), second(STEM.stock), strict=True):
        assert_close_to_gold(got, gold, factor=3.0)


@grid("norm_act", [True, False])
def test_one_op_for_each_order(backend, device, case):
    x = random_values((2, 3, 4, 4), 0, device).requires_grad_()
    dy = random_values(x.shape, 1, device).requires_grad_()
    stats = torch.zeros(3, device=device), torch.ones(3, device=device)
    with CountOps() as count:
        y = batch_norm_act(x, None, None, *stats, training=case)
        (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
        torch.autograd.grad(dx, (x, dy), torch.ones_like(dx))
    assert dict(count.calls) == {"norm_act" if case else "norm_act_eval": 1, "norm_act_bwd": 1, "norm_act_bwd_bwd": 1}
