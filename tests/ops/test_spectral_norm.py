"""``spectral_norm``: the power iteration against torch's two spectral norms."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as legacy_spectral_norm

from fastgan import ops

from .grid import grid
from .spectral_stem import CASES, EPS, SMALL, TYPES, Case, check, make, matrix_of, ours_of, stock

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


@pytest.mark.parametrize("iterations", ITERATIONS)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("legacy", [False, True], ids=["parametrization", "legacy"])
@grid("spectral_norm", [torch.float32])
def test_equals_torch(backend, device, case, kind, iterations, legacy):
    make_layer, arguments, dim = LAYERS[kind]
    torch.manual_seed(0)
    layer = make_layer(*arguments).to(device)
    (legacy_spectral_norm if legacy else parametrizations.spectral_norm)(layer, n_power_iterations=iterations)
    owner = None if legacy else layer.parametrizations.weight[0]
    weight = (layer.weight_orig if legacy else layer.parametrizations.weight.original).detach()
    u, v = (layer.weight_u, layer.weight_v) if legacy else (owner._u, owner._v)
    us, vs, sigmas = ours_of([weight], [u.clone()], [v.clone()], [dim], iterations, legacy)
    scaled = ops.spectral_norm.spectral_norm_scale(weight, us[0], vs[0], sigmas[0], dim)
    if legacy:
        layer._forward_pre_hooks[next(iter(layer._forward_pre_hooks))](layer, None)
    expected = layer.weight.detach()
    sigma = torch.dot(u, torch.mv(matrix_of(weight, dim), v))
    # u and v are the layer's buffers, which torch has updated in place
    for ours, theirs in ((us[0], u), (vs[0], v), (scaled, expected), (sigmas[0], sigma)):
        assert (ours - theirs).abs().max() <= 1e-6 * max(theirs.abs().max().item(), 1.0 if theirs.dim() == 1 else 0.0)


@grid("spectral_norm", CASES)
@pytest.mark.parametrize("v_first", [False, True], ids=["u_first", "v_first"])
def test_forward(backend, device, case, v_first):
    for iterations in (1, 2, 5):
        check(case, device, iterations, v_first)


@grid("spectral_norm", TYPES)
@pytest.mark.parametrize("v_first", [False, True], ids=["u_first", "v_first"])
def test_types(backend, device, case, v_first):
    for iterations in (1, 3):
        check(case, device, iterations, v_first)


@grid("spectral_norm", [*TYPES[::4], Case((9, 8, 3, 3), 1)])
def test_without_iterations(backend, device, case):
    weight, u, v, _ = make(case, device)
    us, vs, sigmas = ours_of([weight], [u], [v], [case.dim], 0)
    assert torch.equal(us[0], u) and torch.equal(vs[0], v) and us[0] is not u
    m, u, v = matrix_of(weight.double(), case.dim), u.double(), v.double()
    # the terms cancel: the error is that of one of them
    assert abs(sigmas[0].item() - (u @ m @ v).item()) <= 1e-6 * (u.abs() @ m.abs() @ v.abs()).item()


@grid("spectral_norm", [0, 1, 3])
def test_all_layers_at_once(backend, device, case):
    cases = [*CASES, *(c for c in TYPES if c.dtype != torch.float64)]
    made = [make(c, device, i) for i, c in enumerate(cases)]
    weights, us, vs = ([m[k] for m in made] for k in range(3))
    if device == "cuda":
        keep = [i for i, c in enumerate(cases) if c.dtype == torch.float32]
        cases = [cases[i] for i in keep]
        weights, us, vs = ([v[i] for i in keep] for v in (weights, us, vs))
    else:
        keep = range(len(cases))
    if case == 0:
        assert len(ours_of(weights, us, vs, [c.dim for c in cases], 0)[2]) == len(cases)
        return
    new_us, new_vs, sigmas = ours_of(weights, us, vs, [c.dim for c in cases], case)
    for c, seed, *got in zip(cases, keep, new_us, new_vs, sigmas, strict=True):
        check(c, device, case, False, got, seed)


@grid("spectral_norm", [torch.float32, torch.float64])
@pytest.mark.parametrize("v_first", [False, True], ids=["u_first", "v_first"])
@pytest.mark.parametrize("scale", [0.0, 1e-13, 1e-17, 1e-6, 1e14])
def test_extreme_values(backend, device, case, v_first, scale):
    """Where lengths are below eps, all results are torch's, and no NaN arises that torch has not."""
    # a second iteration below eps would leave the range of float32
    iterations = 1 if scale < EPS else 2
    for dim in (0, 1):
        weight, u, v, _ = make(Case((6, 5, 3, 3), dim, case), device)
        weight = weight * scale
        expected = stock(weight.double(), u.double(), v.double(), dim, iterations, v_first)
        us, vs, sigmas = ours_of([weight], [u], [v], [dim], iterations, v_first)
        for ours, theirs in zip((us[0], vs[0], sigmas[0]), expected, strict=True):
            assert ours.isfinite().all() and theirs.isfinite().all()
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@grid(
    "spectral_norm", [Case((512, 70, 4, 4)), Case((200, 90, 4, 4), 1), Case((200, 90, 4, 4), 1, layout="channels_last")]
)
@pytest.mark.parametrize("v_first", [False, True], ids=["u_first", "v_first"])
def test_same_bits_again_for_any_number_of_threads(backend, device, case, v_first, threads):
    weight, u, v, dy = make(case, device)

    def run():
        us, vs, sigmas = ours_of(
            [weight, weight[:, :, :2]], [u, u], [v, v[: v.numel() // 2].clone()], [case.dim] * 2, 2
        )
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
        weight, u, v, dy = make(case, device)
        us, vs, sigmas = ours_of([weight], [u], [v], [case.dim], iterations)
        gradients = ops.spectral_norm.spectral_norm_bwd([dy], [weight], [u], [v], sigmas, [case.dim])
        assert all(t.isfinite().all() for t in us + vs + [sigmas] + gradients)
