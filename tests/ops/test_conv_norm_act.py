"""``conv_norm_act`` against torch's convolutions, ``F.batch_norm`` and activations, in both forms and both orders."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from fastgan import ops as functions
from fastgan.backends.layout import is_channels_last
from fastgan.nn.functional import conv_norm_act, conv_transpose_norm_act
from fastgan.testing import LAYOUTS, CountOps, assert_close_to_gold, random_values

from . import bodies
from .common import LAYOUT_PAIRS, LEAVES, arguments, check, derivatives, make_tensors
from .conv_cases import CASES, DRAWN, FEW_CASES, FORMATS
from .conv_stem import FUSED, STEM, ConvCase, attributes, fused, lazy_arguments, stock, weight_shape
from .grid import DTYPES, grid
from .stems import fused_size

everywhere = grid("conv_norm_act", CASES, FEW_CASES)
ops = torch.ops.fastgan
NAMES = ("conv_norm_act", "conv_norm_act_dx", "conv_norm_act_dw")


def test_the_draws_cover_what_the_op_takes():
    assert DRAWN >= 200 and len(set(CASES)) == len(set(map(str, CASES))) == len(CASES)
    for dtype, transposed, lazy in product(DTYPES, (True, False), (True, False)):
        assert [case for case in CASES if (case.dtype, case.transposed, case.lazy) == (dtype, transposed, lazy)]
    for transposed in (True, False):
        of = [case for case in CASES if case.transposed == transposed]
        assert {k for case in of for k in case.kernel} == set(range(1, 6))
        assert {s for case in of for s in case.stride} == {1, 2, 3}
        assert {d for case in of for d in case.dilation} == {1, 2}
        assert {case.shape[0] for case in of} >= set(range(6))
        assert {case.groups for case in of} > {1, 2, 3} and any(case.groups == case.shape[1] > 3 for case in of)
        assert any(case.kernel[0] != case.kernel[1] for case in of)
    assert any(max(case.output_padding) > 0 for case in CASES)


@everywhere
def test_forward(backend, device, case):
    check(STEM, case, device, 0)


@everywhere
def test_backward(backend, device, case):
    check(STEM, case, device, 1)


@everywhere
def test_double_backward(backend, device, case):
    check(STEM, case, device, 2)


def _tiny(transposed, i, size):
    k, s, p = size
    pixels = {(4, 1, 0): 2 if transposed else 4, (4, 2, 1): 2 if transposed else 4}.get(size, 3)
    activation = ("tanh", "silu", "leaky_relu")[(i + transposed) % 3]
    options = {"lazy": True, "dtype": torch.float64, "activation": activation, "transposed": transposed}
    return ConvCase((2, 1 + i % 2, pixels, pixels), 2 - i % 2, **fused_size(k, s, p), **options)


TINY = [_tiny(transposed, i, size) for transposed in (True, False) for i, size in enumerate(FUSED)]
TINY += [
    TINY[0]._replace(lazy=False, activation="silu", bias=False),
    TINY[5]._replace(after="tanh", groups=1, norm=None),
]
TINY += [TINY[7]._replace(training=False, activation="silu")]


@grid("conv_norm_act", TINY, TINY[:1] + TINY[7:8])
def test_backward_is_that_of_finite_differences(backend, device, case):
    bodies.check_gradients(STEM, case, device, backend, torch.autograd.gradcheck)


@grid("conv_norm_act", TINY, TINY[:1] + TINY[7:8])
def test_double_backward_is_that_of_finite_differences(backend, device, case):
    bodies.check_gradients(STEM, case, device, backend, torch.autograd.gradgradcheck)


LAID_OUT = (
    ConvCase((3, 5, 6, 4), 3, **fused_size(*FUSED[0]), activation="silu", bias=False),
    ConvCase(
        (3, 4, 5, 4),
        2,
        (3, 2),
        (2, 1),
        (1, 0),
        output_padding=(1, 0),
        transposed=True,
        activation="tanh",
        act_first=True,
        bias=False,
    ),
    ConvCase((3, 4, 6, 5), 6, **fused_size(*FUSED[2]), groups=2, lazy=True, activation="silu"),
    ConvCase((3, 5, 4, 3), 3, **fused_size(*FUSED[0]), transposed=True, lazy=True, after="tanh"),
)
IN_LAYOUTS = [case._replace(layout=x, cotangents=dy) for case in LAID_OUT for x, dy in LAYOUT_PAIRS
              # the gradient of a plain sum through a normalisation is 0, or nearly so
              if dy != "scalar" or case.lazy]  # fmt: skip


@grid("conv_norm_act", IN_LAYOUTS, IN_LAYOUTS[::14])
def test_layouts(backend, device, case):
    bodies.check_layouts(STEM, case, device)


@grid("conv_norm_act", [case._replace(weight_layout=layout) for case in LAID_OUT for layout in LAYOUTS[2:]], [])
def test_layouts_of_the_weight(backend, device, case):
    check(STEM, case, device, 0, 1, 2)


@grid("conv_norm_act", LAYOUTS, [])
@pytest.mark.parametrize("weight_layout", FORMATS)
@pytest.mark.parametrize("form", [0, 1], ids=["conv", "transpose"])
def test_memory_format_is_that_of_torch(backend, device, case, weight_layout, form):
    t = make_tensors(STEM, LAID_OUT[form]._replace(layout=case, weight_layout=weight_layout), device)
    ours, theirs = (derivatives(f, LAID_OUT[form], t, 0)["y"] for f in (fused, stock))
    assert ours.stride() == theirs.stride()


def _op_tensors(case, device):
    """Return float32 tensors with gradients, and the arguments of the op."""
    t = make_tensors(STEM, case, device)
    t = {name: v.requires_grad_() if name in (*LEAVES, "dy") else v for name, v in t.items()}
    return t, lazy_arguments(case, *arguments(t), with_stats=case.bias)


@grid("conv_norm_act", ["contiguous", "channels_last", "sliced", "permuted"], few=["channels_last"])
@pytest.mark.parametrize("i", range(4), ids=["conv", "transposed", "groups", "fixed"])
def test_opcheck(backend, device, case, i):
    base = (
        ConvCase((3, 5, 4, 6), 4, **fused_size(*FUSED[0]), after="tanh"),
        ConvCase((3, 4, 3, 5), 3, **fused_size(*FUSED[0]), transposed=True, norm=None, bias=False, after="leaky_relu"),
        ConvCase((2, 4, 3, 5), 6, (3, 2), (2, 1), (1, 0), output_padding=(1, 0), groups=2, transposed=True, bias=False),
        ConvCase((2, 3, 5, 4), 4, **fused_size(*FUSED[2]), norm="w", training=False),
    )[i]
    base = base._replace(lazy=True, layout=case, cotangents=case, weight_layout=FORMATS[i % 2])
    thorough = case == FORMATS[(i + 1) % 2]
    t, given = _op_tensors(base, device)
    bodies.check_op(thorough, ops.conv_norm_act, given)
    x, weight, _, *norm = given[:7]
    a = attributes(base, is_channels_last(t["dy"]))
    y = fused(base, *arguments(t)).detach() if base.after != "identity" else None
    for mask in (None, y) if y is not None else (None,):
        constants = [v if v is None else v.detach() for v in (t["dy"], mask, weight, x, *norm)]
        bodies.check_op(False, ops.conv_norm_act_dx, (*constants, *a))
        dy, _, weight_, x_, *norm_ = constants
        bodies.check_op(False, ops.conv_norm_act_dw, (x_, *norm_, dy, mask, list(weight_.shape[2:]), *a))
    bodies.check_op(thorough, ops.conv_norm_act_dw, (x, *norm, t["dy"], None, list(weight.shape[2:]), *a))


# no two sizes are equal by chance: the compiler would take them for one
COMPILED = (
    ConvCase((6, 3, 7, 9), 5, **fused_size(*FUSED[0]), bias=False, activation="tanh"),
    ConvCase(
        (6, 3, 7, 9), 5, **fused_size(*FUSED[0]), transposed=True, lazy=True, layout="channels_last", after="tanh"
    ),
    ConvCase((7, 4, 11, 9), 6, **fused_size(*FUSED[2]), groups=2, act_first=True, activation="silu", training=False),
)


@grid("conv_norm_act", COMPILED, COMPILED[1:2])
def test_compile(backend, device, case):
    bodies.check_compiled(STEM, case, device, False, "aot_eager")


@grid("conv_norm_act", COMPILED[:1], [])
def test_compile_for_any_size(backend, device, case):
    bodies.check_compiled(STEM, case, device, True, "aot_eager")


@pytest.mark.slow
def test_compile_with_inductor():
    bodies.check_compiled(STEM, COMPILED[1], "cpu", dynamic=True, compiler="inductor")


EMPTY = [
    LAID_OUT[0]._replace(shape=(0, 5, 6, 4)),
    LAID_OUT[1]._replace(shape=(0, 4, 5, 4), training=False),
    LAID_OUT[2]._replace(shape=(0, 4, 6, 5), layout="channels_last"),
    LAID_OUT[3]._replace(shape=(0, 5, 4, 3), norm=None),
    LAID_OUT[3]._replace(shape=(0, 5, 4, 3), lazy=False, bias=False),
]


@grid("conv_norm_act", EMPTY)
def test_empty_batch(backend, device, case):
    bodies.check_empty(STEM, case, device)
    case = case._replace(norm=None)
    _, mean, var = ops.conv_norm_act(
        *lazy_arguments(case, *arguments(make_tensors(STEM, case, device)), with_stats=True)
    )
    assert mean.shape == var.shape == (case.c_out,) and not mean.any() and not var.any()


@grid("conv_norm_act", [EMPTY[0]])
def test_an_empty_batch_leaves_the_running_statistics(backend, device, case):
    mean, var = random_values((3,), 0, device).float(), random_values((3,), 1, device).float().square()
    before = mean.clone(), var.clone()
    x, weight = (torch.ones(shape, device=device) for shape in (case.shape, weight_shape(case)))
    conv_norm_act(x, weight, stride=2, padding=1, running_mean=mean, running_var=var)
    assert torch.equal(mean, before[0]) and torch.equal(var, before[1])


@grid(
    "conv_norm_act", [case for case in CASES if case.lazy and case.shape[0]], [case for case in FEW_CASES if case.lazy]
)
def test_statistics_of_the_result(backend, device, case):
    t = make_tensors(STEM, case, device)
    y, mean, var = ops.conv_norm_act(*lazy_arguments(case, *arguments(t), with_stats=True))
    assert mean.dtype == var.dtype == (torch.float64 if case.dtype == torch.float64 else torch.float32)
    assert torch.equal(y, fused(case, *arguments(t)))
    values = y.double()
    gold_var, gold_mean = torch.var_mean(values, (0, 2, 3), correction=0)
    eps = 8 * torch.finfo(mean.dtype).eps
    assert (mean - gold_mean).abs().max() <= eps * values.abs().max()
    assert (var - gold_var).abs().max() <= eps * values.square().max()


FAR = [c._replace(lazy=True, norm=None, after="identity", bias=True, layout=f) for c in LAID_OUT for f in FORMATS]


@grid("conv_norm_act", FAR, FAR[:2])
@pytest.mark.parametrize("dtype, mean", [(torch.float32, 1e4), (torch.float64, 1e8)], ids=["float32", "float64"])
def test_a_large_mean_does_not_cancel(backend, device, case, dtype, mean):
    case = case._replace(dtype=dtype)
    t = make_tensors(STEM, case, device)
    t["bias"] += mean
    y, batch_mean, batch_var = ops.conv_norm_act(*lazy_arguments(case, *arguments(t), with_stats=True))
    gold_var, gold_mean = torch.var_mean(y.double() - mean, (0, 2, 3), correction=0)
    # some roundings of the mean; the difference of two squares would lose mean times as much
    lost = 8 * mean * torch.finfo(dtype).eps
    assert (batch_mean.double() - mean - gold_mean).abs().max() <= lost
    assert (batch_var - gold_var).abs().max() <= lost


@grid("conv_norm_act", [LAID_OUT[0], LAID_OUT[1]], [LAID_OUT[0]])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
def test_running_statistics_are_those_of_torch(backend, device, case, momentum):
    case = case._replace(dtype=torch.float64, activation="tanh")
    t = make_tensors(STEM, case, device)
    start = random_values((case.c_out,), 0, device), random_values((case.c_out,), 1, device).square()
    ours, theirs = ([v.clone() for v in start] for _ in range(2))
    sizes = (case.stride, case.padding)
    x, weight, bias, _, *norm = arguments(t)
    options = {"act_first": case.act_first, "activation": "tanh", "momentum": momentum}
    options |= dict(zip(("norm_weight", "norm_bias", "running_mean", "running_var"), (*norm, *ours), strict=True))
    if case.transposed:
        conv_transpose_norm_act(x, weight, bias, *sizes, case.output_padding, **options)
        u = F.conv_transpose2d(x, weight, bias, *sizes, case.output_padding)
    else:
        conv_norm_act(x, weight, bias, *sizes, **options)
        u = F.conv2d(x, weight, bias, *sizes)
    F.batch_norm(u.tanh() if case.act_first else u, *theirs, None, None, True, momentum)
    for got, gold in zip(ours, theirs, strict=True):
        assert_close_to_gold(got, gold)


@grid("conv_norm_act", [0, 3], [0])
@pytest.mark.parametrize("name", ["x", "weight", "norm_weight", "norm_bias"])
def test_double_backward_of_one_gradient_alone(backend, device, case, name):
    options = LAID_OUT[case]._replace(dtype=torch.float64, activation="silu")
    t = make_tensors(STEM, options, device)

    def second(function):
        leaves = {key: v.detach().requires_grad_() for key, v in t.items() if key in (*LEAVES, "dy")}
        y = function(options, *arguments({**t, **leaves}))
        (first,) = torch.autograd.grad(y, leaves[name], leaves["dy"], create_graph=True)
        given = list(leaves.values())
        wanted = torch.autograd.grad(first, given, t[f"dd{name}"], allow_unused=True)
        return [torch.zeros_like(v) if g is None else g for v, g in zip(given, wanted, strict=True)]

    for got, gold in zip(second(fused), second(stock), strict=True):
        assert_close_to_gold(got, gold, factor=3.0)


@grid("conv_norm_act", list(FORMATS))
def test_a_bias_that_the_normalisation_takes_away_has_no_gradient(backend, device, case):
    options = LAID_OUT[0]._replace(bias=True, layout=case, dtype=torch.float64)
    t = make_tensors(STEM, options, device)
    first, without = (
        derivatives(fused, options, given, 1) for given in (t, {k: v for k, v in t.items() if k != "bias"})
    )
    assert first.pop("dbias").abs().max() <= 1e-12 * t["dy"].abs().sum()
    for name, value in without.items():
        torch.testing.assert_close(first[name], value, rtol=1e-9, atol=1e-12)


@grid("conv_norm_act", [LAID_OUT[0], LAID_OUT[3]])
def test_only_what_is_wanted_is_computed(backend, device, case):
    t = make_tensors(STEM, case, device)
    for name, runs in (("x", (1, 1, 0)), ("weight", (1, 0, 1))):
        given = {**t, name: t[name].detach().requires_grad_()}
        with CountOps() as count:
            torch.autograd.grad(fused(case, *arguments(given)), given[name], t["dy"])
        assert tuple(count[op] for op in NAMES) == runs


@grid("conv_norm_act", [LAID_OUT[2], LAID_OUT[3]], [LAID_OUT[3]])
def test_the_dispatched_op_is_the_function(backend, device, case):
    given = lazy_arguments(case, *arguments(make_tensors(STEM, case, device)), with_stats=True)
    for a, b in zip(ops.conv_norm_act(*given), functions.conv_norm_act.conv_norm_act(*given), strict=True):
        assert torch.equal(a, b)
