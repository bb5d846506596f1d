"""The table of ``explain``."""

import pytest
import torch
from torch import nn

import fastgan
import fastgan.nn as fnn

from . import zoo
from .common import critic, fused_ops, images


def row(text, layer):
    rows = [line for line in text.splitlines() if line.startswith(layer + " ")]
    assert len(rows) == 1, text
    return " ".join(rows[0].split())


def test_a_converted_model(backend):
    text = fastgan.explain(fastgan.convert(critic()))
    assert row(text, "0 + 1") == f"0 + 1 Conv2d + LeakyReLU yes {backend}"
    assert row(text, "2 + 3 + 4") == f"2 + 3 + 4 Conv2d + BatchNorm2d + LeakyReLU yes {backend}"
    assert row(text, "5") == f"5 Conv2d yes {backend}"
    assert row(text, "6") == "6 Flatten no there is no fused op for it"
    assert row(text, "(model)") == "(model) Sequential runs its children in groups"


def test_a_stock_model(backend):
    text = fastgan.explain(critic())
    assert row(text, "(model)") == "(model) Sequential not converted"
    assert "yes" not in text and row(text, "3").startswith("3 BatchNorm2d no")
    assert row(fastgan.explain(zoo.Net()), "block") == "block Block not converted"


def test_a_traced_model(backend):
    text = fastgan.explain(fastgan.convert(zoo.Net()))
    assert row(text, "block") == "block Block its forward was traced and runs groups"
    assert row(text, "block.conv1 +") == f"block.conv1 + block.bn1 Conv2d + BatchNorm2d + leaky_relu yes {backend}"
    assert row(text, "block.conv6") == f"block.conv6 Conv2d + silu yes {backend}"
    names = "block.conv8 + block.act + block.bn8"
    assert row(text, names) == f"{names} Conv2d + LeakyReLU + BatchNorm2d yes {backend}"
    assert row(text, "block.bn7") == f"block.bn7 leaky_relu + BatchNorm2d yes {backend}"
    assert row(text, "block.bn6 + block.act") == f"block.bn6 + block.act BatchNorm2d + LeakyReLU yes {backend}"
    assert row(text, "(model)") == "(model) Net layer by layer: forward has a If statement (line 2 of it)"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m[0].register_forward_hook(print), "BatchNorm2d has forward hooks"),
        (lambda m: m[1].register_full_backward_hook(print), "LeakyReLU has backward hooks"),
        (lambda m: setattr(m[1], "forward", abs), "LeakyReLU has its forward replaced"),
        (lambda m: setattr(m[1], "negative_slope", -1), "the negative slope -1 is not a number >= 0"),
        (lambda m: setattr(m[0], "momentum", 2), "eps 1e-05 or momentum 2 is out of range"),
        (lambda m: setattr(m[0], "running_var", None), "there is only one of running_mean and running_var"),
        (
            lambda m: setattr(m[0], "weight", nn.Parameter(torch.ones(4))),
            "its parameters and buffers differ in dtype, device or length",
        ),
        (lambda m: m[0].compile(backend="eager"), "BatchNorm2d is compiled on its own"),
    ],
)
def test_reasons(backend, change, reason):
    model = fastgan.convert(nn.Sequential(nn.BatchNorm2d(3), nn.LeakyReLU(0.2)))
    change(model)
    assert row(fastgan.explain(model), "0 + 1") == f"0 + 1 BatchNorm2d + LeakyReLU no {reason}"


ALONE = "the convolution runs as torch's, what follows by fused ops"
AFTER = "the norm and what follows run after it"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda m: None, "yes {}"),
        (lambda m: m[1].register_forward_hook(print), f"in part {{}} {AFTER}: BatchNorm2d has forward hooks"),
        (lambda m: setattr(m[2], "forward", abs), f"in part {{}} {AFTER}: ReLU has its forward replaced"),
        (lambda m: m[0].register_forward_hook(print), f"no {ALONE}: Conv2d has forward hooks"),
        (lambda m: setattr(m[0], "padding_mode", "reflect"), f"no {ALONE}: padding_mode is 'reflect'"),
        (lambda m: (setattr(m[0], "padding", "same"), setattr(m[1], "momentum", 2)), "no padding is 'same'"),
        (lambda m: setattr(m[0], "groups", 3), "yes {} the vendor's convolution with fused kernels around it: groups"),
    ],
    ids=["plain", "norm", "activation", "convolution", "reflect", "nothing", "groups"],
)
def test_verdicts_of_convolutions(backend, change, verdict):
    model = fastgan.convert(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()))
    change(model)
    what = "0 + 1 + 2 Conv2d + BatchNorm2d + ReLU"
    assert row(fastgan.explain(model), "0 + 1 + 2") == f"{what} {verdict.format(backend)}"


@pytest.mark.parametrize(
    ("after", "fused"),
    [
        ([nn.LeakyReLU(0.2, inplace=True)], 0),
        ([nn.LeakyReLU(0.2, inplace=True), nn.BatchNorm2d(4)], 0),
        ([nn.BatchNorm2d(4)], 0),
        ([nn.LeakyReLU(0.2), nn.BatchNorm2d(4)], 1),
    ],
    ids=["in-place", "in-place-norm", "norm", "norm-first"],
)
def test_says_of_what_follows_a_stock_convolution_what_runs(backend, after, fused):
    model = fastgan.convert(nn.Sequential(nn.Conv2d(3, 4, 3), *after))
    model[0].register_forward_hook(lambda *_: None)
    assert fused_ops(model, images(dtype=torch.float32)) == fused
    assert ("what follows by fused ops" in fastgan.explain(model)) == bool(fused)


def test_in_place(backend):
    text = fastgan.explain(fastgan.convert(nn.Sequential(nn.ReLU(True), nn.BatchNorm2d(3))))
    assert row(text, "0 + 1") == "0 + 1 ReLU + BatchNorm2d no the activation changes its input in place"


def test_fallback(no_fast_backend):
    text = fastgan.explain(fastgan.convert(critic()))
    reason = "native: native is not here"
    assert row(text, "2 + 3 + 4") == f"2 + 3 + 4 Conv2d + BatchNorm2d + LeakyReLU no {reason}"


def test_backend_that_cannot_serve(monkeypatch):
    monkeypatch.setattr(fastgan.backends, "unavailable", lambda name, *_: "gone")
    with fastgan.use_backend("native"):
        text = fastgan.explain(fastgan.convert(critic()))
    assert "conv_norm_act: the native backend was asked for but cannot serve: gone" in row(text, "2 + 3 + 4")


def test_modules_of_fastgan(backend):
    layers = [fnn.ConvNormAct2d(3, 4, 3), fnn.ConvNormAct2d(4, 4, 3, norm=False), fnn.BiasAct(4), fnn.BatchNormAct2d(4)]
    text = fastgan.explain(nn.ModuleList(layers))
    assert row(text, "0.conv + 0.norm") == f"0.conv + 0.norm Conv2d + BatchNorm2d + leaky_relu yes {backend}"
    assert row(text, "1.conv") == f"1.conv Conv2d + leaky_relu yes {backend}"
    assert row(text, "2") == f"2 BiasAct yes {backend}" and row(text, "3") == f"3 BatchNormAct2d yes {backend}"


def test_explaining_changes_nothing(backend):
    model = fastgan.convert(zoo.Net())
    state = {k: v.clone() for k, v in model.state_dict().items()}
    assert fastgan.explain(model) == fastgan.explain(model)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_the_way_of_a_gradient_penalty():
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 8))
    assert "penalty" not in fastgan.explain(model)
    real, fake = images(seed=1, dtype=torch.float32), images(seed=2, dtype=torch.float32)
    fastgan.gradient_penalty(model, real, fake)
    passes = "yes 4 passes: forward, input gradient, tangent, weight gradient"
    assert row(fastgan.explain(model), "(gradient penalty)") == f"(gradient penalty) {passes}"
    assert "(critic step)" not in fastgan.explain(model)
    model[1] = nn.SiLU()
    fastgan.critic_step_wgan_gp(model, real, fake)
    reason = "silu is not known to be linear, or piecewise linear, in each sample"
    expected = f"(critic step) no by autograd, as one would by hand: {reason}"
    assert row(fastgan.explain(model), "(critic step)") == expected
