"""``bias_act`` against ``act(x + bias)`` in plain PyTorch."""

import pytest
import torch

from fastgan.nn.functional import bias_act
from fastgan.testing import CountOps, in_layout, random_values

from . import bodies
from .common import ACTIVATIONS, SLOPE, activate, check
from .grid import Case, grid
from .stems import BIAS_ACT as STEM
from .stems import BIAS_ACT_CASES, BIAS_ACT_LAYOUTS, BIAS_ACT_VARIANTS, tiny

everywhere = grid("bias_act", *BIAS_ACT_CASES)
TINY = tiny(BIAS_ACT_VARIANTS)
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


@grid("bias_act", *TINY)
def test_backward_is_that_of_finite_differences(backend, device, case):
    bodies.check_gradients(STEM, case, device, backend, torch.autograd.gradcheck)


@grid("bias_act", *TINY)
def test_double_backward_is_that_of_finite_differences(backend, device, case):
    bodies.check_gradients(STEM, case, device, backend, torch.autograd.gradgradcheck)


@grid("bias_act", *BIAS_ACT_LAYOUTS)
def test_layouts(backend, device, case):
    bodies.check_layouts(STEM, case, device)


@grid("bias_act", ["contiguous", "channels_last", "sliced", "permuted"], few=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 1, 3, 4), (3, 4, 1, 1)], ids=str)
def test_opcheck(backend, device, case, shape):
    thorough = shape[2] > 3 and case in ("contiguous", "channels_last")
    x, dy, ddx = (in_layout(random_values(shape, i, device).float(), case).requires_grad_() for i in range(3))
    bias = random_values((shape[1],), 3, device).float().requires_grad_()
    for activation in ("leaky_relu", "silu"):
        bodies.check_op(thorough, ops.bias_act, (x, bias, activation, SLOPE))
        bodies.check_op(thorough, ops.bias_act_bwd, (dy, x, bias, activation, SLOPE))
    constants = [v.detach() for v in (ddx, dy, x, bias)]
    bodies.check_op(thorough, ops.bias_act_bwd_bwd, (*constants, "tanh", SLOPE))


@grid("bias_act", [Case((4, 3, 5, 7)), Case((4, 3, 5, 7), layout="channels_last", activation="silu")])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile(backend, device, case, dynamic):
    bodies.check_compiled(STEM, case, device, dynamic, "aot_eager")


@pytest.mark.slow
def test_compile_with_inductor():
    bodies.check_compiled(STEM, Case((4, 3, 5, 7), layout="channels_last"), "cpu", dynamic=True, compiler="inductor")


@grid(
    "bias_act",
    [
        Case((0, 3, 4, 4)),
        Case((0, 3)),
        Case((2, 3, 0, 4), activation="silu"),
        Case((0, 3, 4, 4), layout="channels_last"),
    ],
)
def test_empty_batch(backend, device, case):
    bodies.check_empty(STEM, case, device)


def _call(x=None, bias=None, **options):
    return lambda: bias_act(torch.ones(2, 3, 4, 4) if x is None else x, bias, **options)


REJECTED = {
    "list": (_call([1.0]), TypeError, "x must be a Tensor, got list"),
    "integers": (
        _call(torch.ones(2, 3).long()), TypeError, "x must be float16, bfloat16, float32 or float64, got torch.int64",
    ),
    "vector": (
        _call(torch.ones(4)), ValueError, "x must have at least 2 dimensions (N, C, ...), got shape (4,)",
    ),
    "bias_type": (_call(bias=1.0), TypeError, "bias must be a Tensor or None, got float"),
    "bias_shape": (
        _call(bias=torch.ones(4)), ValueError, "bias must have shape (3,), the channels of x, got (4,)",
    ),
    "bias_device": (
        _call(bias=torch.ones(3, device="meta")), ValueError, "bias must be on cpu, the device of x, got meta",
    ),
    "bias_dtype": (
        _call(bias=torch.ones(3).int()), TypeError, "bias must be of a floating point type, got torch.int32",
    ),
    "activation": (
        _call(activation="gelu"), ValueError,
        "activation must be one of identity, relu, leaky_relu, tanh, sigmoid, silu, got 'gelu'",
    ),
    "negative_slope": (_call(negative_slope=-0.1), ValueError, "negative_slope must be >= 0 and finite, got -0.1"),
    "nan_slope": (_call(negative_slope=float("nan")), ValueError, "negative_slope must be >= 0 and finite, got nan"),
}  # fmt: skip


@pytest.mark.parametrize("call, error, message", REJECTED.values(), ids=REJECTED)
def test_rejects(call, error, message):
    bodies.check_rejected(call, error, f"bias_act: {message}")


@grid("bias_act", ["identity", "relu", "leaky_relu"])
def test_a_piecewise_linear_mask_has_no_gradient(backend, device, case):
    base = random_values((2, 3, 4, 4), 0, device).requires_grad_()
    bias = random_values((3,), 1, device).requires_grad_()
    x, dy = base * 2, random_values(base.shape, 2, device).requires_grad_()
    with CountOps() as count, CountOps("aten") as aten:
        (dx,) = torch.autograd.grad(bias_act(x, bias, activation=case), x, dy, create_graph=True)
        multiplications = aten["mul"]
        ddy, below, db = torch.autograd.grad(dx, (dy, base, bias), torch.ones_like(dx), allow_unused=True)
    assert below is None and db is None and ddy is not None
    assert aten["mul"] == multiplications or backend == "reference", "the layer below was run backward"
    assert dict(count.calls) == {"bias_act": 1, "bias_act_bwd": 2}


@grid("bias_act", ["identity", "relu", "leaky_relu"])
def test_piecewise_linear_activations_have_every_order(backend, device, case):
    x = random_values((2, 3, 4, 4), 0, device).requires_grad_()
    cotangents = [random_values(x.shape, seed, device).requires_grad_() for seed in (1, 2, 3)]
    value = bias_act(x, activation=case, negative_slope=SLOPE)
    for to, cotangent in zip((x, *cotangents[:2]), cotangents, strict=True):
        (value,) = torch.autograd.grad(value, to, cotangent, create_graph=True)
    slope = x.new_tensor({"identity": 1.0, "relu": 0.0, "leaky_relu": SLOPE}[case])
    assert torch.equal(value, cotangents[2] * torch.where(x > 0, torch.ones_like(x), slope))


@grid("bias_act", list(ACTIVATIONS))
def test_only_what_is_wanted_is_computed(backend, device, case):
    x, bias = random_values((2, 3, 4, 4), 0, device), random_values((3,), 1, device)
    y = bias_act(x.requires_grad_(), bias, activation=case)
    with CountOps("aten") as aten:
        y.backward(torch.ones_like(y))
    assert bias.grad is None and (aten["sum"] == 0 or backend == "reference")


@grid("bias_act", list(ACTIVATIONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_extreme_values(backend, device, case, dtype):
    """Neither overflow nor a swallowed NaN, and relative accuracy close to 0, where tanh written with exp has none."""
    values = [s * v for v in (1e30, 1e4, 100.0, 20.0, 0.6, 0.35, 0.3, 1e-2, 1e-3, 1e-5, 1e-30) for s in (1, -1)]
    special = [float("nan"), float("inf"), *([float("-inf")] if case != "silu" else [])]
    x = torch.tensor([values + special], dtype=dtype, device=device).requires_grad_()
    gold = activate(x.double(), case)
    y = bias_act(x, activation=case, negative_slope=SLOPE)
    rule = {"rtol": 16 * torch.finfo(dtype).eps, "atol": 1e-8 if case in ("sigmoid", "silu") else 1e-40}
    torch.testing.assert_close(y, gold.to(dtype), equal_nan=True, **rule)
    finite = slice(len(values))
    (got,), (exact,) = (torch.autograd.grad(v[0, finite].sum(), x) for v in (y, gold))
    # 1 - s^2 cannot be more accurate than s
    torch.testing.assert_close(got[0, finite], exact[0, finite], rtol=rule["rtol"], atol=4 * torch.finfo(dtype).eps)
