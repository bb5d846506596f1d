"""``spectral_norm``: the power iteration against torch's two spectral norms, and the gradient through sigma."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as legacy_spectral_norm

from fastgan import backends, ops
from fastgan.backends.layout import empty
from fastgan.nn.functional import spectral_norm_power_iteration
from fastgan.testing import assert_close_to_gold, in_layout, random_values

from . import bodies
from .grid import DTYPES, grid

EPS = 1e-12
ITERATIONS = (1, 10, 100)
LAYERS = {
    "linear": (nn.Linear, (33, 70), 0),
    "linear-one-output": (nn.Linear, (512, 1), 0),
    "embedding": (nn.Embedding, (300, 20), 0),
    "conv1d": (nn.Conv1d, (6, 11, 5), 0),
    "conv2d": (nn.Conv2d, (24, 40, 4), 0),
    "conv2d-wide": (nn.Conv2d, (70, 37, 4), 0),
    "conv3d": (nn.Conv3d, (3, 8, (2, 3, 4)), 0),
    "conv_transpose1d": (nn.ConvTranspose1d, (9, 12, 5), 1),
    "conv_transpose2d": (nn.ConvTranspose2d, (70, 48, 4), 1),
    "conv_transpose2d-1x1": (nn.ConvTranspose2d, (12, 24, 1), 1),
    "conv_transpose3d": (nn.ConvTranspose3d, (5, 7, (3, 2, 3)), 1),
}


class Case(NamedTuple):
    """A weight of ``shape`` seen from ``dim``, in one of testing.LAYOUTS."""

    shape: tuple[int, ...]
    dim: int = 0
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"

    def __str__(self):
        return f"{'x'.join(map(str, self.shape))}-dim{self.dim}-{str(self.dtype)[6:]}-{self.layout}"


def _shapes():
    # columns around lanes and rows around groups of rows; more rows than one task has; odd inner sizes
    shapes = [(1, 1), (3, 63), (5, 65), (9, 8200), (700, 40), (40, 700), (17, 6, 5), (17, 6, 3, 3), (21, 10, 4, 4)]
    shapes += [(3, 4, 1, 1), (4, 6, 2, 3, 2), (2, 3, 20, 20), (1, 70, 4, 4), (70, 1, 4, 4)]
    return [Case(shape, dim) for shape in shapes for dim in (0, 1)] + [Case((5, 4, 3, 6), 2), Case((5, 4, 3, 6), 3)]


def _layouts():
    images = [Case(shape, dim, layout=layout) for shape in ((6, 5, 4, 4), (70, 33, 3, 3)) for dim in (0, 1, 3)
              for layout in ("channels_last", "sliced", "sliced_channels_last", "permuted", "expanded")]  # fmt: skip
    volumes = [Case((6, 5, 2, 3, 4), dim, layout="channels_last") for dim in (0, 1, 4)]
    return images + volumes + [Case((8, 70), dim, layout="permuted") for dim in (0, 1)]


CASES = _shapes() + _layouts()
TYPES = [Case(shape, dim, dtype, layout) for shape, dim, layout in
         (((70, 33, 3, 3), 0, "contiguous"), ((24, 70, 4, 4), 1, "contiguous"), ((24, 70, 4, 4), 1, "channels_last"),
          ((24, 70, 4, 4), 0, "channels_last"), ((300, 70), 0, "contiguous")) for dtype in DTYPES]  # fmt: skip
SMALL = [Case((4, 3, 2, 2)), Case((4, 3, 2, 2), 1, layout="channels_last"), Case((3, 5), 1), Case((4, 3, 3), 1)]


def _matrix(weight, dim):
    return weight.movedim(dim, 0).flatten(1)


def _make(case, device, seed=0):
    """Return weight, u and v of a case, and a cotangent of the result."""
    weight, dy = (in_layout(random_values(case.shape, seed + i, device).to(case.dtype), case.layout) for i in (0, 1))
    rows, columns = _matrix(weight, case.dim).shape
    u, v = (F.normalize(random_values((n,), seed + i, device), dim=0) for n, i in ((rows, 2), (columns, 3)))
    return weight, u.to(case.dtype), v.to(case.dtype), dy


def _stock(weight, u, v, dim, iterations, v_first=False, eps=EPS):
    """Return what torch's parametrization does, in the type of the weight, or its legacy hook with ``v_first``."""
    m = _matrix(weight, dim)
    for _ in range(iterations):
        if v_first:
            v = F.normalize(torch.mv(m.t(), u), dim=0, eps=eps)
        u = F.normalize(torch.mv(m, v), dim=0, eps=eps)
        if not v_first:
            v = F.normalize(torch.mv(m.t(), u), dim=0, eps=eps)
    return u, v, torch.dot(u, torch.mv(m, v))


def _ours(weights, us, vs, dims, iterations=1, v_first=False, eps=EPS):
    return ops.spectral_norm.spectral_norm_power_iteration(weights, us, vs, dims, iterations, eps, v_first)


def _check(case, device, iterations, v_first, got=None, seed=0):
    weight, u, v, _ = _make(case, device, seed)
    if got is None:
        us, vs, sigmas = _ours([weight], [u], [v], [case.dim], iterations, v_first)
        got = us[0], vs[0], sigmas[0]
    gold = _stock(weight.double(), u.double(), v.double(), case.dim, iterations, v_first)
    low = _stock(weight, u, v, case.dim, iterations, v_first)
    assert [t.dtype for t in got[:2]] == [case.dtype] * 2
    assert got[2].dtype == (torch.float64 if case.dtype == torch.float64 else torch.float32)
    for name, ours, exact, rounded in zip(("u", "v", "sigma"), got, gold, low, strict=True):
        terms = max(weight.numel() // n for n in (u.numel(), v.numel()))
        assert_close_to_gold(ours, exact, rounded, name=f"{name} of {case} after {iterations}", terms=terms)


@pytest.mark.parametrize("iterations", ITERATIONS)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("legacy", [False, True], ids=["parametrization", "legacy"])
@grid("spectral_norm", [torch.float32])
def test_equals_torch(backend, device, case, kind, iterations, legacy):
    make, arguments, dim = LAYERS[kind]
    torch.manual_seed(0)
    layer = make(*arguments).to(device)
    (legacy_spectral_norm if legacy else parametrizations.spectral_norm)(layer, n_power_iterations=iterations)
    owner = None if legacy else layer.parametrizations.weight[0]
    weight = (layer.weight_orig if legacy else layer.parametrizations.weight.original).detach()
    u, v = (layer.weight_u, layer.weight_v) if legacy else (owner._u, owner._v)
    us, vs, sigmas = _ours([weight], [u.clone()], [v.clone()], [dim], iterations, legacy)
    scaled = ops.spectral_norm.spectral_norm_scale(weight, us[0], vs[0], sigmas[0], dim)
    if legacy:
        layer._forward_pre_hooks[next(iter(layer._forward_pre_hooks))](layer, None)
    expected = layer.weight.detach()
    sigma = torch.dot(u, torch.mv(_matrix(weight, dim), v))
    # u and v are the layer's buffers, which torch has updated in place
    for ours, theirs in ((us[0], u), (vs[0], v), (scaled, expected), (sigmas[0], sigma)):
        assert (ours - theirs).abs().max() <= 1e-6 * max(theirs.abs().max().item(), 1.0 if theirs.dim() == 1 else 0.0)


@grid("spectral_norm", CASES)
@pytest.mark.parametrize("v_first", [False, True], ids=["u_first", "v_first"])
def test_forward(backend, device, case, v_first):
    for iterations in (1, 2, 5):
        _check(case, device, iterations, v_first)


@grid("spectral_norm", TYPES)
@pytest.mark.parametrize("v_first", [False, True], ids=["u_first", "v_first"])
def test_types(backend, device, case, v_first):
    for iterations in (1, 3):
        _check(case, device, iterations, v_first)


@grid("spectral_norm", [*TYPES[::4], Case((9, 8, 3, 3), 1)])
def test_without_iterations(backend, device, case):
    weight, u, v, _ = _make(case, device)
    us, vs, sigmas = _ours([weight], [u], [v], [case.dim], 0)
    assert torch.equal(us[0], u) and torch.equal(vs[0], v) and us[0] is not u
    m, u, v = _matrix(weight.double(), case.dim), u.double(), v.double()
    # the terms cancel: the error is that of one of them
    assert abs(sigmas[0].item() - (u @ m @ v).item()) <= 1e-6 * (u.abs() @ m.abs() @ v.abs()).item()


@grid("spectral_norm", [0, 1, 3])
def test_all_layers_at_once(backend, device, case):
    cases = [*CASES, *(c for c in TYPES if c.dtype != torch.float64)]
    made = [_make(c, device, i) for i, c in enumerate(cases)]
    weights, us, vs = ([m[k] for m in made] for k in range(3))
    if device == "cuda":
        keep = [i for i, c in enumerate(cases) if c.dtype == torch.float32]
        cases = [cases[i] for i in keep]
        weights, us, vs = ([v[i] for i in keep] for v in (weights, us, vs))
    else:
        keep = range(len(cases))
    if case == 0:
        assert len(_ours(weights, us, vs, [c.dim for c in cases], 0)[2]) == len(cases)
        return
    new_us, new_vs, sigmas = _ours(weights, us, vs, [c.dim for c in cases], case)
    for c, seed, *got in zip(cases, keep, new_us, new_vs, sigmas, strict=True):
        _check(c, device, case, False, got, seed)


def _check_bwd(cases, device):
    made = [_make(case, device, i) for i, case in enumerate(cases)]
    dims = [case.dim for case in cases]
    sigmas = torch.stack([_stock(w.double(), u.double(), v.double(), d, 1)[2]
                          for (w, u, v, _), d in zip(made, dims, strict=True)])  # fmt: skip
    wide = torch.float64 if cases[0].dtype == torch.float64 else torch.float32
    lists = [[m[k] for m in made] for k in (3, 0, 1, 2)]
    got = ops.spectral_norm.spectral_norm_bwd(*lists, sigmas.to(wide), dims)
    for case, (weight, u, v, dy), sigma, ours in zip(cases, made, sigmas.to(wide), got, strict=True):
        results = []
        for dtype in (torch.float64, case.dtype):
            w = weight.to(dtype).requires_grad_()
            rank_one = torch.outer(u.to(dtype), v.to(dtype)).reshape(_matrix(weight, case.dim).shape)
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
    weight, u, v, dy = (t.double() for t in _make(case, device))
    u, v, _ = _stock(weight, u, v, case.dim, 3)
    stock = weight.clone().requires_grad_()
    (expected,) = torch.autograd.grad(stock / torch.dot(u, torch.mv(_matrix(stock, case.dim), v)), stock, dy)
    ours = weight.clone().requires_grad_()
    sigma = torch.dot(u, torch.mv(_matrix(weight, case.dim), v))
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
    weight, u, v, _ = (t.double() for t in _make(case, device))
    u, v, _ = _stock(weight, u, v, case.dim, 5)

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
    return torch.dot(u, torch.mv(_matrix(weight, dim), v)).detach()


@grid("spectral_norm", [*SMALL, Case((6, 5, 4, 4), layout="sliced"), Case((6, 5, 4, 4), 3, layout="channels_last")])
def test_opcheck(backend, device, case):
    weight, u, v, dy = _make(case, device)
    sigma = _stock(weight, u, v, case.dim, 1)[2]
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
            weight, u, v, dy = _make(case._replace(shape=shape), device)
            results = []
            for run in (function, compiled):
                leaf = weight.clone().requires_grad_()
                y = run(leaf, u, v)
                results.append((y.detach(), *torch.autograd.grad(y, leaf, dy)))
            for eager, graph in zip(*results, strict=True):
                assert torch.equal(eager, graph) and eager.stride() == graph.stride()


@grid("spectral_norm", [torch.float32, torch.float64])
@pytest.mark.parametrize("v_first", [False, True], ids=["u_first", "v_first"])
@pytest.mark.parametrize("scale", [0.0, 1e-13, 1e-17, 1e-6, 1e14])
def test_extreme_values(backend, device, case, v_first, scale):
    """Where lengths are below eps, all results are torch's, and no NaN arises that torch has not."""
    # a second iteration below eps would leave the range of float32
    iterations = 1 if scale < EPS else 2
    for dim in (0, 1):
        weight, u, v, _ = _make(Case((6, 5, 3, 3), dim, case), device)
        weight = weight * scale
        expected = _stock(weight.double(), u.double(), v.double(), dim, iterations, v_first)
        us, vs, sigmas = _ours([weight], [u], [v], [dim], iterations, v_first)
        for ours, theirs in zip((us[0], vs[0], sigmas[0]), expected, strict=True):
            assert ours.isfinite().all() and theirs.isfinite().all()
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@grid(
    "spectral_norm", [Case((512, 70, 4, 4)), Case((200, 90, 4, 4), 1), Case((200, 90, 4, 4), 1, layout="channels_last")]
)
@pytest.mark.parametrize("v_first", [False, True], ids=["u_first", "v_first"])
def test_same_bits_again_for_any_number_of_threads(backend, device, case, v_first, threads):
    weight, u, v, dy = _make(case, device)

    def run():
        us, vs, sigmas = _ours([weight, weight[:, :, :2]], [u, u], [v, v[: v.numel() // 2].clone()], [case.dim] * 2, 2)
        return (
            us + vs + [sigmas] + ops.spectral_norm.spectral_norm_bwd([dy], [weight], [u], [v], sigmas[:1], [case.dim])
        )

    first = run()
    for count in (1, 2, 3) if backend == "native" and device == "cpu" else (1,):
        threads(count)
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@grid("spectral_norm", [*SMALL, Case((65, 9, 4, 4)), Case((65, 9, 4, 4), 1)])
def test_every_value_is_written(backend, device, case, nan_in_new_memory):
    for iterations in (0, 1, 2):
        weight, u, v, dy = _make(case, device)
        us, vs, sigmas = _ours([weight], [u], [v], [case.dim], iterations)
        gradients = ops.spectral_norm.spectral_norm_bwd([dy], [weight], [u], [v], sigmas, [case.dim])
        assert all(t.isfinite().all() for t in us + vs + [sigmas] + gradients)


@grid("spectral_norm", [Case((6, 5, 4, 4), 1), Case((7, 30))])
def test_functional(backend, device, case):
    weight, u, v, _ = _make(case, device)
    before = [t.clone() for t in (weight, u, v)]
    got = spectral_norm_power_iteration(
        weight.requires_grad_(), u, v, dim=case.dim - weight.dim(), n_power_iterations=3
    )
    assert [t.requires_grad for t in got] == [False] * 3 and got[2].dim() == 0
    _check(case, device, 3, False, got)
    assert all(torch.equal(a, b) for a, b in zip(before, (weight, u, v), strict=True))


def test_triton_says_why_not():
    reason = backends.unavailable("triton", "spectral_norm", "cuda", torch.float32)
    assert reason == "it needs a barrier across all blocks of a launch, which only CUDA C++ offers"


def _chosen(monkeypatch, reason):
    monkeypatch.setattr(backends, "unavailable", lambda name, *_: reason if name == "native" else "")
    return backends.automatic.__wrapped__("spectral_norm", "cuda", torch.float32)


def test_a_gpu_takes_native_without_a_warning(monkeypatch, caplog):
    assert _chosen(monkeypatch, "") == "native" and not caplog.records


def test_a_gpu_falls_back_to_the_reference_and_says_why(monkeypatch, caplog):
    assert _chosen(monkeypatch, "no CUDA here") == "reference"
    assert [r.getMessage() for r in caplog.records] == [
        "spectral_norm: not on the native backend for torch.float32 tensors on cuda: no CUDA here"
    ]


def _call(weight=None, u=None, v=None, **options):
    given = (weight, torch.ones(3), torch.ones(8)) if weight is not None else (torch.ones(3, 2, 4), u, v)
    given = [d if g is None else g for g, d in zip(given, (None, torch.ones(3), torch.ones(8)), strict=True)]
    return lambda: spectral_norm_power_iteration(*given, **options)


REJECTED = {
    "list": (_call([1.0]), TypeError, "weight must be a Tensor, got list"),
    "integers": (
        _call(torch.ones(3, 8).int()), TypeError,
        "weight must be float16, bfloat16, float32 or float64, got torch.int32",
    ),
    "vector": (
        _call(torch.ones(3)), ValueError, "weight must have at least 2 dimensions and one value, got shape (3,)",
    ),
    "empty": (
        _call(torch.ones(3, 0)), ValueError, "weight must have at least 2 dimensions and one value, got shape (3, 0)",
    ),
    "dim": (_call(dim=3), ValueError, "dim must be a dimension of weight, which has 3, got 3"),
    "u_type": (_call(u=1.0), TypeError, "u must be a Tensor, got float"),
    "u_shape": (_call(u=torch.ones(4)), ValueError, "u must have shape (3,) for dim 0, got (4,)"),
    "v_shape": (_call(v=torch.ones(8, 1)), ValueError, "v must have shape (8,) for dim 0, got (8, 1)"),
    "v_device": (
        _call(v=torch.ones(8, device="meta")), ValueError, "v must be on cpu, the device of weight, got meta",
    ),
    "v_dtype": (
        _call(v=torch.ones(8).double()), TypeError, "v must be torch.float32, the dtype of weight, got torch.float64",
    ),
    "iterations": (_call(n_power_iterations=-1), ValueError, "n_power_iterations must be an integer >= 0, got -1"),
    "eps": (_call(eps=0.0), ValueError, "eps must be > 0 and finite, got 0.0"),
}  # fmt: skip


@pytest.mark.parametrize("call, error, message", REJECTED.values(), ids=REJECTED)
def test_rejects(call, error, message):
    bodies.check_rejected(call, error, f"spectral_norm_power_iteration: {message}")
