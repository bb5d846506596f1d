"""``gradient_penalty`` against ``weight * (g.flatten(1).norm(dim=1) - target).square().mean()`` in plain PyTorch."""

import pytest
import torch

from fastgan.backends.layout import accumulate_dtype, memory_format
from fastgan.ops.gradient_penalty import gradient_penalty
from fastgan.testing import LAYOUTS, assert_close_to_gold, in_layout, random_values

from . import bodies
from .bodies import OUTPUT_FORMAT
from .common import same_bits
from .grid import grid
from .penalty_stem import CASES, FEW, SMALL, VARIANTS, PenaltyCase, fused, make_gradient, stock, stock_seed

everywhere = grid("gradient_penalty", CASES, FEW)
variants = grid("gradient_penalty", [PenaltyCase(SMALL, **v) for v in VARIANTS])
tiny = grid("gradient_penalty", [PenaltyCase((3, 2, 2, 2), torch.float64, **v) for v in VARIANTS])
# torch's own second order is NaN where a norm is 0
NONZERO = slice(None, -1)
ops = torch.ops.fastgan


def _low(case, g):
    """Return (P, v) as torch has them: the 16-bit types in float32, v rounded."""
    penalty, v = stock_seed(case, g.to(accumulate_dtype(case.dtype)))
    return penalty, v.to(case.dtype)


def _check(case, g, got, of_p=1.0):
    """Compare (P, v), or gradients of ``of_p`` P."""
    gold, low = stock_seed(case, g.double()), _low(case, g)
    terms = g[:1].numel()
    if got[0] is not None:
        assert got[0].shape == () and got[0].dtype == accumulate_dtype(case.dtype)
        assert_close_to_gold(got[0], gold[0], low[0], terms=terms, name=f"P of {case}")
    assert got[1].dtype == case.dtype
    assert got[1].is_contiguous(memory_format=memory_format(g)), f"{case}: strides {got[1].stride()}"
    assert_close_to_gold(got[1], of_p * gold[1], of_p * low[1], factor=3.0, terms=terms, name=f"v of {case}")
    zero = g.flatten(1).eq(0).all(1)
    assert got[1][zero].eq(0).all()


@everywhere
def test_forward(backend, device, case):
    g = make_gradient(case, device)
    _check(case, g, fused(case, g))


@everywhere
def test_backward(backend, device, case):
    g = make_gradient(case, device).requires_grad_()
    penalty, v = fused(case, g)
    assert not v.requires_grad
    (dg,) = torch.autograd.grad(penalty, g, penalty.new_tensor(0.375))
    _check(case, g.detach(), (None, dg), of_p=0.375)


@everywhere
def test_double_backward(backend, device, case):
    def second(function, given, up, down):
        g, up = given.detach().requires_grad_(), up.requires_grad_()
        (dg,) = torch.autograd.grad(function(case, g), g, up, create_graph=True)
        return torch.autograd.grad(dg, (g, up), down)

    g = make_gradient(case, device)
    wide = accumulate_dtype(case.dtype)
    up, down = torch.tensor(0.375, dtype=wide, device=device), random_values(case.shape, 1, device).to(case.dtype)
    got = second(lambda c, x: fused(c, x)[0], g, up, down)
    assert got[0].isfinite().all()
    if case.shape[0] > 1:
        # a penalty of the other samples, with the same weight each
        down[-1] = 0
        got = second(lambda c, x: fused(c, x)[0], g, up, down)
        part = case._replace(weight=case.weight * (case.shape[0] - 1) / case.shape[0])
        g, down, dg = g[NONZERO], down[NONZERO], got[0][NONZERO]
    else:
        part, dg = case, got[0]
    case = part
    gold = second(stock, g.double(), up.detach().double(), down.double())
    low = second(stock, g.to(wide), up.detach(), down.to(wide))
    terms = g[:1].numel()
    assert_close_to_gold(dg, gold[0], low[0].to(g.dtype), factor=3.0, terms=terms, name="second order, by g")
    # a sum of products of either sign, which v's rounding enters
    scale = (stock_seed(case, g.double())[1] * down.double()).abs().sum().item()
    assert abs(got[1].item() - gold[1].item()) <= 4 * torch.finfo(case.dtype).eps * scale


@tiny
def test_backward_is_that_of_finite_differences(backend, device, case):
    g = make_gradient(case, device)[NONZERO].requires_grad_()
    assert torch.autograd.gradcheck(lambda g: fused(case, g)[0], g, atol=1e-8, rtol=1e-6)


@tiny
def test_double_backward_is_that_of_finite_differences(backend, device, case):
    g = make_gradient(case, device)[NONZERO].requires_grad_()
    assert torch.autograd.gradgradcheck(lambda g: fused(case, g)[0], g, atol=1e-8, rtol=1e-6)


@variants
def test_third_order_is_finite_at_zero(backend, device, case):
    g = make_gradient(case, device).requires_grad_()
    value = fused(case, g)[0]
    for _ in range(3):
        (dg,) = torch.autograd.grad(value, g, create_graph=True)
        assert dg.isfinite().all()
        value = (dg * dg.detach()).sum()
        if not value.requires_grad:
            break


@grid(
    "gradient_penalty",
    [PenaltyCase(shape, layout=x) for shape in (SMALL, (2, 19, 45, 43)) for x in LAYOUTS],
    few=[PenaltyCase((2, 5, 33, 31), layout=x) for x in LAYOUTS],
)
def test_layouts(backend, device, case):
    g = make_gradient(case, device).requires_grad_()
    penalty, v = fused(case, g)
    strides = torch.empty(case.shape, memory_format=OUTPUT_FORMAT.get(case.layout, torch.contiguous_format)).stride()
    assert v.stride() == strides
    dense = g.detach().clone(memory_format=torch.contiguous_format)
    gold, low = stock_seed(case, dense.double()), _low(case, dense)
    terms = dense[0].numel()
    assert_close_to_gold(penalty, gold[0], low[0], terms=terms, name="P")
    (dg,) = torch.autograd.grad(penalty, g)
    for got in (v, dg):
        assert_close_to_gold(got, gold[1], low[1], factor=3.0, terms=terms, name="v")


@grid("gradient_penalty", list(LAYOUTS), few=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 1, 3, 4)], ids=str)
def test_opcheck(backend, device, case, shape):
    g = in_layout(random_values(shape, 0, device).float(), case)
    # AOT autograd makes leaves of its own, which must not overlap
    thorough = case in ("contiguous", "channels_last")
    bodies.check_op(thorough, ops.gradient_penalty, (g.requires_grad_(thorough), 10.0, 1.0, False))
    bodies.check_op(thorough, ops.gradient_penalty, (g, 10.0, 0.0, True))


@variants
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile(backend, device, case, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(lambda g: fused(case, g), fullgraph=True, dynamic=dynamic, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in (SMALL, (7, 3, 6, 5)) if dynamic else (SMALL,):
            sized = case._replace(shape=shape, layout="channels_last")
            g = make_gradient(sized, device).requires_grad_()
            penalty, v = compiled(g)
            _check(sized, g.detach(), (penalty.detach(), v))
            _check(sized, g.detach(), (None, torch.autograd.grad(penalty, g)[0]))


@pytest.mark.slow
def test_compile_with_inductor():
    torch._dynamo.reset()
    case = PenaltyCase(SMALL, layout="channels_last")
    g = make_gradient(case).requires_grad_()
    penalty, v = torch.compile(lambda g: fused(case, g), fullgraph=True)(g)
    _check(case, g.detach(), (penalty.detach(), v))
    _check(case, g.detach(), (None, torch.autograd.grad(penalty, g)[0]))


@variants
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (0, 3)], ids=str)
def test_empty_batch(backend, device, case, shape):
    g = torch.ones(shape, device=device).requires_grad_()
    penalty, v = fused(case, g)
    assert penalty.item() == 0 and v.shape == shape
    assert torch.autograd.grad(penalty, g)[0].shape == shape


@variants
def test_samples_without_values(backend, device, case):
    g = torch.ones(4, 3, 0, 2, device=device)
    penalty, v = fused(case, g)
    expected = 0.0 if case.one_sided else case.weight * case.target**2
    assert penalty.item() == pytest.approx(expected) and v.shape == g.shape


@grid(
    "gradient_penalty",
    [PenaltyCase(shape, **v) for shape in (SMALL, (2, 3, 180, 81), (37, 3)) for v in VARIANTS],
    few=[PenaltyCase(SMALL), PenaltyCase((2, 5000), one_sided=True), PenaltyCase((37, 3), target=0.0)],
)
def test_every_value_is_written(backend, device, case, nan_in_new_memory):
    g = make_gradient(case, device)
    penalty, v = fused(case, g)
    assert penalty.isfinite() and v.isfinite().all()
    torch.use_deterministic_algorithms(False)
    same_bits({"P": penalty, "v": v}, dict(zip(("P", "v"), fused(case, g), strict=True)))


@grid("gradient_penalty", [PenaltyCase(shape) for shape in ((6, 3, 67, 71), (1, 3, 400, 401), (3000, 1, 3, 9))],
      few=[PenaltyCase((1, 3, 67, 31)), PenaltyCase((60, 2))])  # fmt: skip
def test_same_bits_again_for_any_number_of_threads(backend, device, case, threads):
    g = make_gradient(case, device)
    first = fused(case, g)
    for number in (1, 2, 3) if device == "cpu" and backend == "native" else (1, 1):
        threads(number)
        assert all(torch.equal(a, b) for a, b in zip(first, fused(case, g), strict=True))


@grid("gradient_penalty", [1e18, 1e-18, 1e-3, 1e3])
def test_large_and_small_norms(backend, device, case):
    """A sum of squares beyond float32, which makes torch's own norm infinite, is fine."""
    g = torch.full((2, 3, 32, 33), case, device=device)
    norm = g.double().flatten(1).norm(dim=1)
    penalty, v = gradient_penalty(g, 10.0, 1.0, False)
    gold = 10.0 * (norm - 1) ** 2
    if case < 1e18:
        assert penalty.item() == pytest.approx(gold.mean().item(), rel=1e-6)
    expected = 10.0 * (1 - 1 / norm[0].item()) * g[0, 0, 0, 0].item()
    assert v.unique().numel() == 1 and v[0, 0, 0, 0].item() == pytest.approx(expected, rel=1e-6)


@variants
def test_what_is_not_a_number_stays_so(backend, device, case):
    g = make_gradient(case, device)
    g[1, 2, 3, 4] = float("nan")
    penalty, v = fused(case, g)
    assert penalty.isnan()
    if case.target != 0:
        assert v[1].isnan().all()
    others = [0, *range(2, len(g))]
    g[1] = 0
    assert torch.equal(v[others], fused(case, g)[1][others])


@variants
def test_norms_on_either_side_of_the_target(backend, device, case):
    """One-sided, what is below costs nothing."""
    g = torch.zeros(3, 4, device=device)
    g[:, 1] = torch.tensor([0.5, 3.0, 0.0])
    penalty, v = fused(case, g)
    over = g[:, 1] - case.target
    over = over.clamp(min=0) if case.one_sided else over
    assert penalty.item() == pytest.approx(case.weight * over.square().mean().item(), rel=1e-6)
    slope = 2 * case.weight / 3 * over
    slope[2] = 0
    torch.testing.assert_close(v[:, 1], slope, rtol=1e-6, atol=0)
    assert v[:, [0, 2, 3]].eq(0).all()


@grid("gradient_penalty", [torch.float16])
def test_the_scale_of_a_loss_scaler_does_not_overflow(backend, device, case):
    g = torch.full((2, 8), 1e-2, dtype=case, device=device).requires_grad_()
    penalty, v = gradient_penalty(g, 10.0, 0.0, False)
    (dg,) = torch.autograd.grad(penalty, g, penalty.new_tensor(65536.0))
    assert torch.equal(dg, (v.float() * 65536).half()) and dg.isfinite().all()


@variants
def test_a_whole_penalty_has_the_gradients_of_torch(backend, device, case):
    """WGAN-GP by hand: the gradients of a critic's weights, through v and a second backward pass."""
    generator = torch.Generator().manual_seed(0)

    def gradients(function, dtype):
        generator.manual_seed(0)
        conv = torch.randn(6, 3, 3, 3, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()
        last = torch.randn(6 * 9, 1, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()
        x = torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()
        score = torch.tanh(torch.conv2d(x, conv)).flatten(1) @ last / 20
        (g,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return torch.autograd.grad(function(case, g), (conv, last, x))

    got = gradients(lambda c, g: fused(c, g)[0], torch.float32)
    for value, gold, low in zip(got, gradients(stock, torch.float64), gradients(stock, torch.float32), strict=True):
        assert_close_to_gold(value, gold, low, factor=3.0, terms=100, name="gradient")
