"""``spectral_norm``: the gradient through sigma, to any order, in eager mode and compiled."""

import pytest
import torch

from fastgan import ops
from fastgan.backends.layout import empty
from fastgan.nn.functional import spectral_norm_power_iteration
from fastgan.testing import assert_close_to_gold

from . import bodies
from .grid import DTYPES, grid
from .spectral_stem import CASES, EPS, SMALL, TYPES, Case, make, matrix_of, stock


def _check_bwd(cases, device):
    made = [make(case, device, i) for i, case in enumerate(cases)]
    dims = [case.dim for case in cases]
    sigmas = torch.stack([stock(w.double(), u.double(), v.double(), d, 1)[2]
                          for (w, u, v, _), d in zip(made, dims, strict=True)])  # fmt: skip
    wide = torch.float64 if cases[0].dtype == torch.float64 else torch.float32
    lists = [[m[k] for m in made] for k in (3, 0, 1, 2)]
    got = ops.spectral_norm.spectral_norm_bwd(*lists, sigmas.to(wide), dims)
    for case, (weight, u, v, dy), sigma, ours in zip(cases, made, sigmas.to(wide), got, strict=True):
        results = []
        for dtype in (torch.float64, case.dtype):
            w = weight.to(dtype).requires_grad_()
            rank_one = torch.outer(u.to(dtype), v.to(dtype)).reshape(matrix_of(weight, case.dim).shape)
            inner = (dy.to(dtype) * w).sum()
            correction = (inner / sigma.to(dtype) ** 2 * rank_one).reshape(w.movedim(case.dim, 0).shape)
            results.append((dy.to(dtype) / sigma.to(dtype) - correction.movedim(0, case.dim)).detach())
        name = f"dw of {case}"
        assert_close_to_gold(ours, *results, factor=3, name=name, terms=weight.numel(), term_dtype=torch.float32)
        assert ours.dtype == case.dtype and ours.stride() == empty(weight).stride(), name


@grid("spectral_norm", CASES)
def test_backward_formula(backend, device, case):
    _check_bwd([case], device)


@grid("spectral_norm", list(DTYPES))
def test_backward_of_all_layers_at_once(backend, device, case):
    _check_bwd([c for c in TYPES if c.dtype == case], device)
    if case == torch.float32:
        _check_bwd(CASES, device)


@grid("spectral_norm", [*SMALL, Case((70, 33, 3, 3)), Case((24, 70, 4, 4), 1)])
def test_backward_is_that_of_torch(backend, device, case):
    """The formula's sigma is a function of the weight: autograd through torch's own composition agrees."""
    weight, u, v, dy = (t.double() for t in make(case, device))
    u, v, _ = stock(weight, u, v, case.dim, 3)
    theirs = weight.clone().requires_grad_()
    (expected,) = torch.autograd.grad(theirs / torch.dot(u, torch.mv(matrix_of(theirs, case.dim), v)), theirs, dy)
    ours = weight.clone().requires_grad_()
    sigma = torch.dot(u, torch.mv(matrix_of(weight, case.dim), v))
    (got,) = torch.autograd.grad(ops.spectral_norm.spectral_norm_scale(ours, u, v, sigma, case.dim), ours, dy)
    assert_close_to_gold(got, expected)
    again = weight.clone().requires_grad_()
    folded = ops.spectral_norm.spectral_norm_fold([again, again], [u, u], [v, v], torch.stack([sigma, sigma]),
                                                  [case.dim] * 2)  # fmt: skip
    assert all(torch.equal(f, weight) for f in folded)
    (got,) = torch.autograd.grad(folded[:1], again, dy, retain_graph=True)
    assert_close_to_gold(got, expected)
    (got,) = torch.autograd.grad(folded, again, [dy, 2 * dy])
    assert_close_to_gold(got, 3 * expected)


@grid("spectral_norm", SMALL)
def test_double_backward(backend, device, case):
    weight, u, v, _ = (t.double() for t in make(case, device))
    u, v, _ = stock(weight, u, v, case.dim, 5)

    def scaled(w):
        # sigma follows the weight, as u and v do not: its derivative is what the op's formula holds
        sigma = sigma_of(w, u, v, case.dim)
        return ops.spectral_norm.spectral_norm_scale(w, u, v, sigma, case.dim)

    def folded(w):
        sigma = sigma_of(w, u, v, case.dim)
        return ops.spectral_norm.spectral_norm_fold([w], [u], [v], sigma.reshape(1), [case.dim])[0]

    leaf = weight.clone().requires_grad_()
    assert torch.autograd.gradcheck(scaled, leaf, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(scaled, leaf, atol=1e-8, rtol=1e-6)
    cotangent = torch.randn_like(weight)
    first = [torch.autograd.grad(f(leaf), leaf, cotangent, create_graph=True)[0]
             for f in (scaled, folded)]  # fmt: skip
    assert_close_to_gold(*first)
    second = [torch.autograd.grad(g.sin().sum(), leaf)[0] for g in first]
    assert_close_to_gold(*second)


def sigma_of(weight, u, v, dim):
    return torch.dot(u, torch.mv(matrix_of(weight, dim), v)).detach()


@grid("spectral_norm", [*SMALL, Case((6, 5, 4, 4), layout="sliced"), Case((6, 5, 4, 4), 3, layout="channels_last")])
def test_opcheck(backend, device, case):
    weight, u, v, dy = make(case, device)
    sigma = stock(weight, u, v, case.dim, 1)[2]
    op = torch.ops.fastgan
    bodies.check_op(True, op.spectral_norm_power_iteration, ([weight], [u], [v], [case.dim], 1, EPS, False))
    bodies.check_op(True, op.spectral_norm_bwd, ([dy], [weight], [u], [v], sigma.reshape(1), [case.dim]))
    bodies.check_op(True, op.spectral_norm_scale, (weight.requires_grad_(), u, v, sigma, case.dim))


@grid("spectral_norm", SMALL[:2])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile(backend, device, case, dynamic):
    def function(weight, u, v):
        new_u, new_v, sigma = spectral_norm_power_iteration(weight, u, v, dim=case.dim)
        return ops.spectral_norm.spectral_norm_scale(weight, new_u, new_v, sigma, case.dim)

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    shapes = [case.shape, tuple(n + 1 for n in case.shape)] if dynamic else [case.shape]
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in shapes:
            weight, u, v, dy = make(case._replace(shape=shape), device)
            results = []
            for run in (function, compiled):
                leaf = weight.clone().requires_grad_()
                y = run(leaf, u, v)
                results.append((y.detach(), *torch.autograd.grad(y, leaf, dy)))
            for eager, graph in zip(*results, strict=True):
                assert torch.equal(eager, graph) and eager.stride() == graph.stride()
