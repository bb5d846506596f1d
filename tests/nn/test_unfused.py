"""Everything that would see a fused group makes it run child by child."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize

import fastgan
import fastgan.nn as fnn
from fastgan.testing import CountOps

from .common import assert_same, assert_twins, critic, fused_calls, fused_ops, generator, images, latents, twins

x = images()
HOOKS = {
    "forward": lambda m, f: m.register_forward_hook(lambda m, a, out: f("forward")),
    "pre": lambda m, f: m.register_forward_pre_hook(lambda m, a: f("pre")),
    "backward": lambda m, f: m.register_full_backward_hook(lambda m, a, b: f("backward")),
    "backward pre": lambda m, f: m.register_full_backward_pre_hook(lambda m, a: f("backward pre")),
}


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_of_children_run(backend, hook, index):
    model, calls = fastgan.convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh())).double(), []
    handle = HOOKS[hook](model[index], calls.append)
    model(x).sum().backward()
    assert calls == [hook]
    assert fused_calls(model, x) == ({"norm_act": 1} if index == 0 else {"conv_norm_act": 1})
    handle.remove()
    assert fused_calls(model, x) == {"conv_norm_act": 1, "norm_act_eval": 1}


def test_a_hook_on_a_convolution_keeps_its_bias_in_it(backend):
    stock, ours = twins(nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2)))
    for model in (stock, ours):
        model[0].register_forward_hook(lambda m, a, out: out * 2)
    assert_twins(stock, ours, x)
    assert fused_ops(ours, x) == 1


def test_hooks_change_results(backend):
    stock, ours = twins(generator())
    for model in (stock, ours):
        model[1].register_forward_hook(lambda m, a, out: out * 2)
        model[5].register_forward_pre_hook(lambda m, a: (a[0] + 1,))
        model[4].register_full_backward_hook(lambda m, a, b: (a[0] * 3,))
        model[6].register_full_backward_hook(lambda m, a, b: (a[0] / 2,))
    assert_same_by_backward(stock, ours, latents())


def assert_same_by_backward(stock, ours, data):
    a, b = stock(data), ours(data)
    a.sum().backward()
    b.sum().backward()
    assert_same([a, *(p.grad for p in stock.parameters())], [b, *(p.grad for p in ours.parameters())])


@pytest.mark.parametrize("register", [
    torch_module.register_module_forward_hook,
    torch_module.register_module_forward_pre_hook,
    torch_module.register_module_full_backward_hook,
    torch_module.register_module_full_backward_pre_hook,
])  # fmt: skip
def test_global_hooks_see_each_child(backend, register):
    seen = []
    model = fastgan.convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.BatchNorm2d(4), nn.ReLU())).double()
    module = fnn.BatchNormAct2d(3).double()
    handle = register(lambda m, *_: seen.append(type(m).__name__))
    try:
        model(x.clone().requires_grad_()).sum().backward()
        assert {"Conv2d", "LeakyReLU", "BatchNorm2d"} <= set(seen)
        assert fused_ops(model, x) == 0 and fused_ops(module, x) == 0
    finally:
        handle.remove()
    assert fused_calls(model, x) == {"conv_norm_act": 1, "norm_act_eval": 1}


@pytest.mark.parametrize(
    ("apply", "by_hook"),
    [
        (nn.utils.spectral_norm, False),
        (parametrizations.spectral_norm, False),
        (parametrizations.weight_norm, False),
        (nn.utils.weight_norm, True),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_parametrized_convolutions(backend, apply, by_hook):
    def make():
        torch.manual_seed(0)
        model = critic().double()
        for i in (0, 2, 5):
            apply(model[i])
        return model

    stock, ours = make(), fastgan.convert(make())
    assert_twins(stock, ours, x)
    assert_same_by_backward(stock, ours, x)
    assert fused_calls(ours, x) == ({"bias_act": 1, "norm_act": 1} if by_hook else {"conv_norm_act": 3})


def test_parametrized_norms_and_biases(backend):
    class Exp(nn.Module):
        def forward(self, t):
            return t.exp()

    stock = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Tanh()).double()
    parametrize.register_parametrization(stock[0], "bias", Exp())
    parametrize.register_parametrization(stock[3], "weight", Exp())
    ours = fastgan.convert(stock_copy := copy.deepcopy(stock))
    assert ours is stock_copy
    assert_twins(stock, ours, x)
    assert fused_calls(ours, x) == {"conv_norm_act": 2}


def test_the_automatic_fallback_is_not_used(no_fast_backend, caplog):
    _, model = twins(critic())
    assert fused_ops(model, x) == 0
    assert "native is not here" in caplog.text
    with fastgan.use_backend("reference"):
        assert fused_ops(model, x) == 3
    assert fused_ops(model, x) == 0


def test_a_backend_asked_for_by_name_is_not_replaced():
    _, model = twins(critic())
    with (
        pytest.MonkeyPatch.context() as patch,
        fastgan.use_backend("native"),
        pytest.raises(fastgan.BackendUnavailable, match="native backend was asked for but cannot serve: gone"),
    ):
        patch.setattr(fastgan.backends, "unavailable", lambda name, *_: "gone")
        model(x)


def test_a_child_compiled_on_its_own_is_called(backend):
    _, model = twins(critic())
    model[3].compile(backend="eager")
    assert fused_calls(model, x) == {"conv_norm_act": 3}


def test_tracing(backend):
    _, model = twins(critic())
    model.eval()
    traced = torch.jit.trace(model, x)
    assert "fastgan::" not in str(traced.inlined_graph) and "aten::batch_norm" in str(traced.inlined_graph)
    assert_same([traced(x)], [model(x)])


@pytest.mark.parametrize("strict", [True, False])
def test_export(backend, strict):
    _, model = twins(critic())
    program = torch.export.export(model.eval(), (x,), strict=strict)
    assert "fastgan" not in str(program.graph) and "batch_norm" in str(program.graph)


def test_symbolic_trace(backend):
    stock, model = twins(critic())
    assert [n.op for n in torch.fx.symbolic_trace(model).graph.nodes].count("call_module") == len(stock)


def test_function_transforms(backend):
    stock, model = twins(critic())
    stock.eval(), model.eval()
    assert_same([torch.func.vmap(stock)(x[None])], [torch.func.vmap(model)(x[None])])
    assert fused_ops(model, x) == 3
    assert vmapped_ops(model, x[None]) == 0
    tangents = [torch.func.jvp(m, (x,), (x.flip(0),)) for m in (stock, model)]
    assert_same(*tangents)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x.flip(0))
        assert_same([torch.autograd.forward_ad.unpack_dual(model(dual)).tangent], [tangents[0][1]])


def vmapped_ops(model, data):
    with CountOps() as count:
        torch.func.vmap(model)(data)
    return sum(count.calls.values())


def test_tensor_subclasses(backend):
    class Own(torch.Tensor):
        pass

    _, model = twins(critic())
    assert type(model(x.as_subclass(Own))) is Own
    assert fused_ops(model, x.as_subclass(Own)) == 0


def test_meta_tensors(backend):
    _, model = twins(generator())
    assert model.to("meta")(latents().to("meta")).shape == (4, 3, 16, 16)
